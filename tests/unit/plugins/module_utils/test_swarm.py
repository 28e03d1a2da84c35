# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service should be, what it is, what is to do, and whether it got there: all decided without Docker."""

from __future__ import annotations

import copy

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._swarm import content, convergence, spec
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.plan import (
    Refused,
    check_owned_elsewhere,
    plan_absent,
    plan_present,
)
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.units import duration, nanoseconds, size

from tests.swarm_options import options

IDS = spec.Ids({"inside": "net1"}, {"tokens-1": "sec1"}, {"edge-1": "con1"})
NAMES = {"net1": "inside"}


FULL = {
    "command": ["serve"],
    "args": ["--port", "8080"],
    "env": {"A": "1", "B": "x=y"},
    "labels": {"io.bitnet.slot": "blue"},
    "container_labels": {"team": "a"},
    "user": "10001:10001",
    "read_only": True,
    "init": True,
    "cap_add": ["net_bind_service"],
    "cap_drop": ["all"],
    "stop_grace_period": "1m30s",
    "mounts": [
        {"type": "tmpfs", "target": "/tmp", "tmpfs_size": "64M", "tmpfs_mode": "1777"},
        {"source": "/srv/models", "target": "/models", "read_only": True},
        {"type": "volume", "source": "data", "target": "/data"},
    ],
    "secrets": [{"source": "tokens-1", "target": "tokens", "uid": "10001", "mode": "0400"}],
    "configs": [{"source": "edge-1", "target": "/etc/edge.cfg"}],
    "healthcheck": {"test": ["CMD", "true"], "interval": "5s", "start_period": "2m"},
    "networks": ["inside"],
    "limits": {"cpus": 1.5, "memory": "2G"},
    "reservations": {"memory": "512M"},
    "constraints": ["node.role == manager"],
    "platforms": ["linux/amd64"],
    "preferences": ["node.labels.zone"],
    "max_replicas_per_node": 2,
    "restart_policy": {"delay": "0s", "condition": "on-failure"},
    "update_config": {"order": "start-first", "max_failure_ratio": 0.1},
    "logging": {"driver": "json-file", "options": {"max-file": 3}},
    "replicas": 3,
    "publish": [{"published": 8080, "target": 80}],
}


def service(fields, **more):
    return {"ID": "s1", "Spec": spec.to_spec("web", fields, IDS), "Version": {"Index": 7}, **more}


@pytest.mark.parametrize(
    ("text", "expected"), [("10", 10e9), ("1m30s", 90e9), ("500ms", 5e8), ("1.5h", 5400e9), ("0s", 0), ("250us", 250e3)]
)
def test_durations(text, expected):
    assert nanoseconds(text) == expected
    assert nanoseconds(duration(int(expected))) == expected


@pytest.mark.parametrize("text", ["", "s", "10 s", "ten", "5x", "-"])
def test_a_duration_that_is_none_is_refused_by_its_value(text):
    with pytest.raises(ValueError, match="is no duration"):
        nanoseconds(text)


@pytest.mark.parametrize(("text", "expected"), [("1024", 1024), ("64M", 64 << 20), ("2GiB", 2 << 30), ("1.5k", 1536)])
def test_sizes(text, expected):
    assert size(text) == expected


def test_a_size_that_is_none_is_refused_by_its_value():
    with pytest.raises(ValueError, match="'5X' is no size"):
        size("5X")


@pytest.mark.parametrize("given", [{}, FULL, {"mode": "global"}], ids=["bare", "full", "global"])
def test_what_is_written_reads_back_as_what_was_wanted(given):
    wanted = spec.from_options(options(**given))
    assert spec.from_spec(spec.to_spec("web", wanted, IDS), NAMES) == wanted


def test_what_swarm_adds_by_itself_is_no_difference():
    wanted = spec.from_options(options(**FULL))
    found = spec.to_spec("web", wanted, IDS, force_update=4)
    found["TaskTemplate"]["Runtime"] = "container"
    found["TaskTemplate"]["ContainerSpec"].update(Isolation="default", DNSConfig={}, Hosts=None)
    found["UpdateConfig"]["MaxFailureRatio"] = 0.10000000149011612  # 0.1 in 32 bits
    assert spec.from_spec(found, NAMES) == wanted


def test_drift_that_no_field_covers_is_seen_and_repaired():
    wanted = spec.from_options(options())
    found = spec.to_spec("web", wanted, IDS)
    found["TaskTemplate"]["ContainerSpec"]["Hosts"] = ["10.0.0.1 elsewhere"]
    plan = plan_present("web", wanted, spec.from_spec(found, NAMES), [], stuck=False)
    assert plan.action == "update"
    assert plan.before == {"other": {"TaskTemplate": {"ContainerSpec": {"Hosts": ["10.0.0.1 elsewhere"]}}}}
    assert "Hosts" not in spec.to_spec("web", plan.target, IDS)["TaskTemplate"]["ContainerSpec"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"labels": {"io.bitnet.owner": "me"}}, "labels: io.bitnet.owner is 'me'"),
        ({"mode": "global", "replicas": 2}, "replicas: a service with mode=global"),
        ({"stop_grace_period": "soon"}, "stop_grace_period: 'soon' is no duration"),
        ({"limits": {"memory": "much"}}, "limits.memory: 'much' is no size"),
        ({"mounts": [{"target": "/models"}]}, "the bind at /models needs a source"),
        ({"mounts": [{"type": "tmpfs", "source": "/x", "target": "/t"}]}, "the tmpfs at /t has no source"),
        ({"mounts": [{"source": "/x", "target": "/t", "tmpfs_size": "1M"}]}, "/t is a bind"),
        ({"secrets": [{"source": "s", "mode": "rw"}]}, "mode of s: 'rw' is no octal mode"),
        ({"healthcheck": {"test": ["curl"]}}, "must begin with CMD"),
        ({"update_config": {"delay": "x"}}, "update_config.delay: 'x'"),
    ],
)
def test_bad_options_are_named_with_value_and_way_out(given, sentence):
    with pytest.raises(spec.SpecError) as error:
        spec.from_options(options(**given))
    assert sentence in str(error.value)


def test_a_new_service_is_a_plan_to_create_what_was_said():
    plan = plan_present("web", spec.from_options(options()), None, [], stuck=False)
    assert (plan.action, plan.before, plan.after["image"]) == ("create", {}, "web@sha256:1")
    assert "secrets" not in plan.after


def test_only_what_differs_is_in_the_diff():
    found = spec.from_options(options(env={"A": "1"}, replicas=1))
    plan = plan_present("web", spec.from_options(options(env={"A": "2"}, replicas=1)), found, [], stuck=False)
    assert (plan.before, plan.after) == ({"env": {"A": "1"}}, {"env": {"A": "2"}})
    assert plan.summary() == {"action": "update", "fields": ["env"]}


def test_nothing_to_do_is_no_change():
    fields = spec.from_options(options(**FULL))
    plan = plan_present("web", fields, copy.deepcopy(fields), [], stuck=False)
    assert (plan.action, plan.changed, plan.before, plan.after) == ("none", False, {}, {})


def test_a_paused_update_is_taken_up_again():
    fields = spec.from_options(options())
    assert plan_present("web", fields, fields, [], stuck=True).action == "resume"


def test_fields_of_other_owners_stay_as_found_and_are_set_when_they_are_missing():
    wanted = spec.from_options(options(replicas=1, labels={"active": "blue", "first": "x"}))
    found = spec.from_options(options(replicas=5, labels={"active": "green"}))
    owned = ["replicas", "labels.active", "labels.first"]
    plan = plan_present("web", wanted, found, owned, stuck=False)
    assert plan.target["replicas"] == 5
    assert (plan.target["labels"]["active"], plan.target["labels"]["first"]) == ("green", "x")
    assert wanted["labels"]["active"] == "blue", "what was wanted is not changed on the way"


def test_labels_that_another_owner_has_added_stay_and_make_no_change():
    wanted = spec.from_options(options(labels={"active": "blue"}))
    found = spec.from_options(options(labels={"active": "green", "share": "10", "operation": "{}", "stray": "x"}))
    owned = ["labels.active", "labels.share", "labels.operation", "labels.frozen"]
    plan = plan_present("web", wanted, found, owned, stuck=False)
    kept = {key: value for key, value in plan.target["labels"].items() if not key.startswith("io.bitnet.")}
    assert kept == {"active": "green", "share": "10", "operation": "{}"}, "what nobody owns goes, no label is made up"
    assert plan.action == "update"
    del found["labels"]["stray"]
    assert plan_present("web", wanted, found, owned, stuck=False).action == "none"
    assert plan_present("web", wanted, None, owned, stuck=False).target["labels"]["active"] == "blue"


@pytest.mark.parametrize("name", ["image", "labels.", "label.x"])
def test_other_fields_cannot_be_owned_elsewhere(name):
    with pytest.raises(Refused, match="neither replicas nor labels"):
        check_owned_elsewhere([name])


@pytest.mark.parametrize("labels", [{}, {"io.bitnet.owner": "somebody"}])
def test_a_service_that_is_not_ours_is_never_touched(labels):
    wanted = spec.from_options(options())
    found = {**wanted, "labels": labels}
    with pytest.raises(Refused, match="not ours and nothing was changed"):
        plan_present("web", wanted, found, [], stuck=False)
    with pytest.raises(Refused, match="not ours and nothing was changed"):
        plan_absent("web", found)


def test_a_mode_cannot_change():
    with pytest.raises(Refused, match="is replicated and Swarm cannot make it global"):
        plan_present("web", spec.from_options(options(mode="global")), spec.from_options(options()), [], stuck=False)


def test_absent():
    assert plan_absent("web", None).action == "none"
    assert plan_absent("web", spec.from_options(options())).action == "remove"


def test_an_update_keeps_the_counter_that_would_restart_every_task():
    assert spec.to_spec("web", spec.from_options(options()), IDS, 3)["TaskTemplate"]["ForceUpdate"] == 3


# ---- convergence

NODE = {
    "ID": "n1",
    "Spec": {"Role": "manager", "Availability": "active", "Labels": {"zone": "a", "io.bitnet.edge": "true"}},
    "Description": {
        "Hostname": "One",
        "Platform": {"OS": "linux", "Architecture": "x86_64"},
        "Engine": {"Labels": {"disk": "ssd"}},
    },
    "Status": {"State": "ready"},
}


def task(of, state="running", desired="running", name="t1", **status):
    return {
        "ID": name,
        "ServiceID": of["ID"],
        "Slot": 1,
        "NodeID": "n1",
        "Spec": {key: value for key, value in of["Spec"]["TaskTemplate"].items() if value},
        "DesiredState": desired,
        "CreatedAt": status.pop("created", "2026-01-01T00:00:00Z"),
        "Status": {"State": state, **status},
    }


def judged(of, tasks, old_failures=frozenset(), nodes=(NODE,)):
    return convergence.judge(of, tasks, list(nodes), set(old_failures), 3)


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        ("node.role==manager", True),
        ("node.role == MANAGER", True),
        ("node.role!=manager", False),
        ("node.labels.zone==a", True),
        ("node.labels.zone!=b", True),
        ("node.labels.io.bitnet.edge==true", True),
        ("node.labels.missing==x", False),
        ("node.hostname==one", True),
        ("node.platform.arch==arm64", False),
        ("engine.labels.disk==ssd", True),
        ("node.ip==10.0.0.0/8", True),
        ("not a constraint", True),
    ],
)
def test_constraints(constraint, expected):
    assert convergence.matches(NODE, constraint) is expected


def test_a_global_service_wants_the_nodes_that_can_run_it():
    of = service(spec.from_options(options(mode="global", constraints=["node.labels.zone==a"])))
    down = {**NODE, "Status": {"State": "down"}}
    drained = {**NODE, "Spec": {**NODE["Spec"], "Availability": "drain"}}
    other = {**NODE, "Spec": {**NODE["Spec"], "Labels": {"zone": "b"}}}
    assert convergence.tasks_wanted(of["Spec"], [NODE, down, drained, other]) == 1
    verdict = judged(of, [], nodes=[other])
    assert verdict.state == "failed"
    assert "node.labels.zone==a" in verdict.reason


def test_running_at_full_count_is_converged_and_one_short_is_not():
    of = service(spec.from_options(options(replicas=2)))
    tasks = [task(of, name="a"), task(of, name="b")]
    assert judged(of, tasks).state == "converged"
    assert judged(of, tasks[:1]) == convergence.Verdict("waiting", "1 of 2 tasks run", 1, 2)


def test_no_replicas_are_reached_when_the_last_has_ended():
    of = service(spec.from_options(options(replicas=0)))
    assert judged(of, [task(of)]).state == "waiting"
    assert judged(of, [task(of, "shutdown", "shutdown")]).state == "converged"


def test_tasks_of_the_old_specification_do_not_count():
    old = service(spec.from_options(options(env={"A": "1"})))
    new = service(spec.from_options(options(env={"A": "2"})))
    assert judged(new, [task(old)]).state == "waiting"
    both = [task(old, name="old"), task(new, name="new")]
    assert "1 of the previous specification" in judged(new, both).reason
    assert judged(new, [task(old, "shutdown", "shutdown"), task(new)]).state == "converged"


def test_a_changed_placement_leaves_tasks_alone():
    of = service(spec.from_options(options()))
    moved = service(spec.from_options(options(constraints=["node.role==manager"])))
    assert judged(moved, [task(of)]).state == "converged"


@pytest.mark.parametrize("state", ["rollback_started", "rollback_paused", "rollback_completed"])
def test_a_rollback_is_no_success_even_though_all_tasks_run(state):
    of = service(spec.from_options(options()), UpdateStatus={"State": state, "Message": "because"})
    verdict = judged(of, [task(of)])
    assert (verdict.state, "because" in verdict.reason) == ("failed", True)


def test_a_paused_update_has_failed_unless_all_tasks_came_up_since():
    of = service(spec.from_options(options()), UpdateStatus={"State": "paused", "Message": "task died"})
    assert judged(of, []).state == "failed"
    assert convergence.is_stuck(of, [], [NODE])
    assert judged(of, [task(of)]).state == "converged"
    assert not convergence.is_stuck(of, [task(of)], [NODE])


def test_while_swarm_watches_an_update_it_is_not_over():
    of = service(spec.from_options(options()), UpdateStatus={"State": "updating"})
    assert judged(of, [task(of)]).state == "waiting"


def test_three_new_failures_are_enough_and_old_ones_do_not_count():
    of = service(spec.from_options(options()))
    failed = [
        task(of, state, "shutdown", name) for state, name in [("failed", "a"), ("rejected", "b"), ("failed", "c")]
    ]
    assert judged(of, failed).state == "failed"
    assert judged(of, failed, {"a"}).state == "waiting"
    assert judged(of, [*failed, task(of, name="d")]).state == "converged"


def test_the_log_of_the_newest_failed_task_is_the_one_to_show():
    of = service(spec.from_options(options()))
    tasks = [
        task(of, "failed", "shutdown", "old", created="2026-01-01T00:00:00Z"),
        task(of, "failed", "shutdown", "new", created="2026-01-02T00:00:00Z"),
        task(of, "starting", name="next", created="2026-01-03T00:00:00Z"),
    ]
    assert convergence.suspect(tasks) == "new"
    assert convergence.suspect(tasks[2:]) == "next"
    assert convergence.suspect([]) == ""


def test_tasks_are_described_without_their_environment():
    of = service(spec.from_options(options(env={"SECRET": "hunter2"})))
    broken = task(of, "failed", "shutdown", Err="task: non-zero exit (3)", ContainerStatus={"ExitCode": 3})
    described = convergence.describe_tasks([broken], [NODE])
    assert "hunter2" not in str(described)
    assert convergence.task_lines(described) == [
        "task t1 on One is failed (desired shutdown, exit code 3): task: non-zero exit (3)"
    ]
    assert convergence.task_lines([]) == ["no task yet"]


# ---- contents that are named by what they are

KEY = "k" * 32


def test_the_same_content_has_the_same_name_and_another_has_another():
    one = content.wanted("edge", "a", None, {"x": 1})
    assert one.name == content.wanted("edge", "a", None, {}).name
    assert one.name != content.wanted("edge", "b", None, {}).name
    assert one.name.startswith("edge-")
    assert one.labels == {
        "x": "1",
        "io.bitnet.owner": "bitnet.devops",
        "io.bitnet.schema": "1",
        "io.bitnet.base": "edge",
    }


def test_the_name_of_a_secret_depends_on_the_key_and_its_value_is_never_shown():
    one = content.wanted("tokens", "hunter2", KEY, {})
    assert one.name != content.wanted("tokens", "hunter2", "o" * 32, {}).name
    assert one.name != content.wanted("tokens", "hunter2", None, {}).name
    assert "hunter2" not in repr(one)


@pytest.mark.parametrize(
    ("data", "key", "sentence"),
    [("", None, "has 0 bytes"), ("x" * 500_001, None, "500001 bytes"), ("x", "short", "key: 5")],
)
def test_contents_that_cannot_be_kept(data, key, sentence):
    with pytest.raises(Refused, match=sentence):
        content.wanted("edge", data, key, {})


def thing(name, created="1", **labels):
    return {"ID": name, "CreatedAt": created, "Spec": {"Name": name, "Labels": labels or None}}


OURS = {"io.bitnet.owner": "bitnet.devops", "io.bitnet.base": "edge"}


def test_versions_are_those_of_ours_with_that_base_newest_first():
    things = [
        thing("edge-1", "1", **OURS),
        thing("edge-2", "2", **OURS),
        thing("edge-3"),
        thing("edge-x-1", "3", **{**OURS, "io.bitnet.base": "edge-x"}),
    ]
    assert [version["ID"] for version in content.versions("edge", things)] == ["edge-2", "edge-1"]


def test_a_content_of_that_name_which_is_not_ours_is_refused():
    assert content.find("edge-1", [thing("edge-1", **OURS)])
    assert content.find("edge-2", [thing("edge-1")]) is None
    with pytest.raises(Refused, match="not ours"):
        content.find("edge-1", [thing("edge-1")])


def test_only_what_a_service_uses_now_is_used():
    now, before = (spec.to_spec("web", spec.from_options(options(**given)), IDS) for given in (FULL, {}))
    assert content.used([{"Spec": now}]) == {"tokens-1", "edge-1"}
    assert content.used([{"Spec": before, "PreviousSpec": now}]) == set()
