# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.lock import locked

HOLD = """
import fcntl, json, os, sys, time
stream = open(sys.argv[1], "a+")
fcntl.flock(stream, fcntl.LOCK_EX)
json.dump({"pid": os.getpid(), "host": "elsewhere", "content": "abc", "since": int(time.time())}, stream)
stream.flush()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE)
    process.stdout.readline()
    yield process
    process.kill()
    process.wait()


def test_a_free_lock_is_taken_at_once_and_given_back(tmp_path):
    said = []
    for _unused in range(2):
        with locked(tmp_path / "lock", "abc", 5, said.append):
            assert '"content": "abc"' in (tmp_path / "lock").read_text()
    assert said == []


def test_a_timeout_names_the_holder(tmp_path, holder):
    said = []
    with (
        pytest.raises(KernelError, match=rf"process {holder.pid} on elsewhere \(content abc, .*timeout=0 s"),
        locked(tmp_path / "lock", "abc", 0.4, said.append),
    ):
        pass
    assert len(said) == 1
    assert said[0].startswith(f"waits for process {holder.pid}")


def test_the_lock_of_a_killed_holder_is_free(tmp_path, holder):
    holder.kill()
    begin = time.monotonic()
    with locked(Path(tmp_path / "lock"), "abc", 10, lambda words: None):
        assert time.monotonic() - begin < 5
