# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue, commands
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.plan import Wanted
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.progress import Progress

V3, DOTPROD = catalogue.VARIANTS["x86-64-v3"], catalogue.VARIANTS["armv8.2-a-dotprod"]


def wanted(variant=V3, **options):
    options = {"programs": ["server"], "libraries": ["ggml"], "hot_objects": ["hot.o"], "toolchain": {}, **options}
    return Wanted(source={}, variants=[variant], **options)


def script(*arguments, with_programs=True, **options):
    want = wanted(*arguments, **options)
    return commands.build_script(want, want.variants[0], with_programs, 2)


def test_the_variants_flags_alone_decide():
    command = commands.configure(wanted(), V3)
    assert "-DGGML_ARCH_FLAGS=-march=x86-64-v3;-mtune=haswell" in command
    for name in ("NATIVE", "AVX", "AVX2", "FMA", "F16C"):
        assert f"-DGGML_{name}=OFF" in command


def test_no_search_path_is_baked_in():
    assert "-DCMAKE_SKIP_RPATH=ON" in commands.configure(wanted(), V3)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"with_programs": False},
        {"toolchain": {"target": "aarch64-linux-gnu"}},
        {"backend": "cargo"},
        {"backend": "command", "generate": (("sh", "-c", "echo 'it''s'"),), "build": (("make", "-j2"), ("true",))},
    ],
)
def test_the_script_is_one_that_sh_understands(options):
    assert subprocess.run(["sh", "-n"], input=script(**options), text=True, check=False).returncode == 0


def test_programs_are_built_once():
    assert "--parallel 2 --target ggml server\n" in script()
    assert "--parallel 2 --target ggml\n" in script(with_programs=False)
    assert "one server;" not in script(with_programs=False)


def test_names_are_quoted():
    assert "'a; touch /tmp/x'" in script(programs=["a; touch /tmp/x"])


def test_a_cross_compiler_is_used_throughout():
    cross = {"target": "aarch64-linux-gnu"}
    command = commands.configure(wanted(DOTPROD, toolchain=cross), DOTPROD)
    assert "-DCMAKE_SYSTEM_PROCESSOR=aarch64" in command
    assert "-DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++" in command
    assert not [word for word in commands.configure(wanted(), V3) if "CMAKE_SYSTEM" in word]
    text = script(DOTPROD, toolchain=cross)
    for tool in ("objdump -d", "objdump -p", "strip --strip-unneeded"):
        assert text.count(tool) == text.count(f"aarch64-linux-gnu-{tool}") == 1


def test_what_is_guarded_is_seen_before_names_are_stripped():
    assert script().index("objdump -d") < script().index("strip --strip-unneeded")


def test_which_compiler_it_takes():
    assert commands.cross_target("x86_64", "x86_64", "cmake") == ""
    assert commands.cross_target("aarch64", "aarch64", "cargo") == ""
    assert commands.cross_target("x86_64", "aarch64", "cmake") == "aarch64-linux-gnu"
    with pytest.raises(
        KernelError, match="for x86_64, and kernel_build on aarch64 does not compile for that; run it on"
    ):
        commands.cross_target("aarch64", "x86_64", "cmake")
    with pytest.raises(KernelError, match="backend=cargo compiles only for the machine that it runs on"):
        commands.cross_target("x86_64", "aarch64", "cargo")


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("x86-64-v3", "-C target-cpu=x86-64-v3"),
        ("x86-64-v4-vnni", "-C target-cpu=x86-64-v4 -C target-feature=+avx512vnni"),
        ("armv8.0-a", "-C target-cpu=generic"),
        ("armv8.2-a-dotprod", "-C target-cpu=generic -C target-feature=+v8.2a,+dotprod,+fullfp16"),
    ],
)
def test_rust_takes_the_same_flags_by_other_names(name, flags):
    assert commands.rust_flags(catalogue.VARIANTS[name]) == flags


def test_the_steps_of_a_command_run_in_their_order_with_the_variants_flags():
    text = script(
        DOTPROD, backend="command", generate=(("gen", "--for", "a b"),), build=(("make",), ("make", "install")),
        toolchain={"target": "aarch64-linux-gnu"},
    )  # fmt: skip
    assert "gen --for 'a b'\necho '@phase compile'\nmake\necho '@phase compile'\nmake install\n" in text
    assert f"CFLAGS='-O3 {' '.join(DOTPROD.flags)}'" in text
    assert "CXX='ccache aarch64-linux-gnu-g++'" in text
    assert 'one server; cp "$found" /out/lib/' in text


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


@pytest.mark.skipif(not shutil.which("c++") or not shutil.which("ccache"), reason="there is no compiler here")
def test_the_look_at_the_toolchain_names_it():
    done = subprocess.run(
        ["sh", "-c", commands.toolchain_script("command", "")], capture_output=True, text=True, check=True
    )
    found = commands.parse_toolchain(done.stdout)
    assert re.fullmatch(r"glibc 2\.\d+", found["libc"])
    assert set(found) == {"compiler", "linker", "libc", "machine"}


@pytest.mark.parametrize(
    ("backend", "target", "missing"),
    [("cmake", "", "c++"), ("cmake", "aarch64-linux-gnu", "aarch64-linux-gnu-g++"), ("cargo", "", "c++")],
)
def test_a_compiler_that_is_missing_is_named(tmp_path, backend, target, missing):
    script = commands.toolchain_script(backend, target)
    done = subprocess.run(
        ["/bin/sh", "-c", script], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)}
    )
    assert done.returncode == 3
    assert commands.parse_toolchain(done.stdout) == {"missing": missing}


def test_the_toolchain_is_read_from_its_lines():
    found = commands.parse_toolchain("compiler c++ (Debian 12) 12.2.0\nlibc glibc 2.36\n\n")
    assert found == {"compiler": "c++ (Debian 12) 12.2.0", "libc": "glibc 2.36"}


def test_a_failures_excerpt_begins_where_it_failed():
    log = "\n".join([f"[{number}/99] fine" for number in range(60)] + ["FAILED: a.o", "a.c:1: error: no"])
    assert commands.excerpt(log) == "FAILED: a.o\na.c:1: error: no"
    assert commands.excerpt("a\nb\nc", lines=2) == "b\nc"
    assert commands.excerpt("   Compiling a\nerror[E0425]: no\nthere") == "error[E0425]: no\nthere"


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
