# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Download of one file whose sha256 is known, over a network and from a server that may misbehave.

The bytes go to ``<output>.part``; the final name appears only when the checksum is right. An interrupted download is
continued, also by the next run, when the server says by If-Range that the file is still the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from .gguf_check import file_sha256
from .gguf_file import ModelError

MAX_REDIRECTS = 10
MAX_WRONG_FILES = 2
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Published:
    """A model that can be fetched by name."""

    url: str
    sha256: str
    size: int
    license: str


# The repository's revision is part of the address, so what lies there cannot change. sha256 and size are those of the
# hub's own LFS pointer, as many public projects recorded them.
CATALOGUE = {
    "microsoft/bitnet-b1.58-2B-4T": Published(
        url="https://huggingface.co/microsoft/bitnet-b1.58-2B-4T-gguf/resolve/"
        "a1f2f1c765812aa8af3f6eda4a313707064bba15/ggml-model-i2_s.gguf",
        sha256="4221b252fdd5fd25e15847adfeb5ee88886506ba50b8a34548374492884c2162",
        size=1_187_801_280,
        license="MIT",
    )
}


class _Broken(Exception):
    """An attempt that failed in a way that another one may not."""


class _WrongFile(_Broken):
    """A whole file arrived, and it is not the one that was asked for."""


def fetch(
    url: str,
    sha256: str,
    output: Path,
    *,
    deadline: float = 7200,
    retries: int = 8,
    backoff: float = 1.0,
    stall: float = 30,
    say: Callable[[str], None] = lambda _line: None,
) -> bool:
    """Bring the file to ``output``. Returns whether anything had to be downloaded."""
    if not SHA256.fullmatch(sha256):
        raise ModelError(f"sha256={sha256!r} is no SHA-256 (64 digits 0-9a-f); copy it from the publisher's page.")
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise ModelError(f"url={_shown(url)!r} is neither an http nor an https address; give one.")
    if output.is_dir():
        raise ModelError(f"output={str(output)!r} is a directory; give the name of a file.")
    until = time.monotonic() + deadline
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with _locked(output.with_name(f".{output.name}.lock"), until):
            if output.exists() and file_sha256(output) == sha256:
                return False
            _Download(url, sha256, output, until=until, stall=stall, say=say).run(retries, backoff)
            return True
    except OSError as error:
        raise ModelError(f"{output}: cannot be written ({error.strerror}); make room or use another output.") from error


class _Download:
    def __init__(
        self, url: str, sha256: str, output: Path, *, until: float, stall: float, say: Callable[[str], None]
    ) -> None:
        self.url = url
        self.sha256 = sha256
        self.output = output
        self.part = output.with_name(output.name + ".part")
        self.note = output.with_name(output.name + ".part.json")
        self.until = until
        self.stall = stall
        self.say = say

    def run(self, retries: int, backoff: float) -> None:
        failures = wrong = 0
        furthest = self._have()
        while True:
            try:
                self._attempt()
                return
            except _WrongFile as error:
                wrong += 1
                if wrong >= MAX_WRONG_FILES:
                    raise ModelError(
                        f"{_shown(self.url)}: {error}, {wrong} times; check that address and sha256 belong together."
                    ) from None
                reason = str(error)
            except (_Broken, httpx.HTTPError) as error:
                if self._complete():
                    return
                # A server that gives something more each time may be asked for longer.
                failures = failures + 1 if self._have() <= furthest else 1
                furthest = max(furthest, self._have())
                reason = str(error) or type(error).__name__
                if failures > retries:
                    raise ModelError(
                        f"{_shown(self.url)}: given up after {failures} attempts in a row without progress ({reason}); "
                        f"{self._have()} bytes are kept, run the same command to continue."
                    ) from None
            pause = min(30.0, backoff * 2 ** (failures - 1 if failures else 0)) * random.uniform(0.5, 1)  # noqa: S311 - jitter
            if time.monotonic() + pause > self.until:
                raise self._late(reason)
            self.say(f"{reason}; next attempt in {pause:.1f} s, {self._have()} bytes are here")
            time.sleep(pause)

    def _late(self, reason: str) -> ModelError:
        return ModelError(
            f"{_shown(self.url)}: not complete within the deadline ({reason}); {self._have()} bytes are kept, "
            "run the same command to continue or give a longer --deadline."
        )

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self) -> None:
        validator = self._validator()
        start = self._have() if validator else 0
        headers = {"Accept-Encoding": "identity"}
        if start:
            headers |= {"Range": f"bytes={start}-", "If-Range": validator}
        timeout = httpx.Timeout(self.stall, connect=min(self.stall, 15))
        with httpx.Client(timeout=timeout, follow_redirects=False) as client, self._open(client, headers) as response:
            total = self._accept(response, start)
            if response.status_code == httpx.codes.OK:
                start = 0
                self._remember(response)
            self._receive(response, start, total)
        self._finish(total)

    @contextlib.contextmanager
    def _open(self, client: httpx.Client, headers: dict[str, str]) -> Iterator[httpx.Response]:
        """The response after redirects; none of them may lead from https to http."""
        url = self.url
        for _unused in range(MAX_REDIRECTS):
            with client.stream("GET", url, headers=headers) as response:
                if not response.has_redirect_location:
                    yield response
                    return
                target = urljoin(url, response.headers["location"])
            if urlsplit(target).scheme not in ("http", "https") or not urlsplit(target).hostname:
                raise ModelError(
                    f"{_shown(self.url)}: redirects to {_shown(target)!r}, no http address; give the direct one."
                )
            if urlsplit(url).scheme == "https" and urlsplit(target).scheme != "https":
                raise ModelError(f"{_shown(self.url)}: redirects from https to http; give one that stays on https.")
            url = target
        raise ModelError(f"{_shown(self.url)}: redirects more than {MAX_REDIRECTS} times; give the direct address.")

    def _accept(self, response: httpx.Response, start: int) -> int | None:
        """Check status and range; returns the file's length, if the server tells it."""
        status = response.status_code
        if status == httpx.codes.PARTIAL_CONTENT and start:
            match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", response.headers.get("content-range", ""))
            if not match or int(match[1]) != start:
                self._forget()
                raise _Broken("the server continued at another place than it was asked to")
            return None if match[3] == "*" else int(match[3])
        if status == httpx.codes.OK:
            length = response.headers.get("content-length", "")
            return int(length) if length.isdigit() else None
        if status in (httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE, httpx.codes.PARTIAL_CONTENT):
            self.note.unlink(missing_ok=True)
            raise _Broken(f"the server cannot continue at byte {start}")
        if status in (408, 425, 429) or status >= 500:
            raise _Broken(f"the server answered {status}")
        raise ModelError(
            f"{_shown(self.url)}: the server answered {status}; check the address and that it needs no login."
        )

    def _receive(self, response: httpx.Response, start: int, total: int | None) -> None:
        free = shutil.disk_usage(self.output.parent).free
        if total is not None and total - start > free:
            raise ModelError(
                f"{self.output}: {total - start} bytes are to come, {free} are free; make room or use another output."
            )
        told = time.monotonic()
        got = start
        with self.part.open("r+b" if start else "wb") as stream:
            stream.seek(start)
            for chunk in response.iter_raw():
                stream.write(chunk)
                got += len(chunk)
                now = time.monotonic()
                if now > self.until:
                    stream.flush()
                    raise self._late("the server is slow")
                if now - told >= 5:
                    told = now
                    self.say(f"{got} bytes" + (f" of {total} ({100 * got // max(total, 1)}%)" if total else ""))

    def _complete(self) -> bool:
        """Whether an attempt that failed left the whole file all the same: some servers promise more than they have."""
        if not self.part.exists() or file_sha256(self.part) != self.sha256:
            return False
        self._finish(None)
        return True

    def _finish(self, total: int | None) -> None:
        have = self._have()
        if total is not None and have < total:
            raise _Broken(f"the connection ended at byte {have} of {total}")
        found = file_sha256(self.part)
        if found != self.sha256:
            self._forget()
            raise _WrongFile(f"the file that came ({have} bytes) has the sha256 {found}, not {self.sha256}")
        with self.part.open("rb") as stream:
            os.fsync(stream.fileno())
        self.part.replace(self.output)
        self.note.unlink(missing_ok=True)
        self.say(f"{have} bytes, sha256 {found}")

    def _remember(self, response: httpx.Response) -> None:
        """Note what the partial file is a part of. Weak validators prove nothing and are not kept."""
        self.part.unlink(missing_ok=True)
        etag = response.headers.get("etag", "")
        validator = etag if etag and not etag.startswith("W/") else response.headers.get("last-modified", "")
        content = {"url": self._key(), "sha256": self.sha256, "validator": validator}
        self.note.write_text(json.dumps(content), encoding="utf-8")

    def _validator(self) -> str:
        try:
            note = json.loads(self.note.read_text(encoding="utf-8"))
            if note["url"] == self._key() and note["sha256"] == self.sha256:
                return str(note["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        return ""

    def _key(self) -> str:
        return hashlib.sha256(self.url.encode()).hexdigest()

    def _forget(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(path: Path, until: float) -> Iterator[None]:
    """One download of a file at a time; whoever comes second waits and finds it done."""
    with path.open("w") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise ModelError(
                        f"{path}: another download of the same file is not done within the deadline; wait for it."
                    ) from None
                time.sleep(0.2)
        try:
            yield
        finally:
            fcntl.flock(stream, fcntl.LOCK_UN)


def _shown(url: str) -> str:
    """The address without credentials and query, which may be secret."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit((parts.scheme, host, parts.path, "", ""))
