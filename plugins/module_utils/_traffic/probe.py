# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a slot through the edge, the edge through its socket, or a command. Everything ends at the gate's deadline.

It knows how to ask and not what the answers mean. Standard library only: it runs on the target.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import stat
import subprocess
import tempfile
import threading
import time
import typing as t
import urllib.parse
from pathlib import Path

from .gate import Answer, GateError

SLOT_HEADER = "X-Bitnet-Slot"
LARGEST_BODY = 1 << 20
LARGEST_OUTPUT = 16384
REQUEST_SECONDS = 30.0  # what one request may take, if the gate's deadline leaves as much
TOKEN = re.compile(r"[!-~]{1,4096}")


class Deadline:
    """A moment; what is left of it is never negative."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self.end - time.monotonic())


def read_token(path: str) -> str:
    """The token of a tester; the file is nobody else's to read."""
    try:
        with Path(path).open(encoding="ascii") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(8192).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise GateError(
            f"token_file: {path} cannot be read ({error}). The role swarm_rollout writes the token of the probe to "
            "environments/ENVIRONMENT/tokens/probe in the state folder; the task needs become to read it"
        ) from error
    if stat.S_IMODE(mode) & 0o077:
        raise GateError(f"token_file: others may read {path} (mode {stat.S_IMODE(mode):04o}); chmod 0600 {path}")
    if not TOKEN.fullmatch(text):
        raise GateError(f"token_file: {path} does not hold one token of printable characters without blanks")
    return text


class Edge:
    """The edge at one address, asked as a tester is: for one slot by name."""

    def __init__(self, url: str, token: str) -> None:
        parts = urllib.parse.urlsplit(url)
        try:
            self.host, self.port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        except ValueError as error:
            raise GateError(f"url: {url!r} has no port that is one ({error})") from error
        if parts.scheme not in ("http", "https") or not self.host or parts.username:
            raise GateError(f"url: {url!r} is no address of an edge, as http://127.0.0.1:8080 is one")
        self.secure = parts.scheme == "https"
        self.base = parts.path.rstrip("/")
        self._token = token

    def get(self, slot: str, path: str, deadline: Deadline) -> Answer:
        return self._ask("GET", slot, path, None, deadline)

    def complete(self, slot: str, max_tokens: int, deadline: Deadline) -> Answer:
        """Have one short text completed, always the same."""
        document = {"prompt": "The road to", "max_tokens": max_tokens, "temperature": 0}
        return self._ask("POST", slot, "/v1/completions", json.dumps(document).encode(), deadline)

    def _ask(self, method: str, slot: str, path: str, body: bytes | None, deadline: Deadline) -> Answer:
        """One request on a connection of its own, so that the edge routes each anew."""
        allowed = min(deadline.left, REQUEST_SECONDS)
        begin = time.monotonic()
        kind = http.client.HTTPSConnection if self.secure else http.client.HTTPConnection
        connection = kind(self.host, self.port, timeout=max(allowed, 0.001))
        headers = {"Authorization": f"Bearer {self._token}", SLOT_HEADER: slot, "Connection": "close"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            connection.connect()
        except OSError as error:
            return Answer(None, seconds=time.monotonic() - begin, error=f"no connection: {error}", reached=False)
        with _ended_after(connection, allowed - (time.monotonic() - begin)) as expired:
            try:
                connection.request(method, self.base + path, body, headers)
                response = connection.getresponse()
                text = response.read(LARGEST_BODY + 1)
                # read() with a size takes a short body for a whole one.
                rest = response.length if len(text) <= LARGEST_BODY else None
                answer = Answer(
                    response.status,
                    slot=(response.getheader(SLOT_HEADER) or "").strip().lower()[:20],
                    seconds=time.monotonic() - begin,
                    body=text[:LARGEST_BODY],
                )
                wrong = f"the answer was cut, {rest} bytes are missing" if rest else ""
            except (OSError, http.client.HTTPException, ValueError) as failure:
                answer, wrong = Answer(None), f"the answer was cut ({type(failure).__name__}: {failure})"
        if expired.is_set():
            wrong = f"no complete answer within {allowed:.1f} s"
        if wrong:
            return Answer(None, slot=answer.slot, seconds=time.monotonic() - begin, error=wrong)
        return answer


@contextlib.contextmanager
def _ended_after(connection: http.client.HTTPConnection, seconds: float) -> t.Iterator[threading.Event]:
    """Ends the connection then, however slowly bytes come: a socket's own timeout begins anew with each of them."""
    expired = threading.Event()

    def end() -> None:
        expired.set()
        if connection.sock is not None:
            with contextlib.suppress(OSError):
                connection.sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(seconds, 0.0), end)
    timer.daemon = True
    timer.start()
    try:
        yield expired
    finally:
        timer.cancel()
        connection.close()


def pairs(ask: t.Callable[[int], None], count: int, concurrency: int, deadline: Deadline) -> None:
    """Call C(ask) with 0, 1, ... from a few threads at once, until all were asked or the deadline is over."""
    numbers = iter(range(count))
    lock = threading.Lock()

    def work() -> None:
        while deadline.left > 0:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            ask(number)

    threads = [threading.Thread(target=work, daemon=True) for _unused in range(min(concurrency, count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(deadline.left + 1)  # each request ends at the deadline by itself


def show(path: Path, deadline: Deadline) -> tuple[str, str]:
    """What HAProxy answers to C(show info) and C(show stat) at its socket."""
    return _runtime(path, "show info", deadline), _runtime(path, "show stat", deadline)


def _runtime(path: Path, command: str, deadline: Deadline) -> str:
    end = Deadline(min(deadline.left, 5.0))
    answer = b""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(max(end.left, 0.001))
            connection.connect(str(path))
            connection.sendall(command.encode() + b"\n")
            while len(answer) < (4 << 20):
                connection.settimeout(max(end.left, 0.001))
                part = connection.recv(65536)
                if not part:
                    break
                answer += part
    except OSError as error:
        raise NoAnswer(f"HAProxy did not answer {command!r} at {path} within {end.seconds:.1f} s ({error})") from error
    return answer.decode("utf-8", "replace").strip()


class NoAnswer(Exception):
    """Who was asked did not answer, which says nothing about the slot."""


def run(argv: t.Sequence[str], deadline: Deadline) -> tuple[int | None, str]:
    """The status of a command, none if it did not end in time, and the end of what it printed."""
    # A file and not a pipe: what the command leaves behind may hold a pipe open.
    with tempfile.TemporaryFile() as output:
        try:
            # run_command has no deadline that ends the children, too.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        except (OSError, ValueError) as error:
            raise GateError(f"argv: {argv[0]!r} cannot be run ({error})") from error
        try:
            status: int | None = process.wait(deadline.left)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - LARGEST_OUTPUT))
        return status, output.read(LARGEST_OUTPUT).decode("utf-8", "replace")
