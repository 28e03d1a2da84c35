# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which variants exist, how each is compiled, and what proves that it was. Data and look-ups, nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import KernelError

# Part of every hash: raise it when the way of building changes in a manner the rest of the hash cannot show.
RECIPE = 1

PROGRAMS = ("llama-server", "llama-bench", "llama-quantize")
LIBRARIES = ("ggml", "llama", "mtmd")
# Holds the matrix products of IQ1_BN and IQ2_BN, the types that a BitNet model is served in.
HOT_OBJECTS = ("iqk_gemm_1bit.cpp.o",)

# What the source would switch on by itself is switched off: the variant's flags alone decide. All templates of
# flash attention would be most of the build (and without flash attention the source does not link).
DEFINES = {
    "BUILD_SHARED_LIBS": "ON",
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_C_COMPILER_LAUNCHER": "ccache",
    "CMAKE_CXX_COMPILER_LAUNCHER": "ccache",
    "CMAKE_SKIP_RPATH": "ON",
    "GGML_AVX": "OFF",
    "GGML_AVX2": "OFF",
    "GGML_CCACHE": "OFF",
    "GGML_F16C": "OFF",
    "GGML_FMA": "OFF",
    "GGML_IQK_FA_ALL_QUANTS": "OFF",
    "GGML_NATIVE": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
}


@dataclass(frozen=True)
class Instruction:
    """A mnemonic together with the widest register class among its operands: zmm, ymm, xmm, tmm or none."""

    mnemonic: str
    register: str


@dataclass(frozen=True)
class Variant:
    """One microarchitecture: flags to compile with, cpuinfo flags to run with, instructions to look for."""

    name: str
    flags: tuple[str, ...]
    requires: tuple[str, ...]
    rank: int
    # All of these must occur in the hot objects,
    present: tuple[Instruction, ...]
    # and in no library any of these: register classes, or "evex", the encoding that AVX-512 brought.
    absent: tuple[str, ...]


_V3 = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4_VNNI = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl", "avx512_vnni")

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            name="x86-64-v3",
            flags=("-march=x86-64-v3", "-mtune=haswell"),
            requires=_V3,
            rank=30,
            present=(Instruction("vpmaddubsw", "ymm"), Instruction("vpmaddwd", "ymm")),
            absent=("evex", "zmm", "tmm"),
        ),
        Variant(
            name="x86-64-v4-vnni",
            flags=("-march=x86-64-v4", "-mavx512vnni", "-mtune=icelake-server"),
            requires=_V4_VNNI,
            rank=45,
            present=(Instruction("vpdpbusd", "zmm"),),
            absent=("tmm",),
        ),
    )
}


def choose(names: list[str]) -> list[Variant]:
    """The variants of these names, in the order of the catalogue and each once."""
    unknown = [name for name in names if name not in VARIANTS]
    if unknown:
        raise KernelError(
            f"variants: {', '.join(map(repr, unknown))} is not in the catalogue, which knows {', '.join(VARIANTS)}"
        )
    if not names:
        raise KernelError(f"variants: is empty; name at least one of {', '.join(VARIANTS)}")
    return [variant for variant in VARIANTS.values() if variant.name in names]


def lacking(variant: Variant, cpu_flags: set[str]) -> list[str]:
    """What a CPU lacks to run a variant."""
    return [flag for flag in variant.requires if flag not in cpu_flags]


def cpu_flags(cpuinfo: str) -> set[str]:
    """The flags in the text of /proc/cpuinfo; only what every core has counts."""
    cores = [
        set(value.split())
        for key, _colon, value in (line.partition(":") for line in cpuinfo.splitlines())
        if key.strip() in ("flags", "Features")
    ]
    return set.intersection(*cores) if cores else set()
