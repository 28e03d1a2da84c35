# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernels are compared with, from the package index by name and version, kept in a cache."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

WHEEL = "ik-llama-cpp-python==0.1.5"
MAINLINE = "llama-cpp-python==0.3.36"
BUILD_SECONDS = 3000


def _download(folder: Path, requirement: str, *options: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    argv = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        *options,
        requirement,
    ]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise SystemExit(f"{requirement} cannot be downloaded: {done.stderr[-500:]}")
    return max(folder.iterdir(), key=lambda path: path.stat().st_mtime)


def wheel_libraries(cache: Path) -> Path:
    """libggml and libllama of the generic wheel, which has no programs: the set's llama-bench runs with them."""
    folder = cache / "wheel"
    libraries = folder / "lib64"
    if not libraries.is_dir():
        packed = _download(cache / "downloads" / "wheel", WHEEL, "--only-binary", ":all:", "--python-version", "3.11")
        shutil.unpack_archive(packed, folder, format="zip")
    return libraries


def mainline_bench(cache: Path) -> tuple[Path, Path]:
    """llama-bench of the llama.cpp that llama-cpp-python carries, compiled for this CPU as its users would."""
    folder = cache / "mainline"
    build = folder / "build"
    program = build / "bin" / "llama-bench"
    if not program.exists():
        if missing := [tool for tool in ("cmake", "c++") if not shutil.which(tool)]:
            raise SystemExit(
                f"mainline: {' and '.join(missing)} missing; install cmake and g++, or leave it out (--subjects)"
            )
        packed = _download(cache / "downloads" / "mainline", MAINLINE, "--no-binary", "llama-cpp-python")
        shutil.unpack_archive(packed, folder, filter="data")
        source = next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
        print("building mainline's llama-bench (minutes)", flush=True)
        for argv in (
            ["cmake", "-S", str(source), "-B", str(build), "-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON",
             "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_SERVER=OFF", "-DLLAMA_BUILD_TOOLS=ON"],
            ["cmake", "--build", str(build), "--parallel", "2", "--target", "llama-bench"],
        ):  # fmt: skip
            done = subprocess.run(argv, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
            if done.returncode:
                raise SystemExit(f"mainline cannot be built: {done.stdout[-800:]}{done.stderr[-800:]}")
    return program, build / "bin"
