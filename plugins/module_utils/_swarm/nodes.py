# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Desired minus actual of the nodes of a Swarm, in an order that never breaks the managers' quorum. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from .plan import Refused

NODE_LABEL = "io.bitnet.node"

Json = t.Mapping[str, t.Any]
Fields = dict[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """A node as it should be. A field that is empty stays as it is; a label that is None goes."""

    name: str
    id: str
    role: str = ""
    availability: str = ""
    labels: t.Mapping[str, str | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Step:
    """One write. C(after) are the fields that it sets, nothing of the node when it is removed."""

    kind: str  # set, promote, demote, drain, remove
    id: str
    name: str
    before: Fields
    after: Fields
    awaited: bool = True  # whether the node lives, so that it will get there


def role_of(node: Json) -> str:
    return str(node["Spec"]["Role"])


def is_ready(node: Json) -> bool:
    return bool(node["Status"]["State"] == "ready")


def is_live_manager(node: Json) -> bool:
    status = node.get("ManagerStatus") or {}
    return status.get("Reachability") == "reachable" and is_ready(node)


def quorum(managers: int) -> int:
    """How many of so many managers must live."""
    return managers // 2 + 1


def labels_of(node: Json) -> dict[str, str]:
    return dict(node["Spec"].get("Labels") or {})


def hostname_of(node: Json) -> str:
    """Empty as long as a node that got its certificate has not said who it is."""
    return str(node["Description"].get("Hostname") or "")


def with_labels(labels: t.Mapping[str, str], wanted: t.Mapping[str, str | None]) -> dict[str, str]:
    both = {**labels, **wanted}
    return {name: value for name, value in both.items() if value is not None}


def find(nodes: t.Sequence[Json], name: str) -> Json | None:
    """The node of that name: its label, its id, or a host name that only one node has."""
    for named in (
        [node for node in nodes if labels_of(node).get(NODE_LABEL) == name],
        [node for node in nodes if node["ID"] == name],
        [node for node in nodes if hostname_of(node) == name],
    ):
        if len(named) == 1:
            return named[0]
        if named:
            ids = ", ".join(node["ID"] for node in named)
            raise Refused(f"absent: {name!r} are {len(named)} nodes ({ids}); give the id. No node was changed")
    return None


def replaced(nodes: t.Sequence[Json], wanted: t.Iterable[Wanted]) -> list[tuple[str, Json]]:
    """What is left of machines that have come back as another node."""
    ids = {want.name: want.id for want in wanted}
    names = ((labels_of(node).get(NODE_LABEL, ""), node) for node in nodes)
    return [(name, node) for name, node in names if name in ids and node["ID"] not in ids.values()]


def plan(nodes: t.Sequence[Json], wanted: t.Sequence[Wanted], absent: t.Iterable[str], own_id: str) -> list[Step]:
    """The writes in their order: what margin the managers have grows before it shrinks, and who is asked goes last."""
    by_id = {node["ID"]: node for node in nodes}
    called: dict[str, str] = {}
    for want in wanted:
        if want.id not in by_id:
            raise Refused(f"nodes: {want.name} has the id {want.id}, and the Swarm has no such node; correct the id")
        if want.id in called:
            raise Refused(
                f"nodes: {called[want.id]} and {want.name} are the same node, {want.id}; leave one of them out. "
                "No node was changed"
            )
        if want.name in called.values():
            raise Refused(f"nodes: {want.name} is given twice, with different ids; rename one. No node was changed")
        called[want.id] = want.name
    named = ((name, find(nodes, name)) for name in absent if name)
    leaving = {node["ID"]: (name, node) for name, node in named if node}
    if own_id in leaving:
        raise Refused(
            f"absent: {leaving[own_id][0]} is the manager that was asked; only another one can remove it. "
            "Make another node a manager first. No node was changed"
        )
    for id, (name, _node) in leaving.items():
        if id in called:
            raise Refused(
                f"absent: {name} is the node {called[id]}, which is to stay by nodes; take it out of one of them (the "
                f"role does where its absent says {called[id]}). No node was changed"
            )
    for name, node in replaced(nodes, wanted):
        if is_ready(node):
            raise Refused(
                f"nodes: two nodes are called {name} and ready, {node['ID']} and the one that was given. "
                "If they are two hosts, rename one; if that one has just left, run again. No node was changed"
            )
        leaving[node["ID"]] = (name, node)
    steps = [*_sets(by_id, wanted), *_roles(by_id, wanted), *_departures(leaving.values())]
    steps.sort(key=lambda step: _turn(step, by_id[step.id], own_id))
    keep_quorum(nodes, steps)
    return steps


def _turn(step: Step, node: Json, own_id: str) -> int:
    """A dead manager goes before a new one comes, a live one after; a node is removed when it is a worker."""
    if step.kind == "demote" and is_live_manager(node):
        return 5 if step.id == own_id else 3
    return {"demote": 0, "set": 1, "drain": 1, "promote": 2, "remove": 4}[step.kind]


def _sets(by_id: t.Mapping[str, Json], wanted: t.Iterable[Wanted]) -> t.Iterator[Step]:
    for want in wanted:
        node = by_id[want.id]
        found = {"availability": node["Spec"]["Availability"], "labels": labels_of(node)}
        target = {
            "availability": want.availability or found["availability"],
            "labels": with_labels(found["labels"], want.labels),
        }
        changed = [field for field in target if target[field] != found[field]]
        if changed:
            kind = "drain" if want.availability == "drain" and "availability" in changed else "set"
            before, after = ({field: fields[field] for field in changed} for fields in (found, target))
            yield Step(kind, want.id, want.name, before, after, is_ready(node))


def _roles(by_id: t.Mapping[str, Json], wanted: t.Iterable[Wanted]) -> t.Iterator[Step]:
    for want in wanted:
        node = by_id[want.id]
        if want.role and want.role != role_of(node):
            kind = "promote" if want.role == "manager" else "demote"
            yield Step(kind, want.id, want.name, {"role": role_of(node)}, {"role": want.role}, is_ready(node))


def _departures(leaving: t.Iterable[tuple[str, Json]]) -> t.Iterator[Step]:
    for name, node in leaving:
        id, lives, availability = node["ID"], is_ready(node), node["Spec"]["Availability"]
        if lives and availability != "drain":
            yield Step("drain", id, name, {"availability": availability}, {"availability": "drain"})
        if node.get("ManagerStatus"):  # not so what a new cluster, begun after a lost quorum, remembers of a manager
            yield Step("demote", id, name, {"role": "manager"}, {"role": "worker"}, lives)
        yield Step("remove", id, name, {"labels": labels_of(node)}, {}, lives)


def keep_quorum(nodes: t.Sequence[Json], steps: t.Iterable[Step]) -> None:
    """Refuse steps after one of which fewer managers would live than must."""
    managers = {node["ID"]: is_live_manager(node) for node in nodes if node.get("ManagerStatus")}
    names = {node["ID"]: labels_of(node).get(NODE_LABEL) or hostname_of(node) or node["ID"] for node in nodes}
    for step in steps:
        if step.kind == "promote":
            if not step.awaited:
                raise Refused(f"{step.name} is not ready and cannot become a manager; start it. No node was changed")
            managers[step.id] = True
        elif step.kind == "demote":
            managers.pop(step.id, None)
            living = sum(managers.values())
            if living < quorum(len(managers)):
                dead = ", ".join(names[id] for id, lives in managers.items() if not lives)
                raise Refused(
                    f"without {step.name} as a manager {living} of {len(managers)} managers would live, and "
                    f"{quorum(len(managers))} must, or the Swarm takes no more orders. "
                    + (f"Take {dead} back, or out, first" if dead else "Make another node a manager first")
                    + ". No node was changed"
                )
