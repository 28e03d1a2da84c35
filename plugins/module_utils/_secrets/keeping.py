# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store's file on a manager, and those that roles read: for root alone, whole or absent, one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t
from pathlib import Path

from . import store
from .declaration import BadInput

STORE = "secrets/store.json"


@contextlib.contextmanager
def locked(folder: Path, seconds: float) -> t.Iterator[None]:
    """Nobody else writes here meanwhile. The lock goes with its process, however that ends."""
    path = folder / "secrets" / ".lock"
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise BadInput(
            f"path: {path} cannot be opened ({error.strerror}); bitnet.devops.secrets makes its folder, as root"
        ) from error
    try:
        until = time.monotonic() + seconds
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise BadInput(
                        f"path: another run has held {path} for {seconds:g} s ('fuser {path}' shows it); let it end "
                        "and run again"
                    ) from None
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


def text_at(path: Path) -> str | None:
    try:
        return path.read_text()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"path: {path} cannot be read ({getattr(error, 'strerror', 'it is no text')})") from error


def load(folder: Path, environment: str, others: t.Mapping[str, str]) -> store.Json | None:
    """The newest store of this manager and of others, given as texts by host."""
    texts = dict(others)
    own = text_at(folder / STORE)
    if own is not None:
        texts["this manager"] = own
    return store.newest(
        {host: store.read(text, environment, f"secrets/store.json of {host}") for host, text in texts.items()}
    )


def write(path: Path, text: str) -> None:
    """For its owner alone from the beginning, and the old text stays until the new one is on disk.

    Under the lock, and by one name: what a run that was killed has left is used up by the next.
    """
    making = path.with_name(f".{path.name}.new")
    try:
        handle = os.open(making, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(handle, "w") as file:
                os.fchmod(handle, 0o600)
                file.write(text)
                file.flush()
                os.fsync(handle)
            os.replace(making, path)  # noqa: PTH105
        except BaseException:
            making.unlink()
            raise
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise BadInput(f"path: {path} cannot be written ({error.strerror}); what was there is still there") from error


def differing(folder: Path, texts: t.Mapping[str, str]) -> list[str]:
    """Those of these files that are not there, have another text or are somebody else's to read, by path."""
    found = []
    for below, text in sorted(texts.items()):
        path = folder / below
        if text_at(path) != text or path.stat().st_mode & 0o077:
            found.append(below)
    return found
