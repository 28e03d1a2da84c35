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
# What a cross compiler needs in addition; {target} is what the names of its programs begin with.
CROSS = {
    "CMAKE_C_COMPILER": "{target}-gcc",
    "CMAKE_CXX_COMPILER": "{target}-g++",
    "CMAKE_FIND_ROOT_PATH": "/usr/{target}",
    "CMAKE_FIND_ROOT_PATH_MODE_INCLUDE": "ONLY",
    "CMAKE_FIND_ROOT_PATH_MODE_LIBRARY": "ONLY",
    "CMAKE_FIND_ROOT_PATH_MODE_PACKAGE": "ONLY",
    "CMAKE_FIND_ROOT_PATH_MODE_PROGRAM": "NEVER",
    "CMAKE_SYSTEM_NAME": "Linux",
    "CMAKE_SYSTEM_PROCESSOR": "aarch64",
}
# From which machine to which architecture can be compiled across, and the compiler's name.
CROSS_TARGETS = {("x86_64", "aarch64"): "aarch64-linux-gnu"}


@dataclass(frozen=True)
class Instruction:
    """A mnemonic together with the widest register class among its operands.

    Classes are zmm, ymm, xmm, tmm or none on x86_64; on aarch64 z (a vector of SVE), v (a vector of Advanced SIMD) or
    none.
    """

    mnemonic: str
    register: str


@dataclass(frozen=True)
class Variant:
    """One microarchitecture: flags to compile with, features to run with, instructions to look for."""

    name: str
    # As uname -m says it: x86_64 or aarch64.
    architecture: str
    flags: tuple[str, ...]
    # Words of /proc/cpuinfo: of its line "flags" on x86_64, of its line "Features" on aarch64. Everything that the
    # flags allow the compiler to use is here, not only what the source asks for by name.
    requires: tuple[str, ...]
    # Of two variants of one architecture that a CPU runs, the higher is the better.
    rank: int
    # All of these must occur in the hot objects,
    present: tuple[Instruction, ...]
    # and in no library any of these: register classes, mnemonics, "evex" (the encoding that AVX-512 brought), or "lse"
    # (the atomics of Armv8.1).
    absent: tuple[str, ...]
    # What "qemu-ARCHITECTURE -cpu" is given to run it; empty where qemu has no CPU with these features.
    qemu_cpu: str
    # Where it is written which CPUs have these features.
    source: str


_PSABI = "x86-64 psABI, section Micro-Architecture Levels"
_INTEL = "Intel 64 and IA-32 Architectures SDM, CPUID leaf 7"
_HWCAPS = "Linux, Documentation/arch/arm64/elf_hwcaps.rst"
# qemu emulates no AVX-512 and no AVX-VNNI (as of 10.0), whatever CPU model is asked for.
_NO_QEMU = ""

# The engine's matrix products need AVX2, FMA and F16C (iqk_config.h); without them it aborts at the first token. Every
# CPU with those three has the rest of x86-64-v3 too: this level is the floor on x86_64, nothing lower would run.
_V3 = ("abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_V4_VNNI = (*_V4, "avx512_vnni")

# On aarch64 they need dotprod: a source that is not patched aborts on armv8.0-a in the same way.
_ARM = ("asimd", "fp")
# -march=armv8.2-a allows the compiler all that was optional before: crc32, atomics, asimdrdm.
_DOTPROD = (*_ARM, "asimddp", "asimdhp", "asimdrdm", "atomics", "crc32", "fphp")
_DOTPROD_MARCH = "-march=armv8.2-a+dotprod+fp16"
_MATRIX = ("smmla", "ummla", "usmmla", "bfdot", "bfmmla")

VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            name="x86-64-v3",
            architecture="x86_64",
            flags=("-march=x86-64-v3", "-mtune=haswell"),
            requires=_V3,
            rank=30,
            present=(Instruction("vpmaddubsw", "ymm"), Instruction("vpmaddwd", "ymm")),
            absent=("evex", "zmm", "tmm"),
            qemu_cpu="Haswell-noTSX",
            source=_PSABI,
        ),
        Variant(
            name="x86-64-v4-vnni",
            architecture="x86_64",
            flags=("-march=x86-64-v4", "-mavx512vnni", "-mtune=icelake-server"),
            requires=_V4_VNNI,
            rank=45,
            present=(Instruction("vpdpbusd", "zmm"),),
            absent=("tmm",),
            qemu_cpu=_NO_QEMU,
            source=f"{_PSABI}; {_INTEL} ECX bit 11",
        ),
        Variant(
            name="armv8.0-a",
            architecture="aarch64",
            flags=("-march=armv8-a", "-mtune=cortex-a53"),
            requires=_ARM,
            rank=10,
            present=(Instruction("smull", "v"),),
            absent=("z", "lse", "sdot", "udot", *_MATRIX),
            qemu_cpu="cortex-a53",
            source=_HWCAPS,
        ),
        Variant(
            name="armv8.2-a-dotprod",
            architecture="aarch64",
            flags=(_DOTPROD_MARCH, "-mtune=cortex-a76"),
            requires=_DOTPROD,
            rank=20,
            present=(Instruction("sdot", "v"),),
            absent=("z", *_MATRIX),
            qemu_cpu="cortex-a76",
            source=f"{_HWCAPS}; FEAT_DotProd and FEAT_FP16 of the Arm ARM",
        ),
    )
}

PLATFORMS = {"x86_64": "linux/amd64", "aarch64": "linux/arm64"}


def platform(architecture: str) -> str:
    """The platform of an architecture, as the OCI image index writes it."""
    try:
        return PLATFORMS[architecture]
    except KeyError:
        raise KernelError(f"architecture: {architecture!r} is none of {', '.join(PLATFORMS)}") from None


def by_architecture(names: list[str]) -> dict[str, list[str]]:
    """The names of variants under the architecture of each, in the order of the catalogue."""
    split: dict[str, list[str]] = {}
    for variant in choose(names):
        split.setdefault(variant.architecture, []).append(variant.name)
    return split


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
