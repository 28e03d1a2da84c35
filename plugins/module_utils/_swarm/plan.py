# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Desired minus actual: what has to be done to a service, decided without doing anything."""

from __future__ import annotations

import dataclasses
import typing as t

from .spec import OWNER, OWNER_LABEL, Fields

_LABELS = "labels."


class Refused(Exception):
    """What was asked must not be done to what is there; the text says why and the way out."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """One action on one service and the fields it changes. C(target) is the service afterwards."""

    action: str  # none, create, update, resume, remove
    before: Fields = dataclasses.field(default_factory=dict)
    after: Fields = dataclasses.field(default_factory=dict)
    target: Fields = dataclasses.field(default_factory=dict)

    @property
    def changed(self) -> bool:
        return self.action != "none"

    def summary(self) -> dict[str, t.Any]:
        return {"action": self.action, "fields": sorted(set(self.before) | set(self.after))}


def check_owned_elsewhere(names: t.Iterable[str]) -> None:
    for name in names:
        if name != "replicas" and not (name.startswith(_LABELS) and len(name) > len(_LABELS)):
            raise Refused(f"owned_elsewhere: {name!r} is neither replicas nor labels.<name of a label>")


def keep_owned_elsewhere(wanted: Fields, found: Fields, names: t.Iterable[str]) -> Fields:
    """What is wanted, with the fields of other owners as they were found; one that is not there yet is wanted."""
    kept = {**wanted, "labels": dict(wanted["labels"])}
    for name in names:
        if name == "replicas":
            kept["replicas"] = found["replicas"] if wanted["mode"] == "replicated" else None
        elif name[len(_LABELS) :] in found["labels"]:
            kept["labels"][name[len(_LABELS) :]] = found["labels"][name[len(_LABELS) :]]
    return kept


def require_ours(name: str, found: Fields) -> None:
    owner = found["labels"].get(OWNER_LABEL)
    if owner != OWNER:
        who = f"has {OWNER_LABEL}={owner}" if owner else f"has no label {OWNER_LABEL}"
        raise Refused(
            f"service {name} {who}, so it is not ours and nothing was changed. Choose another name, remove it by hand "
            f"(docker service rm {name}), or hand it over "
            f"(docker service update --label-add {OWNER_LABEL}={OWNER} {name})"
        )


def plan_present(
    name: str, wanted: Fields, found: Fields | None, owned_elsewhere: t.Iterable[str], stuck: bool
) -> Plan:
    """stuck: Swarm has paused or undone the update to what is wanted, and will not go on by itself."""
    if found is None:
        return Plan(
            "create", {}, {key: value for key, value in wanted.items() if value not in ("", None, [], {})}, wanted
        )
    require_ours(name, found)
    if found["mode"] != wanted["mode"]:
        raise Refused(
            f"mode: service {name} is {found['mode']} and Swarm cannot make it {wanted['mode']}. "
            "Remove it first (state=absent), then create it anew"
        )
    target = keep_owned_elsewhere(wanted, found, owned_elsewhere)
    changed = [key for key in target if target[key] != found.get(key)]
    if changed:
        return Plan("update", {key: found.get(key) for key in changed}, {key: target[key] for key in changed}, target)
    if stuck:
        return Plan("resume", {"update": "paused"}, {"update": "resumed"}, target)
    return Plan("none", target=target)


def plan_absent(name: str, found: Fields | None) -> Plan:
    if found is None:
        return Plan("none")
    require_ours(name, found)
    return Plan("remove", {"image": found["image"], "labels": found["labels"], "replicas": found["replicas"]}, {})
