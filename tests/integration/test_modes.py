# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three environments, a Swarm of one node each, with the real engine: all new or all old, and decisions by verdicts.

A fault is a gate of the user's in one environment, which runs where it is told: before the commits, or after its own.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.bitnet.devops.plugins.module_utils._consensus import signing, statements

from tests.lab import machine, swarm
from tests.unit import consensus_world as world

# Three environments of which each rolls out take minutes.
pytestmark = pytest.mark.full

CHECKOUT = Path(__file__).resolve().parents[2]
ENVIRONMENTS = dict(zip(("dev", "staging", "production"), swarm.NODES))
ONE, TWO, THREE = swarm.NODES
REPOSITORY = "127.0.0.1:5000/bitnet/swarm-intelligence"
# One registry serves all: it listens where it is only.
FORWARD = """
import socket, socketserver, sys, threading
def pump(one, other):
    while data := one.recv(65536):
        other.sendall(data)
    other.shutdown(socket.SHUT_WR)
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        with socket.create_connection((sys.argv[2], int(sys.argv[3]))) as there:
            threading.Thread(target=pump, args=(there, self.request), daemon=True).start()
            pump(self.request, there)
class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
here, port = sys.argv[1].split(":")
Server((here, int(port)), Handler).serve_forever()
"""
PREPARE = """
- hosts: swarm
  gather_facts: false
  roles: [bitnet.devops.swarm_cluster]
- hosts: lab-1
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: bitnet.devops.image_build, tasks_from: registry}
      vars:
        image_build_engine: true
        image_build_registry_seen: {stdout: ""}
        image_build_base: debian:bookworm-slim
"""
CHEAP = {
    "bitnet_model": "synthetic",
    "swarm_rollout_threads": 1,
    "swarm_rollout_gate_requests": 0,
    "swarm_rollout_drain_seconds": 1,
    "swarm_rollout_gate_seconds": 90,
    "swarm_rollout_timeout": 180,
    "swarm_rollout_wait_seconds": 30,
    "bitnet_commit_seconds": 60,
    "swarm_rollout_retention_grace": 100000,  # what it collects after a while would count as a change
}
# From here on nobody reaches it in this run.
LOSE = (
    "- ansible.builtin.set_fact: {ansible_connection: ssh, ansible_host: 127.0.0.1, ansible_port: 1}\n"
    "  when: bitnet_environment == 'staging'\n"
)
FAIL = "- ansible.builtin.fail: {{msg: a gate of mine}}\n  when: bitnet_environment == '{}'\n"


class Modes:
    """The three environments, which hold one of two releases each and are told to go to the other."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder = folder
        self.vars: dict[str, Any] = dict(CHEAP)
        self.context = 256
        self.asked: dict[str, str] = {}  # release and run of the verdicts that are there
        more = {"builders": {"hosts": {ONE: None}}}
        (folder / "more.yml").write_text(yaml.safe_dump(more))
        (folder / "prepare.yml").write_text(PREPARE)
        (folder / "forward.py").write_text(FORWARD)
        machine.load(ONE, [image])
        self.play(str(folder / "prepare.yml"))
        there = machine.get(ONE)
        self.forward(ONE, "0.0.0.0:5001", "127.0.0.1", 5000)
        for name in (TWO, THREE):
            self.forward(name, "127.0.0.1:5000", there.address, 5001)
        self.docker(ONE, "tag", image, f"{REPOSITORY}:test")
        pushed = self.docker(ONE, "push", f"{REPOSITORY}:test")
        digest = re.search(r"digest: (sha256:[0-9a-f]{64})", pushed)
        assert digest, pushed
        self.vars["bitnet_image"] = f"{REPOSITORY}@{digest[1]}"

    def forward(self, name: str, here: str, there: str, port: int) -> None:
        container = machine.container_name(name)
        machine.run("docker", "cp", str(self.folder / "forward.py"), f"{container}:/usr/local/sbin/forward.py")
        program = ["python3", "/usr/local/sbin/forward.py", here, there, str(port)]
        machine.run("docker", "exec", "--detach", container, *program)

    def docker(self, name: str, *command: str) -> str:
        return machine.get(name).exec("docker", *command, timeout=300).strip()

    def command(self, playbook: str, options: tuple[str, ...], extra: dict[str, Any]) -> list[str]:
        program = str(Path(sys.executable).parent / "ansible-playbook")
        settings = {"swarm_rollout_configuration": {"context": self.context, "parallel": 1}, **self.vars, **extra}
        where = ["-i", "inventories/lab-environments", "-i", str(self.folder / "more.yml")]
        return [program, playbook, *where, "-e", json.dumps(settings), *options]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"}

    def play(self, playbook: str, *options: str, fails: bool = False, **extra: Any) -> str:
        """Run a playbook; give back what it said, with single spaces."""
        done = subprocess.run(
            self.command(playbook, options, extra), cwd=CHECKOUT, env=self.environment,
            capture_output=True, text=True, timeout=1200, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said[-20000:]
        return re.sub(r"\s+", " ", said)

    def hive(self, *options: str, **extra: Any) -> str:
        return self.play("bitnet.devops.rollout", *options, bitnet_rollout_mode="hive_mind", **extra)

    def during(self, moment: str, act: Callable[[subprocess.Popen[str]], Any], **extra: Any) -> str:
        """Run a hive, and act when its output matches the moment; what it said until it ended, with single spaces."""
        command = self.command("bitnet.devops.rollout", (), {"bitnet_rollout_mode": "hive_mind", **extra})
        end = time.monotonic() + 900
        said, acted = "", False
        with subprocess.Popen(
            command, cwd=CHECKOUT, env=self.environment, stdout=subprocess.PIPE, text=True, start_new_session=True
        ) as running:
            assert running.stdout
            for line in running.stdout:
                said += line
                if not acted and re.search(moment, line):
                    act(running)
                    acted = True
                assert time.monotonic() < end, f"it did not end:\n{said[-8000:]}"
        assert acted, f"{moment} never came:\n{said[-8000:]}"
        assert running.returncode != 0, said[-8000:]
        return re.sub(r"\s+", " ", said)

    def kill_during(self, moment: str) -> None:
        """kill -9 of the controller; a module that runs then goes on to its end."""
        self.during(moment, lambda running: os.killpg(running.pid, signal.SIGKILL))

    def gate(self, name: str, text: str) -> list[str]:
        file = self.folder / f"{name}.yml"
        file.write_text(text)
        return [str(file)]

    def other(self) -> None:
        """From now on the other of the two releases is wanted."""
        self.context = {256: 512, 512: 256}[self.context]

    def where(self) -> dict[str, tuple[str, str]]:
        """The active slot and its release, as each target says it."""
        found = {}
        for environment, name in ENVIRONMENTS.items():
            show = ("service", "inspect", "--format", '{{index .Spec.Labels "%s"}}')
            label = [*show[:-1], show[-1] % "io.bitnet.active-slot"]
            slot = self.docker(name, *label, f"bitnet-{environment}-edge")
            label = [*show[:-1], show[-1] % "io.bitnet.release"]
            found[environment] = (slot, self.docker(name, *label, f"bitnet-{environment}-{slot}"))
        return found

    def releases(self) -> set[str]:
        return {release for _slot, release in self.where().values()}

    def put_verdict(self, environment: str, untrue: dict[str, Any]) -> None:
        """Beside the true one, by somebody who is root there."""
        name, base = ENVIRONMENTS[environment], f"bitnet-{environment}-verdict"
        found = self.docker(name, "config", "ls", "--quiet", "--filter", f"label=io.bitnet.base={base}")
        [config] = json.loads(self.docker(name, "config", "inspect", *found.split()))
        kept = json.loads(base64.b64decode(config["Spec"]["Data"]))
        statement = json.loads(base64.b64decode(kept["payload"]))
        more = {"release": statement["release"], "model": statement["model"], "run": statement["run"]}
        at = statements.moment(statement["made_at"])
        text = json.dumps(world.verdict(environment, made_at=at, **{**more, **untrue}))
        labels = {"owner": "bitnet.devops", "base": base, "release": statement["release"]}
        given = " ".join(f"--label io.bitnet.{name}={value}" for name, value in labels.items())
        machine.get(name).exec("sh", "-c", f"printf %s '{text}' | docker config create {given} untrue -")

    def traffic(self, environment: str, **options: Any) -> None:
        program = str(Path(sys.executable).parent / "ansible")
        where = ["-i", "inventories/lab-environments", "-i", str(self.folder / "more.yml")]
        asked = json.dumps({"environment": environment, **options})
        subprocess.run(
            [program, ENVIRONMENTS[environment], *where, "-m", "bitnet.devops.traffic_switch", "-a", asked],
            cwd=CHECKOUT, env=self.environment, check=True, capture_output=True, timeout=120,
        )  # fmt: skip


@pytest.fixture(scope="module")
def modes(tmp_path_factory: pytest.TempPathFactory, workload_image: str) -> Iterator[Modes]:
    """The three after their first release, which came as a hive: nowhere was an edge, and then everywhere."""
    swarm.down()
    swarm.up(owner=os.getpid())
    try:
        made = Modes(tmp_path_factory.mktemp("modes"), workload_image)
        said = made.hive(bitnet_commit_seconds=300)
        assert "ALL NEW" in said
        assert len(made.releases()) == 1
        image = made.docker(TWO, "service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Image}}",
                            "bitnet-staging-edge")  # fmt: skip
        made.vars["traffic_image"] = image  # no builder is needed from now on, which a test may take away
        yield made
    finally:
        for name in swarm.NODES:
            machine.run("docker", "unpause", machine.container_name(name), check=False)
        swarm.down()


def unchanged(said: str) -> bool:
    return len(re.findall(r"ok=\d+ changed=0 unreachable=0 failed=0", said)) == len(ENVIRONMENTS)


def test_a_second_hive_changes_nothing_and_check_mode_only_shows(modes: Modes) -> None:
    before = modes.where()
    said = modes.hive()
    assert "ALL NEW" in said
    assert unchanged(said)
    modes.other()
    said = modes.hive("--check", "--diff")
    assert "dev, staging, production would commit release" in said
    assert said.count("New requests would be moved from slot") == 3
    modes.other()
    assert modes.where() == before


@dataclasses.dataclass(frozen=True)
class Fault:
    """What goes wrong, how it must end, what mends it."""

    ends: str
    says: str
    before: str = ""
    after: str = ""
    at_commit: Callable[[], Any] | None = None
    first: Callable[[Modes], Any] = lambda modes: None
    mend: Callable[[Modes], Any] = lambda modes: None


EDGE = "docker node update --label-{} $(docker node ls --quiet)"
GONE = 'until [ -z "$(docker ps --quiet --filter publish=8080)" ]; do sleep 0.2; done'
FAULTS = {
    "prepare fails": Fault(
        "ALL OLD", "staging failed: .* frozen by carol",
        first=lambda modes: modes.traffic("staging", action="freeze", reason="year-end", asked_by="carol"),
        mend=lambda modes: modes.traffic("staging", action="thaw"),
    ),
    "a gate fails before": Fault("ALL OLD", "production failed: .*a gate of mine", FAIL.format("production")),
    "a gate fails after": Fault("ALL OLD", "dev failed: .*a gate of mine", "", FAIL.format("dev")),
    "the daemon dies at its commit": Fault(
        "MIXED", "staging: unreachable", at_commit=lambda: swarm.kill(TWO),
        mend=lambda modes: (swarm.start(TWO), wait_for_edge(modes)),
    ),
    "the edge goes before its commit": Fault(
        "ALL OLD", "staging failed: .*no edge runs",
        f"- ansible.builtin.shell: {EDGE.format('rm io.bitnet.edge')} && {GONE}\n"
        "  when: bitnet_environment == 'staging'\n",
        mend=lambda modes: (
            machine.get(TWO).exec("sh", "-c", EDGE.format("add io.bitnet.edge=true")), wait_for_edge(modes)
        ),
    ),
    "an environment is lost at its commit": Fault(
        "MIXED", "staging was lost while it committed|staging failed: .*",
        at_commit=lambda: machine.run("docker", "pause", machine.container_name(TWO)),
        mend=lambda modes: machine.run("docker", "unpause", machine.container_name(TWO)),
    ),
    "an environment is lost while it is prepared": Fault(
        "MIXED", "No environment commits, and no traffic is moved: staging was lost while it was prepared", LOSE,
    ),
    "an environment is lost before it is taken back": Fault(
        "MIXED", "production failed: .*a gate of mine", "", LOSE + FAIL.format("production"),
    ),
}  # fmt: skip


def wait_for_edge(modes: Modes) -> None:
    end = time.monotonic() + 90
    while not modes.docker(TWO, "ps", "--quiet", "--filter", "publish=8080", "--filter", "health=healthy"):
        assert time.monotonic() < end, "the edge did not come back within 90 s"
        time.sleep(0.5)


@pytest.mark.parametrize("name", FAULTS)
def test_a_hive_with_a_fault_is_all_old_or_mixed_and_the_next_run_converges(modes: Modes, name: str) -> None:
    fault = FAULTS[name]
    assert unchanged(modes.hive())  # what the test before has mended is whole
    before = modes.where()
    modes.other()
    fault.first(modes)
    gates = {
        "swarm_rollout_gates_before": modes.gate("before", fault.before) if fault.before else [],
        "swarm_rollout_gates_after": modes.gate("after", fault.after) if fault.after else [],
    }
    if fault.at_commit:
        act = fault.at_commit
        said = modes.during(r"TASK \[.*Remember that it may commit", lambda running: act())
    else:
        said = modes.hive(fails=True, **gates)
    assert re.search(rf"{fault.ends}: release", said), said[-6000:]
    assert re.search(fault.says, said), said[-6000:]
    fault.mend(modes)
    if fault.ends == "ALL OLD":
        assert modes.where() == before
    else:
        assert "it finishes what is open" in said
        now = modes.where()
        assert {name for name in ENVIRONMENTS if now[name] != before[name]} <= {"staging"}
    assert "ALL NEW" in modes.hive()
    now = modes.where()
    assert len(modes.releases()) == 1
    assert all(now[environment] != before[environment] for environment in ENVIRONMENTS)


@pytest.mark.parametrize(
    "moment",
    [
        r"TASK \[.*Prepare the idle slot",
        r"TASK \[.*Record the way back",
        r"TASK \[.*See whether all are prepared",
        r"TASK \[.*Send new requests to the slot",
        r"TASK \[.*Judge the slot that is active now",
        r"TASK \[.*Look where each environment is",
        r"TASK \[.*Record that it has ended",
    ],
)
def test_a_controller_that_is_killed_leaves_what_the_next_run_finishes(modes: Modes, moment: str) -> None:
    modes.hive()
    before = modes.where()
    modes.other()
    modes.kill_during(moment)
    assert "ALL NEW" in modes.hive()
    now = modes.where()
    assert len(modes.releases()) == 1
    assert all(now[environment] != before[environment] for environment in ENVIRONMENTS)


def test_what_a_killed_hive_has_committed_is_taken_back_by_a_next_one_that_fails(modes: Modes) -> None:
    modes.hive()
    before = modes.where()
    modes.other()
    modes.kill_during(r"TASK \[.*Judge the slot that is active now")
    assert {release for _slot, release in modes.where().values()} != {release for _slot, release in before.values()}
    modes.traffic("staging", action="rollback", release=before["staging"][1])
    failing = modes.gate("before", FAIL.format("staging"))
    assert "ALL OLD" in modes.hive(fails=True, swarm_rollout_gates_before=failing)
    assert modes.where() == before
    modes.other()


# ---------------------------------------------------------------------------- swarm mode


def listed(said: str) -> dict[str, list[str]]:
    found = dict(re.findall(r"Add to (\w+) there: (ssh-ed25519 [A-Za-z0-9+/=]+)", said))
    assert set(found) == set(ENVIRONMENTS), said[-4000:]
    return {environment: [line] for environment, line in found.items()}


def run_of(said: str) -> dict[str, str]:
    release, run = re.search(r"-e bitnet_release=([0-9a-f]{12}) -e bitnet_run=([^\s\"]+)", said).groups()  # type: ignore[union-attr]
    return {"bitnet_release": release, "bitnet_run": run}


def test_each_environment_goes_by_itself_and_a_veto_takes_all_back(modes: Modes) -> None:
    """One refuses: its gate takes its own traffic back, and the others follow the decision."""
    before = modes.where()
    modes.other()
    modes.vars["bitnet_environment_keys"] = {environment: [] for environment in ENVIRONMENTS}
    failing = modes.gate("after", FAIL.format("staging"))
    said = modes.play("bitnet.devops.rollout", fails=True, swarm_rollout_gates_after=failing)
    assert "dev says promote" in said and "production says promote" in said
    assert re.search("staging says refuse of release .*a gate of mine", said)
    now = modes.where()
    assert {name for name in ENVIRONMENTS if now[name] == before[name]} == {"staging"}
    modes.vars["bitnet_environment_keys"] = listed(said)
    stat = machine.get(ONE).exec("stat", "--format", "%U %a", "/var/lib/bitnet/environments/dev/signing/key")
    assert stat.strip() == "root 600"
    asked = run_of(said)
    # Two of three would do; staging has a veto.
    assert "promote: 2 of 3 say promote" in modes.play("bitnet.devops.consensus", "--check", bitnet_quorum=2, **asked)
    said = modes.play("bitnet.devops.consensus", fails=True, bitnet_quorum=2, bitnet_vetoes=["staging"], **asked)
    assert "rollback: veto of staging" in said
    assert modes.where() == before
    again = modes.play("bitnet.devops.consensus", fails=True, bitnet_quorum=2, bitnet_vetoes=["staging"], **asked)
    assert len(re.findall(r"changed=0", again)) == 3
    modes.asked = asked
    # What follows goes by what the targets say.
    said = modes.play("bitnet.devops.rollout", "--limit", THREE, fails=True, bitnet_rollout_after=["dev", "staging"])
    assert re.search(r"may not go into production: dev: the decision on release \w+ is rollback", said)
    assert modes.where() == before
    modes.other()


def other_run(modes: Modes) -> dict[str, Any]:
    return {"bitnet_run": modes.asked["bitnet_run"] + "1"}


# What is put beside the verdicts (dev and production promote, staging refuses), what is asked, what must come of it.
UNTRUE: dict[str, tuple[dict[str, Any] | None, Callable[[Modes], dict[str, Any]], list[str]]] = {
    "forged": (
        {"signer": "mallory"}, lambda modes: {"bitnet_quorum": 3}, ["rollback: 2 of 3", "ignored, forged: verdict"],
    ),
    "lying": (
        {"gates": (world.BAD_GATE,)},
        lambda modes: {"bitnet_quorum": 3, "bitnet_environment_keys": with_key(modes, world.public("staging"))},
        ["rollback: 2 of 3", "staging: contradictory", "none is believed"],
    ),
    "late": (
        None, lambda modes: {"bitnet_quorum": 2, "bitnet_verdict_seconds": 1}, ["rollback: 0 of 3", "ignored, late"],
    ),
    "replayed": (
        None, lambda modes: {"bitnet_quorum": 2, **other_run(modes)}, ["undecided: 0 of 3", "ignored, replayed"],
    ),
    "missing": (
        None, lambda modes: {"bitnet_quorum": 3, "bitnet_environment_keys": with_silent(modes, "qa", "canary")},
        ["undecided: 1 of 3", "canary, qa has until"],
    ),
}  # fmt: skip


def with_silent(modes: Modes, *names: str) -> dict[str, list[str]]:
    return {"dev": modes.vars["bitnet_environment_keys"]["dev"], **{name: [world.public(name)] for name in names}}


def with_key(modes: Modes, line: str) -> dict[str, list[str]]:
    keys = modes.vars["bitnet_environment_keys"]
    return {**keys, "staging": [*keys["staging"], line]}


@pytest.mark.parametrize("kind", UNTRUE)
def test_verdicts_that_are_not_true(modes: Modes, kind: str) -> None:
    untrue, ask, says = UNTRUE[kind]
    before = modes.where()
    if untrue is not None:
        modes.put_verdict("staging", untrue)
    try:
        said = modes.play("bitnet.devops.consensus", "--check", fails=True, **{**modes.asked, **ask(modes)})
    finally:
        if untrue is not None:
            modes.docker(TWO, "config", "rm", "untrue")
    for text in says:
        assert text in said, said[-6000:]
    assert modes.where() == before


def test_onward_after_a_promotion_its_soak_and_an_approval(modes: Modes) -> None:
    modes.hive()
    modes.other()
    before = modes.where()
    keys = modes.vars["bitnet_environment_keys"]
    first = {"bitnet_environment_keys": {name: keys[name] for name in ("dev", "staging")}, "bitnet_quorum": 2}
    onward = {"bitnet_rollout_after": ["dev", "staging"]}
    said = modes.play("bitnet.devops.rollout", "--limit", f"{ONE},{TWO}", **first)
    asked = run_of(said)
    said = modes.play("bitnet.devops.rollout", "--limit", THREE, fails=True, **onward, **first)
    assert "dev: it holds no decision on release" in said
    assert "promote: 2 of 2" in modes.play("bitnet.devops.consensus", **asked, **first)
    said = modes.play(
        "bitnet.devops.rollout", "--limit", THREE, fails=True, bitnet_rollout_soak_seconds=3600, **onward, **first
    )
    assert "soaks for 3600 s, until" in said
    weekend = [{"name": "always", "from": "2020-01-01 00:00", "until": "2099-01-01 00:00", "timezone": "UTC"}]
    said = modes.play(
        "bitnet.devops.rollout", "--limit", THREE, fails=True, bitnet_freeze_windows=weekend, **onward, **first
    )
    assert "frozen by always" in said
    approver = Approver(modes.folder)
    needs = {"bitnet_approvals_required": 1, "bitnet_approvers": [{"name": "alice", "keys": [approver.public]}]}
    wrong = [approver.approve("000000000000", "production")]
    said = modes.play(
        "bitnet.devops.rollout", "--limit", THREE, fails=True, bitnet_approvals=wrong, **needs, **onward, **first
    )
    assert "0 of 1 approvals" in said and "it is for release 000000000000" in said
    assert modes.where()["production"] == before["production"]
    right = [approver.approve(asked["bitnet_release"], "production")]
    modes.play("bitnet.devops.rollout", "--limit", THREE, bitnet_approvals=right, **needs, **onward, **first)
    assert modes.releases() == {asked["bitnet_release"]}


class Approver:
    """A person with a key on the controller."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "alice"
        signing.make_key(str(self.path))
        self.public = signing.public_line(signing.read_key("path", str(self.path)))

    def approve(self, release: str, environment: str) -> dict[str, Any]:
        options = {"approver": "alice", "release": release, "environment": environment, "key_file": str(self.path)}
        ask = [str(Path(sys.executable).parent / "ansible"), "localhost", "-m", "bitnet.devops.approval", "--one-line"]
        settings = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
        done = subprocess.run(
            [*ask, "-a", json.dumps(options)], cwd=CHECKOUT, env=settings, capture_output=True, text=True, check=True,
            timeout=60,
        )  # fmt: skip
        approval: dict[str, Any] = json.loads(done.stdout.partition("=> ")[2])["approval"]
        return approval
