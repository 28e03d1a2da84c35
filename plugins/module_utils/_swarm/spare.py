# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A node's absence on a real Swarm: look, refuse, wait, and spread what has moved together."""

from __future__ import annotations

import contextlib
import copy
import time
import typing as t

from . import absence
from .client import Conflict, DockerFailed, Json, SwarmClient
from .membership import NotThere
from .nodes import is_live_manager, is_ready, labels_of
from .plan import Refused

_POLL = 1.0


def look(client: SwarmClient) -> absence.Swarm:
    return absence.Swarm(client.nodes(), client.services(), client.all_tasks())


def described(client: SwarmClient) -> list[dict[str, t.Any]]:
    """The nodes in the turn in which they would go."""
    nodes = sorted(client.nodes(), key=absence.turn)
    return [
        {
            "id": node["ID"],
            "name": absence.name_of(node),
            "turn": absence.turn(node),
            "availability": node["Spec"]["Availability"],
            "away": labels_of(node).get(absence.AWAY_LABEL, ""),
            "upgraded": labels_of(node).get(absence.UPGRADED_LABEL, ""),
        }
        for node in nodes
    ]


def check(client: SwarmClient, id: str, *, gap: bool) -> list[str]:
    swarm = look(client)
    node = _node(swarm, id)
    name = absence.name_of(node)
    if why := absence.refusals(swarm, node):
        raise Refused(f"{name} cannot be spared now: {'; '.join(why)}. Then run this again. {name} was not touched")
    gaps = absence.gaps(swarm, node)
    if gaps and not gap:
        raise Refused(
            f"gap: while {name} is away {'; '.join(gaps)}. Have more nodes or replicas, or accept that for this run "
            f"(-e swarm_upgrade_gap=true). {name} was not touched"
        )
    return gaps


def wait(client: SwarmClient, action: str, id: str, *, gap: bool, timeout: float) -> dict[str, t.Any]:
    missing = {"away": _not_away, "ready": _not_ready, "back": _not_whole}[action]
    began = time.monotonic()
    _await(client, id, missing, gap, timeout)
    result: dict[str, t.Any] = {}
    if action == "back":
        result["spread"] = _spread(client)
        result["changed"] = bool(result["spread"])
        _await(client, id, missing, gap, timeout)
    return {**result, "waited": round(time.monotonic() - began, 1)}


def _await(
    client: SwarmClient, id: str, missing: t.Callable[[absence.Swarm, Json, bool], list[str]], gap: bool, timeout: float
) -> None:
    end = time.monotonic() + timeout
    while True:
        try:
            swarm = look(client)
            seen = missing(swarm, _node(swarm, id), gap)
        except DockerFailed as error:  # as while another leader is being elected
            seen = [str(error)]
        if not seen:
            return
        if time.monotonic() > end:
            raise NotThere(
                f"after {timeout:.0f} s (timeout) still: {'; '.join(seen)}. 'docker node ps {id}' and "
                "'docker service ps --no-trunc' show more"
            )
        time.sleep(_POLL)


def _not_away(swarm: absence.Swarm, node: Json, gap: bool) -> list[str]:
    left = [f"task {task} on {absence.name_of(node)}" for task in absence.left_on(swarm, node)]
    return left or ([] if gap else absence.shortfall(swarm))


def _not_ready(_swarm: absence.Swarm, node: Json, _gap: bool) -> list[str]:
    if not is_ready(node):
        return [f"{absence.name_of(node)} is {node['Status']['State']}"]
    lost = node.get("ManagerStatus") and not is_live_manager(node)
    return [f"{absence.name_of(node)} is a manager that the others do not reach"] if lost else []


def _not_whole(swarm: absence.Swarm, node: Json, gap: bool) -> list[str]:
    # With everything drained nothing is wanted of a global service; the node itself has to be there in any case.
    return _not_ready(swarm, node, gap) or absence.shortfall(swarm)


def _spread(client: SwarmClient) -> list[str]:
    """One task after the other is replaced, by the service's own rules for updates: that is what Swarm has for it."""
    names = []
    for service in absence.crowded(look(client)):
        spec = copy.deepcopy(service["Spec"])
        spec["TaskTemplate"]["ForceUpdate"] = spec["TaskTemplate"].get("ForceUpdate", 0) + 1
        with contextlib.suppress(Conflict):  # somebody who writes the service replaces its tasks himself
            client.update(dict(service), spec)
            names.append(spec["Name"])
    return names


def _node(swarm: absence.Swarm, id: str) -> Json:
    node = swarm.node(id)
    if node is None:
        raise Refused(f"node: the Swarm has no node {id}; somebody removed it, or it is another Swarm's")
    return dict(node)
