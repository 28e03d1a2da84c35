# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One writer at a time in a cache. The kernel gives the lock back when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, TextIO

from .errors import KernelError


@contextlib.contextmanager
def locked(path: Path, content: str, timeout: float, waiting: Callable[[str], object]) -> Iterator[None]:
    """Holds the lock. A timeout names the holder."""
    begin = time.monotonic()
    waited = False
    with path.open("a+", encoding="utf-8") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = _holder(stream)
                if time.monotonic() - begin >= timeout:
                    raise KernelError(
                        f"{holder} builds in this cache and did not finish within timeout={timeout:.0f} s; "
                        f"wait for it or end it ({path} is its lock)"
                    ) from None
                if not waited:
                    waiting(f"waits for {holder}")
                waited = True
                time.sleep(0.25)
        stream.seek(0)
        stream.truncate()
        record = {"pid": os.getpid(), "host": socket.gethostname(), "content": content, "since": int(time.time())}
        json.dump(record, stream)
        stream.flush()
        yield


def _holder(stream: TextIO) -> str:
    try:
        stream.seek(0)
        record = json.load(stream)
        seconds = int(time.time()) - int(record["since"])
        return f"process {record['pid']} on {record['host']} (content {record['content']}, for {seconds} s)"
    except (ValueError, KeyError, TypeError):
        return "another process"
