# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver with edges on several nodes of a Swarm in memory: the job that tells them, deaths, nodes that go down."""

from __future__ import annotations

import copy
import datetime
import http.server
import json
import threading
from typing import Any

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import Conflict
from ansible_collections.bitnet.devops.plugins.module_utils._traffic import edge, swarm, switch
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.plan import Refused, Wish
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.routing import Router, Routing
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.schema import Schema

OLD, NEW = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
NODES = ("one", "two", "three")
OURS = {"io.bitnet.owner": "bitnet.devops", "io.bitnet.environment": "lab"}
JOB = "bitnet-lab-route"


class Killed(BaseException):
    """The process is gone: nothing of it acts any more."""


class Swarm:
    """What survives a killed process, and the client's calls. Jobs do their work while the clock sleeps."""

    def __init__(self) -> None:
        self.time, self.number = 0.0, 0
        self.maps = {name: Routing("blue") for name in NODES}
        self.down: set[str] = set()
        self.cut: set[str] = set()  # reached by nobody, and not yet known to be down
        self.slow: set[str] = set()  # does nothing of a job
        self.full: set[str] = set()
        self.table: dict[str, dict[str, Any]] = {}
        self.task_list: list[dict[str, Any]] = []
        self.configs: list[dict[str, Any]] = []
        self.effects: list[str] = []
        self.jobs: list[list[str]] = []
        self.die_at: tuple[int, str] | None = None
        self.dead = False
        self.events: dict[float, Any] = {}
        self._service("bitnet-lab-edge", {"Global": {}}, {**OURS, "io.bitnet.active-slot": "blue"}, NODES)
        for slot, release in (("blue", OLD), ("green", NEW)):
            labels = {**OURS, "io.bitnet.release": release, "io.bitnet.replicas": "1"}
            self._service(f"bitnet-lab-{slot}", {"Replicated": {"Replicas": 1}}, labels, ("one",))

    def _service(self, name: str, mode: dict[str, Any], labels: dict[str, str], nodes: Any) -> None:
        mounts = [{"Target": "/run/bitnet-edge", "Source": "/state/edge", "Type": "bind"}, {"Target": "/other"}]
        template = {"ContainerSpec": {"Image": "edge@sha256:1", "Mounts": mounts}, "Placement": {"Constraints": ["x"]}}
        port = {"Ports": [{"PublishedPort": 8080}]}
        spec = {"Name": name, "Mode": mode, "Labels": labels, "TaskTemplate": template, "EndpointSpec": port}
        self.table[name] = {"ID": name, "Version": {"Index": 1}, "Spec": spec}
        for node in nodes:
            self._task(name, node, template, "running")

    def _task(self, service: str, node: str, template: dict[str, Any], state: str) -> None:
        self.number += 1
        wanted = "running" if state == "running" else "complete"
        self.task_list.append({
            "ID": f"t{self.number}", "ServiceID": service, "NodeID": node, "DesiredState": wanted,
            "Spec": copy.deepcopy(template), "Status": {"State": state}, "CreatedAt": f"{self.number:09d}",
        })  # fmt: skip

    def _effect(self, name: str, act: Any) -> Any:
        self._live()
        number = len(self.effects)
        if self.die_at == (number, "before"):
            self.dead = True
            raise Killed
        self.effects.append(name)
        done = act()
        if self.die_at == (number, "after"):
            self.dead = True
            raise Killed
        return done

    def _live(self) -> None:
        if self.dead:
            raise Killed

    # -- the clock

    def now(self) -> str:
        noon = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.timezone.utc)
        return (noon + datetime.timedelta(seconds=self.time)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        for at in [at for at in self.events if at <= self.time]:
            self.events.pop(at)()
        for task in list(self.task_list):
            node, state = task["NodeID"], task["Status"]
            if node in self.down | self.cut | self.slow or state["State"] not in ("new", "starting"):
                continue
            if task["DesiredState"] == "remove":
                self.task_list.remove(task)
            elif state["State"] == "new":
                state["State"] = "starting"
            elif node in self.full:
                state.update({"State": "failed", "ContainerStatus": {"ExitCode": 3}})
            else:
                _route, active, share, hold = task["Spec"]["ContainerSpec"]["Args"]
                self.maps[node] = Routing(active, int(share), hold == "1")
                state["State"] = "complete"

    # -- the client

    def service(self, name: str) -> dict[str, Any] | None:
        self._live()
        return copy.deepcopy(self.table.get(name))

    def all_tasks(self) -> list[dict[str, Any]]:
        self._live()
        return copy.deepcopy(self.task_list)

    def tasks(self, service_id: str) -> list[dict[str, Any]]:
        return [task for task in self.all_tasks() if task["ServiceID"] == service_id]

    def nodes(self) -> list[dict[str, Any]]:
        return [
            {
                "ID": name, "Spec": {"Labels": {"io.bitnet.node": name}}, "Description": {"Hostname": "same"},
                "Status": {"State": "down" if name in self.down else "ready", "Addr": "0.0.0.0"},
                "ManagerStatus": {"Addr": f"{name}:2377"},
            }
            for name in NODES
        ]  # fmt: skip

    def node_id(self) -> str:
        return "one"

    def update(self, service: dict[str, Any], spec: dict[str, Any]) -> None:
        def act() -> None:
            found = self.table[spec["Name"]]
            if found["Version"] != service["Version"]:
                raise Conflict("update out of sequence")
            self.table[spec["Name"]] = {**found, "Version": {"Index": found["Version"]["Index"] + 1}, "Spec": spec}

        self._effect("write", act)

    def create(self, spec: dict[str, Any]) -> str:
        def act() -> None:
            if spec["Name"] in self.table:
                raise Conflict("name conflicts with an existing object")
            self.number += 1
            id = f"job{self.number}"
            self.jobs.append(spec["TaskTemplate"]["ContainerSpec"]["Args"])
            self.table[spec["Name"]] = {"ID": id, "Version": {"Index": 1}, "Spec": spec}
            for node in NODES:
                if node not in self.down:
                    self._task(id, node, spec["TaskTemplate"], "new")

        self._effect("create the job", act)
        return "id"

    def remove(self, service: dict[str, Any]) -> None:
        def act() -> None:
            self.table.pop(service["Spec"]["Name"], None)
            for task in self.task_list:
                if task["ServiceID"] == service["ID"]:
                    task["DesiredState"] = "remove"

        self._effect("remove the job", act)

    def contents(self, _kind: str) -> list[dict[str, Any]]:
        return self.configs

    def create_content(self, _kind: str, name: str, data: bytes, labels: dict[str, str]) -> None:
        self._effect("record", lambda: self.configs.append(
            {"ID": name, "CreatedAt": self.now(), "Spec": {"Name": name, "Labels": labels, "Data": data}}
        ))  # fmt: skip

    def revive(self) -> None:
        self.dead, self.die_at = False, None

    # -- shortcuts

    def run(self, driver: swarm.SwarmDriver, action: str = "switch", **options: Any) -> switch.Outcome:
        return switch.run(driver, Wish(action, **{"timeout": 30, **options}), act=True, clock=self)  # type: ignore[arg-type]

    def outcome(self) -> str:
        return str(json.loads(self.configs[-1]["Spec"]["Data"])["outcome"])

    def settled(self, active: str, nodes: Any = NODES) -> bool:
        labels = self.table["bitnet-lab-edge"]["Spec"]["Labels"]
        routed = {self.maps[name] for name in nodes} == {Routing(active)}
        return routed and labels["io.bitnet.active-slot"] == active and "io.bitnet.operation" not in labels


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Swarm:
    made = Swarm()

    class FakeEdge:
        def __init__(self, name: str, *_more: Any) -> None:
            self.name = name

        def view(self) -> Router:
            made._live()
            if self.name in made.cut | made.down:
                return Router(self.name, error=f"edge {self.name} did not answer")
            return Router(self.name, made.maps[self.name], {"blue": 1, "green": 1}, {"blue": 2, "green": 1})

        def reserve(self, _routing: Routing) -> None:
            made._effect("reserve", lambda: None)

        def set(self, routing: Routing) -> None:
            made._effect("set", lambda: made.maps.update({self.name: routing}))

    def get(host: str, *_more: Any) -> tuple[int, str, bytes]:
        name = "one" if host == "127.0.0.1" else host
        if name in made.cut | made.down:
            raise TimeoutError
        return 200, made.maps[name].active, b""

    monkeypatch.setattr(swarm, "Edge", FakeEdge)
    monkeypatch.setattr(swarm, "DistantEdge", FakeEdge)
    monkeypatch.setattr(swarm, "get", get)
    monkeypatch.setattr(switch, "process_life", lambda: "here")
    monkeypatch.setattr(switch, "process_start", lambda _pid: "")  # no holder of an earlier run lives
    return made


@pytest.fixture
def driver(world: Swarm, tmp_path: Any) -> swarm.SwarmDriver:
    token = tmp_path / "environments" / "lab" / "tokens" / "probe"
    token.parent.mkdir(parents=True)
    token.write_text("secret\n")
    return swarm.SwarmDriver(world, "lab", str(tmp_path))  # type: ignore[arg-type]


def only_one(world: Swarm) -> None:
    world.task_list = [task for task in world.task_list if task["NodeID"] == "one"]


def test_one_job_tells_the_edges_of_other_nodes_and_goes(world: Swarm, driver: swarm.SwarmDriver) -> None:
    outcome = world.run(driver, release=NEW)
    assert world.settled("green")
    assert world.jobs == [["route", "green", "0", "0"]]
    assert JOB not in world.table
    assert set(outcome.result()["edges"]) == set(NODES)
    assert world.effects[:3] == ["write", "reserve", "write"], (
        "room is made, and it is decided, before any edge is told"
    )


def test_the_job_has_the_edges_image_and_folder_and_nothing_else(world: Swarm, driver: swarm.SwarmDriver) -> None:
    world.slow = {"two"}
    with pytest.raises(switch.TimedOut):
        world.run(driver, release=NEW, timeout=1)
    job = swarm._job("name", "lab", world.table["bitnet-lab-edge"]["Spec"], Routing("green", 5, True))
    container = job["TaskTemplate"]["ContainerSpec"]
    assert job["Mode"] == {"GlobalJob": {}}
    assert job["TaskTemplate"]["Placement"] == {"Constraints": ["x"]}
    assert "Networks" not in job["TaskTemplate"]
    assert job["TaskTemplate"]["RestartPolicy"] == {"Condition": "none"}
    assert (container["Image"], container["Args"]) == ("edge@sha256:1", ["route", "green", "5", "1"])
    assert [mount["Target"] for mount in container["Mounts"]] == ["/run/bitnet-edge"]
    assert container["ReadOnly"] and container["CapabilityDrop"] == ["ALL"]
    assert job["Labels"].items() >= OURS.items()


def test_a_cluster_with_one_edge_starts_no_job(world: Swarm, driver: swarm.SwarmDriver) -> None:
    only_one(world)
    world.run(driver, release=NEW)
    assert world.settled("green", ["one"])
    assert not world.jobs
    assert world.effects == ["write", "reserve", "write", "set", "record", "write"]


def test_connections_of_all_edges_are_drained(world: Swarm, driver: swarm.SwarmDriver) -> None:
    assert world.run(driver, "prepare", release="cccc", drain_seconds=2).cut == 3


def test_shares_reach_every_edge(world: Swarm, driver: swarm.SwarmDriver) -> None:
    world.run(driver, release=NEW, share=30)
    assert set(world.maps.values()) == {Routing("blue", 30)}
    world.run(driver, "abort")
    assert world.settled("blue")


def test_an_edge_that_is_not_reached_is_named_and_the_next_run_ends_it(world: Swarm, driver: swarm.SwarmDriver) -> None:
    world.events[1.0] = lambda: world.cut.add("three")
    world.maps["three"] = Routing("blue")
    world.slow = {"three"}
    with pytest.raises(switch.TimedOut, match=r"not every edge does: edge three did not answer.*stays open"):
        world.run(driver, release=NEW)
    assert "io.bitnet.operation" in world.table["bitnet-lab-edge"]["Spec"]["Labels"]
    assert JOB not in world.table
    world.cut, world.slow = set(), set()
    world.sleep(1)
    world.run(driver, release=NEW)
    assert world.settled("green")
    assert world.outcome() == "switched"


def test_an_edge_whose_node_goes_down_is_not_waited_for_any_more(world: Swarm, driver: swarm.SwarmDriver) -> None:
    world.slow = {"three"}
    world.events[8.0] = lambda: world.down.add("three")
    outcome = world.run(driver, release=NEW)
    assert 8 <= world.time < 12
    assert world.settled("green", ["one", "two"])
    assert outcome.lost == ["three"]
    assert "the edges on three" in outcome.warnings[0]


def test_an_edge_that_has_no_node_yet_is_waited_for(world: Swarm, driver: swarm.SwarmDriver) -> None:
    world.task_list[1]["NodeID"] = ""
    with pytest.raises(switch.TimedOut, match=r"edge \(no node yet\): Swarm knows no address"):
        world.run(driver, release=NEW, timeout=2)


def test_a_disk_that_is_full_there_is_named(world: Swarm, driver: swarm.SwarmDriver) -> None:
    world.full = {"two"}
    with pytest.raises(switch.TimedOut, match=r"edge two: (its map file cannot be written|blue is active)"):
        world.run(driver, release=NEW, timeout=2)
    said = []
    for _look in range(5):
        try:
            driver.apply(Routing("green"))
        except edge.EdgeFailed as error:
            said.append(str(error))
        world.sleep(0.5)
    assert "edge two: its map file cannot be written" in said[0]
    world.full = set()
    world.run(driver, release=NEW)
    assert world.settled("green")


def test_what_an_earlier_job_began_ends_before_another_word_is_sent(world: Swarm, driver: swarm.SwarmDriver) -> None:
    """Else the old word might be written after the new one."""
    world.slow = {"two"}
    with pytest.raises(switch.TimedOut):
        world.run(driver, release=NEW, timeout=2)
    world.events[world.time + 8] = world.slow.clear
    world.run(driver, "rollback", release=OLD)
    assert world.settled("blue")
    for _unused in range(20):
        world.sleep(1)
    assert world.settled("blue")
    assert [args[1] for args in world.jobs] == ["green", "blue"]


@pytest.mark.parametrize("next_run", ["same", "rollback"])
@pytest.mark.parametrize("shares", [[100], [25, 100]])
def test_killed_at_every_effect_the_next_run_ends_it(
    world: Swarm, driver: swarm.SwarmDriver, shares: list[int], next_run: str
) -> None:
    for share in shares:
        world.run(driver, release=NEW, share=share)
    deaths = [(number, side) for number in range(len(world.effects)) for side in ("before", "after")]
    assert {"create the job", "remove the job"} <= set(world.effects)
    for death in deaths:
        world.__init__()  # type: ignore[misc]
        world.die_at = death
        with pytest.raises(Killed):
            for share in shares:
                world.run(driver, release=NEW, share=share)
        world.revive()
        if next_run == "same":
            world.run(driver, release=NEW)
        else:
            try:
                world.run(driver, "rollback", release=OLD, slot="blue")
            except Refused as refusal:
                assert "action=abort undoes that" in str(refusal)
                world.run(driver, "abort")
        expected = "green" if next_run == "same" else "blue"
        for _unused in range(20):
            world.sleep(1)
        operation = world.table["bitnet-lab-edge"]["Spec"]["Labels"].get("io.bitnet.operation")
        if next_run == "same" or not operation:
            assert world.settled(expected), death
        assert JOB not in world.table, death


# -- what an edge of another node says, over a real connection


@pytest.fixture
def served() -> Any:
    said: dict[str, Any] = {"status": 200, "body": b"", "authorization": ""}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            said["authorization"] = self.headers["Authorization"]
            said["path"] = self.path
            said["headers"] = dict(self.headers)
            self.send_response(said["status"])
            self.end_headers()
            self.wfile.write(said["body"])

        def log_message(self, *_unused: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    said["port"] = server.server_port
    yield said
    server.shutdown()
    thread.join()
    server.server_close()


STATE = {
    "routing": {"active": "green", "share": "20", "hold": "0"},
    "up": {"blue": "1", "green": "2"},
    "connections": {"blue": "0", "green": "7"},
}


def test_an_edge_elsewhere_says_what_it_does(served: dict[str, Any]) -> None:
    served["body"] = json.dumps(STATE).encode()
    view = edge.DistantEdge("two", "127.0.0.1", served["port"], "secret").view()
    assert view == Router("two", Routing("green", 20), {"blue": 1, "green": 2}, {"blue": 0, "green": 7})
    assert (served["path"], served["authorization"]) == ("/edge/state", "Bearer secret")


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (404, "{}", "answered 404: it does not take the probe token for a tester's"),
        (503, "{}", "answered 503"),
        (200, "<html>", "did not say what it does"),
        (200, "{}", "did not say what it does"),
        (200, json.dumps({**STATE, "routing": {"active": "", "share": "", "hold": ""}}), "the map of edge two says"),
    ],
)
def test_an_edge_that_does_not_say_it_is_an_error(served: dict[str, Any], status: int, body: str, says: str) -> None:
    served.update({"status": status, "body": body.encode()})
    view = edge.DistantEdge("two", "127.0.0.1", served["port"], "secret").view()
    assert view.routing is None
    assert says in view.error
    assert "secret" not in view.error


def test_an_edge_that_is_not_there_is_an_error(served: dict[str, Any]) -> None:
    view = edge.DistantEdge("two", "127.0.0.1", 1, "secret").view()
    assert "edge two at 127.0.0.1:1 did not answer" in view.error


def test_a_rollback_asks_the_slots_for_the_schema(
    world: Swarm, driver: swarm.SwarmDriver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slot that has read the database last is believed; an edge that does not answer is passed over."""
    said = {"green": {"revision": "0005", "oldest": "0004"}, "blue": {"revision": "0003", "oldest": "0001"}}
    ages = {"green": 0.5, "blue": 600.0}
    as_before = swarm.get

    def get(host: str, port: int, path: str, token: str, timeout: float, *, asked: str = "") -> Any:
        answer = as_before(host, port, path, token, timeout)
        if path != "/api":
            return answer
        return 200, asked, json.dumps({"database": {"schema": said[asked], "schema_seconds_ago": ages[asked]}}).encode()

    monkeypatch.setattr(swarm, "get", get)
    world.cut = {"one"}
    assert driver.schema() == Schema("0005", "0004", 0.5)
    world.cut = set()
    world.maps = {name: Routing("green") for name in NODES}
    world.table["bitnet-lab-edge"]["Spec"]["Labels"]["io.bitnet.active-slot"] = "green"
    world.table["bitnet-lab-blue"]["Spec"]["Labels"]["io.bitnet.schemas"] = "0003-0003"
    with pytest.raises(Refused, match="know 0004 or later"):
        world.run(driver, "rollback", release=OLD)
    assert world.settled("green")
    said["green"]["oldest"] = "0003"
    world.run(driver, "rollback", release=OLD)
    assert world.settled("blue")


def test_a_slot_is_asked_by_its_name(served: dict[str, Any]) -> None:
    served.update(status=200, body=b"{}")
    edge.get("127.0.0.1", served["port"], "/api", "secret", 3, asked="green")
    assert served["headers"]["X-Bitnet-Slot"] == "green"
    edge.get("127.0.0.1", served["port"], "/api", "secret", 3)
    assert "X-Bitnet-Slot" not in served["headers"]
