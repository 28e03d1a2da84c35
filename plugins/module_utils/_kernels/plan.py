# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is wanted, what is there, what is to be done: hashes, plan and diff. Pure."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from .catalogue import CROSS, DEFINES, RECIPE, Variant
from .verification import SWITCHED_OFF

UNKNOWN = "known after build"


def digest(value: Any) -> str:
    """A name for content: 16 hex digits of the SHA-256 of its canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


Steps = tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Wanted:
    """Everything that decides the bytes and their proof: source, compiler, variants, and which outputs are collected.

    With the backend cmake programs are built once and libraries per variant, with the others both are per variant.
    generate and build are the steps of the backend command; verify_command proves a variant in place of bitnet-cli.
    """

    source: dict[str, str]
    toolchain: dict[str, str]
    variants: list[Variant]
    programs: list[str]
    libraries: list[str]
    hot_objects: list[str]
    backend: str = "cmake"
    generate: Steps = ()
    build: Steps = ()
    verify_command: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        return self.variants[0].architecture

    @property
    def target(self) -> str:
        """What the names of a cross compiler's programs begin with; empty where the builder compiles for itself."""
        return self.toolchain.get("target", "")

    @property
    def shared(self) -> list[str]:
        """Programs that all variants use."""
        return self.programs if self.backend == "cmake" else []

    @property
    def results(self) -> list[str]:
        """File names that each variant has of its own."""
        own = [] if self.backend == "cmake" else self.programs
        return [*own, *(f"lib{name}.so" for name in self.libraries)]

    def named(self, name: str) -> Variant:
        return next(variant for variant in self.variants if variant.name == name)

    def defines(self) -> dict[str, str]:
        """The definitions of CMake that all variants share."""
        if not self.target:
            return DEFINES
        return {**DEFINES, **{name: value.format(target=self.target) for name, value in CROSS.items()}}

    def _common(self) -> dict[str, Any]:
        common: dict[str, Any] = {"recipe": RECIPE, "source": self.source, "toolchain": self.toolchain}
        if self.backend == "cmake":
            return {**common, "defines": self.defines()}
        return {**common, "backend": self.backend, "generate": self.generate, "build": self.build}

    def programs_key(self) -> str:
        return digest({**self._common(), "programs": sorted(self.shared)})

    def variant_key(self, variant: Variant) -> str:
        return digest(
            {
                **self._common(),
                **({"programs": sorted(self.programs)} if self.backend != "cmake" else {}),
                **({"verify_command": self.verify_command} if self.verify_command else {}),
                "flags": variant.flags,
                "libraries": sorted(self.libraries),
                "hot_objects": sorted(self.hot_objects),
                "present": [[item.mnemonic, item.register] for item in variant.present],
                "absent": variant.absent,
            }
        )

    def set_key(self) -> str:
        return digest(
            {
                "programs": self.programs_key(),
                "variants": {
                    variant.name: [self.variant_key(variant), variant.requires, variant.rank]
                    for variant in self.variants
                },
            }
        )


@dataclass(frozen=True)
class Found:
    """What the cache holds intact: programs, variants by name (with the record of their run), the published set."""

    programs: bool
    variants: dict[str, dict[str, Any]]
    published: bool


@dataclass(frozen=True)
class Step:
    """One thing to do: build (a variant, and the programs in the same tree), verify, or publish."""

    action: str
    variant: str = ""
    programs: bool = False
    keep_variant: bool = True

    def sentence(self) -> str:
        if self.action == "build":
            what = [self.variant] if self.keep_variant else []
            return "build " + " and ".join(what + (["the programs"] if self.programs else []))
        if self.action == "verify":
            return f"verify {self.variant} by a run"
        return "publish the set"


@dataclass(frozen=True)
class Plan:
    steps: list[Step] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    def sentences(self) -> list[str]:
        return [step.sentence() for step in self.steps]


def run_is_due(run: dict[str, Any], can_run: bool, verify: bool) -> bool:
    """Whether a variant that was not proven by a run can be now, or at least the reason has become another."""
    return verify and not run.get("ran", False) and (can_run or run.get("reason") == SWITCHED_OFF)


def make_plan(wanted: Wanted, found: Found, verify: bool, runnable: set[str]) -> Plan:
    """The least work that leads from what is found to what is wanted."""
    steps: list[Step] = []
    states: dict[str, str] = {}
    programs_missing = not found.programs and bool(wanted.shared)
    for variant in wanted.variants:
        record = found.variants.get(variant.name)
        states[variant.name] = "cached" if record is not None else "planned"
        if record is None:
            steps.append(Step("build", variant.name, programs=programs_missing))
            programs_missing = False
    if programs_missing:
        # Any tree can link the programs; ccache makes the tree of a variant that was built before a matter of seconds.
        steps.insert(0, Step("build", wanted.variants[0].name, programs=True, keep_variant=False))
    for variant in wanted.variants:
        record = found.variants.get(variant.name)
        if record is not None and run_is_due(record.get("run", {}), variant.name in runnable, verify):
            steps.append(Step("verify", variant.name))
    if steps or not found.published:
        steps.append(Step("publish"))
    return Plan(steps, states)


def make_diff(wanted: Wanted | None, found: Found | None, plan: Plan, path: str) -> dict[str, Any]:
    """Before and after, as text that reads well under --diff."""
    after_set = wanted.set_key() if wanted else UNKNOWN
    before: dict[str, Any] = {"published": bool(found and found.published), "variants": {}}
    after: dict[str, Any] = {"published": True, "variants": {}}
    for name, state in plan.states.items():
        before["variants"][name] = "built" if state == "cached" else "absent"
        due = any(step.action == "verify" and step.variant == name for step in plan.steps)
        after["variants"][name] = "built, verified by a run" if due else "built"
    if wanted is None or wanted.shared:
        before["programs"] = "built" if found and found.programs else "absent"
        after["programs"] = "built"
    before["set"] = after_set if before["published"] else "absent"
    after["set"] = after_set
    return {
        "before_header": path,
        "after_header": path,
        "before": json.dumps(before, indent=2, sort_keys=True) + "\n",
        "after": json.dumps(after, indent=2, sort_keys=True) + "\n",
    }
