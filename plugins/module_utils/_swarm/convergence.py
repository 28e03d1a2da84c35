# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is a service where its specification says? Judged from what the API returned, without asking it."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .spec import meaningful

# A task is not taken back from these states.
_ENDED = {"complete", "shutdown", "failed", "rejected", "remove", "orphaned"}
_FAILED = {"failed", "rejected"}
_UNDONE = {"rollback_started", "rollback_paused", "rollback_completed"}
_CONSTRAINT = re.compile(r"\s*([\w.:/-]+)\s*(==|!=)\s*(.*?)\s*")
_SAME = {"x86_64": "amd64", "aarch64": "arm64"}  # as Swarm compares architectures

Json = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Verdict:
    """C(state) is converged, waiting or failed; C(running) of C(wanted) tasks run what the specification says."""

    state: str
    reason: str
    running: int
    wanted: int


def matches(node: Json, constraint: str) -> bool:
    """Does this node satisfy one placement constraint? One that we cannot read excludes no node: Swarm judges it."""
    found = _CONSTRAINT.fullmatch(constraint)
    if not found:
        return True
    key, operator, value = found.groups()
    spec, description = node.get("Spec", {}), node.get("Description", {})
    platform = description.get("Platform", {})
    plain = {
        "node.id": node.get("ID"),
        "node.hostname": description.get("Hostname"),
        "node.role": spec.get("Role"),
        "node.platform.os": platform.get("OS"),
        "node.platform.arch": platform.get("Architecture"),
    }
    if key in plain:
        actual = plain[key] or ""
    elif key.startswith("node.labels."):
        actual = (spec.get("Labels") or {}).get(key[len("node.labels.") :], "")
    elif key.startswith("engine.labels."):
        actual = (description.get("Engine", {}).get("Labels") or {}).get(key[len("engine.labels.") :], "")
    else:
        return True
    return (actual.lower() == value.lower()) == (operator == "==")


def of_platform(node: Json, platforms: t.Collection[str]) -> bool:
    """Is this node of one of the platforms, as in linux/amd64? Without any, every node is."""
    found = node.get("Description", {}).get("Platform") or {}
    architecture = found.get("Architecture", "")
    return not platforms or f"{found.get('OS', '')}/{_SAME.get(architecture, architecture)}" in platforms


def takes(node: Json, spec: Json) -> bool:
    """May tasks of the service run on this node now?"""
    placement = spec["TaskTemplate"].get("Placement") or {}
    platforms = [f"{each.get('OS', '')}/{each['Architecture']}" for each in placement.get("Platforms") or []]
    return (
        node["Status"]["State"] == "ready"
        and node["Spec"]["Availability"] == "active"
        and of_platform(node, platforms)
        and all(matches(node, constraint) for constraint in placement.get("Constraints") or [])
    )


def tasks_wanted(spec: Json, nodes: t.Iterable[Json]) -> int:
    if "Replicated" in spec["Mode"]:
        return int(spec["Mode"]["Replicated"].get("Replicas", 0))
    return sum(takes(node, spec) for node in nodes)


def is_current(task: Json, spec: Json) -> bool:
    """Does the task run what the service now says? Swarm leaves a task alone when only its placement rules changed."""

    def essence(template: Json) -> t.Any:
        return meaningful({key: value for key, value in template.items() if key != "Placement"})

    return essence(task["Spec"]) == essence(spec["TaskTemplate"])


def is_running(task: Json, spec: Json) -> bool:
    return task["DesiredState"] == "running" and task["Status"]["State"] == "running" and is_current(task, spec)


def has_ended(task: Json) -> bool:
    return task["Status"]["State"] in _ENDED


def failures(tasks: t.Iterable[Json], spec: Json) -> set[str]:
    """The ids of the tasks that have tried what the service now says, and failed."""
    return {task["ID"] for task in tasks if task["Status"]["State"] in _FAILED and is_current(task, spec)}


def is_stuck(service: Json, tasks: t.Sequence[Json], nodes: t.Iterable[Json]) -> bool:
    """Has Swarm paused an update to what the service now says, with tasks still missing?"""
    update = (service.get("UpdateStatus") or {}).get("State", "")
    spec = service["Spec"]
    return update == "paused" and sum(is_running(task, spec) for task in tasks) < tasks_wanted(spec, nodes)


def judge(
    service: Json, tasks: t.Sequence[Json], nodes: t.Sequence[Json], old_failures: set[str], patience: int
) -> Verdict:
    """old_failures: what had failed before we came; patience: how many new failures are too many."""
    spec, update = service["Spec"], service.get("UpdateStatus") or {}
    state = update.get("State", "")
    wanted = tasks_wanted(spec, nodes)
    running = sum(is_running(task, spec) for task in tasks)
    leftover = sum(
        task["DesiredState"] == "running" and not has_ended(task) and not is_current(task, spec) for task in tasks
    )
    if state in _UNDONE:
        return Verdict("failed", f"Swarm took the update back ({state}): {update.get('Message', '')}", running, wanted)
    if running == wanted and not leftover and state != "updating":
        if wanted or "Replicated" in spec["Mode"]:
            return Verdict("converged", f"{running} of {wanted} tasks run", running, wanted)
        constraints = ", ".join(spec["TaskTemplate"].get("Placement", {}).get("Constraints") or []) or "none"
        return Verdict("failed", f"no node that is ready and active satisfies the constraints ({constraints})", 0, 0)
    if state == "paused":
        return Verdict("failed", f"Swarm paused the update: {update.get('Message', '')}", running, wanted)
    failed = failures(tasks, spec) - old_failures
    if len(failed) >= patience and running < wanted:
        return Verdict("failed", f"{len(failed)} tasks failed one after the other", running, wanted)
    more = f", {leftover} of the previous specification still to replace" if leftover else ""
    watched = ", Swarm still watches the update" if state == "updating" else ""
    return Verdict("waiting", f"{running} of {wanted} tasks run{more}{watched}", running, wanted)


def suspect(tasks: t.Sequence[Json]) -> str:
    """The id of the task whose log is most likely to say why: the newest that failed, or else the newest."""
    newest = sorted(tasks, key=lambda task: task["CreatedAt"], reverse=True)
    failed = [task for task in newest if task["Status"]["State"] in _FAILED]
    return next((task["ID"] for task in [*failed, *newest]), "")


def describe_tasks(tasks: t.Iterable[Json], nodes: t.Iterable[Json]) -> list[dict[str, t.Any]]:
    """The tasks, newest first, in what a person wants to know; never their environment."""
    names = {node["ID"]: node.get("Description", {}).get("Hostname", "") for node in nodes}
    newest = sorted(tasks, key=lambda task: task["CreatedAt"], reverse=True)
    described = []
    for task in newest:
        status = task["Status"]
        described.append(
            {
                "id": task["ID"][:12],
                "slot": task.get("Slot"),
                "node": names.get(task.get("NodeID", ""), "no node yet"),
                "desired": task["DesiredState"],
                "state": status["State"],
                "error": status.get("Err", ""),
                "exit_code": (status.get("ContainerStatus") or {}).get("ExitCode"),
                "since": status.get("Timestamp", ""),
            }
        )
    return described


def task_lines(described: t.Iterable[t.Mapping[str, t.Any]], limit: int = 6) -> list[str]:
    lines = []
    for task in list(described)[:limit]:
        code = f", exit code {task['exit_code']}" if task["exit_code"] else ""
        error = f": {task['error']}" if task["error"] else ""
        lines.append(f"task {task['id']} on {task['node']} is {task['state']} (desired {task['desired']}{code}){error}")
    return lines or ["no task yet"]
