# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command lines that run in the builder container, and what their output says. Pure."""

from __future__ import annotations

import re
import shlex

from .catalogue import DEFINES, Variant
from .disassembly import AWK

NINJA = re.compile(r"^\[(\d+)/(\d+)\] ")
PHASE = "@phase "

TOOLCHAIN = r"""
set -eu
for tool in c++ cc cmake ninja ccache objdump strip awk; do
  command -v "$tool" >/dev/null || { echo "missing $tool"; exit 3; }
done
echo "compiler $(c++ --version | head -n 1)"
echo "linker $(ld --version | head -n 1)"
echo "libc $(getconf GNU_LIBC_VERSION)"
echo "cmake $(cmake --version | head -n 1)"
echo "machine $(uname -m)"
"""


def parse_toolchain(output: str) -> dict[str, str]:
    """The lines that TOOLCHAIN prints, as a dictionary; "missing" if a tool is not there."""
    lines = (line.partition(" ") for line in output.splitlines())
    return {key: value.strip() for key, _space, value in lines if value}


def configure(variant: Variant) -> list[str]:
    defines = {**DEFINES, "GGML_ARCH_FLAGS": ";".join(variant.flags)}
    return [
        "cmake",
        *("-S", "/source", "-B", "/build", "-G", "Ninja", "-Wno-dev"),
        *(f"-D{name}={value}" for name, value in sorted(defines.items())),
    ]


def compile_targets(targets: list[str], jobs: int) -> list[str]:
    return ["cmake", "--build", "/build", "--parallel", str(jobs), "--target", *targets]


def build_script(variant: Variant, programs: list[str], libraries: list[str], hot: list[str], jobs: int) -> str:
    """For sh: configures, compiles, collects and strips into /out, and writes /out/inspection."""
    lines = [
        "set -eu",
        f"echo '{PHASE}configure'",
        shlex.join(configure(variant)),
        f"echo '{PHASE}compile'",
        shlex.join(compile_targets([*libraries, *programs], jobs)),
        f"echo '{PHASE}collect'",
        "mkdir -p /out/bin /out/lib /out/hot",
        'one() { found=$(find /build -name "$1" -type f -print -quit);'
        ' [ -n "$found" ] || { echo "the build made no file $1"; exit 4; }; }',
    ]
    for name in libraries:
        file = shlex.quote(f"lib{name}.so")
        lines.append(f'one {file}; cp "$found" /out/lib/; strip --strip-unneeded /out/lib/{file}')
    for name in programs:
        file = shlex.quote(name)
        lines.append(f'one {file}; cp "$found" /out/bin/; strip --strip-unneeded /out/bin/{file}')
    for name in hot:
        lines.append(f'one {shlex.quote(name)}; cp "$found" /out/hot/')
    lines += [
        f"echo '{PHASE}inspect'",
        "cd /out",
        "for file in hot/* lib/* bin/*; do",
        '  [ -f "$file" ] || continue',
        '  echo "file $file"',
        '  objdump -p "$file" | awk \'$1 == "NEEDED" {print "needed", $2} $1 ~ /^R(UN)?PATH$/ {print "runpath", $2}\'',
        '  case "$file" in bin/*) continue;; esac',
        f"  objdump -d \"$file\" | awk -F '\\t' {shlex.quote(AWK)}",
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
        if row.startswith("FAILED:") or "CMake Error" in row:
            return "\n".join(row[:400] for row in rows[number : number + lines])
    return "\n".join(row[:400] for row in rows[-lines:])
