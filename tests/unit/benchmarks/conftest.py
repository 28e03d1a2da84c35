# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real api-server as a process that can be killed, in front of the fault injector of the workload's tests."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from api_lab import TOKEN, FaultInjector

from benchmarks.switch_loss.generator import Target
from benchmarks.switch_loss.stands import Log, await_ready, free_port

WORKLOAD = Path(__file__).resolve().parents[3] / "files" / "swarm_intelligence"


class ApiServer:
    """api-server as a process that can be killed."""

    def __init__(self, folder, **settings):
        self.injector = FaultInjector()
        self.port = free_port()
        tokens = {"schema": 1, "tokens": {"tests": hashlib.sha256(TOKEN.encode()).hexdigest()}}
        (folder / "tokens.json").write_text(json.dumps(tokens))
        (folder / "token").write_text(TOKEN)
        self.log = Log(folder / "api.log")
        variables = {"ENGINE_PORT": str(self.injector.port), "TOKENS_FILE": str(folder / "tokens.json"),
                     "PARALLEL": "64", **settings}  # fmt: skip
        with self.log.path.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "swarm_intelligence.api", "--port", str(self.port)],
                env={**os.environ, "PYTHONPATH": str(WORKLOAD / "src"), "PYTHONUNBUFFERED": "1",
                     **{f"BITNET_{name}": value for name, value in variables.items()}},
                stdin=subprocess.PIPE, stdout=log, stderr=log,
            )  # fmt: skip
        self.process.stdin.write(b'{"ready": true, "restarts": 0, "variant": "none", "reason": "a test"}\n')
        self.process.stdin.flush()
        self.target = Target.parse(f"http://127.0.0.1:{self.port}", folder / "token")
        await_ready(f"http://127.0.0.1:{self.port}", 20, "api-server", str(self.log.path))

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.injector.stop()


@pytest.fixture
def start(tmp_path):
    started = []

    def make(**settings):
        started.append(ApiServer(tmp_path, **settings))
        return started[-1]

    yield make
    for server in started:
        server.stop()
