# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings one service to where it should be: look, plan, act, wait. The same path whether or not it may act."""

from __future__ import annotations

import dataclasses
import time
import typing as t

from . import convergence
from .client import Conflict, DockerFailed, SwarmClient
from .plan import Plan, Refused, check_owned_elsewhere, plan_absent, plan_present
from .spec import Fields, from_spec, to_spec

_LOOKS = 5  # how often a plan is made anew because somebody else wrote in between
_PATIENCE = 3  # failed tasks in a row that show that waiting will not help
_POLL = 0.5
_LOG_LINES = 20


class NotConverged(Exception):
    """The service did not get there in time; the text says what was awaited, what was seen and what shows more."""

    def __init__(self, text: str, outcome: Outcome) -> None:
        super().__init__(text)
        self.outcome = outcome


@dataclasses.dataclass
class Outcome:
    plan: Plan
    service: dict[str, t.Any] | None = None
    tasks: list[dict[str, t.Any]] = dataclasses.field(default_factory=list)
    waited: float = 0.0

    def result(self) -> dict[str, t.Any]:
        service = self.service
        return {
            "changed": self.plan.changed,
            "plan": self.plan.summary(),
            "service": {
                "id": service["ID"],
                "name": service["Spec"]["Name"],
                "version": service["Version"]["Index"],
                "image": service["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"],
                "labels": service["Spec"].get("Labels") or {},
                "update_state": (service.get("UpdateStatus") or {}).get("State", ""),
            }
            if service
            else {},
            "tasks": self.tasks,
            "waited": round(self.waited, 1),
            "diff": {"before": self.plan.before, "after": self.plan.after},
        }


def present(
    client: SwarmClient,
    name: str,
    wanted: Fields,
    *,
    owned_elsewhere: t.Sequence[str],
    act: bool,
    wait: bool,
    timeout: float,
) -> Outcome:
    check_owned_elsewhere(owned_elsewhere)
    failed_before: set[str] = set()
    for _look in range(_LOOKS):
        service = client.service(name)
        found, stuck = None, False
        if service:
            tasks, nodes = client.tasks(service["ID"]), client.nodes()
            found = from_spec(service["Spec"], client.network_names())
            stuck = convergence.is_stuck(service, tasks, nodes)
            failed_before = {task["ID"] for task in tasks if task["Status"]["State"] in ("failed", "rejected")}
        plan = plan_present(name, wanted, found, owned_elsewhere, stuck)
        if not act:
            return Outcome(plan, service)
        try:
            _write(client, name, plan, service)
        except Conflict:
            continue
        break
    else:
        raise Refused(
            f"service {name} was changed by somebody else during each of {_LOOKS} attempts; this task changed nothing. "
            "Find the other writer (docker service inspect shows the version rising) and run again"
        )
    outcome = Outcome(plan, client.service(name))
    if wait:
        wait_running(client, name, outcome, failed_before, timeout)
    return outcome


def _write(client: SwarmClient, name: str, plan: Plan, service: dict[str, t.Any] | None) -> None:
    if not plan.changed:
        return
    force = service["Spec"]["TaskTemplate"].get("ForceUpdate", 0) if service else 0
    spec = to_spec(name, plan.target, client.ids(plan.target), force)
    if service:
        client.update(service, spec)
    else:
        client.create(spec)


def wait_running(client: SwarmClient, name: str, outcome: Outcome, failed_before: set[str], timeout: float) -> None:
    started = time.monotonic()
    verdict = None
    while True:
        service = client.service(name)
        if service is None:
            raise Refused(f"service {name} was removed by somebody else while it was waited for")
        tasks, nodes = client.tasks(service["ID"]), client.nodes()
        verdict = convergence.judge(service, tasks, nodes, failed_before, _PATIENCE)
        outcome.service, outcome.tasks = service, convergence.describe_tasks(tasks, nodes)
        outcome.waited = time.monotonic() - started
        if verdict.state == "converged":
            return
        if verdict.state == "failed" or outcome.waited > timeout:
            break
        time.sleep(_POLL)
    why = verdict.reason if verdict.state == "failed" else f"the deadline of {timeout:g} s passed; {verdict.reason}"
    current = [task for task in tasks if convergence.is_current(task, service["Spec"])]
    seen = convergence.task_lines(convergence.describe_tasks(current, nodes))
    lines = [
        f"service {name} is not running as specified: {why}.",
        f"Awaited: {verdict.wanted} tasks running (and healthy, where the image or the service has a health check).",
        f"Last seen: {'; '.join(seen)}.",
    ]
    suspect = convergence.suspect(current)
    log = client.logs(service["ID"], suspect, _LOG_LINES) if suspect else []
    if log:
        lines += [f"Last lines of the log of task {suspect[:12]}:", *(f"  {line}" for line in log)]
    lines.append(f"More: docker service ps --no-trunc {name}; docker service logs --tail 100 {name}")
    raise NotConverged("\n".join(lines), outcome)


def absent(client: SwarmClient, name: str, *, act: bool, wait: bool, timeout: float) -> Outcome:
    service = client.service(name)
    outcome = Outcome(
        plan_absent(name, from_spec(service["Spec"], client.network_names()) if service else None), service
    )
    if not act or service is None:
        return outcome
    client.remove(service)
    outcome.service = None
    started = time.monotonic()
    while wait:
        tasks, nodes = client.tasks(service["ID"]), client.nodes()
        living = [task for task in tasks if not convergence.has_ended(task)]
        outcome.waited = time.monotonic() - started
        if not living:
            break
        if outcome.waited > timeout:
            seen = "; ".join(convergence.task_lines(convergence.describe_tasks(living, nodes)))
            raise NotConverged(
                f"service {name} is removed, but the deadline of {timeout:g} s passed before its tasks ended. "
                f"Last seen: {seen}. More: docker ps --filter label=com.docker.swarm.service.name={name}",
                outcome,
            )
        time.sleep(_POLL)
    return outcome


__all__ = ["DockerFailed", "NotConverged", "Outcome", "absent", "present"]
