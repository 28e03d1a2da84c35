# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kernel variant of the image this CPU can run."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .settings import SettingsError


class CpuError(Exception):
    """No variant in the image runs on this CPU; the message names what is missing."""


@dataclass(frozen=True)
class Variant:
    name: str
    requires: frozenset[str]
    rank: int
    proven: bool
    """True when the builder ran it against the reference; false when the builder's CPU could not."""


def read_manifest(kernels: Path) -> dict[str, Variant]:
    path = kernels / "manifest.json"
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        variants = {
            name: Variant(name, frozenset(entry["requires"]), int(entry["rank"]), bool(entry["verified"]["run"]["ran"]))
            for name, entry in manifest["variants"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"BITNET_KERNELS={str(kernels)!r} holds no usable manifest.json ({type(error).__name__}: {error}): "
            "point it to an output directory of the module kernel_build."
        ) from error
    if not variants:
        raise SettingsError(f"{path} lists no variant: build at least one (bitnet_variants).")
    return variants


def cpu_flags(cpuinfo: Path) -> frozenset[str]:
    """Features all CPUs have (`flags` on x86, `Features` on ARM)."""
    try:
        text = cpuinfo.read_text()
    except OSError as error:
        raise SettingsError(f"BITNET_CPUINFO={str(cpuinfo)!r} cannot be read ({error.strerror}).") from error
    flags = [
        frozenset(value.split())
        for key, _unused, value in (line.partition(":") for line in text.splitlines())
        if key.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*flags) if flags else frozenset()


def candidates(variants: dict[str, Variant], flags: frozenset[str], override: str = "") -> list[Variant]:
    """Variants that this CPU can run, best first. With an override only that one."""
    if override:
        if override not in variants:
            raise SettingsError(
                f"BITNET_VARIANT={override!r} is not in this image: set it to one of {', '.join(sorted(variants))}, "
                "or leave it out to let the CPU decide."
            )
        variants = {override: variants[override]}
    fitting = [variant for variant in variants.values() if variant.requires <= flags]
    if not fitting:
        missing = "; ".join(
            f"{variant.name} needs {' '.join(sorted(variant.requires - flags))}"
            for variant in sorted(variants.values(), key=lambda variant: variant.rank)
        )
        raise CpuError(
            f"This CPU runs none of the image's kernel variants: {missing}. Build one for it and deploy again."
        )
    return sorted(fitting, key=lambda variant: variant.rank, reverse=True)
