# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look, plan, write, wait: in front of a Swarm of dictionaries in which somebody else may write as well."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._swarm import service as module
from ansible_collections.bitnet.devops.plugins.module_utils._swarm import spec
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import Conflict
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.plan import Refused
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.service import NotConverged, absent, present

from tests.swarm_options import options

IDS = spec.Ids({}, {}, {})
NODE = {
    "ID": "n1",
    "Spec": {"Role": "manager", "Availability": "active"},
    "Status": {"State": "ready"},
    "Description": {"Hostname": "one"},
}


class Swarm:
    """A client of a Swarm with one node. Its tasks are in the state that `becomes` says when they are looked at."""

    def __init__(self, becomes="running"):
        self.becomes = becomes
        self.stored = None
        self.others = []  # what somebody else does just before each write
        self.writes = []
        self.ending = 0

    def service(self, name):
        return copy.deepcopy(self.stored)

    def tasks(self, service_id):
        if not self.stored:
            self.ending -= 1
            return [self.task("running")] if self.ending >= 0 else []
        return [self.task(self.becomes)]

    def task(self, state):
        return {
            "ID": "task1",
            "NodeID": "n1",
            "CreatedAt": "1",
            "DesiredState": "running",
            "Status": {"State": state, "Err": "exit" if state == "failed" else ""},
            "Spec": copy.deepcopy(self.stored["Spec"]["TaskTemplate"]) if self.stored else {},
        }

    def nodes(self):
        return [NODE]

    def network_names(self):
        return {}

    def ids(self, fields):
        return IDS

    def logs(self, service_id, task_id, lines):
        return ["the last words"]

    def write(self, wanted, version):
        if self.others:
            self.others.pop(0)(self)
        if self.stored and self.stored["Version"]["Index"] != version:
            raise Conflict("out of sequence")
        self.stored = {"ID": "s1", "Spec": wanted, "Version": {"Index": (version or 0) + 1}}
        self.writes.append(wanted)

    def create(self, wanted):
        self.write(wanted, None)

    def update(self, service, wanted):
        self.write(wanted, service["Version"]["Index"])

    def remove(self, service):
        self.stored = None


def labelled(swarm):
    swarm.stored["Spec"]["Labels"]["theirs"] = "1"
    swarm.stored["Version"]["Index"] += 1


def taken(swarm):
    swarm.stored["Spec"]["Labels"].pop(spec.OWNER_LABEL)
    swarm.stored["Version"]["Index"] += 1


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Waiting costs no time and is counted."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(module.time, "sleep", lambda seconds: now.__setitem__(0, now[0] + seconds))
    return now


def bring(swarm, act=True, wait=True, timeout=10, owned=("labels.theirs",), **given):
    wanted = spec.from_options(options(**given))
    return present(swarm, "web", wanted, owned_elsewhere=owned, act=act, wait=wait, timeout=timeout)


def test_look_create_and_nothing_to_do():
    swarm = Swarm()
    look = bring(swarm, act=False).result()
    assert (look["changed"], look["plan"]["action"], look["service"], swarm.stored) == (True, "create", {}, None)
    made = bring(swarm).result()
    assert (made["changed"], made["service"]["version"], made["tasks"][0]["state"]) == (True, 1, "running")
    again = bring(swarm).result()
    assert (again["changed"], again["plan"]["action"], len(swarm.writes)) == (False, "none", 1)


def test_a_write_in_between_is_seen_kept_and_planned_anew():
    swarm = Swarm()
    bring(swarm)
    swarm.others = [labelled]
    changed = bring(swarm, env={"MINE": "1"})
    assert changed.plan.action == "update"
    assert swarm.stored["Spec"]["Labels"]["theirs"] == "1"
    assert swarm.stored["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["MINE=1"]


def test_somebody_who_always_writes_in_between_is_named_after_five_looks():
    swarm = Swarm()
    bring(swarm)
    swarm.others = [labelled] * 99
    with pytest.raises(Refused, match="during each of 5 attempts; this task changed nothing"):
        bring(swarm, env={"MINE": "1"})
    assert len(swarm.writes) == 1


def test_a_service_that_somebody_takes_over_in_between_is_not_ours_any_more():
    swarm = Swarm()
    bring(swarm)
    swarm.others = [taken]
    with pytest.raises(Refused, match="has no label"):
        bring(swarm, env={"MINE": "1"})
    assert len(swarm.writes) == 1


def test_the_deadline_says_what_was_awaited_and_seen_and_what_shows_more(clock):
    swarm = Swarm(becomes="starting")
    with pytest.raises(NotConverged) as failed:
        bring(swarm, timeout=3)
    assert 3 < clock[0] < 5
    for part in ("the deadline of 3 s passed", "Awaited: 1 tasks running", "is starting", "the last words",
                 "docker service ps --no-trunc web"):  # fmt: skip
        assert part in str(failed.value)
    assert failed.value.outcome.result()["waited"] == 3.5
    assert failed.value.outcome.result()["changed"]


def test_who_does_not_wait_does_not_ask():
    swarm = Swarm(becomes="starting")
    outcome = bring(swarm, wait=False)
    assert (outcome.plan.action, outcome.tasks, outcome.waited) == ("create", [], 0)


def test_a_service_that_is_removed_while_it_is_waited_for():
    swarm = Swarm(becomes="starting")
    bring(swarm, wait=False)
    looks = iter([swarm.service("web"), swarm.service("web"), None])
    swarm.service = lambda name: next(looks)
    with pytest.raises(Refused, match="was removed by somebody else"):
        bring(swarm)


def gone(swarm, **more):
    return absent(swarm, "web", **{"act": True, "wait": True, "timeout": 10, **more})


def test_absent_waits_until_the_tasks_have_ended(clock):
    swarm = Swarm()
    bring(swarm)
    assert gone(swarm, act=False).plan.action == "remove" and swarm.stored
    swarm.ending = 3
    outcome = gone(swarm)
    assert (outcome.result()["changed"], outcome.service, swarm.stored) == (True, None, None)
    assert outcome.waited == 1.5
    assert gone(swarm).result()["changed"] is False


def test_absent_has_a_deadline_too():
    swarm = Swarm()
    bring(swarm)
    swarm.ending = 999
    with pytest.raises(NotConverged, match="the deadline of 10 s passed before its tasks ended"):
        gone(swarm)
