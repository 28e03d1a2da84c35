# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""On which nodes the tasks of a slot may run, in Swarm's words, and why not on the others. Pure.

The architecture is asked of the daemon itself (Placement.Platforms, of which a node needs one); what a CPU can do only
our label says. Swarm's constraints all have to hold and know == and != only. So a set of variants is said by naming
the others, and a label that every node has which runs some variant keeps those away that were never labelled.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._kernels.catalogue import VARIANTS, Variant, choose, platform
from .._kernels.errors import KernelError
from .._kernels.fleet import platform_of
from .convergence import Json, matches, of_platform
from .nodes import NODE_LABEL, hostname_of, labels_of
from .plan import Refused

SLOTS_LABEL = "io.bitnet.slots"
VARIANT_LABEL = "io.bitnet.variant"
DOMAIN_LABEL = "io.bitnet.failure-domain"


@dataclasses.dataclass(frozen=True)
class Placement:
    """What a service is told, and C(variants), the nodes' best variants that it allows."""

    platforms: list[str]
    constraints: list[str]
    preferences: list[str]
    variants: list[str]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The nodes by name: those that take tasks, those that the placement keeps out, those that are away or drained."""

    fitting: list[str]
    excluded: dict[str, str]
    unavailable: dict[str, str]


def place(
    built: list[str],
    variants: list[str],
    architectures: list[str],
    constraints: t.Sequence[str],
    preferences: t.Sequence[str],
) -> Placement:
    """built: the variants in the image; the others are what the user asks for, empty for no restriction."""
    image = _choose("built", built)
    platforms = sorted({platform(variant.architecture) for variant in image})
    if architectures:
        platforms = [name for name in platforms if name in _platforms(architectures)]
        if not platforms:
            raise Refused(
                f"architectures: {', '.join(architectures)} was asked for, and the image has kernels for "
                f"{', '.join(built)} only. "
                "Build it for that architecture as well (bitnet_variants), or leave architectures empty"
            )
    there = [variant for variant in VARIANTS.values() if platform(variant.architecture) in platforms]
    served = [variant for variant in there if _runs_one_of(variant, image)]
    if variants:
        wanted = _choose("variants", variants)
        served = [variant for variant in served if variant in wanted]
        if not served:
            raise Refused(
                f"variants: nodes of {', '.join(variants)} were asked for, and the image has kernels for "
                f"{', '.join(built)} only, on {', '.join(platforms)}. Build it for these as well (bitnet_variants), or "
                "ask for others"
            )
    rules = [f"node.labels.{SLOTS_LABEL}==true"]
    if variants and len(served) == 1:
        rules.append(f"node.labels.{VARIANT_LABEL}=={served[0].name}")
    else:
        rules += [f"node.labels.{VARIANT_LABEL}!={variant.name}" for variant in there if variant not in served]
    spread = f"node.labels.{DOMAIN_LABEL}"
    return Placement(
        platforms,
        [*rules, *constraints],
        [*([] if spread in preferences else [spread]), *preferences],  # nodes without the label are one domain
        [variant.name for variant in served],
    )


def judge(nodes: t.Sequence[Json], placement: Placement) -> Verdict:
    fitting, excluded, unavailable = [], {}, {}
    for node in nodes:
        name = labels_of(node).get(NODE_LABEL) or hostname_of(node) or node["ID"]
        if why := _kept_out(node, placement):
            excluded[name] = why
        elif why := _away(node):
            unavailable[name] = why
        else:
            fitting.append(name)
    return Verdict(fitting, excluded, unavailable)


def require_one(verdict: Verdict, image: str) -> None:
    if not verdict.fitting:
        why = "; ".join(f"{name} {reason}" for name, reason in {**verdict.excluded, **verdict.unavailable}.items())
        raise Refused(
            f"image: no node can run a task of {image}: {why}. Take a node back or add one, build the image for what "
            "is there (bitnet_variants), or ask for less. Nothing was changed"
        )


def _choose(option: str, names: list[str]) -> list[Variant]:
    try:
        return choose(names)
    except KernelError as error:
        raise Refused(str(error).replace("variants:", f"{option}:", 1)) from error


def _platforms(architectures: t.Iterable[str]) -> set[str]:
    try:
        return {platform_of(name) for name in architectures}
    except KernelError as error:
        raise Refused(f"architectures: {error}; write amd64 or arm64") from error


def _runs_one_of(cpu: Variant, image: t.Iterable[Variant]) -> bool:
    """Whether a CPU whose best variant this is runs one that the image has."""
    return any(
        variant.architecture == cpu.architecture and set(variant.requires) <= set(cpu.requires) for variant in image
    )


def _kept_out(node: Json, placement: Placement) -> str:
    if not of_platform(node, placement.platforms):
        found = node["Description"].get("Platform") or {}
        return f"is {found.get('OS')}/{found.get('Architecture')}, and not {' or '.join(placement.platforms)}"
    labels = labels_of(node)
    if SLOTS_LABEL not in labels:
        return f"has no label {SLOTS_LABEL}: run bitnet.devops.platform for it"
    for rule in placement.constraints:
        if not matches(node, rule):
            if rule.startswith(f"node.labels.{VARIANT_LABEL}"):
                wanted = " or ".join(placement.variants)
                return f"is labelled {VARIANT_LABEL}={labels.get(VARIANT_LABEL, '')}, and not {wanted}"
            if rule.startswith(f"node.labels.{SLOTS_LABEL}"):
                return f"is labelled {SLOTS_LABEL}={labels[SLOTS_LABEL]}: its CPU runs no variant, or it was set so"
            return f"does not satisfy {rule}"
    return ""


def _away(node: Json) -> str:
    if node["Status"]["State"] != "ready":
        return f"is {node['Status']['State']}"
    return {"drain": "is drained", "pause": "is paused"}.get(node["Spec"]["Availability"], "")
