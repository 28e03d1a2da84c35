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
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import client
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError

from tests.lab import machine

CHECKOUT = Path(__file__).resolve().parents[2]
DOCKERFILE = CHECKOUT / "files" / "images" / "Dockerfile"
MODULE = "ansible_collections.bitnet.devops.plugins.modules.kernel_build"
V3, VNNI = "x86-64-v3", "x86-64-v4-vnni"
# The lock of issue 3: what the collection ships by default.
ENGINE = {
    "name": "ik-llama-cpp-python",
    "version": "0.1.5",
    "sha256": "33c67eb99e4dcab5e611050433243815709b8b3067753f9ce18375013cf002ad",
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
#include <immintrin.h>
void dot(const void *a, const void *b, int *sums) {
#if defined(__AVX512VNNI__)
  _mm512_storeu_si512(sums, _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_loadu_si512(a), _mm512_loadu_si512(b)));
#elif defined(__AVX2__)
  __m256i pairs = _mm256_maddubs_epi16(_mm256_loadu_si256(a), _mm256_loadu_si256(b));
  _mm256_storeu_si256((void *)sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(ONE)));
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
[ "$*" = "kernels verify --kernels /kernels --variant $6 --json" ] || exit 2
if LD_LIBRARY_PATH=/kernels/lib/$6 /kernels/bin/tool; then near=1.0 far=0.0; else near=0.5 far=0.9; fi
printf '{"ran": true, "cosine": %s, "relative_l2": %s}\\n' "$near" "$far"
"""


def docker(*arguments: str, **options) -> str:
    return subprocess.run(
        ["docker", *arguments], check=True, capture_output=True, text=True, timeout=600, **options
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


def test_the_engine_is_built_proven_and_chosen(builder, workload_image):
    """Compiled once per machine and content; proven by the NumPy reference in the image that is shipped."""
    arguments = {
        "source": {"package": ENGINE},
        "variants": [V3, VNNI],
        "builder_image": builder,
        "verifier_image": workload_image,
        "cache_dir": str(machine.cache_dir()),
        "timeout": 3000,
    }
    result = finish(start(arguments), 3100)
    assert not result.get("failed"), result["msg"]
    kernels = Path(result["path"])
    flags = Path("/proc/cpuinfo").read_text()
    for name, variant in result["manifest"]["variants"].items():
        run = variant["verified"]["run"]
        if all(re.search(rf"\b{flag}\b", flags) for flag in variant["requires"]):
            assert run["ran"], run
            assert run["cosine"] >= 0.999
            assert run["relative_l2"] < 0.02
        else:
            assert not run["ran"]
            assert "lacks" in run["reason"]
        said = docker(
            *("run", "--rm", "--network=none", "-v", f"{kernels}:/kernels:ro"),
            *("-e", f"LD_LIBRARY_PATH=/kernels/lib/{name}", builder, "ldd", "/kernels/bin/llama-server"),
        )
        for library in ("ggml", "llama", "mtmd"):
            assert f"lib{library}.so => /kernels/lib/{name}/" in said
        assert "not found" not in said
    assert sum(file.stat().st_size for file in kernels.rglob("*") if file.is_file()) < 80 << 20
    assert not build(arguments)["changed"]
