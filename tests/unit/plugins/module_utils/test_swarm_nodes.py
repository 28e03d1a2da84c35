# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import itertools

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._swarm import membership, nodes, settings
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.nodes import Wanted, plan, quorum
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.plan import Refused


def node(name, role="manager", lives=True, availability="active", **labels):
    made = {
        "ID": f"id-{name}",
        "Spec": {"Role": role, "Availability": availability, "Labels": {nodes.NODE_LABEL: name, **labels}},
        "Status": {"State": "ready" if lives else "down"},
        "Description": {"Hostname": f"host-{name}"},
    }
    if role == "manager":
        made["ManagerStatus"] = {"Reachability": "reachable" if lives else "unreachable"}
    return made


def want(name, role="", availability="", id="", **labels):
    return Wanted(name, id or f"id-{name}", role, availability, {nodes.NODE_LABEL: name, **labels})


def said(steps):
    return [f"{step.kind} {step.name}" for step in steps]


def test_what_is_there_is_not_done_again():
    assert (
        plan([node("a", zone="1"), node("b", "worker")], [want("a", "manager", "active", zone="1")], [], "id-a") == []
    )


def test_labels_are_merged_and_taken_away():
    (step,) = plan([node("a", theirs="yes", old="1")], [want("a", zone="1", old=None)], [], "id-a")
    assert (step.kind, step.after) == ("set", {"labels": {nodes.NODE_LABEL: "a", "theirs": "yes", "zone": "1"}})
    assert membership.result([step])["diff"]["before"] == {
        "a": {"labels": {nodes.NODE_LABEL: "a", "theirs": "yes", "old": "1"}}
    }


def test_a_new_manager_comes_before_an_old_one_goes_and_who_is_asked_goes_last():
    there = [node("a"), node("b"), node("c"), node("d", "worker"), node("e", "worker")]
    wanted = [want("a", "worker"), want("b", "worker", "drain"), *(want(name, "manager") for name in "cde")]
    assert said(plan(there, wanted, [], "id-a")) == ["drain b", "promote d", "promote e", "demote b", "demote a"]


def test_a_dead_manager_goes_first():
    there = [node("a"), node("b"), node("c", lives=False), node("d", "worker")]
    wanted = [want("d", "manager"), want("c", "worker")]
    assert said(plan(there, wanted, [], "id-a")) == ["demote c", "promote d"]


def test_a_node_that_leaves_is_drained_demoted_and_removed():
    there = [node("a"), node("b"), node("c"), node("w", "worker", lives=False)]
    steps = plan(there, [want("a", "manager"), want("b", "manager")], ["c", "host-w", "gone"], "id-a")
    assert said(steps) == ["drain c", "demote c", "remove c", "remove host-w"]
    assert membership.result(steps)["changed"]


def test_what_is_left_of_a_machine_that_came_back_is_removed():
    there = [node("a"), node("b"), node("c", lives=False), {**node("c", "worker"), "ID": "id-new"}]
    there[3]["Spec"]["Labels"] = {}
    steps = plan(there, [want("c", "manager", id="id-new")], [], "id-a")
    assert [(step.kind, step.id) for step in steps] == [
        ("demote", "id-c"), ("set", "id-new"), ("promote", "id-new"), ("remove", "id-c"),
    ]  # fmt: skip


def test_what_a_new_cluster_remembers_of_a_manager_is_removed_as_it_is():
    forgotten = node("b", lives=False)
    del forgotten["ManagerStatus"]
    there = [node("a"), forgotten, {**node("b", "worker"), "ID": "id-new"}]
    assert said(plan(there, [want("b", "manager", id="id-new")], [], "id-a")) == ["promote b", "remove b"]


def test_a_node_that_took_the_name_of_another_which_is_wanted_too_removes_nothing():
    there = [node("a"), {**node("new", "worker"), "ID": "id-new"}, node("b", "worker", lives=False)]
    steps = plan(there, [want("b", id="id-new"), want("c", id="id-b")], [], "id-a")
    assert [(step.kind, step.id) for step in steps] == [("set", "id-new"), ("set", "id-b")]


def test_a_node_that_has_not_said_who_it_is_is_no_obstacle():
    """As one is that got its certificate and has not reached a manager since."""
    nameless = node("x", "worker", lives=False)
    nameless["Spec"]["Labels"], nameless["Description"] = {}, {}
    there = [node("a"), node("b"), nameless]
    assert said(plan(there, [want("b", "worker")], [], "id-a")) == ["demote b"]
    assert said(plan(there, [], ["id-x", "nobody", ""], "id-a")) == ["remove id-x"]


@pytest.mark.parametrize(
    ("there", "wanted", "absent", "message"),
    [
        ([node("a")], [want("a", "worker")], [], "without a as a manager 0 of 0 managers would live, and 1 must"),
        (
            [node("a"), node("b"), node("c", lives=False)],
            [want("b", "worker")],
            [],
            "without b as a manager 1 of 2 managers would live, and 2 must, or the Swarm takes no more orders. "
            "Take c back, or out, first",
        ),
        ([node("a"), node("b", "worker", lives=False)], [want("b", "manager")], [], "b is not ready"),
        ([node("a")], [want("b", id="nobody")], [], "b has the id nobody, and the Swarm has no such node"),
        ([node("a"), node("b")], [], ["a"], "absent: a is the manager that was asked"),
        ([node("a"), node("b")], [want("b", id="id-a")], [], "two nodes are called b and ready"),
        ([node("a"), {**node("b"), "ID": "id-2"}, node("b")], [], ["b"], "absent: 'b' are 2 nodes"),
        ([node("a"), node("b")], [want("b"), want("c", id="id-b")], [], "b and c are the same node, id-b"),
        ([node("a"), node("b")], [want("b"), want("b", id="id-a")], [], "b is given twice, with different ids"),
        ([node("a"), node("b")], [want("b")], ["host-b"], "absent: host-b is the node b, which is to stay by nodes"),
    ],
)
def test_what_must_not_be_done_is_refused(there, wanted, absent, message):
    with pytest.raises(Refused, match=message.replace("(", r"\(")) as refused:
        plan(there, wanted, absent, "id-a")
    assert "No node was changed" in str(refused.value) or "correct the id" in str(refused.value)


def test_no_plan_of_five_nodes_breaks_the_quorum():
    """All roles that five nodes can have and get, and all that can be dead: after every step enough managers live."""
    planned = 0
    for found in itertools.product(("manager", "worker", "dead manager"), repeat=4):
        there = [node("0"), *(node(str(i), kind.split()[-1], "dead" not in kind) for i, kind in enumerate(found, 1))]
        managers = [each for each in there if each["Spec"]["Role"] == "manager"]
        if sum(map(nodes.is_live_manager, managers)) < quorum(len(managers)):
            continue  # such a Swarm answers nobody
        for roles in itertools.product(("manager", "worker"), repeat=5):
            wanted = [want(str(i), role) for i, role in enumerate(roles)]
            try:
                steps = plan(there, wanted, [], "id-0")
            except Refused:
                continue
            planned += 1
            voters = {each["ID"]: nodes.is_live_manager(each) for each in managers}
            for step in steps:
                if step.kind == "promote":
                    voters[step.id] = True
                elif step.kind == "demote":
                    del voters[step.id]
                assert sum(voters.values()) >= quorum(len(voters)), (found, roles, said(steps))
            assert steps == [] or voters.keys() == {f"id-{i}" for i, role in enumerate(roles) if role == "manager"}
    assert planned > 500


def test_settings_that_are_not_asked_for_stay():
    swarm = {"Spec": {"Name": "default", "Labels": {"theirs": "yes"}, "EncryptionConfig": {"AutoLockManagers": True}}}
    assert not settings.plan(swarm, None, None).changed
    rotated = settings.plan(swarm, None, "2027-Q1")
    assert rotated.rotates and rotated.spec["EncryptionConfig"] == {"AutoLockManagers": True}
    assert rotated.spec["Labels"] == {"theirs": "yes", settings.TOKENS_LABEL: "2027-Q1"}
    assert not settings.plan({"Spec": rotated.spec}, True, "2027-Q1").changed
    opened = settings.plan({"Spec": rotated.spec}, False, None)
    assert opened.changed and not opened.rotates and opened.after == {"autolock": False, "join_tokens": "2027-Q1"}
