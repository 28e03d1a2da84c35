# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the options say about the way of building: their checks, and the defaults that depend on the backend. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from . import catalogue
from .catalogue import Instruction, Variant
from .errors import KernelError
from .plan import Steps

# As the name of a file, and without what `find -name` would take for a pattern.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
INSTRUCTION = re.compile(r"([a-z0-9{}]+) (zmm|ymm|xmm|tmm|z|v|none)")


@dataclass(frozen=True)
class Method:
    """How the variants are built, and which files are looked at and kept."""

    backend: str
    variants: list[Variant]
    programs: list[str]
    libraries: list[str]
    hot_objects: list[str]
    generate: Steps
    build: Steps
    verify_command: tuple[str, ...]


def resolve(params: dict[str, Any]) -> Method:
    backend = params["backend"]
    engine = backend == "cmake"
    defaults = {"programs": catalogue.PROGRAMS, "libraries": catalogue.LIBRARIES, "hot_objects": catalogue.HOT_OBJECTS}
    names = {option: _names(params, option, default if engine else ()) for option, default in defaults.items()}
    if not engine and not names["programs"] and not names["libraries"]:
        raise KernelError(f"programs: backend={backend} needs the names of what is built, in programs or libraries")
    steps = params.get("command") or {}
    if bool(steps) != (backend == "command"):
        raise KernelError(
            "command: backend=command needs it" if not steps else f"command: backend={backend} has no use for it"
        )
    verify_command = _argv("verify_command", params.get("verify_command") or [])
    if params["verify"] and not engine and not verify_command:
        raise KernelError(
            f"verify_command: backend={backend} needs it, since only the results of ik_llama.cpp can be compared with "
            "a reference; name a command that fails if the variant computes wrongly, or set verify=false"
        )
    return Method(
        backend=backend,
        variants=_variants(params, names["hot_objects"]),
        generate=_steps("command.generate", steps.get("generate") or []),
        build=_steps("command.build", steps.get("build") or []),
        verify_command=verify_command,
        **names,
    )


def _variants(params: dict[str, Any], hot_objects: list[str]) -> list[Variant]:
    """The variants, all of one architecture, with the instructions that are required of them."""
    split = catalogue.by_architecture(params["variants"])
    if len(split) > 1:
        named = "; ".join(f"{', '.join(names)} are for {architecture}" for architecture, names in split.items())
        raise KernelError(f"variants: {named}. One call builds for one architecture: call the module once for each")
    required = params.get("required_instructions") or {}
    if required:
        catalogue.choose(list(required))
        if not hot_objects:
            raise KernelError("required_instructions: hot_objects must name the files to look for them in")
    variants = []
    for variant in catalogue.choose(params["variants"]):
        default = variant.present if params["backend"] == "cmake" else ()
        present = _instructions(variant.name, required[variant.name]) if variant.name in required else default
        variants.append(replace(variant, present=present))
    return variants


def _instructions(variant: str, entries: Any) -> tuple[Instruction, ...]:
    found = []
    for entry in entries if isinstance(entries, list) else [entries]:
        match = INSTRUCTION.fullmatch(str(entry))
        if match is None:
            raise KernelError(
                f"required_instructions: {entry!r} of {variant} is not a mnemonic and a register class (zmm, ymm, xmm, "
                "tmm, z, v or none), such as 'vpmaddwd ymm'"
            )
        found.append(Instruction(match.group(1), match.group(2)))
    return tuple(found)


def _names(params: dict[str, Any], option: str, default: tuple[str, ...]) -> list[str]:
    given = params.get(option)
    names = list(default) if given is None else given
    for name in names:
        if not NAME.fullmatch(name):
            raise KernelError(f"{option}: {name!r} is no name of a file (letters, digits and _ . + -, without a path)")
    return names


def _steps(option: str, steps: list[Any]) -> Steps:
    return tuple(_argv(option, step) for step in steps)


def _argv(option: str, words: list[Any]) -> tuple[str, ...]:
    """Words of one command. Nothing takes them apart, so a whole line in one word would be looked for as a program."""
    argv = tuple(str(word) for word in words if isinstance(word, (str, int, float)) and not isinstance(word, bool))
    if len(argv) != len(words) or (words and not argv[0].strip()) or any("\0" in word for word in argv):
        raise KernelError(f"{option}: {words!r} is not a list of words, the first of them a program")
    return argv
