# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the role image_build promises of its image, asked of the real one."""

from __future__ import annotations

import gzip
import io
import json
import re
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
LIMIT = 250_000_000
HARDENED = ("--network", "none", "--read-only", "--tmpfs", "/tmp", "--tmpfs", "/run/bitnet", "--cap-drop", "ALL")


def docker(*arguments: str, check: bool = True, timeout: float = 120) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=timeout, check=False)
    assert not check or done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}"
    return done.stdout + ("" if check else done.stderr)


def inside(image: str, *command: str) -> str:
    return docker("run", "--rm", *HARDENED, "--entrypoint", command[0], image, *command[1:])


@pytest.fixture(scope="module")
def config(workload_image: str) -> dict[str, Any]:
    return json.loads(docker("image", "inspect", workload_image))[0]["Config"]


@pytest.fixture(scope="module")
def files(workload_image: str) -> Iterator[dict[str, tarfile.TarInfo]]:
    """All that the image holds, by path."""
    container = docker("create", workload_image).strip()
    try:
        with subprocess.Popen(["docker", "export", container], stdout=subprocess.PIPE) as export:
            assert export.stdout is not None
            with tarfile.open(fileobj=export.stdout, mode="r|") as tar:
                yield {f"/{member.name}": member for member in tar}
    finally:
        docker("rm", container)


def test_it_says_how_it_is_run(config: dict[str, Any]) -> None:
    assert config["User"] == "10001:10001"
    assert config["Cmd"] == ["swarm-orchestrator", "--api-port", "8080"]
    assert set(config["ExposedPorts"]) == {"8080/tcp", "3000/tcp"}
    assert config["StopSignal"] == "SIGTERM"


def test_it_is_labelled(config: dict[str, Any]) -> None:
    labels = config["Labels"]
    assert labels["io.bitnet.owner"] == "bitnet.devops"
    assert re.fullmatch("[0-9a-f]{64}", labels["io.bitnet.content"])
    for name in ("title", "description", "licenses", "vendor", "version"):
        assert labels[f"org.opencontainers.image.{name}"]


def test_its_layers_are_small(workload_image: str) -> None:
    """Compressed here as docker push does it; the role asks the registry, which needs one."""
    size = 0
    with subprocess.Popen(["docker", "save", workload_image], stdout=subprocess.PIPE) as save:
        assert save.stdout is not None
        with tarfile.open(fileobj=save.stdout, mode="r|") as tar:
            for member in tar:
                if member.isreg():
                    data = tar.extractfile(member)
                    assert data is not None
                    packed = io.BytesIO()
                    with gzip.GzipFile(fileobj=packed, mode="wb", compresslevel=1) as stream:
                        while chunk := data.read(1 << 20):
                            stream.write(chunk)
                    size += packed.tell()
    assert 0 < size <= LIMIT, f"{size / 1e6:.1f} MB"


def test_nothing_is_left_of_the_build(files: dict[str, tarfile.TarInfo]) -> None:
    left = re.compile(
        r"\.whl$|/\.cache/|/\.\w+_history$|/var/lib/apt/lists/.+_|/var/cache/apt/.+\.deb$|^/context"
        r"|bin/(?:pip3?|gcc|g\+\+|cmake|ninja|ccache|curl|wget)$|/dist-packages/pip/|/site-packages/(?:pip|setuptools)/"
        r"|\.netrc$|id_(?:rsa|ed25519)$|/tokens?/|/\.docker/|\.env$"
    )
    assert [path for path in files if left.search(path)] == []


def test_nothing_is_setuid_or_writable_for_its_user(files: dict[str, tarfile.TarInfo]) -> None:
    assert [path for path, info in files.items() if info.isreg() and info.mode & 0o6000] == []
    writable = [
        path
        for path, info in files.items()
        if (info.isreg() or info.isdir())
        and (info.uid == 10001 or info.gid == 10001 or (info.mode & 0o002 and not info.mode & 0o1000))
    ]
    assert [path for path in writable if path.rstrip("/") != "/run/bitnet"] == []


@pytest.mark.parametrize("program", ["swarm-orchestrator", "api-server", "bitnet-cli"])
def test_programs_start_hardened(workload_image: str, program: str) -> None:
    assert "usage" in inside(workload_image, program, "--help").lower()


def test_bytecode_is_there_and_used(workload_image: str) -> None:
    code = "import swarm_intelligence.api as m; print(m.__cached__); import os; print(os.path.exists(m.__cached__))"
    path, there = inside(workload_image, "/opt/bitnet/venv/bin/python", "-c", code).split()
    assert path.startswith("/opt/bitnet/venv/") and there == "True"


def test_kernels_are_whole(workload_image: str, files: dict[str, tarfile.TarInfo]) -> None:
    manifest = json.loads(inside(workload_image, "cat", "/opt/bitnet/kernels/manifest.json"))
    listed = [*manifest["programs"], *(file for variant in manifest["variants"].values() for file in variant["files"])]
    assert manifest["variants"] and manifest["programs"]
    sums = inside(workload_image, "sha256sum", *(f"/opt/bitnet/kernels/{file['path']}" for file in listed))
    assert sums.split()[::2] == [file["sha256"] for file in listed]
    for program in manifest["programs"]:
        assert files[f"/opt/bitnet/kernels/{program['path']}"].mode & 0o111


def test_engine_finds_its_libraries(workload_image: str) -> None:
    manifest = json.loads(inside(workload_image, "cat", "/opt/bitnet/kernels/manifest.json"))
    for variant in manifest["variants"]:
        found = inside(
            workload_image, "env", f"LD_LIBRARY_PATH=/opt/bitnet/kernels/lib/{variant}",
            "/lib64/ld-linux-x86-64.so.2", "--list", "/opt/bitnet/kernels/bin/llama-server",
        )  # fmt: skip
        assert "not found" not in found and f"/opt/bitnet/kernels/lib/{variant}/libggml.so" in found


@pytest.mark.parametrize(("status", "healthy"), [("200 OK", True), ("503 Service Unavailable", False)])
def test_health_check_tells_ready_from_not_ready(
    workload_image: str, config: dict[str, Any], status: str, healthy: bool
) -> None:
    """Its own command, against a server that answers what we say, and against none."""
    server = (
        "import socket\ns = socket.create_server(('127.0.0.1', 8080))\nwhile True:\n c, _ = s.accept()\n"
        f" asked = c.recv(999).split(b'\\r\\n')[0] == b'GET /ready HTTP/1.0'\n"
        f" c.sendall(b'HTTP/1.1 ' + (b'{status}' if asked else b'404 Not Found') + b'\\r\\n\\r\\n')\n c.close()\n"
    )
    assert config["Healthcheck"]["Test"][0] == "CMD"
    check = config["Healthcheck"]["Test"][1:]
    run = ("run", "--rm", "--detach", *HARDENED, "--entrypoint", "/usr/bin/python3", workload_image, "-c")
    container = docker(*run, server).strip()
    try:
        end = time.monotonic() + 20
        while "refused" in (said := docker("exec", container, *check, check=False)) and time.monotonic() < end:
            time.sleep(0.2)
        done = subprocess.run(["docker", "exec", container, *check], capture_output=True, timeout=30, check=False)
        assert (done.returncode == 0) is healthy, said
    finally:
        docker("rm", "--force", container)
    silent = docker(*run, "import time; time.sleep(60)").strip()
    try:
        done = subprocess.run(["docker", "exec", silent, *check], capture_output=True, timeout=30, check=False)
        assert done.returncode != 0
    finally:
        docker("rm", "--force", silent)


def test_lock_is_for_one_python() -> None:
    """pip download evaluates markers with the Python that runs it, which is the target's and not the image's."""
    lock = (ROOT / "files/swarm_intelligence/requirements.txt").read_text(encoding="utf-8")
    assert "==" in lock and re.findall(r"^.*python(?:_full)?_version.*$", lock, re.MULTILINE) == []
