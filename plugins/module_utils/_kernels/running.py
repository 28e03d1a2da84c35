# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a variant can be run on this host: by its CPU, under qemu-user with the variant's CPU, or not at all. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .catalogue import Variant, lacking

EMULATORS = {architecture: f"qemu-{architecture}-static" for architecture in ("x86_64", "aarch64")}
# Where Debian's packages lib...-arm64-cross put what a program of another architecture is linked to.
LIBRARIES = {"aarch64": "/usr/aarch64-linux-gnu"}
# For sh: "NAME VERSION" of each emulator that an image has.
LOOK = f"""
for name in {" ".join(EMULATORS.values())}; do
  version=$("$name" --version 2>/dev/null | head -n 1) && [ -n "$version" ] && echo "$name $version"
done
exit 0
"""


@dataclass(frozen=True)
class Way:
    """The command line of an emulator (empty: natively), and in words how, or why not."""

    emulator: tuple[str, ...] = ()
    how: str = ""
    reason: str = ""

    @property
    def possible(self) -> bool:
        return not self.reason


def obstacle(variant: Variant, machine: str, features: set[str]) -> str:
    """Why this host cannot run a variant by itself; empty if it can."""
    if variant.architecture != machine:
        return f"the building host is {machine}"
    missing = lacking(variant, features)
    return f"the CPU of the building host lacks {', '.join(missing)}" if missing else ""


def find_way(variant: Variant, machine: str, features: set[str], emulators: dict[str, str]) -> Way:
    """The best way there is; emulators are those of the verifier image, with their versions."""
    reason = obstacle(variant, machine, features)
    if not reason:
        return Way(how="natively")
    if not variant.qemu_cpu:
        return Way(reason=f"{reason}, and qemu emulates no CPU that has all of them")
    program = EMULATORS[variant.architecture]
    if program not in emulators:
        return Way(reason=f"{reason}, and the verifier image has no {program}")
    command = [program, "-cpu", variant.qemu_cpu]
    if variant.architecture != machine:
        command += ["-L", LIBRARIES[variant.architecture]]
    return Way(tuple(command), f"under {emulators[program]} with -cpu {variant.qemu_cpu}")


def parse_look(output: str) -> dict[str, str]:
    """The lines that LOOK prints: by name, what the emulator says of itself without the packager's remark."""
    lines = (line.partition(" ") for line in output.splitlines())
    return {name: version.partition("(")[0].strip() for name, _space, version in lines if name in EMULATORS.values()}
