# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which kernel variant of the image this CPU can run.

The collection's plugins/module_utils/_kernels says the same of a host before anything runs on it; a test holds both
together.
"""

from __future__ import annotations

import ctypes
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .settings import SettingsError

OWN = Path("/proc/cpuinfo")
# Names of the bits of AT_HWCAP and AT_HWCAP2 on aarch64, from bit 0 on, as the line Features writes them.
HWCAP = (
    "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm jscvt fcma lrcpc dcpop sha3 "
    "sm3 sm4 asimddp sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs sb paca pacg"
)
HWCAP2 = (
    "dcpodp sve2 sveaes svepmull svebitperm svesha3 svesm4 flagm2 frint svei8mm svef32mm svef64mm svebf16 i8mm "
    "bf16 dgh rng bti mte"
)
AT_HWCAP, AT_HWCAP2 = 16, 26


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


def cpu_flags(cpuinfo: Path, machine: str = "") -> frozenset[str]:
    """Features all CPUs have (`flags` on x86_64, `Features` on aarch64).

    On aarch64 the kernel's word to this process goes before its own /proc/cpuinfo: under an emulator that file may be
    its host's, which is another CPU and even another architecture.
    """
    machine = machine or os.uname().machine
    if cpuinfo == OWN and machine == "aarch64":
        told = hwcap_words(*_hwcaps())
        if told:
            return told
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise SettingsError(f"BITNET_CPUINFO={str(cpuinfo)!r} cannot be read ({error.strerror}).") from error
    flags = [
        frozenset(value.split())
        for key, _unused, value in (line.partition(":") for line in text.splitlines())
        if key.strip() in ("flags", "Features")
    ]
    return frozenset.intersection(*flags) if flags else frozenset()


def hwcap_words(hwcap: int, hwcap2: int) -> frozenset[str]:
    """The names of the bits that are set; those without a name are left out."""
    return frozenset(
        word
        for bits, words in ((hwcap, HWCAP), (hwcap2, HWCAP2))
        for number, word in enumerate(words.split())
        if bits >> number & 1
    )


def _hwcaps() -> tuple[int, int]:
    try:
        getauxval = ctypes.CDLL(None).getauxval
    except (OSError, AttributeError):
        return 0, 0
    getauxval.argtypes, getauxval.restype = [ctypes.c_ulong], ctypes.c_ulong
    return getauxval(AT_HWCAP), getauxval(AT_HWCAP2)


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
    if not flags:
        raise CpuError(
            "The CPU's features are not known: cpuinfo has no line flags (x86_64) or Features (aarch64). Under an "
            "emulator or a masking hypervisor, set BITNET_CPUINFO to a file that describes the CPU."
        )
    if not fitting:
        missing = "; ".join(
            f"{variant.name} needs {' '.join(sorted(variant.requires - flags))}"
            for variant in sorted(variants.values(), key=lambda variant: variant.rank)
        )
        raise CpuError(
            f"This CPU runs none of the image's kernel variants: {missing}. Build one for it and deploy again."
        )
    return sorted(fitting, key=lambda variant: variant.rank, reverse=True)


def why(chosen: Variant, fitting: list[Variant], variants: dict[str, Variant], flags: frozenset[str]) -> str:
    """Why a variant was chosen, and what the CPU lacks for each better one. Bounded: it is a label of a metric."""
    parts = [
        f"the best of {len(fitting)} that this CPU runs" if len(fitting) > 1 else "the only one that this CPU runs"
    ]
    better = [v for v in variants.values() if v.rank > chosen.rank and not v.requires <= flags]
    parts += [f"{v.name} needs {' '.join(sorted(v.requires - flags))}" for v in sorted(better, key=lambda v: -v.rank)]
    return "; ".join(parts)
