# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Searches everything that a run leaves behind, and what it shows while it goes, for the values of its secrets.

    watch = ProcessWatch(needles)
    with watch:
        ...                                         # the run
    found = watch.found() + in_files(needles, [log, fact_cache, temporary]) + in_output(needles, "journal", [...])
    found += in_image(needles, "registry/name@sha256:...")

A value is found as it is and as base64, hexadecimal, URL-encoded or JSON-escaped text, in whatever it is embedded;
archives and what is compressed with gzip, bzip2 or xz are opened. What is said of a leak names the secret and does not
show it.
"""

from __future__ import annotations

import base64
import bz2
import contextlib
import dataclasses
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile
import threading
import time
import urllib.parse
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, cast

SHORTEST = 12  # bytes: a shorter value would be found by chance, or everywhere
DEEPEST = 5  # archives within archives
CHUNK = 1 << 20
SAMPLE_SECONDS = 0.03
COMMAND_SECONDS = 600
BROKEN = (EOFError, OSError, lzma.LZMAError, zlib.error, tarfile.TarError)


class BadNeedle(Exception):
    """A value for which no search can be trusted; the text names the secret."""


@dataclasses.dataclass(frozen=True)
class Leak:
    secret: str
    form: str
    place: str

    def __str__(self) -> str:
        return f"{self.secret} ({self.form}) in {self.place}"


def _all_escaped(value: bytes) -> bytes:
    return "".join(f"%{byte:02X}" for byte in value).encode()


def _base64_forms(value: bytes, encode: Callable[[bytes], bytes]) -> Iterator[bytes]:
    """What all encodings of texts that have the value in them share: one for each place of it within three bytes."""
    for before in range(3):
        text = encode(b"\0" * before + value)
        # The first characters hold bits of what is before, the last ones of what is after.
        first = (before * 8 + 5) // 6
        last = (before + len(value)) * 8 // 6
        yield text[first:last]


def forms_of(value: str) -> dict[bytes, str]:
    """Each text by which the value can be recognised, and what that form is called."""
    raw = value.encode()
    forms: dict[bytes, str] = {raw: "as it is"}
    for text in _base64_forms(raw, base64.b64encode):
        forms.setdefault(text, "base64")
    for text in _base64_forms(raw, base64.urlsafe_b64encode):
        forms.setdefault(text, "base64 for URLs")
    forms.setdefault(raw.hex().encode(), "hexadecimal")
    forms.setdefault(raw.hex().upper().encode(), "hexadecimal")
    for quoted in (urllib.parse.quote(value, safe=""), urllib.parse.quote_plus(value), urllib.parse.quote(value)):
        forms.setdefault(quoted.encode(), "URL-encoded")
        forms.setdefault(_lower_escapes(quoted).encode(), "URL-encoded")
    forms.setdefault(_all_escaped(raw), "URL-encoded")
    forms.setdefault(_all_escaped(raw).lower(), "URL-encoded")
    forms.setdefault(json.dumps(value)[1:-1].encode(), "JSON-escaped")
    forms.setdefault(json.dumps(value, ensure_ascii=False)[1:-1].encode(), "JSON-escaped")
    return forms


def _lower_escapes(text: str) -> str:
    parts = text.split("%")
    return "%".join([parts[0], *(part[:2].lower() + part[2:] for part in parts[1:])])


class Needles:
    """The secrets of a run, by name."""

    def __init__(self, values: Mapping[str, str]) -> None:
        if not values:
            raise BadNeedle("there is no secret to look for: nothing could be found")
        self.forms: dict[bytes, list[tuple[str, str]]] = {}
        for name, value in values.items():
            if len(value.encode()) < SHORTEST:
                raise BadNeedle(f"{name}: a value of fewer than {SHORTEST} bytes would be found by chance")
            # A key of several lines is as much of a leak without its last newline, or as one of its lines.
            parts = {value.strip(), *(line for line in value.splitlines() if len(line.encode()) >= 2 * SHORTEST)}
            for part in parts:
                if not part.startswith("-----"):
                    for text, form in forms_of(part).items():
                        self.forms.setdefault(text, []).append((name, form))
        self.longest = max(map(len, self.forms))

    def within(self, data: bytes) -> set[tuple[str, str]]:
        return {which for text, secrets in self.forms.items() if text in data for which in secrets}

    def in_stream(self, stream: IO[bytes], place: str, depth: int = 0) -> list[Leak]:
        """What is in it, and in what it is an archive of. What is cut off or broken is searched as far as it goes."""
        head = b""
        while len(head) < tarfile.BLOCKSIZE and (piece := _read(stream)):
            head += piece
        found = self.within(head)
        opened: list[Leak] = []
        unpacked = _unpacked(head, stream) if depth < DEEPEST else None
        if unpacked is not None:
            opened = self.in_stream(unpacked, place, depth + 1)
        elif head[257:262] == b"ustar" and depth < DEEPEST:
            opened = self._in_tar(io.BufferedReader(cast("io.RawIOBase", _Rest(head, stream))), place, depth)
        else:
            tail = head
            while piece := _read(stream):
                found |= self.within(tail + piece)
                tail = (tail + piece)[-self.longest :]
        return [Leak(name, form, place) for name, form in sorted(found)] + opened

    def _in_tar(self, stream: IO[bytes], place: str, depth: int) -> list[Leak]:
        found: list[Leak] = []
        with contextlib.suppress(*BROKEN), tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                said = f"{member.name}\n{member.linkname}\n{member.pax_headers}".encode("utf-8", "surrogateescape")
                found += [Leak(name, form, f"{place} (a name)") for name, form in sorted(self.within(said))]
                file = archive.extractfile(member) if member.isfile() else None
                if file is not None:
                    found += self.in_stream(file, f"{place}:{member.name}", depth + 1)
        return found


def _read(stream: IO[bytes]) -> bytes:
    """The next bytes, none at the end or where it is broken. What came before a break is not lost with it."""
    with contextlib.suppress(*BROKEN):
        return cast("io.BufferedReader", stream).read1(CHUNK)
    return b""


class _Rest(io.RawIOBase):
    """What was read of a stream already, and then the stream."""

    def __init__(self, head: bytes, stream: IO[bytes]) -> None:
        self.head, self.stream = head, stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        taken = self.head[: len(buffer)] or self.stream.read(len(buffer))
        self.head = self.head[len(buffer) :]
        buffer[: len(taken)] = taken
        return len(taken)


def _unpacked(head: bytes, stream: IO[bytes]) -> IO[bytes] | None:
    """The stream as it was before it was compressed, if it was."""
    rest = io.BufferedReader(cast("io.RawIOBase", _Rest(head, stream)))
    if head.startswith(b"\x1f\x8b"):
        return cast("IO[bytes]", gzip.GzipFile(fileobj=rest))
    if head.startswith(b"BZh"):
        return cast("IO[bytes]", bz2.BZ2File(rest))
    if head.startswith(b"\xfd7zXZ\0"):
        return cast("IO[bytes]", lzma.LZMAFile(rest))
    return None


# ---------------------------------------------------------------------------- places


def in_text(needles: Needles, place: str, text: str | bytes) -> list[Leak]:
    """As a diff, or what a callback printed."""
    data = text.encode("utf-8", "surrogateescape") if isinstance(text, str) else text
    return needles.in_stream(io.BytesIO(data), place)


def in_files(needles: Needles, roots: Iterable[Path], allowed: Iterable[Path] = ()) -> list[Leak]:
    """In all files below these folders, and in their names. Allowed are those whose purpose is to keep a secret."""
    found: list[Leak] = []
    kept = {path.resolve() for path in allowed}
    for root in roots:
        if not root.exists():
            raise FileNotFoundError(f"{root} is not there, so nothing of it can be searched")
        for path in [root, *sorted(root.rglob("*"))] if root.is_dir() else [root]:
            if any(above in kept for above in [path.resolve(), *path.resolve().parents]):
                continue
            found += [
                Leak(name, form, f"the name of a file in {path.parent}")
                for name, form in sorted(needles.within(os.fsencode(path.name)))
            ]
            if path.is_symlink():
                found += in_text(needles, f"{path} (a link)", os.fsencode(path.readlink()))
            elif path.is_file():
                with path.open("rb") as stream:
                    found += needles.in_stream(stream, str(path))
    return found


def in_output(needles: Needles, place: str, command: Sequence[str]) -> list[Leak]:
    """In what a command prints, as in C(journalctl --no-pager), C(docker service logs) or C(docker config inspect)."""
    told = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=COMMAND_SECONDS, check=False
    )
    if told.returncode != 0:
        raise OSError(f"{' '.join(command)} ended with {told.returncode}, so its output says nothing about leaks")
    return in_text(needles, place, told.stdout)


def in_image(needles: Needles, image: str, docker: Sequence[str] = ("docker",)) -> list[Leak]:
    """In every layer of an image, its configuration and its history."""
    command = ["timeout", str(COMMAND_SECONDS), *docker, "save", image]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as saving:
        assert saving.stdout is not None
        found = needles.in_stream(saving.stdout, f"image {image}")
        saving.stdout.read()
    if saving.returncode != 0:
        raise OSError(f"docker save {image} ended with {saving.returncode}, so nothing of it was searched")
    return found


class ProcessWatch:
    """Looks at the command line and the environment of every process, again and again, while it is entered.

    A process that is gone between two looks is not seen. So a run is watched as a whole, whose commands take longer.
    """

    def __init__(self, needles: Needles, ignore: Iterable[int] = ()) -> None:
        self.needles = needles
        # The tests themselves know the values: their own environment may have them on purpose.
        self.ignore = {os.getpid(), *ignore}
        self.looks = 0
        self._leaks: dict[tuple[str, str, str], Leak] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> ProcessWatch:
        self._thread.start()
        return self

    def __exit__(self, *_unused: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.is_set():
            began = time.monotonic()
            self.look()
            # A look at a busy machine takes long, and must not be what keeps it busy.
            self._ended.wait(max(SAMPLE_SECONDS, 3 * (time.monotonic() - began)))

    def look(self) -> None:
        for folder in Path("/proc").iterdir():
            if folder.name.isdigit() and int(folder.name) not in self.ignore:
                for part, place in (("cmdline", "command line"), ("environ", "environment")):
                    with contextlib.suppress(OSError):  # it has ended
                        self._remember((folder / part).read_bytes(), folder, place)
        self.looks += 1

    def _remember(self, data: bytes, folder: Path, place: str) -> None:
        for name, form in self.needles.within(data):
            program = "a program"
            with contextlib.suppress(OSError):
                program = (folder / "comm").read_text().strip()
            self._leaks.setdefault((name, form, place), Leak(name, form, f"the {place} of {program} ({folder.name})"))

    def found(self) -> list[Leak]:
        if self.looks == 0:
            raise RuntimeError("no process was looked at, so nothing can be said")
        return [self._leaks[which] for which in sorted(self._leaks)]
