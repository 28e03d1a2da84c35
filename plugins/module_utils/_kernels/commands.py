# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command lines that run in the containers, and what their output says. Pure."""

from __future__ import annotations

import re
import shlex

from .catalogue import CROSS_TARGETS, Variant
from .disassembly import AWK
from .errors import KernelError
from .plan import Wanted

NINJA = re.compile(r"^\[(\d+)/(\d+)\] ")
PHASE = "@phase "
# What each backend needs in the builder image besides a compiler.
TOOLS = {"cmake": ("cmake", "ninja", "ccache"), "cargo": ("cargo", "rustc"), "command": ("ccache",)}
# Where a backend leaves what it made.
ROOTS = {"cmake": "/build", "cargo": "/build/target", "command": "/build/out"}
# Names of aarch64's features that LLVM does not share with GCC.
LLVM = {"fp16": "fullfp16"}


def cross_target(machine: str, architecture: str, backend: str) -> str:
    """What the names of the compiler's programs begin with: nothing where the machine compiles for itself."""
    if machine == architecture:
        return ""
    target = CROSS_TARGETS.get((machine, architecture))
    if target is None:
        raise KernelError(
            f"variants: they are for {architecture}, and kernel_build on {machine} does not compile for that; "
            f"run it on a host with {architecture}"
        )
    if backend == "cargo":
        raise KernelError(
            f"variants: they are for {architecture}, and backend=cargo compiles only for the machine that it runs on "
            f"({machine}); run it on a host with {architecture}, or use backend=command with a Rust target of your own"
        )
    return target


def toolchain_script(backend: str, target: str) -> str:
    """For sh: prints what decides the bytes besides source and flags, or what is missing."""
    prefix = f"{target}-" if target else ""
    cxx, cc = (f"{prefix}g++", f"{prefix}gcc") if target else ("c++", "cc")
    tools = (cxx, cc, *TOOLS[backend], f"{prefix}objdump", f"{prefix}strip", "awk")
    lines = [
        "set -eu",
        f"for tool in {' '.join(tools)}; do",
        '  command -v "$tool" >/dev/null || { echo "missing $tool"; exit 3; }',
        "done",
        f'echo "compiler $({cxx} --version | head -n 1)"',
        f'echo "linker $({prefix}ld --version | head -n 1)"',
        f"echo '__GLIBC__ __GLIBC_MINOR__' | {cc} -E -P -include features.h - |"
        ' awk \'END {print "libc glibc " $1 "." $2}\'',
        'echo "machine $(uname -m)"',
    ]
    if target:
        lines.append(f"echo target {target}")
    if backend == "cmake":
        lines.append('echo "cmake $(cmake --version | head -n 1)"')
    if backend == "cargo":
        lines.append('echo "rust $(rustc --version)"')
    return "\n".join(lines) + "\n"


def parse_toolchain(output: str) -> dict[str, str]:
    """The lines that toolchain_script prints, as a dictionary; "missing" if a tool is not there."""
    lines = (line.partition(" ") for line in output.splitlines())
    return {key: value.strip() for key, _space, value in lines if value}


def configure(wanted: Wanted, variant: Variant) -> list[str]:
    defines = {**wanted.defines(), "GGML_ARCH_FLAGS": ";".join(variant.flags)}
    return [
        "cmake",
        *("-S", "/source", "-B", "/build", "-G", "Ninja", "-Wno-dev"),
        *(f"-D{name}={value}" for name, value in sorted(defines.items())),
    ]


def rust_flags(variant: Variant) -> str:
    """The flags of a variant, which are GCC's, as rustc takes them."""
    cpu, features = "generic", []
    for flag in variant.flags:
        if flag.startswith("-march="):
            name, *more = flag[len("-march=") :].split("+")
            level = re.fullmatch(r"armv8(?:\.(\d))?-a", name)
            if level is None:
                cpu = name
            elif level.group(1):
                features.append(f"v8.{level.group(1)}a")
            features += [LLVM.get(feature, feature) for feature in more]
        elif flag.startswith("-m") and not flag.startswith("-mtune="):
            features.append(flag[len("-m") :])
    named = " -C target-feature=" + ",".join(f"+{feature}" for feature in features) if features else ""
    return f"-C target-cpu={cpu}{named}"


def _compile(wanted: Wanted, variant: Variant, programs: list[str], jobs: int) -> list[str]:
    """The lines that leave the results below the backend's root."""
    if wanted.backend == "cmake":
        targets = [*wanted.libraries, *programs]
        return [
            f"echo '{PHASE}configure'",
            shlex.join(configure(wanted, variant)),
            f"echo '{PHASE}compile'",
            shlex.join(["cmake", "--build", "/build", "--parallel", str(jobs), "--target", *targets]),
        ]
    if wanted.backend == "cargo":
        return [
            f"export RUSTFLAGS={shlex.quote(rust_flags(variant))} CARGO_TARGET_DIR=/build/target",
            f"echo '{PHASE}compile'",
            "cd /source",
            f"cargo build --release --workspace --locked --offline --jobs {jobs}",
        ]
    prefix = f"{wanted.target}-" if wanted.target else ""
    flags = shlex.quote(" ".join(("-O3", *variant.flags)))
    return [
        "cp -R /source /build/source",
        "mkdir /build/out",
        "cd /build/source",
        f"export SOURCE=/build/source OUT=/build/out VARIANT={variant.name} JOBS={jobs}",
        f"export CC='ccache {prefix}gcc' CXX='ccache {prefix}g++' CFLAGS={flags} CXXFLAGS={flags}",
        *(
            line
            for phase, steps in (("generate", wanted.generate), ("compile", wanted.build))
            for step in steps
            for line in (f"echo '{PHASE}{phase}'", shlex.join(step))
        ),
    ]


def build_script(wanted: Wanted, variant: Variant, with_programs: bool, jobs: int) -> str:
    """For sh: compiles, collects, inspects and strips into /out, and writes /out/inspection."""
    prefix = f"{wanted.target}-" if wanted.target else ""
    programs = wanted.shared if with_programs else []
    hot = wanted.hot_objects if variant.present else []
    lines = [
        "set -eu",
        *_compile(wanted, variant, programs, jobs),
        f"echo '{PHASE}collect'",
        "mkdir -p /out/bin /out/lib /out/hot",
        f'one() {{ found=$(find {ROOTS[wanted.backend]} -name "$1" -type f -print -quit);'
        ' [ -n "$found" ] || { echo "the build made no file $1"; exit 4; }; }',
    ]
    for folder, names in (("lib", wanted.results), ("bin", programs), ("hot", hot)):
        lines += [f'one {shlex.quote(name)}; cp "$found" /out/{folder}/' for name in names]
    lines += [
        f"echo '{PHASE}inspect'",
        "cd /out",
        "for file in hot/* lib/* bin/*; do",
        '  [ -f "$file" ] || continue',
        '  echo "file $file"',
        f'  {prefix}objdump -p "$file" | awk \'$1 == "NEEDED" {{print "needed", $2}}'
        ' $1 ~ /^R(UN)?PATH$/ {print "runpath", $2}\'',
        '  case "$file" in bin/*) ;; *)',
        f"    {prefix}objdump -d \"$file\" | awk -F '\\t' {shlex.quote(AWK)};;",
        "  esac",
        # Only now: the names of functions tell what is guarded.
        f'  case "$file" in hot/*) ;; *) {prefix}strip --strip-unneeded "$file";; esac',
        "done > /out/inspection",
        "rm -rf /out/hot",
        f"echo '{PHASE}done'",
    ]
    return "\n".join(lines) + "\n"


def progress_of(line: str) -> tuple[str, float] | None:
    """What a line of the build says about progress: words for it, and the share that is done (0 outside compiling)."""
    if line.startswith(PHASE):
        return line[len(PHASE) :].strip(), 0.0
    match = NINJA.match(line)
    if match:
        done, total = int(match.group(1)), int(match.group(2))
        return f"[{done}/{total}]", done / max(total, 1)
    return None


def excerpt(log: str, lines: int = 25) -> str:
    """The part of a log that explains a failure: from the first thing that failed, or else its end."""
    rows = log.splitlines()
    for number, row in enumerate(rows):
        if row.startswith(("FAILED:", "error:", "error[")) or "CMake Error" in row:
            return "\n".join(row[:400] for row in rows[number : number + lines])
    return "\n".join(row[:400] for row in rows[-lines:])
