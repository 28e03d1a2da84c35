# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the text of /proc/cpuinfo says about a CPU, and which variants of the catalogue it runs. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from .catalogue import PLATFORMS, VARIANTS, Variant, choose, cpu_flags, lacking
from .errors import KernelError

# Each level has the words of those above it as well. x86_64: the psABI's levels in the words of the kernel (pni is
# SSE3, abm is LZCNT, xsave stands for OSXSAVE). aarch64: of each version of the architecture, what is mandatory and has
# a hwcap that depends on neither the kernel's configuration nor the firmware (so no paca, no bti). Armv9.0-A is
# Armv8.5-A with SVE2.
_X86_LEVELS = (
    ("x86-64-v1", "cmov cx8 fpu fxsr lm mmx sse sse2 syscall"),
    ("x86-64-v2", "cx16 lahf_lm pni popcnt sse4_1 sse4_2 ssse3"),
    ("x86-64-v3", "abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"),
    ("x86-64-v4", "avx512bw avx512cd avx512dq avx512f avx512vl"),
)
_ARM_LEVELS = (
    ("armv8.0-a", "asimd fp"),
    ("armv8.1-a", "asimdrdm atomics crc32"),
    ("armv8.2-a", "dcpop"),
    ("armv8.3-a", "fcma jscvt lrcpc"),
    ("armv8.4-a", "asimddp dit flagm ilrcpc uscat"),
    ("armv8.5-a", "dcpodp flagm2 frint sb"),
)
_ARM_TOP = (("armv9.0-a", "sve2"), ("armv8.6-a", "bf16 i8mm"))
LEVELS = {
    "x86_64": [name for name, _words in _X86_LEVELS],
    "aarch64": [*(name for name, _words in _ARM_LEVELS), "armv8.6-a", "armv9.0-a"],
}

# A feature, and those that no CPU has it without. Where one is missing something hides or invents features.
_IMPLIES = {
    "lm": "cmov cx8 fpu fxsr mmx sse sse2",
    "avx": "sse4_2 xsave",
    "avx2": "avx",
    "fma": "avx",
    "f16c": "avx",
    "avx_vnni": "avx2",
    "avx512f": "avx2 f16c fma",
    "asimd": "fp",
    "asimdhp": "asimd fphp",
    "asimddp": "asimd",
    "asimdfhm": "asimdhp",
    "bf16": "asimd",
    "i8mm": "asimd",
    "sve": "asimdhp",
    "sve2": "sve",
    "svebf16": "bf16 sve",
    "svei8mm": "i8mm sve",
}

# Implementer and part of the main ID register, as the Technical Reference Manuals of the cores give them.
_CORES = {
    0x41: {
        0xD02: "Cortex-A34",
        0xD03: "Cortex-A53",
        0xD04: "Cortex-A35",
        0xD05: "Cortex-A55",
        0xD07: "Cortex-A57",
        0xD08: "Cortex-A72",
        0xD09: "Cortex-A73",
        0xD0A: "Cortex-A75",
        0xD0B: "Cortex-A76",
        0xD0C: "Neoverse-N1",
        0xD0D: "Cortex-A77",
        0xD40: "Neoverse-V1",
        0xD41: "Cortex-A78",
        0xD44: "Cortex-X1",
        0xD46: "Cortex-A510",
        0xD47: "Cortex-A710",
        0xD48: "Cortex-X2",
        0xD49: "Neoverse-N2",
        0xD4B: "Cortex-A78C",
        0xD4D: "Cortex-A715",
        0xD4E: "Cortex-X3",
        0xD4F: "Neoverse-V2",
        0xD80: "Cortex-A520",
        0xD81: "Cortex-A720",
        0xD82: "Cortex-X4",
        0xD84: "Neoverse-V3",
        0xD85: "Cortex-X925",
        0xD87: "Cortex-A725",
        0xD8E: "Neoverse-N3",
    },
    0x46: {0x001: "A64FX"},
    0x48: {0xD01: "Kunpeng-920"},
    0x61: {0x022: "Icestorm-M1", 0x023: "Firestorm-M1", 0x032: "Blizzard-M2", 0x033: "Avalanche-M2"},
    0x6D: {0xD49: "Azure-Cobalt-100"},
    0xC0: {0xAC3: "Ampere-1", 0xAC4: "Ampere-1a"},
}
_IMPLEMENTERS = {
    0x41: "ARM",
    0x42: "Broadcom",
    0x43: "Cavium",
    0x46: "Fujitsu",
    0x48: "HiSilicon",
    0x4E: "NVIDIA",
    0x51: "Qualcomm",
    0x61: "Apple",
    0x6D: "Microsoft",
    0xC0: "Ampere",
}


@dataclass(frozen=True)
class Cpu:
    """What a cpuinfo says. Unknown is an empty text, never a guess; problems are sentences."""

    architecture: str
    vendor: str
    model: str
    cpus: int
    level: str
    features: list[str]
    uneven_features: list[str]
    problems: list[str]


@dataclass(frozen=True)
class Verdict:
    """Which of the variants asked for a CPU runs, best first, and what it lacks for the others."""

    best: str | None
    why: str
    fitting: list[str] = field(default_factory=list)
    lacking: dict[str, list[str]] = field(default_factory=dict)


def read(text: str, machine: str = "") -> Cpu:
    """The CPU that a text describes.

    :param machine: what uname -m says where the text is of this very machine; otherwise empty.
    """
    records = list(_records(text))
    architecture = _architecture(records)
    features = cpu_flags(text)
    of_cores = [set(_features(record)) for record in records if _features(record)]
    uneven = set().union(*of_cores) - features if of_cores else set()
    problems = []
    if not of_cores:
        problems.append(
            "it names no CPU features (a line flags on x86_64, Features on aarch64), so nothing is known of this CPU"
        )
    elif architecture not in PLATFORMS:
        problems.append(f"it is of a CPU or a kernel of 32 bits, and variants are for {' and '.join(PLATFORMS)} only")
    elif machine and machine != architecture:
        problems.append(
            f"it describes a CPU of {architecture} while the system says {machine}: an emulator shows its host's file"
        )
    problems += [f"{sentence}: no CPU is like that" for sentence in _contradictions(features)]
    if uneven:
        problems.append(f"only some of the cores have {_listed(uneven)}, which is not counted")
    known = architecture in PLATFORMS and (not machine or machine == architecture)
    return Cpu(
        architecture=architecture or machine,
        vendor=_vendor(records),
        model=_model(records),
        # Old kernels list the processors first and say once what all of them have.
        cpus=sum(line.startswith("processor") for line in text.splitlines()) or len(of_cores),
        level=_level(architecture, features) if known else "",
        features=sorted(features) if known else [],
        uneven_features=sorted(uneven),
        problems=problems,
    )


def judge(cpu: Cpu, names: list[str]) -> Verdict:
    """Which variants the CPU runs, of those named or of all; variants of other architectures do not count."""
    asked = choose(names) if names else list(VARIANTS.values())
    variants = sorted(
        (variant for variant in asked if variant.architecture == cpu.architecture),
        key=lambda variant: variant.rank,
        reverse=True,
    )
    if not cpu.features:
        return Verdict(None, f"cpuinfo cannot be used: {'; '.join(cpu.problems)}")
    if not variants:
        return Verdict(None, f"none of the variants asked for is of the architecture {cpu.architecture}")
    missing = {variant.name: lacking(variant, set(cpu.features)) for variant in variants}
    fitting = [name for name, words in missing.items() if not words]
    rest = {name: words for name, words in missing.items() if words}
    return Verdict(fitting[0] if fitting else None, _why(cpu, variants, fitting, rest), fitting, rest)


def document(cpu: Cpu, verdict: Verdict) -> dict[str, Any]:
    """Both as the result of the module."""
    return {**asdict(cpu), **asdict(verdict), "level": cpu.level or None}


def at_least(level: str, wanted: str) -> bool:
    """Whether a level has all that another has; never across architectures.

    Armv8.6-A and Armv9.0-A are each above Armv8.5-A, and neither has all of the other.
    """
    for name in (level, wanted):
        if not any(name in levels for levels in LEVELS.values()):
            known = ", ".join(name for levels in LEVELS.values() for name in levels)
            raise KernelError(f"{name!r} is not a level; known are {known}")
    if {level, wanted} == {"armv8.6-a", "armv9.0-a"}:
        return False
    return any(
        level in levels and wanted in levels and levels.index(level) >= levels.index(wanted)
        for levels in LEVELS.values()
    )


def _why(cpu: Cpu, variants: list[Variant], fitting: list[str], rest: dict[str, list[str]]) -> str:
    if fitting:
        best = VARIANTS[fitting[0]]
        count = f"the best of {len(fitting)}" if len(fitting) > 1 else "the only one"
        sentences = [f"{best.name} is {count} that this CPU runs"]
        unreached = [variant.name for variant in variants if variant.rank > best.rank]
    else:
        sentences = ["this CPU runs none of the variants"]
        unreached = [variant.name for variant in reversed(variants)]
    sentences += [f"{name} needs {' '.join(rest[name])}" for name in unreached]
    if unreached and "hypervisor" in cpu.features:
        sentences.append("it is a virtual CPU, so the hypervisor may hide what the real one has")
    return "; ".join([*sentences, *(f"cpuinfo: {problem}" for problem in cpu.problems)])


def _records(text: str) -> Iterator[dict[str, str]]:
    """One dictionary for each logical CPU; in files of ARM an empty line may come before a summary of the board."""
    for block in text.replace("\r", "").split("\n\n"):
        lines = (line.partition(":") for line in block.splitlines() if ":" in line)
        record = {_clean(key): _clean(value) for key, _colon, value in lines}
        if record:
            yield record


def _clean(text: str) -> str:
    return "".join(char for char in " ".join(text.split()) if char.isprintable())[:4096]


def _features(record: dict[str, str]) -> list[str]:
    return (record.get("flags") or record.get("Features") or "").split()


def _architecture(records: list[dict[str, str]]) -> str:
    words = {word for record in records for word in _features(record)}
    if any("Features" in record for record in records):
        # A kernel of 32 bits speaks of neon where one of 64 bits speaks of asimd.
        return "aarch64" if "neon" not in words or "asimd" in words else "arm"
    if any("flags" in record for record in records):
        return "x86_64" if "lm" in words or not words else "i686"
    return ""


def _number(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        return -1


def _vendor(records: list[dict[str, str]]) -> str:
    for record in records:
        if "vendor_id" in record:
            return record["vendor_id"]
        if "CPU implementer" in record:
            return _IMPLEMENTERS.get(_number(record["CPU implementer"]), record["CPU implementer"])
    return ""


def _model(records: list[dict[str, str]]) -> str:
    """The model's name; on ARM, which has none, those of the cores, each with its number where they differ."""
    for record in records:
        if "model name" in record:
            return record["model name"]
    cores = Counter(
        _CORES.get(_number(record["CPU implementer"]), {}).get(
            _number(record["CPU part"]), f"unknown core {record['CPU implementer']}/{record['CPU part']}"
        )
        for record in records
        if "CPU implementer" in record and "CPU part" in record
    )
    if len(cores) == 1:
        return next(iter(cores))
    return " + ".join(f"{count} x {name}" for name, count in cores.items())


def _level(architecture: str, features: set[str]) -> str:
    level = ""
    for name, words in _X86_LEVELS if architecture == "x86_64" else _ARM_LEVELS:
        if not features.issuperset(words.split()):
            return level
        level = name
    if architecture == "aarch64":
        for name, words in _ARM_TOP:
            if features.issuperset(words.split()):
                return name
    return level


def _contradictions(features: set[str]) -> list[str]:
    implied = {**_IMPLIES, **{word: "avx512f" for word in features if word.startswith("avx512") and word != "avx512f"}}
    return [
        f"it has {word} and not {_listed(set(needed.split()) - features)}"
        for word, needed in sorted(implied.items())
        if word in features and not features.issuperset(needed.split())
    ]


def _listed(words: Iterable[str]) -> str:
    return ", ".join(sorted(words))
