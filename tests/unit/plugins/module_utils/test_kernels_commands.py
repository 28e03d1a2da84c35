# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue, commands
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.progress import Progress

V3 = catalogue.VARIANTS["x86-64-v3"]


def test_the_variants_flags_alone_decide():
    command = commands.configure(V3)
    assert "-DGGML_ARCH_FLAGS=-march=x86-64-v3;-mtune=haswell" in command
    for name in ("NATIVE", "AVX", "AVX2", "FMA", "F16C"):
        assert f"-DGGML_{name}=OFF" in command


def test_no_search_path_is_baked_in():
    assert "-DCMAKE_SKIP_RPATH=ON" in commands.configure(V3)


def test_the_script_is_one_that_sh_understands():
    script = commands.build_script(V3, ["server"], ["ggml"], ["hot.o"], 2)
    assert subprocess.run(["sh", "-n"], input=script, text=True, check=False).returncode == 0
    assert "--parallel 2 --target ggml server" in script


def test_names_are_quoted():
    script = commands.build_script(V3, ["a; touch /tmp/x"], ["b"], [], 1)
    assert "'a; touch /tmp/x'" in script


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[37/112] Building CXX object a.o", ("[37/112]", 37 / 112)),
        ("@phase compile", ("compile", 0.0)),
        ("warning: [1/2] is not at the start", None),
        ("-- Configuring done", None),
    ],
)
def test_what_a_line_says_about_progress(line, said):
    assert commands.progress_of(line) == said


def test_the_toolchain_is_read_from_its_lines():
    found = commands.parse_toolchain("compiler c++ (Debian 12) 12.2.0\nlibc glibc 2.36\n\n")
    assert found == {"compiler": "c++ (Debian 12) 12.2.0", "libc": "glibc 2.36"}


def test_a_failures_excerpt_begins_where_it_failed():
    log = "\n".join([f"[{number}/99] fine" for number in range(60)] + ["FAILED: a.o", "a.c:1: error: no"])
    assert commands.excerpt(log) == "FAILED: a.o\na.c:1: error: no"
    assert commands.excerpt("a\nb\nc", lines=2) == "b\nc"


def test_progress_is_told_in_tenths_and_quarters_of_a_minute(tmp_path):
    now = [0.0]
    progress = Progress(str(tmp_path / "lines"), clock=lambda: now[0])
    progress.begin("v3")
    for done in range(1, 101):
        progress.saw(f"[{done}/100] x")
    now[0] = 20
    progress.begin("v4")
    progress.saw("[1/100] x")
    now[0] = 36
    progress.saw("[2/100] x")
    progress.end()
    lines = (tmp_path / "lines").read_text().splitlines()
    assert 10 <= len([line for line in lines if line.startswith("v3")]) <= 12
    assert lines[-2:] == ["v4 [2/100] 16 s", "end"]


def test_progress_that_cannot_be_written_does_not_stop_the_build(tmp_path):
    progress = Progress(str(tmp_path / "missing" / "lines"))
    progress.say("anything")
    progress.end()
    assert not (tmp_path / "missing").exists()
