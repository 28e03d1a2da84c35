# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the nodes of a Swarm to where they should be: look, plan, act step by step, wait after each."""

from __future__ import annotations

import time
import typing as t

from . import nodes
from .client import Conflict, DockerFailed, Json, SwarmClient
from .convergence import has_ended
from .plan import Refused
from .spec import meaningful

_WRITES = 5  # how often a write is tried again because the node changed in between, as it does by itself
_POLL = 0.5


class NotThere(Exception):
    """A node did not get there in time; the text says what was awaited, what was seen and what shows more."""


def bring(
    client: SwarmClient, wanted: t.Sequence[nodes.Wanted], absent: t.Sequence[str], *, act: bool, timeout: float
) -> list[nodes.Step]:
    own_id = client.node_id()
    if act:
        _await_ready(client, {want.id for want in wanted}, timeout)
    steps = nodes.plan(client.nodes(), wanted, absent, own_id)
    for step in steps if act else []:
        _write(client, step)
        if step.awaited and step.id != own_id:
            _await(client, step, timeout)
    return steps


def result(steps: t.Sequence[nodes.Step]) -> dict[str, t.Any]:
    before: dict[str, nodes.Fields] = {}
    after: dict[str, nodes.Fields] = {}
    for step in steps:
        name = f"{step.name} ({step.id})" if step.kind == "remove" else step.name
        before[name] = {**before.get(name, {}), **step.before}
        after[name] = {**after.get(name, {}), **step.after} if step.kind != "remove" else {"absent": True}
    return {
        "changed": bool(steps),
        "plan": [{"action": step.kind, "node": step.name, "id": step.id} for step in steps],
        "diff": {"before": before, "after": after},
    }


def _write(client: SwarmClient, step: nodes.Step) -> None:
    if step.kind == "remove":
        client.remove_node(step.id)
        return
    names = {"role": "Role", "availability": "Availability", "labels": "Labels"}
    for _try in range(_WRITES):
        node = _node(client, step.id)
        if node is None:
            raise Refused(f"{step.name}: the node {step.id} is gone; somebody else removed it. Run again")
        after = dict(step.after)
        if "labels" in after:
            after["labels"] = nodes.with_labels(nodes.labels_of(node), _changed(step.before["labels"], after["labels"]))
        spec = {**node["Spec"], **{names[field]: value for field, value in after.items()}}
        try:
            client.update_node(node, spec)
        except Conflict:
            continue
        return
    raise Refused(
        f"{step.name} was changed by somebody else during each of {_WRITES} attempts. Find the other writer "
        f"('docker node inspect {step.id}' shows the version rising) and run again"
    )


def _changed(before: dict[str, str], after: dict[str, str]) -> dict[str, str | None]:
    return {label: after.get(label) for label in {*before, *after} if before.get(label) != after.get(label)}


def _await_ready(client: SwarmClient, ids: set[str], timeout: float) -> None:
    """A node that has just joined is not ready at once. One that stays away is no fault here: the plan judges it."""
    end = time.monotonic() + timeout
    while ids - {node["ID"] for node in client.nodes() if nodes.is_ready(node)} and time.monotonic() < end:
        time.sleep(_POLL)


def _node(client: SwarmClient, id: str) -> Json | None:
    return next((node for node in client.nodes() if node["ID"] == id), None)


def _await(client: SwarmClient, step: nodes.Step, timeout: float) -> None:
    end = time.monotonic() + timeout
    while missing := _missing(client, step):
        if time.monotonic() > end:
            awaited, seen, more = missing
            raise NotThere(
                f"{step.name}: {awaited} did not come about within {timeout:.0f} s (timeout); last seen: {seen}. "
                f"'{more}' shows more"
            )
        time.sleep(_POLL)


def _missing(client: SwarmClient, step: nodes.Step) -> tuple[str, str, str] | None:
    """What is still awaited, what is seen instead, and the command that shows more; nothing when it is there."""
    more = f"docker node inspect {step.id}"
    try:
        node = _node(client, step.id)
        if node is None:
            return None
        if step.kind == "drain":
            left = [task for task in client.tasks_on(step.id) if not has_ended(task)]
            ids = ", ".join(f"{task['ID']} {task['Status']['State']}" for task in left)
            return ("the end of its tasks", ids, f"docker node ps {step.id}") if left else None
        status = node.get("ManagerStatus") or {}
        if step.kind == "promote" and not nodes.is_live_manager(node):
            return "a manager that is reachable", str(meaningful(status) or "no manager yet"), more
        if step.kind == "demote" and status:
            return "its life as a worker", str(meaningful(status)), more
    except DockerFailed as error:  # as while another leader is being elected
        return "an answer of the manager", str(error), "docker node ls"
    return None
