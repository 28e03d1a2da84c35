# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a Swarm can do without a node, and the waits around its absence on a Swarm that is played."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._swarm import absence, spare
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.absence import Swarm, gaps, refusals, turn
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import Conflict, DockerFailed
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.membership import NotThere
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.plan import Refused
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.operation import Operation


def node(name, role="manager", lives=True, availability="active", leader=False, **labels):
    made = {
        "ID": f"id-{name}",
        "Spec": {
            "Role": role,
            "Availability": availability,
            "Labels": {"io.bitnet.node": name, **{f"io.bitnet.{key}": value for key, value in labels.items()}},
        },
        "Status": {"State": "ready" if lives else "down"},
        "Description": {"Hostname": "same", "Platform": {"OS": "linux", "Architecture": "x86_64"}},
    }
    if role == "manager":
        made["ManagerStatus"] = {"Reachability": "reachable" if lives else "unreachable", "Leader": leader}
    return made


def service(name, replicas: int | None = 2, owner="bitnet.devops", constraints=(), **labels):
    return {
        "ID": f"id-{name}",
        "Spec": {
            "Name": name,
            "Labels": {
                "io.bitnet.owner": owner,
                "io.bitnet.environment": "lab",
                **{f"io.bitnet.{key}": value for key, value in labels.items()},
            },
            "Mode": {"Global": {}} if replicas is None else {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {"ContainerSpec": {"Image": "it"}, "Placement": {"Constraints": list(constraints)}},
        },
    }


def on(of, *names, state="running"):
    return [
        {
            "ID": f"task-{of['Spec']['Name']}-{name}-{number}",
            "ServiceID": of["ID"],
            "NodeID": f"id-{name}",
            "Spec": copy.deepcopy(of["Spec"]["TaskTemplate"]),
            "DesiredState": "running",
            "Status": {"State": state},
        }
        for number, name in enumerate(names)
    ]


A, B, C = node("a", leader=True), node("b"), node("c")
WEB = service("web")


def test_turns():
    left = node("left", "worker", availability="drain", upgrade="active")
    there = [A, B, node("w", "worker"), left]
    assert [absence.name_of(each) for each in sorted(there, key=turn)] == ["left", "w", "b", "a"]


def test_a_node_that_nobody_needs_may_go():
    swarm = Swarm([A, B, C], [WEB, service("theirs", 9, owner="someone")], on(WEB, "a", "b"))
    for each in (A, B, C):
        assert refusals(swarm, each) == [] and gaps(swarm, each) == []


@pytest.mark.parametrize(
    ("nodes", "tasks", "message"),
    [
        ([A, B, node("w", "worker", lives=False)], on(WEB, "a", "b"), "w is down: take it back, or out"),
        ([A, B, node("c", lives=False)], on(WEB, "a", "b"), "without b 1 of 3 managers would live, and 2 must: take c"),
        ([A, B, node("c", availability="drain", upgrade="active")], on(WEB, "a", "b"), "c is away for an upgrade"),
        ([A, B, C], on(WEB, "a"), "web runs 1 of 2 tasks: "),
        ([A, B, C], on(WEB, "a", "b", state="starting"), "web runs 0 of 2 tasks: "),
    ],
)
def test_a_swarm_that_is_not_whole_keeps_the_node(nodes, tasks, message):
    assert any(message in why for why in refusals(Swarm(nodes, [WEB], tasks), B))


def test_a_node_that_is_down_is_not_begun_with_unless_a_run_left_it_so():
    down, left = node("w", "worker", lives=False), node("w", "worker", False, "drain", upgrade="active")
    assert refusals(Swarm([A, B, C, down], [], []), down) == [
        "w itself is down: bitnet.devops.platform starts its Docker"
    ]
    # What is missing since it is away comes back with it.
    assert refusals(Swarm([A, B, C, left], [WEB], on(WEB, "a")), left) == []


def test_gaps_of_small_swarms():
    alone = Swarm([A], [WEB], on(WEB, "a", "a"))
    assert refusals(alone, A) == []
    assert gaps(alone, A) == [
        "the Swarm takes no orders: without a 0 of 1 managers would live, and 1 must",
        "all tasks of web are there, and nothing answers until it is back: no other node takes them",
    ]
    two = Swarm([A, node("w", "worker")], [WEB], on(WEB, "w", "w"))
    assert gaps(two, two.nodes[1]) == [
        "all tasks of web are there, and nothing answers until Swarm has started them on another node"
    ]


def test_a_slot_without_requests_may_be_down():
    blue, green = service("blue", 1, slot="blue"), service("green", 1, slot="green")
    edge = service("edge", None, constraints=["node.role==manager"], **{"active-slot": "blue", "idle-share": "0"})
    tasks = [*on(blue, "b"), *on(green, "c"), *on(edge, "a", "b", "c")]
    swarm = Swarm([A, B, C], [blue, green, edge], tasks)
    assert "all tasks of blue are there" in gaps(swarm, B)[0]
    assert gaps(swarm, C) == []
    edge["Spec"]["Labels"]["io.bitnet.idle-share"] = "10"
    assert "all tasks of green are there" in gaps(swarm, C)[0]


def test_a_rollout_that_is_under_way_is_not_disturbed():
    def edge(phase):
        operation = Operation("7", "switch", "abc", "blue", "green", "alice", phase)
        return service("edge", 0, **{"active-slot": "blue", "operation": operation.text()})

    (why,) = refusals(Swarm([A, B, C], [edge("switching")], []), B)
    assert "edge has an open operation 7 (switch of release abc" in why and "let the rollout end" in why
    assert refusals(Swarm([A, B, C], [edge("prepared")], []), B) == []
    broken = service("edge", 0, operation="{")
    assert "label io.bitnet.operation cannot be read" in refusals(Swarm([A, B, C], [broken], []), B)[0]


def test_a_global_service_is_wanted_on_the_nodes_that_take_it():
    edge = service("edge", None, constraints=["node.role==manager"])
    drained = node("c", availability="drain")
    assert absence.shortfall(Swarm([A, B, drained], [edge], on(edge, "a", "b"))) == []
    assert absence.shortfall(Swarm([A, B, C], [edge], on(edge, "a", "b"))) == ["edge runs 2 of 3 tasks"]


def test_what_has_moved_together_is_spread():
    drained = node("b", availability="drain")
    assert absence.crowded(Swarm([A, B], [WEB], on(WEB, "a", "a"))) == [WEB]
    assert absence.crowded(Swarm([A, drained], [WEB], on(WEB, "a", "a"))) == []
    assert absence.crowded(Swarm([A, B], [WEB], on(WEB, "a", "b"))) == []
    assert absence.crowded(Swarm([A, B], [service("one", 1)], on(service("one", 1), "a"))) == []


class Client:
    """Says one after the other what it was given, and the last for ever."""

    def __init__(self, *swarms):
        self.swarms = list(swarms)
        self.written = []

    def nodes(self):
        swarm = self.swarms[0]
        if isinstance(swarm, Exception):
            self.swarms.pop(0)
            raise swarm
        return swarm.nodes

    def services(self):
        return self.swarms[0].services

    def all_tasks(self):
        return (self.swarms.pop(0) if len(self.swarms) > 1 else self.swarms[0]).tasks

    def update(self, found, spec):
        self.written.append(spec)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch):
    monkeypatch.setattr(spare, "_POLL", 0.01)


def test_refusals_are_sentences():
    with pytest.raises(Refused, match=r"a cannot be spared now: c is down: .*Then run this again. a was not touched"):
        spare.check(Client(Swarm([A, B, node("c", "worker", lives=False)], [], [])), "id-a", gap=True)
    with pytest.raises(Refused, match=r"gap: while a is away the Swarm takes no orders.*swarm_upgrade_gap=true"):
        spare.check(Client(Swarm([A], [], [])), "id-a", gap=False)
    assert len(spare.check(Client(Swarm([A], [], [])), "id-a", gap=True)) == 1
    with pytest.raises(Refused, match="the Swarm has no node id-z"):
        spare.check(Client(Swarm([A], [], [])), "id-z", gap=True)


def test_a_drained_node_is_waited_for():
    gone = node("b", availability="drain", upgrade="active")
    there = [A, gone, C]
    busy, moving = Swarm(there, [WEB], on(WEB, "a", "b")), Swarm(there, [WEB], on(WEB, "a"))
    done = Swarm(there, [WEB], on(WEB, "a", "c"))
    assert spare.wait(Client(busy, moving, done), "away", "id-b", gap=False, timeout=5)["waited"] < 5
    with pytest.raises(NotThere, match=r"after 0 s \(timeout\) still: task task-web-b-1 is running on b"):
        spare.wait(Client(busy), "away", "id-b", gap=True, timeout=0)
    with pytest.raises(NotThere, match="web runs 1 of 2 tasks"):
        spare.wait(Client(moving), "away", "id-b", gap=False, timeout=0)
    assert spare.wait(Client(moving), "away", "id-b", gap=True, timeout=0)
    # Nobody knows what runs on a node that is down.
    down = node("b", lives=False, availability="drain", upgrade="active")
    assert spare.wait(Client(Swarm([A, down, C], [WEB], on(WEB, "b", "a", "c"))), "away", "id-b", gap=False, timeout=0)


def test_a_manager_is_back_when_the_others_reach_it():
    unreached = node("b")
    unreached["ManagerStatus"]["Reachability"] = "unreachable"
    client = Client(DockerFailed("no leader"), Swarm([A, unreached, C], [], []), Swarm([A, B, C], [], []))
    assert spare.wait(client, "ready", "id-b", gap=False, timeout=5)
    with pytest.raises(NotThere, match="b is a manager that the others do not reach"):
        spare.wait(Client(Swarm([A, unreached, C], [], [])), "ready", "id-b", gap=False, timeout=0)


def conflict(*_written):
    raise Conflict("somebody writes")


def test_after_its_return_services_are_whole_and_spread():
    together, apart = Swarm([A, B], [WEB], on(WEB, "a", "a")), Swarm([A, B], [WEB], on(WEB, "a", "b"))
    client = Client(together, together, apart)
    found = spare.wait(client, "back", "id-b", gap=False, timeout=5)
    assert (found["spread"], found["changed"]) == (["web"], True)
    assert [spec["TaskTemplate"]["ForceUpdate"] for spec in client.written] == [1]
    assert spare.wait(Client(apart), "back", "id-b", gap=False, timeout=5)["changed"] is False

    client = Client(together)
    client.update = conflict
    assert spare.wait(client, "back", "id-b", gap=False, timeout=5)["spread"] == []


def test_nodes_are_listed_in_their_turn():
    listed = spare.described(Client(Swarm([A, node("w", "worker", upgraded="then")], [], [])))
    assert [(each["name"], each["turn"], each["upgraded"]) for each in listed] == [("w", 1, "then"), ("a", 3, "")]
