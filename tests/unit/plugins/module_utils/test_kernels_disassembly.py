# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shutil
import subprocess

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue, disassembly
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError

V3, VNNI = catalogue.VARIANTS["x86-64-v3"], catalogue.VARIANTS["x86-64-v4-vnni"]
GOOD = """\
file hot/hot.o
12 vpmaddubsw ymm other
10 vpmaddwd ymm other
3 ret none other
file lib/libggml.so
needed libc.so.6
12 vpmaddubsw ymm other
file bin/server
needed libggml.so
needed libstdc++.so.6
"""


def test_a_good_build_is_described_by_counts():
    judged = disassembly.judge(V3, disassembly.parse(GOOD), ["hot.o"])
    assert judged["passed"]
    assert judged["required"] == {"vpmaddubsw ymm": 12, "vpmaddwd ymm": 10}
    assert judged["instructions"] == {"lib/libggml.so": 12}


def test_a_compiler_that_ignored_the_flags_is_caught():
    text = GOOD.replace("vpmaddubsw ymm", "pmaddubsw xmm")
    with pytest.raises(KernelError, match=r"holds no vpmaddubsw on ymm.*-march=x86-64-v3"):
        disassembly.judge(V3, disassembly.parse(text), ["hot.o"])


@pytest.mark.parametrize("line", ["1 vpaddd zmm evex", "1 vpdpbusd ymm evex", "7 tdpbssd tmm other"])
def test_an_instruction_that_the_cpu_need_not_have_is_refused(line):
    text = GOOD.replace("needed libc.so.6", f"needed libc.so.6\n{line}")
    with pytest.raises(KernelError, match=rf"lib/libggml.so holds \d times {line.split()[1]}"):
        disassembly.judge(V3, disassembly.parse(text), ["hot.o"])


def test_vnni_wants_its_dot_product_and_may_use_evex():
    good = "file hot/hot.o\n5 vpdpbusd zmm evex\nfile lib/libggml.so\n5 vpdpbusd zmm evex\n"
    assert disassembly.judge(VNNI, disassembly.parse(good), ["hot.o"])["required"] == {"vpdpbusd zmm": 5}
    with pytest.raises(KernelError, match="holds no vpdpbusd on zmm"):
        disassembly.judge(VNNI, disassembly.parse(GOOD), ["hot.o"])


def test_without_the_hot_object_nothing_is_proven():
    with pytest.raises(KernelError, match=r"no object 'other.o'"):
        disassembly.judge(V3, disassembly.parse(GOOD), ["other.o"])


def test_the_systems_libraries_are_those_not_built_here():
    seen = disassembly.parse(GOOD)
    assert disassembly.judge_linking(seen, {"libggml.so"}) == ["libc.so.6", "libstdc++.so.6"]


def test_a_search_path_that_is_baked_in_is_refused():
    seen = disassembly.parse(GOOD + "runpath /build/ggml\n")
    with pytest.raises(KernelError, match=r"bin/server has the search path '/build/ggml'"):
        disassembly.judge_linking(seen, set())


def counted(dump):
    done = subprocess.run(["awk", "-F", "\t", disassembly.AWK], input=dump, capture_output=True, text=True, check=True)
    return sorted(done.stdout.splitlines())


@pytest.mark.skipif(not shutil.which("awk"), reason="there is no awk here")
def test_awk_tells_registers_and_encodings_apart():
    dump = (
        "0000000000001000 <f>:\n"
        "    1000:\tc4 e2 6d 04 c1       \tvpmaddubsw %ymm1,%ymm2,%ymm0\n"
        "    1005:\t62 f2 6d 48 50 c1    \tvpdpbusd %zmm1,%zmm2,%zmm0\n"
        "    100b:\t62 f1 f5 28 d4 c0    \tvpaddq %ymm0,%ymm1,%ymm0\n"
        "    1011:\tc4 e2 6d 50 c1       \t{vex} vpdpbusd %ymm1,%ymm2,%ymm0\n"
        "    1016:\t48 b8 62 00 00 00 00 \tmovabs $0x62,%rax\n"
        "    101d:\t00 00 00 \n"
        "    1020:\tc3                   \tret\n"
    )
    assert counted(dump) == [
        "1 movabs none other",
        "1 ret none other",
        "1 vpaddq ymm evex",
        "1 vpdpbusd zmm evex",
        "1 vpmaddubsw ymm other",
        "1 {vex}vpdpbusd ymm other",
    ]


@pytest.mark.skipif(not shutil.which("awk"), reason="there is no awk here")
def test_awk_knows_the_vectors_of_arm_and_what_libgcc_guards():
    dump = (
        "0000000000000000 <_Z3dotv>:\n"
        "   0:\t4e829420 \tsdot\tv0.4s, v1.16b, v2.4b[0]\n"
        "   4:\t4e82a420 \tsmmla\tv0.4s, v1.16b, v2.16b\n"
        "   8:\t04a0e3e0 \tcntw\tx0\n"
        "   c:\t0420bc20 \tmovprfx\tz0, z1\n"
        "  10:\t44820020 \tsdot\tz0.s, z1.b, z2.b\n"
        "  14:\ta5404000 \tld1w\t{z0.s}, p0/z, [x0, z1.d, lsl #2]\n"
        "  18:\tb8e00041 \tldaddal\tw0, w1, [x2]\n"
        "  1c:\t94000000 \tbl\t0 <v1.constprop.0>\n"
        "  20:\t1e202000 \tfcmp\ts0, s0\n"
        "0000000000000024 <__aarch64_ldadd4_acq_rel>:\n"
        "  24:\tb8e00041 \tldaddal\tw0, w1, [x2]\n"
        "  28:\td65f03c0 \tret\n"
    )
    assert counted(dump) == [
        "1 bl none other",
        "1 cntw none other",
        "1 fcmp none other",
        "1 ld1w z other",
        "1 ldaddal none guarded",
        "1 ldaddal none lse",
        "1 movprfx z other",
        "1 ret none guarded",
        "1 sdot v other",
        "1 sdot z other",
        "1 smmla v other",
    ]


def test_atomics_that_libgcc_guards_are_no_fault():
    plain = catalogue.VARIANTS["armv8.0-a"]
    text = "file hot/hot.o\n5 smull v other\nfile lib/libggml.so\n3 ldaddal none guarded\n"
    assert disassembly.judge(plain, disassembly.parse(text), ["hot.o"])["passed"]
    with pytest.raises(KernelError, match=r"lib/libggml\.so holds 3 times ldaddal"):
        disassembly.judge(plain, disassembly.parse(text.replace("guarded", "lse")), ["hot.o"])
