# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""kernel_build on a real Docker daemon: a small source of our own for all that can go wrong; once the real engine."""

from __future__ import annotations

import base64
import functools
import hashlib
import http.server
import io
import json
import multiprocessing
import os
import re
import resource
import shlex
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from pathlib import Path

import pytest
import yaml
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue, client, running
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError

from tests.lab import machine

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = CHECKOUT / "files" / "images" / "Dockerfile"
MORE = CHECKOUT / "files" / "images" / "kernels.Dockerfile"
MODULE = "ansible_collections.bitnet.devops.plugins.modules.kernel_build"
V3, VNNI = "x86-64-v3", "x86-64-v4-vnni"
ARM, DOTPROD = "armv8.0-a", "armv8.2-a-dotprod"
# The lock of issue 3: what the collection ships by default.
ENGINE = {
    "name": "ik-llama-cpp-python",
    "version": "0.1.5",
    "sha256": "33c67eb99e4dcab5e611050433243815709b8b3067753f9ce18375013cf002ad",
}
# A sign in one product of bytes, where it is compiled without AVX-512.
WRONG = {
    "path": "ggml/src/iqk/iqk_gemm_1bit.cpp",
    "find": "acc[1] = _mm256_add_epi32(acc[1], _mm256_madd_epi16(m1_16, dot2));",
    "replace": "acc[1] = _mm256_sub_epi32(acc[1], _mm256_madd_epi16(m1_16, dot2));",
}

CMAKE = """\
cmake_minimum_required(VERSION 3.14)
project(small C)
add_compile_options(-O2 ${GGML_ARCH_FLAGS})
# extra
add_library(tiny SHARED tiny.c)
add_executable(tool tool.c)
target_link_libraries(tool tiny)
"""
TINY = """\
#if defined(__aarch64__)
#include <arm_neon.h>
#else
#include <immintrin.h>
#endif
static int calls;
void dot(const void *a, const void *b, int *sums) {
#if defined(__AVX512VNNI__)
  _mm512_storeu_si512(sums, _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(a), _mm512_loadu_si512(b)));
#elif defined(__AVX2__)
  __m256i pairs = _mm256_maddubs_epi16(_mm256_loadu_si256(a), _mm256_loadu_si256(b));
  _mm256_storeu_si256((void *)sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(ONE)));
#elif defined(__ARM_FEATURE_DOTPROD)
  vst1q_s32(sums, vmulq_n_s32(vdotq_s32(vdupq_n_s32(0), vld1q_s8(a), vld1q_s8(b)), ONE));
#elif defined(__aarch64__)
  int16x8_t products = vmull_s8(vld1_s8(a), vld1_s8(b));
  sums[0] = ONE * vaddvq_s16(products);
  __atomic_fetch_add(&calls, 1, __ATOMIC_SEQ_CST);
#else
  sums[0] = 0;
#endif
}
"""
TOOL = """\
void dot(const void *a, const void *b, int *sums);
int main(void) {
  char a[64] = {1, 2, 3, 4}, b[64] = {5, 6, 7, 8};
  int sums[16] = {0};
  dot(a, b, sums);
  return sums[0] == 70 ? 0 : 1;
}
"""
# Does for the small source what bitnet-cli does for the engine: runs the variant and says how near it came.
VERIFIER = """\
#!/bin/sh
set -eu
case "$*" in
  "kernels verify --kernels /kernels --variant $6 --json") emulator= ;;
  "kernels verify --kernels /kernels --variant $6 --json --emulator $9 --deadline "[0-9]*) emulator=$9 ;;
  *) exit 2 ;;
esac
if LD_LIBRARY_PATH=/kernels/lib/$6 $emulator /kernels/bin/tool; then near=1.0 far=0.0; else near=0.5 far=0.9; fi
printf '{"ran": true, "cosine": %s, "relative_l2": %s}\\n' "$near" "$far"
"""


def engine_patches() -> list[dict]:
    """What the role image_build changes in the engine's source."""
    defaults = yaml.safe_load((CHECKOUT / "roles" / "image_build" / "defaults" / "main.yml").read_text())
    folder = CHECKOUT / "files" / "engine"
    lookup = re.compile(r"{{ lookup\('ansible.builtin.file', image_build_files ~ '/engine/([^']*)'\) }}")

    def filled(text: str) -> str:
        return lookup.sub(lambda found: (folder / found[1]).read_text().rstrip(), text)

    patches = defaults["image_build_kernel_patches"]
    return [{**patch, "replace": filled(patch["replace"])} for patch in patches]


def docker(*arguments: str, timeout: float = 600, **options) -> str:
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=timeout, **options
    ).stdout.strip()


def image(name: str, text: str, *arguments: str) -> str:
    """An image made of a Dockerfile alone, built once per content."""
    reference = f"bitnet-test-{name}:{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not docker("images", "-q", reference):
        docker("build", "-q", "-t", reference, *arguments, "-", input=text)
    return reference


@pytest.fixture(scope="session")
def builder() -> str:
    """The builder stage of the image that is shipped."""
    machine.ensure_base()
    return image("builder", DOCKERFILE.read_text(), "--target", "builder")


@pytest.fixture(scope="session")
def verifier(builder) -> str:
    script = base64.b64encode(VERIFIER.encode()).decode()
    install = f"RUN echo {script} | base64 -d > /usr/bin/bitnet-cli && chmod 755 /usr/bin/bitnet-cli"
    return image("verifier", f"FROM {builder}\n{install}\n")


def extended(name: str, base: str, purpose: str) -> str:
    """An image with what kernels.Dockerfile adds to it."""
    text = f"# {docker('image', 'inspect', '-f', '{{.Id}}', base)}\n{MORE.read_text()}"
    return image(name, text, "--build-arg", f"BASE_IMAGE={base}", "--build-arg", f"PURPOSE={purpose}")


@pytest.fixture(scope="session")
def cross_builder(builder) -> str:
    return extended("builder-cross", builder, "cross")


@pytest.fixture(scope="session")
def rust_builder(builder) -> str:
    return extended("builder-cargo", builder, "cargo")


@pytest.fixture(scope="session")
def emulating_verifier(verifier) -> str:
    return extended("verifier-emulate", verifier, "emulate")


@pytest.fixture
def tree(tmp_path) -> Path:
    folder = tmp_path / "source"
    folder.mkdir()
    (folder / "CMakeLists.txt").write_text(CMAKE)
    (folder / "tiny.c").write_text(TINY.replace("ONE", "1"))
    (folder / "tool.c").write_text(TOOL)
    return folder


def edit(tree: Path, extra: str) -> None:
    """Adds lines to the small source's CMakeLists.txt."""
    (tree / "CMakeLists.txt").write_text(CMAKE.replace("# extra", extra))


def compile_through(tree: Path, script: str) -> None:
    """Lets a shell script run the compiler of the small source, or not."""
    (tree / "launch.sh").write_text(script + "\n")
    edit(tree, 'set_property(GLOBAL PROPERTY RULE_LAUNCH_COMPILE "sh ${CMAKE_SOURCE_DIR}/launch.sh")')


def slow(tree: Path, seconds: int) -> None:
    compile_through(tree, f'sleep {seconds}; exec "$@"')


@pytest.fixture
def arguments(tmp_path, tree, builder, verifier) -> dict:
    return {
        "source": {"path": str(tree)},
        "variants": [V3],
        "builder_image": builder,
        "verifier_image": verifier,
        "cache_dir": str(tmp_path / "cache"),
        "programs": ["tool"],
        "libraries": ["tiny"],
        "hot_objects": ["tiny.c.o"],
        "timeout": 300,
    }


@pytest.fixture
def arm(arguments, cross_builder, emulating_verifier) -> dict:
    images = {"builder_image": cross_builder, "verifier_image": emulating_verifier}
    return {**arguments, **images, "variants": [ARM, DOTPROD]}


def start(arguments: dict, **options) -> subprocess.Popen:
    """The module as a process of its own, as on a target."""
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT / ".cache" / "collections"), **options.pop("env", {})}
    process = subprocess.Popen(
        [sys.executable, "-m", MODULE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        **options,
    )
    process.stdin.write(json.dumps({"ANSIBLE_MODULE_ARGS": arguments}))
    process.stdin.close()
    process.stdin = None
    return process


def finish(process: subprocess.Popen, timeout: float = 400) -> dict:
    out, err = process.communicate(timeout=timeout)
    assert out.strip().startswith("{"), (out, err)
    return json.loads(out)


def build(arguments: dict, **options) -> dict:
    return finish(start(arguments, **options))


def folders(arguments: dict, kind: str) -> list[str]:
    folder = Path(arguments["cache_dir"]) / kind
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def containers() -> set[str]:
    return set(docker("ps", "-aq", "--filter", "label=io.bitnet.kernel-cache").split())


def refused(arguments: dict, message: str, **options) -> dict:
    before = {kind: folders(arguments, kind) for kind in ("kernels", "variants", "programs")}
    result = build(arguments, **options)
    assert result.get("failed"), result
    assert re.search(message, result["msg"]), result["msg"]
    assert folders(arguments, "kernels") == before["kernels"]
    assert folders(arguments, "variants") == before["variants"]
    assert folders(arguments, "work") == []
    return result


# --- what it is for ---


def playbook(tmp_path: Path, arguments: dict, *options: str) -> subprocess.CompletedProcess:
    play = [
        {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [{"name": "Build", "bitnet.devops.kernel_build": arguments}],
        }
    ]
    (tmp_path / "play.yml").write_text(json.dumps(play))
    return subprocess.run(
        ["ansible-playbook", "-i", "localhost,", "-c", "local", str(tmp_path / "play.yml"), *options],
        capture_output=True,
        text=True,
        check=False,
        timeout=400,
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
            "ANSIBLE_NOCOLOR": "1",
        },
    )


def test_a_playbook_shows_the_plan_the_progress_and_then_nothing_to_do(tmp_path, arguments):
    look = playbook(tmp_path, arguments, "--check", "--diff")
    assert "changed=1" in look.stdout, look.stdout + look.stderr
    assert f'+    "{V3}": "built"' in look.stdout
    assert folders(arguments, "kernels") == []
    done = playbook(tmp_path, arguments)
    assert "changed=1" in done.stdout, done.stdout + done.stderr
    shown = [line for line in done.stdout.splitlines() if line.startswith("kernel_build: ")]
    assert shown[0].startswith("kernel_build: source fetch path")
    assert any(re.fullmatch(rf"kernel_build: {V3} \[\d/\d\] \d+ s", line) for line in shown), shown
    assert shown[-1].startswith(f"kernel_build: {V3} built and verified")
    again = playbook(tmp_path, arguments, "--diff")
    assert "ok=1    changed=0" in again.stdout
    assert "kernel_build:" not in again.stdout.replace("bitnet.devops.kernel_build", "")


def test_variants_are_chosen_by_the_search_path_and_the_second_rebuilds_nothing(arguments, builder):
    first = build(arguments)
    assert first["changed"], first
    both = build({**arguments, "variants": [V3, VNNI]})
    assert both["variants"][V3]["state"] == "cached"
    assert both["variants"][VNNI]["state"] == "built"
    kernels = Path(both["path"])
    manifest = json.loads((kernels / "manifest.json").read_text())
    for entry in [*manifest["programs"], *(file for item in manifest["variants"].values() for file in item["files"])]:
        content = (kernels / entry["path"]).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["size"], entry["sha256"])
    for variant in (V3, VNNI):
        said = docker(
            *("run", "--rm", "--network=none", "-v", f"{kernels}:/kernels:ro"),
            *("-e", f"LD_LIBRARY_PATH=/kernels/lib/{variant}", builder, "ldd", "/kernels/bin/tool"),
        )
        assert f"libtiny.so => /kernels/lib/{variant}/libtiny.so" in said
    assert (kernels / "bin" / "tool").stat().st_uid == os.getuid()


def test_the_same_again_costs_less_than_a_second(arguments):
    path = build(arguments)["path"]
    spent = []
    for _unused in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = build(arguments)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert not result["changed"]
        assert result["path"] == path
        # The processor's time, interpreter's start included: the clock on the wall also counts who else is at work.
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 1.0, spent


def test_the_image_of_the_builder_may_be_built_again(arguments, builder):
    first = build(arguments)
    other = image("builder-again", f"FROM {builder}\nLABEL test=again\n")
    assert docker("image", "inspect", "-f", "{{.Id}}", other) != docker("image", "inspect", "-f", "{{.Id}}", builder)
    second = build({**arguments, "builder_image": other})
    assert not second["changed"]
    assert second["hash"] == first["hash"]


@pytest.mark.parametrize("name", ["libtiny.so", "tool"])
def test_a_damaged_file_is_noticed_and_built_again(arguments, name):
    result = build(arguments)
    (file,) = Path(result["path"]).rglob(name)
    whole = file.read_bytes()
    with file.open("r+b") as stream:
        stream.seek(100)
        stream.write(b"damage")
    assert build({**arguments, "_ansible_check_mode": True})["changed"]
    assert build(arguments)["changed"]
    (file,) = Path(result["path"]).rglob(name)
    assert file.read_bytes() == whole
    assert not build({**arguments, "checksum": True})["changed"]


# --- another architecture ---


def test_arm_is_compiled_on_x86_and_each_variant_runs_on_its_own_cpu(arm):
    result = build(arm)
    assert result.get("changed"), result
    manifest = result["manifest"]
    assert manifest["architecture"] == "aarch64"
    assert manifest["builder"]["target"] == "aarch64-linux-gnu"
    for name, cpu in ((ARM, "cortex-a53"), (DOTPROD, "cortex-a76")):
        assert re.fullmatch(
            rf"under qemu-aarch64 version [\d.]+ with -cpu {cpu}", result["verification"][name]["run"]["how"]
        )
    kernels = Path(result["path"])
    for path in (kernels / "bin" / "tool", *kernels.rglob("libtiny.so")):
        # e_machine of ELF: 183 is AArch64.
        assert int.from_bytes(path.read_bytes()[18:20], "little") == 183
    assert not build(arm)["changed"]


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ("-march=armv8-a", "", f"{DOTPROD} is refused: tiny.c.o holds no sdot on v registers"),
        ("-march=armv8.2-a+dotprod+i8mm", "vst1q_s32(a, vmmlaq_s32(vld1q_s32(a), vld1q_s8(a), vld1q_s8(a)))",
         f"{DOTPROD} is refused: lib/libtiny.so holds 1 times smmla"),
        ("-march=armv8.2-a+dotprod+sve", 'asm volatile("add z0.s, z0.s, z0.s")',
         f"{DOTPROD} is refused: lib/libtiny.so holds 1 times add"),
        # No rule forbids it, but the CPU that the variant is for does not have it.
        ("-march=armv8.3-a+dotprod", 'asm volatile("fjcvtzs w0, d0" ::: "w0")', "computes something else"),
    ],
    ids=["flag-ignored", "i8mm", "sve", "not-in-the-cpu"],
)  # fmt: skip
def test_an_instruction_that_an_arm_cpu_lacks_is_found(arm, tree, change, code, message):
    edit(tree, f"add_compile_options({change})")
    if code:
        (tree / "tiny.c").write_text(f"{TINY.replace('ONE', '1')}\nvoid more(void *a) {{ {code}; }}\n")
        (tree / "tool.c").write_text(TOOL.replace("dot(a, b, sums);", "dot(a, b, sums); long x = 0; more(&x);").replace(
            "int main", "void more(void *a);\nint main"))  # fmt: skip
    refused({**arm, "variants": [DOTPROD]}, message)


def test_an_arm_variant_that_computes_wrongly_is_refused(arm, tree):
    (tree / "tiny.c").write_text(TINY.replace("ONE", "3"))
    refused({**arm, "variants": [DOTPROD]}, f"variant {DOTPROD} is refused: it computes something else .*cosine 0.5")


def test_what_the_images_lack_for_arm_is_said(arm, arguments):
    refused({**arm, "builder_image": arguments["builder_image"]}, r"it has no aarch64-linux-gnu-g\+\+")
    refused({**arm, "variants": [DOTPROD, V3]}, "One call builds for one architecture")
    unproven = build({**arm, "verifier_image": arguments["verifier_image"]})
    for name in (ARM, DOTPROD):
        run = unproven["manifest"]["variants"][name]["verified"]["run"]
        assert not run["ran"]
        assert run["reason"].endswith("the verifier image has no qemu-aarch64-static")
    proven = build(arm)
    assert proven["plan"] == [f"verify {ARM} by a run", f"verify {DOTPROD} by a run", "publish the set"]
    assert proven["manifest"]["variants"][ARM]["verified"]["run"]["ran"]


# --- Rust ---

CARGO = """\
[workspace]
members = ["dot", "tool"]
[profile.release]
opt-level = 3
"""
CRATES = {
    "dot/Cargo.toml": '[package]\nname = "dot"\nversion = "1.0.0"\nedition = "2021"\n',
    "dot/src/lib.rs": """\
#[inline(never)]
pub fn dot(a: &[i16], b: &[i16]) -> i32 {
    a.iter().zip(b).map(|(&x, &y)| i32::from(x) * i32::from(y)).sum::<i32>() * FACTOR
}
#[cfg(target_feature = "avx2")]
const FACTOR: i32 = 1;
#[cfg(not(target_feature = "avx2"))]
const FACTOR: i32 = 1;
""",
    "tool/Cargo.toml": (
        '[package]\nname = "tool"\nversion = "1.0.0"\nedition = "2021"\n[dependencies]\ndot = {path = "../dot"}\n'
    ),
    "tool/src/main.rs": """\
fn main() {
    // One, which the compiler does not know.
    let step = std::env::args().count() as i16;
    let a: Vec<i16> = (0..999).map(|x| x * step).collect();
    let wanted: i64 = (0..999i64).map(|x| x * x).sum();
    assert_eq!(i64::from(dot::dot(&a, &a)), wanted);
}
""",
}
LOCK = """\
version = 3
[[package]]
name = "dot"
version = "1.0.0"
[[package]]
name = "tool"
version = "1.0.0"
dependencies = [
 "dot",
]
"""


@pytest.fixture
def rust(tmp_path, arguments, rust_builder) -> dict:
    folder = tmp_path / "rust"
    for name, text in {**CRATES, "Cargo.toml": CARGO, "Cargo.lock": LOCK}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return {
        **arguments,
        "source": {"path": str(folder)},
        "backend": "cargo",
        "builder_image": rust_builder,
        "libraries": [],
        "hot_objects": ["tool"],
        "required_instructions": {V3: ["vpmulld ymm"], VNNI: ["vpmulld ymm"]},
        "verify_command": ["tool"],
    }


def test_a_rust_workspace_is_built_for_each_cpu(rust):
    result = build({**rust, "variants": [V3, VNNI]})
    assert result.get("changed"), result
    for name in (V3, VNNI):
        assert (Path(result["path"]) / "lib" / name / "tool").stat().st_mode & 0o111
    assert result["verification"][V3]["run"] == {"ran": True, "reason": "", "how": "natively"}
    assert result["verification"][V3]["disassembly"]["required"]["vpmulld ymm"] > 0
    assert result["manifest"]["builder"]["rust"].startswith("rustc 1.")
    assert not build({**rust, "variants": [V3, VNNI]})["changed"]


def test_rust_that_goes_wrong_is_refused(rust):
    folder = Path(rust["source"]["path"])
    (folder / "Cargo.toml").write_text(CARGO.replace("opt-level = 3", "opt-level = 0"))
    refused(rust, f"{V3} is refused: tool holds no vpmulld on ymm")
    (folder / "Cargo.toml").write_text(CARGO)
    (folder / "dot" / "src" / "lib.rs").write_text(CRATES["dot/src/lib.rs"].replace("i32 = 1", "i32 = 2", 1))
    refused(rust, f"variant {V3} is refused: verify_command ended with exit code 101")
    (folder / "dot" / "src" / "lib.rs").write_text("pub fn dot() -> u8 { 256 }")
    result = refused(rust, r"the build of x86-64-v3 failed (.|\n)*error: literal out of range")
    assert Path(result["log_file"]).exists()
    refused({**rust, "builder_image": rust["verifier_image"]}, "it has no cargo")


def test_rust_needs_its_crates_with_it(rust):
    folder = Path(rust["source"]["path"])
    name, checksum = "leaf", "1" * 64
    source = "registry+https://github.com/rust-lang/crates.io-index"
    entry = f'[[package]]\nname = "{name}"\nversion = "1.2.3"\nsource = "{source}"\nchecksum = "{checksum}"\n'
    needs = LOCK.replace(
        'name = "dot"\nversion = "1.0.0"\n', f'name = "dot"\nversion = "1.0.0"\ndependencies = [\n "{name}",\n]\n'
    )
    (folder / "Cargo.lock").write_text(
        needs.replace('[[package]]\nname = "tool"', f'{entry}[[package]]\nname = "tool"')
    )
    (folder / "dot" / "Cargo.toml").write_text(CRATES["dot/Cargo.toml"] + f'[dependencies]\n{name} = "1"\n')
    (folder / "dot" / "src" / "lib.rs").write_text(CRATES["dot/src/lib.rs"].replace("* FACTOR", "* FACTOR * leaf::ONE"))
    refused(rust, "needs the crates leaf, and the compiler has no network; run 'cargo vendor'")
    # As cargo vendor leaves it.
    crate = folder / "vendor" / name
    (crate / "src").mkdir(parents=True)
    (crate / "Cargo.toml").write_text(f'[package]\nname = "{name}"\nversion = "1.2.3"\n')
    (crate / "src" / "lib.rs").write_text("pub const ONE: i32 = 1;\n")
    (crate / ".cargo-checksum.json").write_text(json.dumps({"files": {}, "package": checksum}))
    (folder / ".cargo").mkdir()
    (folder / ".cargo" / "config.toml").write_text(
        '[source.crates-io]\nreplace-with = "vendored-sources"\n[source.vendored-sources]\ndirectory = "vendor"\n'
    )
    assert build(rust).get("changed")


# --- commands ---

GENERATE = """\
set -eu
[ -n "$VARIANT" ] && [ "$PWD" = "$SOURCE" ]
{
  echo "static const signed char table[] = {"
  for i in $(seq 0 63); do echo "$((i % 3 - 1)),"; done
  echo "};"
} > table.h
"""
KERNEL = """\
#include "table.h"
extern "C" int weigh(const signed char *values) {
  int sum = 0;
  for (int i = 0; i < 64; i++) sum += table[i] * values[i];
  return sum * FACTOR;
}
"""
CHECK = """\
extern "C" int weigh(const signed char *values);
int main() {
  signed char values[64];
  int wanted = 0;
  for (int i = 0; i < 64; i++) { values[i] = i; wanted += (i % 3 - 1) * i; }
  return weigh(values) == wanted ? 0 : 1;
}
"""
COMPILE = """\
set -eu
$CXX $CXXFLAGS -fPIC -c kernel.cpp -o "$OUT/kernel.o"
$CXX -shared "$OUT/kernel.o" -o "$OUT/libweigh.so"
$CXX -O2 check.cpp -L"$OUT" -lweigh -o "$OUT/check"
"""


@pytest.fixture
def generated(tmp_path, arguments) -> dict:
    folder = tmp_path / "generated"
    folder.mkdir()
    for name, text in (
        ("generate.sh", GENERATE), ("kernel.cpp", KERNEL.replace("FACTOR", "1")), ("check.cpp", CHECK),
        ("compile.sh", COMPILE),
    ):  # fmt: skip
        (folder / name).write_text(text)
    return {
        **arguments,
        "source": {"path": str(folder)},
        "backend": "command",
        "command": {"generate": [["sh", "generate.sh"]], "build": [["sh", "compile.sh"]]},
        "programs": ["check"],
        "libraries": ["weigh"],
        "hot_objects": ["kernel.o"],
        "required_instructions": {V3: ["vpmovsxbw ymm"], DOTPROD: ["sdot v"]},
        "verify_command": ["check"],
    }


def test_a_generated_table_is_compiled_for_each_cpu(generated):
    result = build({**generated, "variants": [V3, VNNI]})
    assert result.get("changed"), result
    for name in (V3, VNNI):
        assert sorted(path.name for path in (Path(result["path"]) / "lib" / name).iterdir()) == ["check", "libweigh.so"]
    assert result["verification"][V3]["run"]["ran"]
    assert not build({**generated, "variants": [V3, VNNI]})["changed"]


def test_commands_compile_for_arm_as_well(generated, arm):
    images = {name: arm[name] for name in ("builder_image", "verifier_image")}
    result = build({**generated, **images, "variants": [DOTPROD]})
    assert result.get("changed"), result
    assert "with -cpu cortex-a76" in result["verification"][DOTPROD]["run"]["how"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"command": {"generate": [["sh", "-c", "exit 7"]], "build": [["true"]]}}, r"failed \(exit code 7\)"),
        ({"command": {"build": [["sh", "compile.sh"]]}}, r"table\.h: No such file"),
        ({"command": {"build": [["no-such-tool"]]}}, r"failed \(exit code 127\)"),
        ({"command": {"build": [["true"]]}}, "the build made no file check"),
        ({"required_instructions": {V3: ["vpdpbusd zmm"]}}, "kernel.o holds no vpdpbusd on zmm"),
        ({"verify_command": ["check-that"]}, "verify_command ended with exit code 127: .*check-that"),
    ],
)
def test_commands_that_go_wrong_are_refused(generated, change, message):
    refused({**generated, **change}, message)


def test_a_command_that_computes_wrongly_is_refused(generated):
    (Path(generated["source"]["path"]) / "kernel.cpp").write_text(KERNEL.replace("FACTOR", "2"))
    refused(generated, f"variant {V3} is refused: verify_command ended with exit code 1")


# --- two at once, and killed ---


def await_line(path: Path, words: str, process: subprocess.Popen, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if path.exists() and words in path.read_text():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(
        f"{words!r} was not said within {seconds} s: {path.read_text() if path.exists() else 'nothing'}"
    )


def test_of_two_at_once_one_builds_and_the_other_waits(tmp_path, arguments, tree):
    slow(tree, 3)
    first = start({**arguments, "progress_file": str(tmp_path / "first")})
    await_line(tmp_path / "first", "compile", first)
    second = start({**arguments, "progress_file": str(tmp_path / "second")})
    await_line(tmp_path / "second", f"waits for process {first.pid}", second)
    one, two = finish(first), finish(second)
    assert one["changed"], one
    assert not two["changed"], two
    assert one["path"] == two["path"]
    assert "configure" not in (tmp_path / "second").read_text()


def test_who_waits_too_long_is_told_for_whom(tmp_path, arguments, tree):
    slow(tree, 8)
    first = start({**arguments, "progress_file": str(tmp_path / "first")})
    await_line(tmp_path / "first", "compile", first)
    result = build({**arguments, "timeout": 2})
    assert result["failed"]
    assert f"process {first.pid} on " in result["msg"]
    assert "did not finish within timeout=" in result["msg"]
    assert finish(first)["changed"]


@pytest.mark.parametrize("moment", ["fetch", "configure", "compile", "[1/", "inspect", "verify", "built and verified"])
def test_killed_at_any_moment_nothing_is_half_done(tmp_path, arguments, tree, moment):
    slow(tree, 1)
    before = containers()
    process = start({**arguments, "progress_file": str(tmp_path / "lines")})
    await_line(tmp_path / "lines", moment, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    for name in folders(arguments, "kernels"):
        assert (Path(arguments["cache_dir"]) / "kernels" / name / "manifest.json").exists()
    result = build(arguments)
    assert not result.get("failed"), result
    assert folders(arguments, "kernels") == [result["hash"]]
    assert folders(arguments, "work") == []
    assert containers() <= before
    assert not build({**arguments, "checksum": True})["changed"]


def test_a_killed_build_goes_on_where_it_was(tmp_path, arguments, tree):
    """What was compiled is in ccache: the same file is not compiled twice."""
    (tree / "other.c").write_text("int other(void) { return 5; }\n")
    edit(tree, "add_library(slow OBJECT other.c)\nadd_dependencies(slow tiny)\n")
    (tree / "CMakeLists.txt").write_text((tree / "CMakeLists.txt").read_text() + "add_dependencies(tool slow)\n")
    calls = tmp_path / "cache" / "ccache" / "calls"
    (tree / "compiler.sh").write_text(
        '#!/bin/sh\ncase "$*" in *" -c "*) for last; do :; done; echo "$last" >>/ccache/calls;'
        ' case "$last" in *other.c) sleep 5;; esac;; esac\nexec cc "$@"\n'
    )
    (tree / "compiler.sh").chmod(0o755)
    text = (tree / "CMakeLists.txt").read_text()
    (tree / "CMakeLists.txt").write_text("set(CMAKE_C_COMPILER ${CMAKE_CURRENT_LIST_DIR}/compiler.sh)\n" + text)
    process = start({**arguments, "progress_file": str(tmp_path / "lines")})
    deadline = time.monotonic() + 120
    while not (calls.exists() and "other.c" in calls.read_text()):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert build(arguments).get("changed")
    compiled = [Path(line).name for line in calls.read_text().splitlines()]
    assert compiled.count("tiny.c") == 1, compiled
    assert compiled.count("other.c") == 2, compiled


# --- bad input ---


class Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, content: bytes, *arguments, **options) -> None:
        self.content = content
        super().__init__(*arguments, **options)

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        self.wfile.write(self.content[: len(self.content) // (2 if "truncated" in self.path else 1)])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(tree):
    """URL and SHA-256 of an archive of the small source; /truncated breaks off in the middle."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        bundle.add(tree, "small-1")
    handler = functools.partial(Handler, buffer.getvalue())
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", hashlib.sha256(buffer.getvalue()).hexdigest()
    server.shutdown()
    server.server_close()


def test_an_archive_by_url(arguments, served):
    url, sha256 = served
    wrong = "0" * 64
    refused({**arguments, "source": {"url": {"url": f"{url}/a.tgz", "sha256": wrong}}}, f"{sha256}, not {wrong}")
    refused({**arguments, "source": {"url": {"url": f"{url}/truncated", "sha256": sha256}}}, "truncated|IncompleteRead")
    refused({**arguments, "source": {"url": {"url": "http://127.0.0.1:9/a", "sha256": sha256}}}, "could not be fetched")
    assert folders(arguments, "sources") == []
    assert build({**arguments, "source": {"url": {"url": f"{url}/a.tgz", "sha256": sha256}}})["changed"]


BACKEND = """\
import pathlib
def prepare_metadata_for_build_wheel(folder, config_settings=None):
    info = pathlib.Path(folder) / "small_engine-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\\nName: small-engine\\nVersion: 1.0\\n")
    return info.name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    raise SystemExit("a wheel was asked for")
"""
PYPROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


def test_a_package_by_pip(tmp_path, arguments, tree):
    top = "small_engine-1.0"
    (tree / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: small-engine\nVersion: 1.0\n")
    (tree / "backend.py").write_text(BACKEND)
    (tree / "pyproject.toml").write_text(PYPROJECT)
    (tmp_path / "index").mkdir()
    archive = tmp_path / "index" / f"{top}.tar.gz"
    with tarfile.open(archive, "w:gz") as bundle:
        bundle.add(tree, top)
    sha256 = hashlib.sha256(archive.read_bytes()).hexdigest()
    env = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "index")}
    package = {"name": "small-engine", "version": "1.0", "sha256": sha256}
    wrong = {**arguments, "source": {"package": {**package, "sha256": "0" * 64}}}
    refused(wrong, f"source.package.sha256: small-engine 1.0 has the SHA-256 {sha256}", env=env)
    absent = {**arguments, "source": {"package": {**package, "version": "2.0"}}}
    refused(absent, r"fetching small-engine 2.0 with pip failed", env=env)
    result = build({**arguments, "source": {"package": package}}, env=env)
    assert result["manifest"]["source"] == {"kind": "package", **package}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("message(FATAL_ERROR nonsense)", r"the whole log is .*v3\.log(.|\n)*nonsense"),
        ("add_compile_options(-include missing.h)", r"FAILED: (.|\n)*missing\.h"),
        ("add_compile_options(-march=x86-64-v2)", "x86-64-v3 is refused: tiny.c.o holds no vpmaddubsw on ymm"),
        ("add_compile_options(-mavx512f)", "x86-64-v3 is refused: lib/libtiny.so holds .* evex"),
        ("set(CMAKE_SKIP_RPATH OFF)", "search path .* baked in"),
    ],
    ids=["cmake", "error", "flag-ignored", "forbidden", "runpath"],
)
def test_a_build_that_goes_wrong_is_refused(arguments, tree, change, message):
    edit(tree, change)
    if "avx512" in change:
        wide = "void wide(void *a) { _mm512_storeu_si512(a, _mm512_set1_epi32(5)); }\n"
        (tree / "tiny.c").write_text(TINY.replace("ONE", "1") + wide)
    result = refused(arguments, message)
    if "log_file" in result:
        assert Path(result["log_file"]).stat().st_size > 0


def test_a_compiler_that_crashes_is_shown(arguments, tree):
    compile_through(tree, "echo 'internal compiler error: it is tired'; kill -SEGV $$")
    result = refused(arguments, r"the whole log is (.|\n)*internal compiler error: it is tired")
    assert "it is tired" in Path(result["log_file"]).read_text()


def test_a_variant_that_computes_wrongly_is_refused(arguments, tree):
    (tree / "tiny.c").write_text(TINY.replace("ONE", "3"))
    refused(arguments, r"variant x86-64-v3 is refused: it computes something else .*cosine 0.5")
    unproven = build({**arguments, "verify": False})
    assert not unproven["verification"][V3]["run"]["ran"]
    assert "passed" not in unproven["verification"][V3]["run"]
    # Published without a proof it is still refused as soon as a proof is asked for.
    refused(arguments, "computes something else")


def test_images_that_do_not_serve(arguments):
    refused({**arguments, "builder_image": "bitnet-test-none:1"}, "builder_image: .* no image 'bitnet-test-none:1'")
    refused({**arguments, "verifier_image": "bitnet-test-none:1"}, "verifier_image: .* no image")
    refused({**arguments, "builder_image": machine.BASE}, r"cannot build: it has no c\+\+")
    look = build({**arguments, "builder_image": "bitnet-test-none:1", "_ansible_check_mode": True})
    assert look["changed"]
    assert look["hash"] is None


def test_an_unknown_variant_names_the_known(arguments):
    refused({**arguments, "variants": ["pentium"]}, "'pentium' is not in the catalogue, which knows x86-64-v3")


def test_a_daemon_that_is_not_there(arguments, tmp_path):
    refused({**arguments, "docker_host": f"unix://{tmp_path}/none"}, "docker_host: no Docker daemon answers")


def become_nobody() -> None:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)


def connect(host: str, answers: multiprocessing.Queue) -> None:
    become_nobody()
    try:
        client.Engine(host)
    except Exception as error:
        answers.put((type(error), str(error)))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become somebody who may not use the socket")
def test_a_socket_that_is_denied():
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        path = Path(folder) / "docker.sock"
        listener.bind(str(path))
        path.chmod(0o600)
        Path(folder).chmod(0o755)
        fork = multiprocessing.get_context("fork")
        answers = fork.Queue()
        process = fork.Process(target=connect, args=(f"unix://{path}", answers))
        process.start()
        kind, text = answers.get(timeout=60)
        process.join(timeout=60)
    # Not "unavailable", which check mode would take for "not there yet".
    assert kind is KernelError
    assert "denies access to user 65534" in text


def test_a_timeout_says_what_was_seen_last_and_leaves_no_container(arguments, tree):
    slow(tree, 60)
    before = containers()
    begin = time.monotonic()
    result = refused({**arguments, "timeout": 12}, r"did not end within \d+ s; it said last: ")
    assert time.monotonic() - begin < 50
    assert Path(result["log_file"]).exists()
    assert containers() <= before


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
@pytest.mark.parametrize("size", ["64k", "300k"])
def test_a_full_disk_publishes_nothing(arguments, tmp_path, size):
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)], check=True)
    try:
        refused({**arguments, "cache_dir": str(disk)}, f"cache_dir: the disk under '{disk}' is full")
        subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
        assert build({**arguments, "cache_dir": str(disk)})["changed"]
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


# --- the real engine ---


@pytest.fixture(scope="session")
def engine_verifier(workload_image) -> str:
    """The image that is shipped, with an emulator."""
    return extended("workload-emulate", workload_image, "emulate")


@pytest.fixture
def engine(builder, cross_builder, engine_verifier):
    """Arguments for variants of the engine. Compiled once per machine and content."""

    def of(*variants: str) -> dict:
        across = {catalogue.VARIANTS[name].architecture for name in variants} != {os.uname().machine}
        return {
            "source": {"package": ENGINE, "patches": engine_patches()},
            "variants": list(variants),
            "builder_image": cross_builder if across else builder,
            "verifier_image": engine_verifier,
            "cache_dir": str(machine.cache_dir()),
            "timeout": 3000,
        }

    return of


JARGON = "/opt/bitnet/models/jargon"


def proven(result: dict, name: str) -> str:
    """How a variant was run, after a look at its figures; empty if it was not."""
    run = result["manifest"]["variants"][name]["verified"]["run"]
    if run["ran"]:
        assert run["cosine"] >= 0.999
        assert run["relative_l2"] < 0.02
    return run["how"] if run["ran"] else ""


def test_the_engine_is_built_proven_and_chosen(engine, builder):
    """Three variants, one of them for ARM; proven by the NumPy reference in the image that is shipped."""
    arguments = engine(V3, VNNI)
    result = finish(start(arguments), 3100)
    assert not result.get("failed"), result["msg"]
    kernels = Path(result["path"])
    flags = Path("/proc/cpuinfo").read_text()
    for name, variant in result["manifest"]["variants"].items():
        if all(re.search(rf"\b{flag}\b", flags) for flag in variant["requires"]):
            assert proven(result, name) == "natively"
        elif name == V3:
            assert "qemu-x86_64" in proven(result, name)
        else:
            assert proven(result, name) == ""
            assert "lacks" in variant["verified"]["run"]["reason"]
        said = docker(
            *("run", "--rm", "--network=none", "-v", f"{kernels}:/kernels:ro"),
            *("-e", f"LD_LIBRARY_PATH=/kernels/lib/{name}", builder, "ldd", "/kernels/bin/llama-server"),
        )
        for library in ("ggml", "llama", "mtmd"):
            assert f"lib{library}.so => /kernels/lib/{name}/" in said
        assert "not found" not in said
    assert sum(file.stat().st_size for file in kernels.rglob("*") if file.is_file()) < 80 << 20
    assert not build(arguments)["changed"]


def test_the_engine_for_arm_is_proven_on_its_own_cpu(engine):
    result = finish(start(engine(DOTPROD)), 3100)
    assert not result.get("failed"), result["msg"]
    assert result["manifest"]["architecture"] == "aarch64"
    assert proven(result, DOTPROD).endswith("with -cpu cortex-a76")
    assert not build(engine(DOTPROD))["changed"]


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name in catalogue.VARIANTS if name not in (V3, VNNI, DOTPROD)])
def test_every_variant_of_the_engine(engine, name):
    result = finish(start(engine(name)), 3100)
    assert not result.get("failed"), result["msg"]
    if not proven(result, name):
        # Neither this CPU nor qemu has what it needs.
        assert catalogue.VARIANTS[name].architecture == "x86_64"
        assert "lacks" in result["manifest"]["variants"][name]["verified"]["run"]["reason"]


def under_qemu(kernels: str, name: str, engine_verifier: str, *command: str) -> dict:
    """What bitnet-cli says of a variant that qemu runs as its CPU."""
    way = running.find_way(
        catalogue.VARIANTS[name], os.uname().machine, set(), dict.fromkeys(running.EMULATORS.values(), "")
    )
    said = docker(
        *("run", "--rm", "--network=none", "--tmpfs=/tmp", "-v", f"{kernels}:/kernels:ro", engine_verifier),
        *("bitnet-cli", *command, "--kernels", "/kernels", "--variant", name, "--json", "--deadline", "1500"),
        *("--emulator", shlex.join(way.emulator)),
        timeout=1600,
    )
    return json.loads(said)


@pytest.mark.full
def test_the_engine_under_qemu_agrees_where_the_cpu_could_do_it_too(engine, engine_verifier):
    kernels = finish(start(engine(V3)), 3100)["path"]
    assert under_qemu(kernels, V3, engine_verifier, "kernels", "verify")["passed"]


@pytest.mark.full
@pytest.mark.parametrize("name", [name for name, variant in catalogue.VARIANTS.items() if variant.qemu_cpu])
def test_a_trained_model_keeps_its_perplexity_under_qemu(engine, engine_verifier, name):
    """Some ten seconds for each position."""
    kernels = finish(start(engine(name)), 3100)["path"]
    files = ["--model", f"{JARGON}/model.gguf", "--text", f"{JARGON}/held-out.txt", "--expect", f"{JARGON}/model.json"]
    found = under_qemu(kernels, name, engine_verifier, "model", "perplexity", *files, "--positions", "40")
    assert (found["verdict"], found["positions"]) == ("pass", 40), found
    assert abs(found["relative_difference"]) < 0.01


@pytest.mark.full
def test_an_engine_that_computes_wrongly_is_refused(engine):
    source = {"package": ENGINE, "patches": [*engine_patches(), WRONG]}
    refused({**engine(V3), "source": source}, f"variant {V3} is refused: it computes something else")
