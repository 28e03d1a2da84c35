# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""swarm_cluster with three nodes: the machines of `make lab`, which are made anew. Each test goes on from the last."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import machine, swarm

CHECKOUT = Path(__file__).resolve().parents[2]
ONE, TWO, THREE = swarm.NODES
PLAYBOOK = "- {hosts: swarm, become: true, gather_facts: false, roles: [bitnet.devops.swarm_cluster]}\n"
KEPT = "/var/lib/bitnet/environments/lab/swarm/unlock-key"
ANSWERS = (
    "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 8000, Listen => 5) or die;"
    'while (my $c = $s->accept) { print $c "here\\n"; close $c }'
)


class Lab:
    """What the tests ask the lab for. What they want of it is kept, so that a test says only what is new."""

    def __init__(self, folder: Path, inventory: str) -> None:
        self.playbook = folder / "swarm.yml"
        self.playbook.write_text(PLAYBOOK)
        self.inventory = inventory
        self.wanted: dict[str, object] = {}

    def play(self, *options: str, fails: bool = False, once: dict[str, object] | None = None, **wanted: object) -> str:
        """Apply the role; give back what it said, with single spaces."""
        self.wanted.update({f"swarm_cluster_{name}": value for name, value in wanted.items()})
        program = str(Path(sys.executable).parent / "ansible-playbook")
        variables = json.dumps({**self.wanted, **(once or {})})
        done = subprocess.run(
            [program, str(self.playbook), "-i", self.inventory, "-e", variables, *options],
            cwd=CHECKOUT, env={**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")},
            capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return re.sub(r"\s+", " ", said)

    def nodes(self) -> dict[str, dict]:
        ids = self.docker(ONE, "node", "ls", "--quiet").split()
        nodes = json.loads(self.docker(ONE, "node", "inspect", *ids))
        named = {node["Description"]["Hostname"]: node for node in nodes}
        assert len(named) == len(nodes), f"more than one node of a machine: {nodes}"
        return named

    def roles(self) -> dict[str, str]:
        """What each node is: a manager that is reachable, or else a worker; drained; down."""
        marks = {}
        for name, node in self.nodes().items():
            status = node.get("ManagerStatus", {})
            mark = "manager" if status.get("Reachability") == "reachable" else "worker"
            mark += " drained" * (node["Spec"]["Availability"] == "drain") + " down" * (
                node["Status"]["State"] != "ready"
            )
            marks[name] = mark
        return marks

    def specs(self) -> dict[str, dict]:
        return {name: node["Spec"] for name, node in self.nodes().items()}

    def docker(self, name: str, *command: str, check: bool = True) -> str:
        return machine.get(name).exec("docker", *command, timeout=120, check=check).strip()

    def state(self, name: str) -> str:
        return self.docker(name, "info", "--format", "{{.Swarm.LocalNodeState}}")

    def await_(self, what: str, there, deadline: float = 60) -> None:
        end = time.monotonic() + deadline
        while not there():
            assert time.monotonic() < end, f"{what} did not come about within {deadline:.0f} s"
            time.sleep(0.5)

    def tokens(self) -> set[str]:
        return {self.docker(ONE, "swarm", "join-token", "--quiet", role) for role in ("worker", "manager")}

    def labels(self) -> dict[str, str]:
        return json.loads(self.docker(ONE, "info", "--format", "{{json .Swarm.Cluster.Spec.Labels}}"))


def unchanged(said: str) -> bool:
    return len(re.findall(r"ok=\d+ changed=0 unreachable=0 failed=0", said)) == len(swarm.NODES)


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    swarm.down()
    swarm.up(owner=os.getpid())
    try:
        yield Lab(tmp_path_factory.mktemp("lab"), "inventories/lab")
    finally:
        swarm.down()


def test_three_machines_become_one_swarm(lab):
    said = lab.play("--check", "--diff", managers=[ONE], workers=[TWO, THREE])
    assert "changed=1" in said and [lab.state(name) for name in swarm.NODES] == ["inactive"] * 3
    lab.play()
    assert lab.roles() == {ONE: "manager", TWO: "worker", THREE: "worker"}
    for name, node in lab.nodes().items():
        assert node["Spec"]["Labels"].items() >= {
            "io.bitnet.node": name, "io.bitnet.failure-domain": name, "io.bitnet.arch": "amd64",
            "io.bitnet.edge": str(name == ONE).lower(),
        }.items()  # fmt: skip
        assert "io.bitnet.variant" in node["Spec"]["Labels"]


def test_the_second_run_changes_nothing(lab):
    assert unchanged(lab.play())
    assert unchanged(lab.play("--check"))


def test_the_network_answers_across_machines(lab):
    where = ["--network", "bitnet-lab", "--endpoint-mode", "dnsrr", "--constraint", f"node.hostname!={ONE}"]
    lab.docker(ONE, "service", "create", "--quiet", "--name", "there", *where, machine.BASE, "perl", "-e", ANSWERS)
    ask = "timeout 5 bash -c 'cat </dev/tcp/there/8000'"
    assert lab.docker(ONE, "run", "--rm", "--network", "bitnet-lab", machine.BASE, "bash", "-c", ask) == "here"


def test_promote_label_and_drain(lab):
    more = {
        "managers": [ONE, TWO, THREE],
        "workers": [],
        "node_labels": {"io.bitnet.failure-domain": "cellar", "rack": "7"},
    }
    where = lab.docker(ONE, "service", "ps", "there", "--filter", "desired-state=running", "--format", "{{.Node}}")
    drain = {"swarm_cluster_availability": f"{{{{ 'drain' if inventory_hostname == '{where}' else '' }}}}"}
    said = lab.play("--check", "--diff", once=drain, **more)
    assert "io.bitnet.failure-domain: cellar" in said and "role: manager" in said
    assert lab.roles() == {ONE: "manager", TWO: "worker", THREE: "worker"}
    lab.play(once=drain)
    assert lab.roles() == {name: "manager" + " drained" * (name == where) for name in swarm.NODES}
    assert {node["Spec"]["Labels"]["io.bitnet.failure-domain"] for node in lab.nodes().values()} == {"cellar"}
    # The module waited for the end of what ran there.
    tasks = lab.docker(ONE, "node", "ps", where, "--format", "{{.CurrentState}}").splitlines()
    assert tasks and not [state for state in tasks if state.startswith("Running")]


def test_the_quorum_is_not_broken(lab):
    swarm.kill(THREE)
    lab.await_("the loss of the manager", lambda: lab.roles()[THREE].startswith("worker"))
    before = lab.specs()
    said = lab.play(fails=True, once={"swarm_cluster_managers": [ONE, THREE], "swarm_cluster_workers": [TWO]})
    assert f"without {TWO} as a manager 1 of 2 managers would live, and 2 must" in said
    assert f"Take {THREE} back, or out, first. No node was changed" in said
    said = lab.play(fails=True, once={"swarm_cluster_absent": [TWO]})
    assert f"without {TWO} as a manager 1 of 2 managers would live, and 2 must" in said and lab.state(TWO) == "active"
    assert lab.specs() == before
    swarm.start(THREE)
    lab.await_("the return of the manager", lambda: lab.roles()[THREE].startswith("manager"))


def test_tokens_are_rotated_and_the_managers_locked(lab):
    before = lab.tokens()
    lab.play("--check", "--diff", "-e", "swarm_cluster_autolock=true")
    said = lab.play("-vvv", "--diff", autolock=True, join_tokens="first")
    key = lab.docker(ONE, "swarm", "unlock-key", "--quiet")
    after = lab.tokens()
    assert not before & after and key.startswith("SWMKEY-")
    assert [secret for secret in {key, *before, *after} if secret in said] == []
    assert lab.labels().items() >= {"io.bitnet.owner": "bitnet.devops", "io.bitnet.join-tokens": "first"}.items()
    for name in swarm.NODES:
        assert machine.get(name).exec("stat", "--format", "%U %a", KEPT).strip() == "root 600"
        assert machine.get(name).exec("cat", KEPT).strip() == key
    assert unchanged(lab.play("--diff"))
    assert lab.tokens() == after


def test_a_manager_that_is_locked_is_opened(lab):
    swarm.kill(TWO)
    swarm.start(TWO)
    assert lab.state(TWO) == "locked"
    machine.get(TWO).exec("rm", KEPT)  # another manager gives the key
    said = lab.play("--diff", fails=True, once={"swarm_cluster_unlock_key": "SWMKEY-1-" + "A" * 43})
    assert "unlock_key: " in said and "invalid key" in said
    lab.play("--diff")
    assert all(role.startswith("manager") for role in lab.roles().values())
    assert machine.get(TWO).exec("cat", KEPT).startswith("SWMKEY-")


@pytest.mark.full
def test_all_managers_are_opened_with_the_key_that_was_kept(lab):
    for name in swarm.NODES:
        swarm.kill(name)
        swarm.start(name)
    assert [lab.state(name) for name in swarm.NODES] == ["locked"] * 3
    said = lab.play("--check")
    assert "changed=1" in said and lab.state(ONE) == "locked"
    lab.play()
    assert set(lab.roles().values()) == {"manager"}


@pytest.mark.full
def test_what_is_locked_cannot_begin_anew(lab):
    """Docker would try, fail, and be in no Swarm until its next start. The others must not leave then."""
    for name in (TWO, THREE):
        swarm.cut(name)
    lab.await_("the loss of the leader", lambda: lab.docker(ONE, "node", "ls", "--quiet", check=False) == "")
    said = lab.play(fails=True, once={"swarm_cluster_force_new_cluster": ONE})
    assert "swarm_cluster_force_new_cluster: the managers of lab-1 are locked with a key" in said
    assert "2 of 3 managers must come back. Nothing was changed" in said
    assert [lab.state(name) for name in swarm.NODES] == ["active"] * 3
    for name in (TWO, THREE):
        swarm.mend(name)
    lab.play()
    assert set(lab.roles().values()) == {"manager"}


@pytest.mark.full
def test_a_manager_that_is_cut_off_is_named_and_comes_back(lab):
    swarm.cut(THREE)
    lab.await_("the loss of the manager", lambda: lab.roles()[THREE].startswith("worker"))
    said = lab.play(fails=True)
    assert f"{THREE} is a manager and reaches no leader: of 3 managers" in said and "2 must live" in said
    assert "docker swarm leave --force" in said
    swarm.mend(THREE)
    lab.await_("the return of the manager", lambda: lab.roles()[THREE] == "manager")
    assert unchanged(lab.play())


def test_demote_and_take_tasks_again(lab):
    lab.play(managers=[ONE, TWO], workers=[THREE], availability="active", autolock=False)
    assert lab.roles() == {ONE: "manager", TWO: "manager", THREE: "worker"}
    assert machine.get(ONE).exec("find", "/var/lib/bitnet", "-name", "unlock-key") == ""


def test_a_machine_that_was_lost_is_taken_back(lab):
    before = lab.nodes()[THREE]["ID"]
    machine.up(THREE, images=[machine.BASE], owner=os.getpid())
    said = lab.play("--limit", THREE, fails=True)
    assert f"of {ONE}, {TWO} it is not known whether they have one" in said and lab.state(THREE) == "inactive"
    lab.await_("the loss of the node", lambda: lab.roles()[THREE] == "worker down")
    lab.play()
    assert lab.roles() == {ONE: "manager", TWO: "manager", THREE: "worker"}
    assert lab.nodes()[THREE]["ID"] != before


@pytest.mark.full
def test_a_lost_quorum_is_recovered_behind_a_word(lab):
    lost = lab.nodes()[TWO]["ID"]
    machine.up(TWO, images=[machine.BASE], owner=os.getpid())
    lab.await_("the loss of the leader", lambda: lab.docker(ONE, "node", "ls", "--quiet", check=False) == "")
    said = lab.play(fails=True)
    assert f"{ONE} is a manager and reaches no leader: of 2 managers" in said and "2 must live" in said
    assert f"-e swarm_cluster_force_new_cluster={ONE}" in said
    word = {"swarm_cluster_force_new_cluster": ONE}
    lab.play(once=word)
    assert lab.roles() == {ONE: "manager", TWO: "manager", THREE: "worker"}
    assert lab.nodes()[TWO]["ID"] != lost
    assert lab.labels().items() >= {"io.bitnet.owner": "bitnet.devops", "io.bitnet.join-tokens": "first"}.items()
    assert lab.docker(ONE, "service", "ls", "--format", "{{.Name}}") == "there"
    assert unchanged(lab.play(once=word))


@pytest.mark.full
def test_a_node_leaves(lab):
    lab.play(absent=[THREE, "never-there"])
    assert lab.roles() == {ONE: "manager", TWO: "manager"} and lab.state(THREE) == "inactive"
    assert unchanged(lab.play())
