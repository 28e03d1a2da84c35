# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder in which everything is kept: sources, variants, programs, published sets (kernels), ccache, logs."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

from . import manifest
from .plan import Found, Wanted, digest


class Cache:
    def __init__(self, path: str) -> None:
        self.path = Path(path).resolve()
        # Labels the containers that work for this cache.
        self.name = digest(str(self.path))

    def at(self, *parts: str) -> Path:
        return self.path.joinpath(*parts)

    def remembered(self, kind: str, key: str) -> dict[str, Any] | None:
        return manifest.load(self._memory(kind, key))

    def remember(self, kind: str, key: str, record: dict[str, Any]) -> None:
        path = self._memory(kind, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        manifest.save(path, {"schema": manifest.SCHEMA, **record})

    def _memory(self, kind: str, key: str) -> Path:
        return self.at("known", f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.json")

    def component(self, kind: str, key: str, deep: bool = False) -> dict[str, Any] | None:
        """The record of intact programs or of an intact variant."""
        folder = self.at(kind, key)
        record = manifest.load(folder / "component.json")
        if record is None or not manifest.is_intact(folder, record["files"], deep):
            return None
        return record

    def find(self, wanted: Wanted, deep: bool) -> Found:
        programs = self.component("programs", wanted.programs_key(), deep)
        records = {
            variant.name: self.component("variants", wanted.variant_key(variant), deep) for variant in wanted.variants
        }
        variants = {name: record for name, record in records.items() if record is not None}
        complete = len(variants) == len(records) and (programs is not None or not wanted.shared)
        published = complete and self._is_published(wanted, programs, variants, deep)
        return Found(programs is not None, variants, published)

    def _is_published(
        self, wanted: Wanted, programs: dict[str, Any] | None, variants: dict[str, dict[str, Any]], deep: bool
    ) -> bool:
        folder = self.at("kernels", wanted.set_key())
        described = manifest.load(folder / "manifest.json")
        # Sets were published once that did not say for which architecture they are.
        if described is None or described.get("architecture") != wanted.architecture:
            return False
        if any(
            described["variants"].get(name, {}).get("verified", {}).get("run") != record["run"]
            for name, record in variants.items()
        ):
            return False
        if programs and not manifest.is_intact(folder / "bin", manifest.below(programs, "bin"), deep):
            return False
        return all(
            manifest.is_intact(folder / "lib" / name, manifest.below(record, "lib"), deep)
            for name, record in variants.items()
        )

    def room(self) -> int:
        """Free bytes."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize
