# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What live Swarms become, and what of them is not as declared."""

from __future__ import annotations

import time

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._fleet import live

from tests.unit.engine_api import OURS, node, service, task

M1 = node("m1", "manager", addr="10.0.0.1", labels={"io.bitnet.variant": "x86-64-v3"})
W1 = node("w1", addr="10.0.0.2")
DECLARED = {
    "m1": {"roles": ["manager"], "address": "10.0.0.1", "variant": "x86-64-v3"},
    "w1": {"roles": ["worker", "builder"], "arch": "x86_64"},
}


def fleet(nodes, **clusters):
    every = {"one": {"platform": "swarm", "nodes": nodes}, **clusters}
    return {"environments": {"production": {"regions": {"here": {"clusters": every}}}}}


def listed(*nodes, declared=None, docker_host="unix:///it.sock", node_id="", services=(), tasks=()):
    swarm = live.Swarm("one", docker_host, "", node_id, nodes, services, tasks)
    return live.listing_of([swarm], fleet(declared) if declared is not None else None)


def members(listing, group):
    return {name for name, host in listing.hosts.items() if group in host["groups"]}


def test_nodes_without_a_fleet():
    listing = listed(M1, W1)
    assert members(listing, "cluster_one") == {"m1", "w1"}
    assert members(listing, "swarm_managers") == members(listing, "role_manager") == {"m1"}
    assert members(listing, "arch_x86_64") == {"m1", "w1"}
    assert members(listing, "variant_x86_64_v3") == {"m1"}
    assert not members(listing, "drifted")
    assert "bitnet_drift" not in listing.hosts["m1"]["vars"]
    assert listing.hosts["m1"]["vars"]["bitnet_node"] == {
        "id": "id-of-m1",
        "hostname": "m1",
        "address": "10.0.0.1",
        "role": "manager",
        "leader": True,
        "reachability": "reachable",
        "availability": "active",
        "state": "ready",
        "architecture": "x86_64",
        "engine": "20.10.24",
        "labels": {"io.bitnet.variant": "x86-64-v3"},
    }
    assert listing.groups["platform_swarm"]["children"] == ["cluster_one"]


@pytest.mark.parametrize(
    ("docker_host", "expected"),
    [
        ("unix:///var/run/docker.sock", {"ansible_connection": "local"}),
        ("unix:///it.sock", {"ansible_connection": "local", "bitnet_docker_host": "unix:///it.sock"}),
        ("tcp://10.0.0.1:2376", {"ansible_host": "10.0.0.1"}),
        ("ssh://admin@10.0.0.1:2222", {"ansible_host": "10.0.0.1", "ansible_user": "admin", "ansible_port": 2222}),
        ("ssh://10.0.0.1", {"ansible_host": "10.0.0.1"}),
    ],
)
def test_how_ansible_reaches_a_node(docker_host, expected):
    listing = listed(M1, W1, docker_host=docker_host, node_id="id-of-m1")
    connection = {
        name: value for name, value in listing.hosts["m1"]["vars"].items() if "bitnet_" not in name or "host" in name
    }
    assert connection == expected
    assert listing.hosts["w1"]["vars"]["ansible_host"] == "10.0.0.2"


def test_a_leader_that_does_not_know_its_address():
    listing = listed(node("m1", "manager", addr="0.0.0.0"), node("m2", "manager", addr=""))
    assert listing.hosts["m1"]["vars"]["ansible_host"] == "10.0.0.1"


def test_a_fleet_gives_names_and_variables():
    listing = listed(node("other", "manager", addr="10.0.0.1", labels=M1["Spec"]["Labels"]), W1, declared=DECLARED)
    assert set(listing.hosts) == {"m1", "w1"}
    assert listing.hosts["m1"]["vars"]["ansible_host"] == "10.0.0.1"
    assert listing.hosts["m1"]["vars"]["bitnet_node"]["hostname"] == "other"
    assert members(listing, "builders") == {"w1"}
    assert listing.groups["env_production"]["vars"]["bitnet_environment"] == "production"
    assert not members(listing, "drifted")


def test_only_the_clusters_that_are_asked_come_from_the_fleet():
    swarm = live.Swarm("one", "unix:///it.sock", nodes=[M1])
    other = {"platform": "swarm", "nodes": {"x1": {"roles": ["manager"]}}}
    assert "x1" not in live.listing_of([swarm], fleet(DECLARED, two=other)).hosts


def test_an_address_is_one_nodes_and_a_host_name_may_be_many():
    """The daemons of a lab on one machine all have its name."""
    alike = [node("box", "manager", id=f"id{n}" + "x" * 20, addr=f"10.0.0.{n}") for n in (1, 2, 3)]
    both = {"m1": {"roles": ["manager"], "address": "10.0.0.1"}, "m2": {"roles": ["manager"], "address": "10.0.0.2"}}
    assert set(listed(*alike, declared=both).hosts) == {"m1", "m2", "one-id3xxxxxxxxx"[:16]}
    assert len(listed(*alike).hosts) == 3


@pytest.mark.parametrize(
    "name",
    ["localhost", "localhost.localdomain", "../../etc/x", "-oProxyCommand=x", "", "a b", "{{ 7 * 7 }}", "swarm",
     "all", "ungrouped", "drifted", "127.0.0.1", "service_web", "two"],
)  # fmt: skip
def test_a_node_may_not_choose_any_name(name):
    one = live.Swarm("one", "unix:///it.sock", nodes=[node(name, id="abcdefghijklmnop")])
    two = live.Swarm("two", "unix:///it.sock", "no Docker answers")
    listing = live.listing_of([one, two], None)
    assert set(listing.hosts) == {"one-abcdefghijkl", "two"}
    assert "bitnet_swarm_error" not in listing.hosts["one-abcdefghijkl"]["vars"]


def test_a_name_is_one_hosts_in_all_swarms_and_in_the_whole_fleet():
    """Neither which Swarm is asked first nor which one is asked at all decides whose variables a node gets."""
    one = live.Swarm("one", "unix:///it.sock", nodes=[node("box", id="1" * 25), node("m2", id="2" * 25)])
    two = live.Swarm("two", "unix:///it.sock", nodes=[node("box", id="3" * 25)])
    assert set(live.listing_of([one, two], None).hosts) == {"one-111111111111", "m2", "two-333333333333"}
    elsewhere = {"platform": "swarm", "nodes": {"m2": {"roles": ["manager"], "address": "10.9.9.9"}}}
    found = live.listing_of([one], fleet({"box": {"roles": ["worker"]}}, three=elsewhere))
    assert set(found.hosts) == {"box", "one-222222222222"}


@pytest.mark.parametrize(
    ("addr", "manager_addr", "expected"),
    [
        ("127.0.0.1", "10.0.0.1:2377", "10.0.0.1"),
        ("127.0.0.1", "127.0.0.1:2377", None),
        ("0.0.0.0", "[fd00::1]:2377", "fd00::1"),
        ("::1", "", None),
        ("", "", None),
        ("-oProxyCommand=x", "", None),
    ],
)
def test_an_address_that_is_none_or_the_controllers_is_left_out(addr, manager_addr, expected):
    m1 = node("m1", "manager", addr=addr)
    m1["ManagerStatus"]["Addr"] = manager_addr
    listing = listed(m1, docker_host="tcp://10.0.0.7:2376", node_id="another")
    assert listing.hosts["m1"]["vars"].get("ansible_host") == expected
    assert listing.hosts["m1"]["vars"]["bitnet_node"]["address"] == (expected or "")
    asked = listed(m1, docker_host="tcp://10.0.0.7:2376", node_id="id-of-m1")
    assert asked.hosts["m1"]["vars"]["ansible_host"] == (expected or "10.0.0.7")


@pytest.mark.parametrize(
    ("nodes", "drift"),
    [
        ([M1, W1], {}),
        ([M1], {"w1": ["is not in the Swarm"]}),
        ([M1, W1, node("w2")], {"w2": ["is not declared"]}),
        ([M1, node("w1", "manager")], {"w1": ["is a manager, which is not among its roles"]}),
        ([M1, node("w1", arch="aarch64")], {"w1": ["is of the architecture 'aarch64', declared is 'x86_64'"]}),
        ([M1, node("w1", state="down")], {"w1": ["is down"]}),
        (
            [node("m1", "manager", addr="10.0.0.1"), W1],
            {"m1": ["has '' as label io.bitnet.variant, declared is 'x86-64-v3'"]},
        ),
        ([M1, node("w1", labels={"more": "x"})], {}),
        ([M1, node("w1", state="unknown", arch="")], {"w1": ["is unknown"]}),
    ],
    ids=["none", "missing", "foreign", "role", "architecture", "down", "label", "more labels", "not yet known"],
)
def test_drift(nodes, drift):
    listing = listed(*nodes, declared=DECLARED)
    assert members(listing, "drifted") == set(drift)
    found = {name: host["vars"].get("bitnet_drift") for name, host in listing.hosts.items()}
    assert {name: reasons for name, reasons in found.items() if reasons} == drift


@pytest.mark.parametrize("turn", [1, -1])
def test_a_node_that_joined_anew_is_not_its_old_entry(turn):
    old, new = node("w1", id="a" * 25, state="down", addr="10.0.0.2"), node("w1", id="b" * 25, addr="10.0.0.2")
    listing = listed(M1, *[old, new][::turn], declared=DECLARED)
    assert listing.hosts["w1"]["vars"]["bitnet_node"]["id"] == new["ID"]
    assert members(listing, "drifted") == {"one-aaaaaaaaaaaa"}


def test_a_builder_is_not_expected_in_the_swarm():
    listing = listed(M1, W1, declared={**DECLARED, "b1": {"roles": ["builder"]}})
    assert not members(listing, "drifted")


def test_a_node_without_an_address_is_reached_and_known_by_its_name():
    listing = listed(M1, W1, declared={"m1": DECLARED["m1"], "10.0.0.2": {"roles": ["worker"]}})
    assert set(listing.hosts) == {"m1", "10.0.0.2"}
    assert not members(listing, "drifted")


def test_the_first_part_of_a_name_is_a_host_name_where_it_is_one_nodes():
    worker = {"roles": ["worker"]}
    found = listed(node("a"), node("b"), node("c"), declared={"a": worker, "a.x": worker, "b.x": worker})
    assert {name: host["vars"].get("bitnet_drift") for name, host in found.hosts.items()} == {
        "a": None,
        "a.x": ["is not in the Swarm"],
        "b.x": None,
        "c": ["is not declared"],
    }
    assert members(listed(node("a"), declared={"a.x": worker, "a.y": worker}), "drifted") == {"a", "a.x", "a.y"}


def labels(slot, release):
    return {
        **OURS,
        "io.bitnet.slot": slot,
        "io.bitnet.release": release,
        "io.bitnet.binding": "b",
        "io.bitnet.replicas": "2",
    }


def test_services_tasks_and_slots():
    blue = service("bitnet-production-blue", 2, labels("blue", "r1"))
    green = service("bitnet-production-green", 0, labels("green", "r0"))
    edge = service("bitnet-production-edge", 1, {**OURS, "io.bitnet.active-slot": "blue"})
    foreign = service("web.site", 1, {"io.bitnet.slot": "blue", "io.bitnet.environment": "production"})
    tasks = [
        task(blue, M1, number=1),
        task(blue, W1, number=2, state="failed", desired="shutdown"),
        task(blue, W1, number=3, state="starting"),
        task(edge, M1),
        task(foreign, W1),
    ]
    tasks.append({**task(blue, W1, state="pending"), "NodeID": ""})  # waits for a node
    listing = listed(M1, W1, services=[blue, green, edge, foreign], tasks=tasks)
    cluster = listing.groups["cluster_one"]["vars"]
    both = {"binding": "b", "wanted": 2}
    assert cluster["bitnet_slots"] == {
        "production": {
            "active": "blue",
            "blue": {"service": "bitnet-production-blue", "release": "r1", "replicas": 2, "running": 1, **both},
            "green": {"service": "bitnet-production-green", "release": "r0", "replicas": 0, "running": 0, **both},
        }
    }
    assert cluster["bitnet_services"]["web.site"]["slot"] == "", "it is not ours, whatever it says"
    assert "secret" not in str(listing.data), "the environment of a task is nobody's business"
    assert listing.hosts["w1"]["vars"]["bitnet_tasks"] == [
        {"id": "bitnet-production-blue.3", "service": "bitnet-production-blue", "environment": "production",
         "slot": "blue", "release": "r1", "state": "starting", "error": ""},
        {"id": "web.site.1", "service": "web.site", "environment": "", "slot": "", "release": "", "state": "running",
         "error": ""},
    ]  # fmt: skip
    assert members(listing, "service_web_site") == {"w1"}
    assert members(listing, "service_bitnet_production_edge") == {"m1"}
    assert listing.groups["slot_production_blue"]["children"] == ["service_bitnet_production_blue"]
    assert "slot_production_green" not in listing.groups


def test_what_a_label_says_is_made_a_name_of_a_group():
    blue = service("it", 1, {**labels("blue", "r1"), "io.bitnet.environment": "a b"})
    listing = listed(M1, services=[blue], tasks=[task(blue, M1)])
    assert listing.groups["slot_a_b_blue"]["children"] == ["service_it"]


def test_a_swarm_that_says_nothing_has_its_reason_on_its_hosts():
    gone = live.Swarm("one", "unix:///it.sock", "no Docker answers")
    other = live.Swarm("two", "unix:///it.sock", nodes=[node("x1")])
    two = {"platform": "swarm", "nodes": {"x1": {"roles": ["worker"]}}}
    listing = live.listing_of([gone, other], fleet(DECLARED, two=two))
    assert members(listing, "unreachable") == {"m1", "w1"}
    assert listing.hosts["m1"]["vars"]["bitnet_swarm_error"] == "no Docker answers"
    assert listing.hosts["m1"]["vars"]["ansible_host"] == "10.0.0.1"
    assert not members(listing, "drifted"), "nothing is known"
    assert members(live.listing_of([gone, other], None), "unreachable") == {"one"}
    assert members(live.listing_of([gone, other], None), "cluster_two") == {"x1"}


def test_nodes_are_looked_up_and_not_compared_with_each_other():
    """Ten thousand are a second's work, and would be minutes' otherwise."""
    nodes = [node(f"n{number}", addr=f"10.0.{number >> 8}.{number & 255}") for number in range(10_000)]
    half = {f"n{number}": {"roles": ["worker"]} for number in range(0, 10_000, 2)}
    began = time.process_time()
    listing = listed(*nodes, declared={**half, "m1": {"roles": ["manager"]}})
    assert len(members(listing, "drifted")) == 5_001
    assert time.process_time() - began < 10
