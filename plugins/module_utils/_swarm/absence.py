# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a Swarm can do without one of its nodes for a while, in which turn nodes go, and what is missing until the
next one may. Pure.
"""

from __future__ import annotations

import dataclasses
import typing as t

from .._traffic.operation import operation_from
from .._traffic.routing import ACTIVE, OPERATION, SHARE, BadRecord
from .convergence import Json, has_ended, is_running, takes, tasks_wanted
from .nodes import NODE_LABEL, hostname_of, is_live_manager, is_ready, labels_of, quorum
from .spec import OWNER, OWNER_LABEL

# On a node that was drained for an upgrade: the availability to which it returns.
AWAY_LABEL = "io.bitnet.upgrade"
# Which tasks of the user's a node has had, by the word for them.
UPGRADED_LABEL = "io.bitnet.upgraded"
ENVIRONMENT_LABEL, SLOT_LABEL = "io.bitnet.environment", "io.bitnet.slot"


@dataclasses.dataclass(frozen=True)
class Swarm:
    """What one manager said at one moment."""

    nodes: t.Sequence[Json]
    services: t.Sequence[Json]
    tasks: t.Sequence[Json]

    def node(self, id: str) -> Json | None:
        return next((node for node in self.nodes if node["ID"] == id), None)

    def ours(self) -> list[Json]:
        return [service for service in self.services if _labels(service).get(OWNER_LABEL) == OWNER]

    def running(self, service: Json) -> list[Json]:
        return [
            task for task in self.tasks if task.get("ServiceID") == service["ID"] and is_running(task, service["Spec"])
        ]


def name_of(node: Json) -> str:
    return labels_of(node).get(NODE_LABEL) or hostname_of(node) or str(node["ID"])


def turn(node: Json) -> int:
    """What an earlier run has left drained goes first, then workers, then managers, and the leader last."""
    if AWAY_LABEL in labels_of(node):
        return 0
    status = node.get("ManagerStatus") or {}
    return 3 if status.get("Leader") else 2 if status else 1


def refusals(swarm: Swarm, node: Json) -> list[str]:
    """Why the node must not go now, whatever the user accepts."""
    others = [other for other in swarm.nodes if other["ID"] != node["ID"]]
    found = [
        f"{name_of(other)} is {other['Status']['State']}: take it back, or out of the Swarm (swarm_cluster_absent)"
        for other in others
        if not is_ready(other)
    ]
    if not is_ready(node) and AWAY_LABEL not in labels_of(node):
        found.append(f"{name_of(node)} itself is {node['Status']['State']}: bitnet.devops.platform starts its Docker")
    found += [
        f"{name_of(other)} is away for an upgrade that has not ended (label {AWAY_LABEL}): let this run have it first"
        for other in others
        if AWAY_LABEL in labels_of(other)
    ]
    dead = [name_of(other) for other in others if other.get("ManagerStatus") and not is_live_manager(other)]
    if dead and _lost_quorum(swarm, node):
        found.append(f"{_lost_quorum(swarm, node)}: take {', '.join(dead)} back")
    if AWAY_LABEL not in labels_of(node):  # what is missing since that node is away comes back with it
        found += [f"{lacking}: 'docker service ps' of it shows why" for lacking in shortfall(swarm)]
        found += [f"{moving}: let the rollout end, or run it again" for moving in _moves(swarm)]
    return found


def gaps(swarm: Swarm, node: Json) -> list[str]:
    """What does not work while the node is away."""
    found = []
    others = [other for other in swarm.nodes if other["ID"] != node["ID"]]
    if all(is_live_manager(other) for other in others if other.get("ManagerStatus")) and _lost_quorum(swarm, node):
        found.append(f"the Swarm takes no orders: {_lost_quorum(swarm, node)}")
    for service in swarm.ours():
        places = {task["NodeID"] for task in swarm.running(service)}
        if places == {node["ID"]} and not _is_idle(swarm, service):
            room = any(takes(other, service["Spec"]) for other in others)
            then = "Swarm has started them on another node" if room else "it is back: no other node takes them"
            found.append(f"all tasks of {service['Spec']['Name']} are there, and nothing answers until {then}")
    return found


def shortfall(swarm: Swarm) -> list[str]:
    """Our services that do not run in full on the nodes that there are."""
    found = []
    for service in swarm.ours():
        wanted, running = tasks_wanted(service["Spec"], swarm.nodes), len(swarm.running(service))
        if running < wanted:
            found.append(f"{service['Spec']['Name']} runs {running} of {wanted} tasks")
    return found


def left_on(swarm: Swarm, node: Json) -> list[str]:
    """The tasks that have not ended; of a node that is down nobody knows."""
    if not is_ready(node):
        return []
    there = [task for task in swarm.tasks if task.get("NodeID") == node["ID"] and not has_ended(task)]
    return [f"{task['ID']} is {task['Status']['State']}" for task in there]


def crowded(swarm: Swarm) -> list[Json]:
    """Our services with several tasks, all of them on one node though another takes some: after a node was away."""
    found = []
    for service in swarm.ours():
        running = swarm.running(service)
        room = [node for node in swarm.nodes if takes(node, service["Spec"])]
        if len(running) > 1 and len({task["NodeID"] for task in running}) == 1 and len(room) > 1:
            found.append(service)
    return found


def _lost_quorum(swarm: Swarm, node: Json) -> str:
    """How the quorum would be lost without the node, nothing where it would not."""
    managers = [other for other in swarm.nodes if other.get("ManagerStatus")]
    living = sum(is_live_manager(other) for other in managers if other["ID"] != node["ID"])
    must = quorum(len(managers))
    if not node.get("ManagerStatus") or living >= must:
        return ""
    return f"without {name_of(node)} {living} of {len(managers)} managers would live, and {must} must"


def _moves(swarm: Swarm) -> list[str]:
    """Operations that move traffic or fill a slot; one that is only prepared may wait for days."""
    found = []
    for service in swarm.ours():
        try:
            operation = operation_from(_labels(service).get(OPERATION, ""))
        except BadRecord as error:
            found.append(f"{service['Spec']['Name']}: {error}")
            continue
        if operation and operation.phase != "prepared":
            found.append(f"{service['Spec']['Name']} has an open {operation.sentence()}")
    return found


def _is_idle(swarm: Swarm, service: Json) -> bool:
    """Whether it is a slot that gets no requests."""
    labels = _labels(service)
    if SLOT_LABEL not in labels:
        return False
    edges = [
        edge
        for edge in map(_labels, swarm.ours())
        if ACTIVE in edge and edge.get(ENVIRONMENT_LABEL) == labels.get(ENVIRONMENT_LABEL)
    ]
    return any(edge[ACTIVE] != labels[SLOT_LABEL] and edge.get(SHARE, "0") == "0" for edge in edges)


def _labels(service: Json) -> dict[str, str]:
    return dict(service["Spec"].get("Labels") or {})
