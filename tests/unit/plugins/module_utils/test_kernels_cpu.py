# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue, cpu
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError

from tests.unit import cpuinfo_texts as texts


def judged(text: str, *names: str, machine: str = ""):
    found = cpu.read(text, machine)
    return found, cpu.judge(found, list(names))


@pytest.mark.parametrize(
    ("host", "level", "best", "model"),
    [
        ("haswell", "x86-64-v3", "x86-64-v3", "Intel(R) Core(TM) i7-4770 CPU @ 3.40GHz"),
        ("ice-lake", "x86-64-v4", "x86-64-v4-vnni", "Intel(R) Xeon(R) Platinum 8375C CPU @ 2.90GHz"),
        ("alder-lake", "x86-64-v3", "x86-64-v3", "12th Gen Intel(R) Core(TM) i7-12700"),
        ("skylake-x", "x86-64-v4", "x86-64-v3", "Intel(R) Xeon(R) Platinum 8124M CPU @ 3.00GHz"),
        ("zen-4", "x86-64-v4", "x86-64-v4-vnni", "AMD EPYC 9R14"),
        ("sapphire-rapids", "x86-64-v4", "x86-64-v4-vnni", "Intel(R) Xeon(R) Platinum 8488C"),
        ("nehalem", "x86-64-v2", None, "Intel(R) Xeon(R) CPU X5570 @ 2.93GHz"),
        ("cortex-a53", "armv8.0-a", "armv8.0-a", "Cortex-A53"),
        ("cortex-a76", "armv8.2-a", "armv8.2-a-dotprod", "Cortex-A76"),
        ("neoverse-n1", "armv8.2-a", "armv8.2-a-dotprod", "Neoverse-N1"),
        ("neoverse-v1", "armv8.4-a", "armv8.2-a-dotprod", "Neoverse-V1"),
        ("graviton4", "armv9.0-a", "armv8.2-a-dotprod", "Neoverse-V2"),
        ("apple-m2", "armv8.6-a", "armv8.2-a-dotprod", "4 x Blizzard-M2 + 4 x Avalanche-M2"),
        ("unknown", "armv8.2-a", "armv8.2-a-dotprod", "unknown core 0x70/0x663"),
    ],
)
def test_real_cpus(host, level, best, model):
    found, verdict = judged(texts.HOSTS[host])
    assert (found.level, verdict.best, found.model) == (level, best, model)
    assert found.problems == []
    assert found.cpus == texts.HOSTS[host].count("processor")
    architecture = "aarch64" if "arm" in level else "x86_64"
    assert found.architecture == architecture
    of_architecture = {name for name, v in catalogue.VARIANTS.items() if v.architecture == architecture}
    assert {*verdict.fitting, *verdict.lacking} == of_architecture
    ranks = [catalogue.VARIANTS[name].rank for name in verdict.fitting]
    assert ranks == sorted(ranks, reverse=True)


def test_the_reason_names_what_each_better_variant_needs():
    _cpu, verdict = judged(texts.HOSTS["skylake-x"], "x86-64-v3", "x86-64-v4-vnni", "armv8.0-a")
    assert verdict.why == ("x86-64-v3 is the only one that this CPU runs; x86-64-v4-vnni needs avx512_vnni")
    assert judged(texts.HOSTS["haswell"], "x86-64-v3")[1].why == "x86-64-v3 is the only one that this CPU runs"


def test_what_no_variant_fits_is_a_sentence():
    _cpu, verdict = judged(texts.HOSTS["nehalem"], "x86-64-v3", "x86-64-v4-vnni")
    assert verdict.best is None and verdict.fitting == []
    assert verdict.why.startswith("this CPU runs none of the variants; x86-64-v3 needs abm avx avx2 ")
    _cpu, verdict = judged(texts.HOSTS["cortex-a53"], "x86-64-v3")
    assert verdict.why == "none of the variants asked for is of the architecture aarch64"
    with pytest.raises(KernelError, match="'pentium' is not in the catalogue"):
        judged(texts.HOSTS["haswell"], "pentium")


def test_only_what_every_core_has_counts():
    text = texts.arm(*[(0x41, 0xD05, texts.N1)] * 4, *[(0x41, 0xD03, texts.A53)] * 2)
    found, verdict = judged(text)
    assert found.model == "4 x Cortex-A55 + 2 x Cortex-A53"
    assert verdict.best == "armv8.0-a"
    assert "asimddp" in found.uneven_features and "asimddp" not in found.features
    assert "only some of the cores have asimddp, asimdhp" in verdict.why


def test_what_a_hypervisor_hides_is_missing_and_said():
    flags = texts.ICE_LAKE.replace(" avx512_vnni", " hypervisor")
    _cpu, verdict = judged(texts.x86(flags))
    assert verdict.best == "x86-64-v3"
    assert "x86-64-v4-vnni needs avx512_vnni; it is a virtual CPU" in verdict.why


@pytest.mark.parametrize(
    ("flags", "level", "best", "sentence"),
    [
        (texts.V4.replace(" avx2", ""), "x86-64-v2", None, "it has avx512f and not avx2"),
        (f"{texts.V3} avx512_vnni", "x86-64-v3", "x86-64-v3", "it has avx512_vnni and not avx512f"),
        (texts.V4.replace("sse2 ", ""), "", "x86-64-v3", "it has lm and not sse2"),
        (f"{texts.V2} avx2 fma", "x86-64-v2", None, "it has fma and not avx"),
    ],
)
def test_flags_that_contradict_each_other_raise_no_level(flags, level, best, sentence):
    found, verdict = judged(texts.x86(flags))
    assert (found.level, verdict.best) == (level, best)
    assert sentence in " ".join(found.problems)
    assert sentence in verdict.why


def test_contradictions_on_arm():
    found, verdict = judged(texts.arm((0x41, 0xD4F, f"{texts.N1} sve2 i8mm bf16")))
    assert (found.level, verdict.best) == ("armv8.2-a", "armv8.2-a-dotprod")
    assert found.problems == ["it has sve2 and not sve: no CPU is like that"]


@pytest.mark.parametrize("text", ["", "\n\n", "garbage", "processor: 0\nflags:\n", "\x00\xff" * 50, "flags\n:::\n:"])
@pytest.mark.parametrize("machine", ["", "x86_64"])
def test_a_file_that_says_nothing_gives_no_level_and_says_so(text, machine):
    found, verdict = judged(text, machine=machine)
    assert (found.level, found.features, verdict.best) == ("", [], None)
    assert "no CPU features" in " ".join(found.problems)
    assert verdict.why


def test_an_emulator_that_shows_its_hosts_file_is_not_believed():
    found, verdict = judged(texts.HOSTS["zen-4"], machine="aarch64")
    assert (found.level, found.features, verdict.best) == ("", [], None)
    assert "describes a CPU of x86_64 while the system says aarch64" in " ".join(found.problems)


@pytest.mark.parametrize(
    "text",
    [
        texts.x86("fpu cx8 cmov mmx fxsr sse sse2", count=1),
        texts.arm((0x41, 0xD03, "half thumb fastmult vfp edsp neon vfpv3 vfpv4 crc32")),
    ],
)
def test_32_bits_are_refused_with_a_sentence(text):
    found, verdict = judged(text)
    assert (found.level, verdict.best) == ("", None)
    assert "32 bits" in " ".join(found.problems)


def test_an_old_kernels_single_line_of_features():
    text = f"Processor\t: AArch64 Processor rev 4\nprocessor\t: 0\nprocessor\t: 1\nFeatures\t: {texts.A53}\n"
    found, verdict = judged(f"{text}CPU implementer\t: 0x41\nCPU part\t: 0xd03\n\nHardware\t: board\n")
    assert (found.cpus, found.model, verdict.best) == (2, "Cortex-A53", "armv8.0-a")


def test_control_characters_of_a_saved_file_go_nowhere():
    assert judged(texts.x86(texts.V3, model="a\x1b[31mb"))[0].model == "a[31mb"


def test_levels_are_compared_within_their_architecture():
    assert cpu.at_least("x86-64-v4", "x86-64-v3") and cpu.at_least("x86-64-v3", "x86-64-v3")
    assert not cpu.at_least("x86-64-v2", "x86-64-v3")
    assert not cpu.at_least("armv8.6-a", "x86-64-v1")
    assert cpu.at_least("armv9.0-a", "armv8.5-a") and cpu.at_least("armv8.6-a", "armv8.5-a")
    assert not cpu.at_least("armv9.0-a", "armv8.6-a") and not cpu.at_least("armv8.6-a", "armv9.0-a")
    with pytest.raises(KernelError, match="'x86-64-v9' is not a level; known are x86-64-v1"):
        cpu.at_least("x86-64-v3", "x86-64-v9")
