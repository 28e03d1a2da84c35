# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an image is made of: its build context, the hash that names it, what a registry says of it. Knows no Docker."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import re
import tarfile
import typing as t
from dataclasses import dataclass
from pathlib import Path

SCHEMA = "1"
TAG_LENGTH = 12
UNKNOWN = "known after build"
# Leftovers of work in a checkout, which an installed collection does not have: they are never part of an image.
ALWAYS_EXCLUDED = ("__pycache__", "*.pyc", "*.egg-info", ".*")
# One time for all files: the same content gives the same layers. A wheel, being a ZIP, knows no time before 1980.
MODIFIED = 315619200
CHUNK = 1 << 20
# A name such as localhost.example.com or 127.example.com is another machine, to which nothing goes in the clear.
LOOPBACK = re.compile(r"(localhost|127(\.[0-9]+)+|\[::1\])(:[0-9]+)?")


class ImageError(Exception):
    """Why an image could not be made; the text is for a person, details go into the module's result."""

    def __init__(self, message: str, **details: t.Any) -> None:
        super().__init__(message)
        self.details = details


@dataclass(frozen=True)
class Entry:
    """One file, folder or link of a build context."""

    dest: str
    source: Path
    kind: str

    @property
    def executable(self) -> bool:
        return self.kind != "file" or bool(self.source.stat().st_mode & 0o100)


def entries(source: Path, dest: str, exclude: t.Iterable[str] = ()) -> list[Entry]:
    """What is under a file or folder, sorted, under the names it has in the context."""
    patterns = (*ALWAYS_EXCLUDED, *exclude)
    name = "" if dest == "." else dest.strip("/")
    if ".." in name.split("/"):
        raise ImageError(f"context: dest '{dest}' leaves the context.")
    if not source.exists():
        raise ImageError(f"context: src '{source}' does not exist.")
    source = source.resolve()
    if not source.is_dir():
        if not name:
            raise ImageError(f"context: src '{source}' is a file; name it in the context with dest.")
        return [_entry(source, name)]
    found = [_entry(source, name)] if name else []
    _collect(source, name, patterns, found)
    return sorted(found, key=lambda entry: entry.dest)


def _collect(folder: Path, name: str, patterns: t.Sequence[str], found: list[Entry]) -> None:
    for path in folder.iterdir():
        if any(fnmatch.fnmatchcase(path.name, pattern) for pattern in patterns):
            continue
        entry = _entry(path, f"{name}/{path.name}" if name else path.name)
        found.append(entry)
        if entry.kind == "folder":
            _collect(path, entry.dest, patterns, found)


def _entry(source: Path, dest: str) -> Entry:
    if source.is_symlink():
        return Entry(dest, source, "link")
    if source.is_dir():
        return Entry(dest, source, "folder")
    if source.is_file():
        return Entry(dest, source, "file")
    raise ImageError(f"context: '{source}' is neither file, folder nor link; exclude it.")


def entries_of(item: t.Mapping[str, t.Any]) -> list[Entry]:
    """The entries of one element of the module's option C(context)."""
    return entries(Path(item["src"]), item["dest"], item.get("exclude") or ())


def digest(found: t.Iterable[Entry]) -> str:
    """SHA-256 over names, kinds, executable bits and contents; owner and times do not count."""
    total = hashlib.sha256()
    for entry in found:
        content_of_entry = ""
        if entry.kind == "link":
            content_of_entry = str(entry.source.readlink())
        elif entry.kind == "file":
            content_of_entry = _sha256_of(entry.source) + (" executable" if entry.executable else "")
        total.update(json.dumps([entry.kind, entry.dest, content_of_entry]).encode())
    return total.hexdigest()


def _sha256_of(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        for chunk in iter(lambda: file.read(CHUNK), b""):
            total.update(chunk)
    return total.hexdigest()


def write_tar(target: t.IO[bytes], found: t.Iterable[Entry], archive: str | None = None) -> None:
    """A context as the Docker daemon reads it, written as a stream: nothing is copied to a folder first.

    The archive holds what came from the controller.
    """
    with tarfile.open(fileobj=target, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        if archive:
            with tarfile.open(archive, mode="r|") as packed:
                for member in packed:
                    tar.addfile(member, packed.extractfile(member) if member.isreg() else None)
        for entry in found:
            _add(tar, entry)


def _add(tar: tarfile.TarFile, entry: Entry) -> None:
    info = tarfile.TarInfo(entry.dest)
    info.mtime = MODIFIED
    info.mode = 0o755 if entry.executable else 0o644
    if entry.kind == "folder":
        info.type = tarfile.DIRTYPE
        tar.addfile(info)
    elif entry.kind == "link":
        info.type, info.linkname = tarfile.SYMTYPE, str(entry.source.readlink())
        tar.addfile(info)
    else:
        info.size = entry.source.stat().st_size
        with entry.source.open("rb") as file:
            tar.addfile(info, file)


def content(parts: t.Mapping[str, t.Any]) -> str:
    """The hash that names an image: of everything that its build is given."""
    return hashlib.sha256(json.dumps({"schema": SCHEMA, **parts}, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Published:
    """An image as a registry holds it."""

    digest: str
    size: int


def published(answer: str) -> Published | None:
    """Digest and compressed size, of what C(docker manifest inspect --verbose) prints; nothing for an index."""
    found = json.loads(answer)
    if isinstance(found, list):
        return None
    manifest = found.get("OCIManifest") or found.get("SchemaV2Manifest") or {}
    layers = [layer["size"] for layer in manifest.get("layers", [])]
    return Published(found["Descriptor"]["digest"], sum(layers) + manifest.get("config", {}).get("size", 0))


def is_loopback(name: str) -> bool:
    """Whether a repository's registry is on this machine: Docker itself speaks plain HTTP to such a one."""
    return bool(LOOPBACK.fullmatch(name.partition("/")[0]))
