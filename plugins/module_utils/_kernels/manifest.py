# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Descriptions of files: of one component in the cache (component.json) and of a published set (manifest.json)."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

SCHEMA = 1


def sha256_of(path: Path) -> str:
    state = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            state.update(block)
    return state.hexdigest()


def describe(folder: Path, path: str) -> dict[str, Any]:
    """Name, content, size and time of one file; the time only spares the next look from reading the content."""
    status = (folder / path).stat()
    return {
        "path": path,
        "sha256": sha256_of(folder / path),
        "size": status.st_size,
        "mtime_ns": status.st_mtime_ns,
    }


def is_intact(folder: Path, files: list[dict[str, Any]], deep: bool) -> bool:
    """Whether all files are there unchanged. Content is read where the time leaves a doubt, or always if deep."""
    for file in files:
        path = folder / file["path"]
        try:
            status = path.lstat()
            if status.st_size != file["size"]:
                return False
            if (deep or status.st_mtime_ns != file["mtime_ns"]) and sha256_of(path) != file["sha256"]:
                return False
        except OSError:
            return False
    return True


def below(record: dict[str, Any], folder: str) -> list[dict[str, Any]]:
    """A component's files, with paths relative to its bin or lib folder."""
    return [{**file, "path": str(Path(file["path"]).relative_to(folder))} for file in record["files"]]


def load(path: Path) -> dict[str, Any] | None:
    """A record that this version understands, or nothing: what cannot be read is made again."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("schema") == SCHEMA else None


def save(path: Path, record: dict[str, Any]) -> None:
    """Writes all or nothing."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        json.dump(record, stream, indent=2, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def make_manifest(
    key: str,
    source: dict[str, Any],
    builder: dict[str, Any],
    programs: dict[str, Any] | None,
    variants: dict[str, dict[str, Any]],
    *,
    architecture: str,
) -> dict[str, Any]:
    """The manifest of a set, from the records of its components."""
    components = [*([programs] if programs else []), *variants.values()]
    return {
        "schema": SCHEMA,
        "hash": key,
        "architecture": architecture,
        "source": source,
        "builder": builder,
        "programs": [_public(file, "bin") for file in below(programs, "bin")] if programs else [],
        "system_libraries": sorted({name for component in components for name in component["system_libraries"]}),
        "variants": {
            name: {
                "flags": record["flags"],
                "requires": record["requires"],
                "rank": record["rank"],
                "files": [_public(file, f"lib/{name}") for file in below(record, "lib")],
                "verified": {"disassembly": record["disassembly"], "run": record["run"]},
            }
            for name, record in variants.items()
        },
    }


def _public(file: dict[str, Any], folder: str) -> dict[str, Any]:
    return {"path": f"{folder}/{file['path']}", "sha256": file["sha256"], "size": file["size"]}
