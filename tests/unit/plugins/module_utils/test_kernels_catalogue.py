# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue, disassembly
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError

ALL = list(catalogue.VARIANTS.values())
REGISTERS = {"x86_64": {"zmm", "ymm", "xmm", "tmm", "none"}, "aarch64": {"z", "v", "none"}}


@pytest.mark.parametrize("variant", ALL, ids=lambda variant: variant.name)
def test_every_variant_is_whole(variant):
    assert variant.architecture in catalogue.PLATFORMS
    assert variant.flags[0].startswith("-march=") and variant.flags[-1].startswith("-mtune=")
    assert variant.requires and len(set(variant.requires)) == len(variant.requires)
    assert variant.present and variant.source
    assert {item.register for item in variant.present} <= REGISTERS[variant.architecture]


@pytest.mark.parametrize("architecture", catalogue.PLATFORMS)
def test_a_better_variant_never_asks_for_less(architecture):
    variants = [variant for variant in ALL if variant.architecture == architecture]
    assert len({variant.rank for variant in variants}) == len(variants)
    for low, high in itertools.permutations(variants, 2):
        if set(low.requires) < set(high.requires):
            assert low.rank < high.rank, f"{high.name} needs more than {low.name}"
        assert set(low.requires) != set(high.requires)


def test_no_cpu_has_the_features_of_both_architectures():
    for low, high in itertools.product(ALL, ALL):
        if low.architecture != high.architecture:
            assert not set(low.requires) <= set(high.requires)


def test_the_variants_that_were_built_before_are_built_the_same_way():
    """Their flags and instructions are part of the cache's keys."""
    v3, vnni = catalogue.VARIANTS["x86-64-v3"], catalogue.VARIANTS["x86-64-v4-vnni"]
    assert (v3.flags, v3.absent) == (("-march=x86-64-v3", "-mtune=haswell"), ("evex", "zmm", "tmm"))
    assert vnni.flags == ("-march=x86-64-v4", "-mavx512vnni", "-mtune=icelake-server")
    assert vnni.absent == ("tmm",)


def test_names_are_split_by_architecture_in_the_order_of_the_catalogue():
    names = ["armv8.2-a-dotprod", "x86-64-v4-vnni", "armv8.0-a", "x86-64-v3"]
    assert catalogue.by_architecture(names) == {
        "x86_64": ["x86-64-v3", "x86-64-v4-vnni"],
        "aarch64": ["armv8.0-a", "armv8.2-a-dotprod"],
    }
    with pytest.raises(KernelError, match="'pentium' is not in the catalogue"):
        catalogue.by_architecture(["pentium"])


def test_platforms_are_those_of_the_image_index():
    assert [catalogue.platform(name) for name in ("x86_64", "aarch64")] == ["linux/amd64", "linux/arm64"]
    with pytest.raises(KernelError, match="architecture: 'riscv64' is none of x86_64, aarch64"):
        catalogue.platform("riscv64")


@pytest.mark.parametrize(
    ("name", "line", "found"),
    [
        ("armv8.0-a", "3 sdot v other", "sdot"),
        ("armv8.0-a", "3 add z other", "add"),
        ("armv8.2-a-dotprod", "3 smmla v other", "smmla"),
        ("armv8.2-a-dotprod", "3 whilelo z other", "whilelo"),
    ],
)
def test_on_aarch64_instructions_are_forbidden_by_mnemonic_or_register(name, line, found):
    variant = catalogue.VARIANTS[name]
    needed = "\n".join(f"1 {item.mnemonic} {item.register} other" for item in variant.present)
    text = f"file hot/gemm.o\n{needed}\nfile lib/libggml.so\n5 ret none other\n"
    assert disassembly.judge(variant, disassembly.parse(text), ["gemm.o"])["passed"]
    with pytest.raises(KernelError, match=f"{name} is refused: lib/libggml.so holds 3 times {found}"):
        disassembly.judge(variant, disassembly.parse(f"{text}{line}\n"), ["gemm.o"])
