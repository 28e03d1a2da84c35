# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What swarm_cluster does where something is wrong; the daemons are stand-ins that write down what they are told."""

from __future__ import annotations

import json
import os
import re
import socketserver
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

CHECKOUT = Path(__file__).resolve().parents[3]
KEY = "SWMKEY-1-of-the-tests"
DOCKER = """#!/bin/sh
name=${2##*/}
cat "$FAKE/${name%.sock}.key" 2>/dev/null || { echo 'Error: no unlock key is set' >&2; exit 1; }
"""
NETWORK = {
    "Id": "n", "Name": "bitnet-test", "Driver": "overlay", "Scope": "swarm", "Attachable": True,
    "Labels": {"io.bitnet.owner": "bitnet.devops", "io.bitnet.environment": "test", "io.bitnet.schema": "1"},
}  # fmt: skip


def swarm(name: str = "", cluster: str = "", state: str = "active") -> dict[str, Any]:
    """What a daemon says of its Swarm: a manager with a cluster's id where it reaches a leader."""
    if not name:
        return {"LocalNodeState": "inactive", "NodeID": "", "NodeAddr": "", "ControlAvailable": False, "Error": ""}
    return {
        "LocalNodeState": state, "NodeID": f"id-{name}", "NodeAddr": "192.0.2.1", "ControlAvailable": True, "Error": "",
        "RemoteManagers": [{"Addr": f"192.0.2.{i}:2377"} for i in range(5)],
        "Cluster": {"ID": cluster, "Spec": {"Labels": {}}},
    }  # fmt: skip


def node(name: str, role: str = "manager", lives: bool = True) -> dict[str, Any]:
    made: dict[str, Any] = {
        "ID": f"id-{name}", "Version": {"Index": 1}, "Description": {"Hostname": name},
        "Spec": {"Role": role, "Availability": "active", "Labels": {"io.bitnet.node": name}},
        "Status": {"State": "ready" if lives else "down", "Addr": "192.0.2.1"},
    }  # fmt: skip
    if role == "manager":
        made["ManagerStatus"] = {"Reachability": "reachable" if lives else "unreachable", "Addr": "192.0.2.1:2377"}
    return made


class Daemon:
    """One host's Docker. What it was told to change is in C(told)."""

    def __init__(self, folder: Path, name: str, its_swarm: dict[str, Any]) -> None:
        self.swarm = its_swarm
        self.nodes: list[dict[str, Any]] = []
        self.networks = [NETWORK]
        self.told: list[tuple[str, Any]] = []
        daemon = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, body: Any, status: int = 200) -> None:
                text = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self) -> None:
                path = re.sub(r"^/v[\d.]+|\?.*", "", self.path)
                if path == "/swarm" and not daemon.swarm.get("Cluster", {}).get("ID"):
                    self._answer({"message": "This node is not a swarm manager."}, 503)
                    return
                self._answer({
                    "/version": {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"},
                    "/info": {"Swarm": daemon.swarm, "DockerRootDir": str(folder / name)},
                    "/nodes": daemon.nodes,
                    "/networks": daemon.networks,
                    "/networks/n": daemon.networks[0],
                    "/swarm": {"ID": "c", "Version": {"Index": 1}, "JoinTokens": {"Worker": "w", "Manager": "m"},
                               "Spec": {"Name": "default", "EncryptionConfig": {"AutoLockManagers": False}}},
                }.get(path, []))  # fmt: skip

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                path = re.sub(r"^/v[\d.]+|\?.*", "", self.path)
                daemon.told.append((path, json.loads(self.rfile.read(length) or b"null")))
                if path == "/swarm/init":
                    daemon.swarm = swarm(name, "new")
                if path == "/swarm/leave":
                    daemon.swarm = swarm()
                self._answer("it")

            do_DELETE = do_POST

            def address_string(self) -> str:
                return "it"

            def log_message(self, *_arguments: Any) -> None:
                pass

        server = socketserver.ThreadingUnixStreamServer(str(folder / f"{name}.sock"), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()


class World:
    """Hosts a, b, c on this machine, each with a daemon where it was given one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, Daemon] = {}
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)

    def daemon(self, name: str, its_swarm: dict[str, Any] | None = None) -> Daemon:
        self.daemons[name] = Daemon(self.folder, name, its_swarm or swarm())
        return self.daemons[name]

    def key_of(self, name: str) -> Path:
        """The key that a manager has kept."""
        return self.folder / name / "state/environments/test/swarm/unlock-key"

    def keeps(self, name: str) -> Path:
        self.key_of(name).parent.mkdir(parents=True)
        self.key_of(name).write_text(KEY + "\n")
        return self.key_of(name)

    def told(self, name: str) -> list[str]:
        return [path for path, _body in self.daemons[name].told]

    def play(self, *options: str, managers: str, workers: str = "", **variables: Any) -> str:
        """Apply the role; what it said, with single spaces."""
        hosts = {name: {"ansible_connection": "local"} for name in managers + workers}
        groups = {"swarm_managers": managers, "swarm_workers": workers}
        inventory = {"swarm": {"children": {group: {"hosts": {name: hosts[name] for name in names}}
                                            for group, names in groups.items()}}}  # fmt: skip
        given = {
            "ansible_python_interpreter": sys.executable,
            "bitnet_environment": "test",
            "swarm_cluster_docker_host": f"unix://{self.folder}/{{{{ inventory_hostname }}}}.sock",
            "swarm_cluster_state_dir": f"{self.folder}/{{{{ inventory_hostname }}}}/state",
            "swarm_cluster_advertise_address": "192.0.2.1",
            "swarm_cluster_look_at_ports": "true",
            "swarm_cluster_timeout": 2,
            **{f"swarm_cluster_{name}": value for name, value in variables.items()},
        }
        play = {"hosts": "swarm", "gather_facts": False, "roles": ["bitnet.devops.swarm_cluster"]}
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory))
        (self.folder / "given.json").write_text(json.dumps(given))
        ours = {"ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "FAKE": str(self.folder)}
        done = subprocess.run(
            [str(Path(sys.executable).with_name("ansible-playbook")), "-i", str(self.folder / "hosts.yml"),
             "-e", f"@{self.folder}/given.json", *options, str(self.folder / "play.yml")],
            env={**os.environ, **ours, "PATH": f"{self.folder}:{os.environ['PATH']}"},
            cwd=CHECKOUT, capture_output=True, text=True, timeout=400, check=False,
        )  # fmt: skip
        assert KEY not in done.stdout + done.stderr
        return re.sub(r"\s+", " ", done.stdout + done.stderr)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_a_node_does_not_leave_where_the_plan_was_refused(world: World) -> None:
    """It is a manager still, and the quorum needs it."""
    world.daemon("a", swarm("a", "one")).nodes = [node("a"), node("b"), node("c", lives=False)]
    world.daemon("b", swarm("b", "one"))
    said = world.play(managers="ab", absent=["b"])
    assert "without b as a manager 1 of 2 managers would live, and 2 must" in said
    assert world.told("a") == [] and world.told("b") == []


def test_a_manager_of_another_swarm_is_not_made_to_leave_that(world: World) -> None:
    """Its services would end with it."""
    world.daemon("a", swarm("a", "one")).nodes = [node("a")]
    world.daemon("b", swarm("b", "two"))
    assert "b is a node of another Swarm than a" in world.play(managers="ab", absent=["b"])
    assert world.told("b") == []


def test_the_other_managers_do_not_leave_where_no_new_cluster_was_begun(world: World) -> None:
    """What they know may be all that is left of it."""
    for name in "ab":
        world.daemon(name, swarm(name))
    encrypted = world.folder / "a/swarm/certificates/swarm-node.key"
    encrypted.parent.mkdir(parents=True)
    encrypted.write_text("Proc-Type: 4,ENCRYPTED\n")
    said = world.play(managers="ab", force_new_cluster="a")
    assert "are locked with a key" in said and "Nothing was changed" in said
    assert world.told("a") == [] and world.told("b") == []


def test_they_leave_and_join_when_it_was_begun(world: World) -> None:
    for name in "ab":
        world.daemon(name, swarm(name))
        (world.folder / name / "swarm/certificates").mkdir(parents=True)
        (world.folder / name / "swarm/certificates/swarm-node.key").write_text("not locked")
    world.play(managers="ab", force_new_cluster="a")
    assert world.told("a")[0] == "/swarm/init" and world.daemons["a"].told[0][1]["ForceNewCluster"]
    assert world.told("b") == ["/swarm/leave", "/swarm/join"]


def test_the_word_does_nothing_where_a_leader_answers(world: World) -> None:
    """What has lost its leader a moment ago must not leave: it is needed again."""
    world.daemon("a", swarm("a", "one")).nodes = [node("a"), node("b", lives=False)]
    world.daemon("b", swarm("b"))
    said = world.play(managers="ab", force_new_cluster="a")
    assert "b is a manager and reaches no leader" in said and "docker swarm leave --force" in said
    assert world.told("b") == []


def test_no_second_swarm_is_made_and_the_only_manager_does_not_leave_its_own(world: World) -> None:
    world.daemon("a", swarm("a", "one")).nodes = [node("a")]
    world.daemon("b")
    said = world.play(managers="b", workers="a", absent=["a"])
    assert "absent: a is the manager that was asked; only another one can remove it" in said
    assert "/swarm/init" not in world.told("b") and world.told("a") == []


@pytest.mark.parametrize("limit", ["b", "c"], ids=["manager", "worker"])
def test_no_swarm_is_made_where_managers_are_left_out(world: World, limit: str) -> None:
    world.daemon(limit)
    said = world.play("--limit", limit, managers="ab", workers="c")
    assert "swarm_cluster_managers: no manager that answers for a Swarm is in this run, and of a" in said
    assert world.told(limit) == []


def test_no_swarm_is_made_where_a_manager_has_lost_its_leader(world: World) -> None:
    world.daemon("a", swarm("a"))
    world.daemon("b")
    said = world.play(managers="ba")
    assert "a is a manager and reaches no leader" in said
    assert "swarm_cluster_managers: no manager that answers for a Swarm is in this run, and of a" in said
    assert world.told("a") == [] and world.told("b") == []


def test_an_interface_is_what_others_do_not_dial(world: World) -> None:
    world.daemon("a").nodes = [node("a")]
    world.daemon("b")
    world.play(managers="a", workers="b", advertise_address="lo")
    bodies = {path: body for name in "ab" for path, body in world.daemons[name].told}
    assert bodies["/swarm/init"]["AdvertiseAddr"] == "lo"
    assert bodies["/swarm/join"]["RemoteAddrs"] == ["127.0.0.1:2377"]


def test_a_host_is_a_manager_or_a_worker(world: World) -> None:
    world.daemon("a", swarm("a", "one")).nodes = [node("a")]
    said = world.play(managers="a", workers="a")
    assert "swarm_cluster_managers and swarm_cluster_workers both name a" in said


@pytest.mark.skipif(os.geteuid() != 0, reason="the files of the key are root's")
class TestKey:
    def test_it_is_kept_as_it_was_where_it_could_not_be_read(self, world: World) -> None:
        world.daemon("a", swarm("a", "one")).networks = [{**NETWORK, "Attachable": False}]
        world.daemon("b", swarm("b", "one"))
        world.daemons["a"].nodes = [node("a"), node("b")]
        kept = world.keeps("b")
        said = world.play(managers="ab", autolock=True)
        assert "A network cannot be changed" in said
        assert kept.read_text() == KEY + "\n"

    def test_it_is_forgotten_only_after_the_plan_and_where_it_is_not_to_be_kept(self, world: World) -> None:
        (world.folder / "a.key").write_text(KEY + "\n")
        world.daemon("a", swarm("a", "one")).nodes = [node("a"), node("b"), node("c", lives=False)]
        world.daemon("b", swarm("b", "one"))
        kept = world.keeps("b")
        words = ("-e", "swarm_cluster_autolock=true", "-e", "swarm_cluster_timeout=4")
        said = world.play(*words, managers="a", workers="b")
        assert "without b as a manager" in said
        assert kept.read_text() == KEY + "\n" == world.key_of("a").read_text()
        assert world.key_of("a").stat().st_mode & 0o777 == 0o600
        world.daemons["a"].nodes = [node("a"), node("b")]
        said = world.play(managers="ab", autolock=True, keep_unlock_key=False)
        assert "failed=1" not in said
        assert not kept.exists() and not world.key_of("a").exists()

    def test_check_mode_knows_that_there_is_none_yet(self, world: World) -> None:
        world.daemon("a", swarm("a", "one")).nodes = [node("a")]
        said = world.play("--check", "--diff", managers="a", autolock=True)
        assert "failed=0" in said and "failed=1" not in said
        assert world.told("a") == []
