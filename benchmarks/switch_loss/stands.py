# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a stand offers to the runner: subjects, each with an address, moves and the logs of its edge and its slots."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import random
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SLOTS = ("blue", "green")
Act = Callable[[str, str], Awaitable[tuple[int, str]]]
"""Does a move of a kind to a target; gives back an exit status and what was said."""


class StandError(Exception):
    """A stand cannot be brought up; the text says what is missing and what shows more."""


class Log:
    """A growing file; lines() gives what came since mark()."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.offset = 0

    def mark(self) -> None:
        self.offset = self.path.stat().st_size if self.path.exists() else 0

    def lines(self) -> list[str]:
        if not self.path.exists():
            return []
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read().decode(errors="replace").splitlines()


class AskedLog(Log):
    """What a command prints that shows a log since a time, as `docker service logs --since {since}` does."""

    def __init__(self, argv: list[str]) -> None:
        self.argv = argv
        self.since = time.time()

    def mark(self) -> None:
        self.since = time.time() - 1

    def lines(self) -> list[str]:
        argv = [part.replace("{since}", f"{self.since:.3f}") for part in self.argv]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False)
        if done.returncode:
            raise StandError(f"{' '.join(argv)}: exit status {done.returncode}: {done.stderr.decode()[-500:]}")
        return done.stdout.decode(errors="replace").splitlines()


@dataclass
class Subject:
    """One way of replacing what serves, under the same load as the others."""

    name: str
    what: str
    url: str
    token_file: Path
    act: Act
    kinds: tuple[str, ...] = ("switch", "rollback")
    """Kinds of moves; the number of each comes from the command line."""
    targets: tuple[str, ...] = SLOTS
    """Where moves go, in turn; the first one serves at the beginning."""
    edge_log: Log | None = None
    slot_logs: dict[str, Log] = field(default_factory=dict)
    settle: float = 0.0
    """Seconds that a move needs to be over beyond its command."""
    dropped: Callable[[], int] = lambda: 0
    """Lines of its log that the edge has dropped so far."""
    ready: Callable[[], None] = lambda: None
    """Brings everything to where this subject begins."""


def free_port() -> int:
    """Below the ports that outgoing connections are given: none of them can take it before its server does."""
    for port in random.sample(range(20000, 32000), 100):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            return port
    raise StandError("no free port from 20000 to 31999 was found in 100 tries")


def await_ready(url: str, seconds: float, what: str, more: str) -> None:
    """Until /ready says 200."""
    end = time.monotonic() + seconds
    seen = "no answer"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while time.monotonic() < end:
        try:
            with opener.open(f"{url}/ready", timeout=2) as response:
                if response.status == 200:
                    return
                seen = f"status {response.status}"
        except urllib.error.HTTPError as error:
            seen = f"status {error.code}"
        except OSError as error:
            seen = str(error)
        time.sleep(0.2)
    raise StandError(f"{what}: awaited 200 from {url}/ready within {seconds:g} s; last seen: {seen}. More: {more}")


def write_tokens(folder: Path) -> Path:
    """A token of this run alone, and the document that the slots read; gives back the file with the token."""
    token = secrets.token_urlsafe(24)
    digest = hashlib.sha256(token.encode()).hexdigest()
    (folder / "tokens.json").write_text(json.dumps({"schema": 1, "tokens": {"loss-proof": digest}}))
    path = folder / "token"
    path.touch(mode=0o600)
    path.write_text(token)
    return path


def dropped_lines(information: str) -> int:
    """From HAProxy's `show info`: its log is a pipe, and it drops lines rather than wait for who reads them."""
    found = re.search(r"(?m)^DroppedLogs: (\d+)", information)
    return int(found[1]) if found else 0


async def command(argv: list[str], timeout: float) -> tuple[int, str]:
    """Run a command; its exit status and the end of what it said."""
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        output, _unused = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()
        return 124, f"no end within {timeout:g} s: {' '.join(argv)}"
    return process.returncode or 0, output.decode(errors="replace")[-2000:]


def edge_configuration(environment: str) -> str:
    """The role's own template and defaults; no rate limit on the one address that all the load comes from."""
    role = CHECKOUT / "roles" / "traffic"
    target = Path(os.environ.get("TMPDIR", "/tmp")) / f"bitnet-loss-{os.getpid()}.cfg"  # noqa: S108 - removed below
    argv = [
        "ansible", "localhost", "-i", "localhost,", "-c", "local", "-m", "ansible.builtin.template",
        "-a", f"src={role}/templates/haproxy.cfg.j2 dest={target} mode=0600",
        "-e", f"@{role}/defaults/main.yml", "-e", f"@{role}/vars/main.yml",
        "-e", json.dumps({"bitnet_environment": environment, "traffic_rate_limit": 0, "role_path": str(role),
                          "ansible_python_interpreter": sys.executable}),
    ]  # fmt: skip
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False, cwd=CHECKOUT)
        if done.returncode:
            raise StandError(f"the edge's configuration cannot be rendered: {done.stdout[-1500:]}{done.stderr[-500:]}")
        return with_numbers(target.read_text())
    finally:
        target.unlink(missing_ok=True)


def with_numbers(configuration: str) -> str:
    """The edge's log must name the request; a configuration that captures the number already is left as it is."""
    if "X-Request-Number" in configuration:
        return configuration
    head, bind, rest = configuration.partition("    bind :8080\n")
    if not bind:
        raise StandError("the edge's configuration has no line 'bind :8080'")
    return f"{head}{bind}    http-request capture req.hdr(X-Request-Number) len 20\n{rest}"
