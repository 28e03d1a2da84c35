# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where tasks go, and the upgrade of one node after the other, on the machines of `make lab`, which are made anew.

A service of ours answers on port 8000 of every node, as an edge does, and another runs twice, as a slot does. What a
node's work is, is a file of tasks; it ends Docker and starts it, as the upgrade of its package would.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab import machine, swarm

CHECKOUT = Path(__file__).resolve().parents[2]
ONE, TWO, THREE = swarm.NODES
V3, V4 = "x86-64-v3", "x86-64-v4-vnni"
PLATFORM = "- {hosts: swarm, become: true, gather_facts: false, roles: [bitnet.devops.swarm_cluster]}\n"
ROLLOUT = "- {hosts: swarm_managers, become: true, gather_facts: false, roles: [bitnet.devops.swarm_rollout]}\n"
OURS = ["--quiet", "--network", "bitnet-lab", "--endpoint-mode", "dnsrr", "--label", "io.bitnet.owner=bitnet.devops"]
# Answers every request with its number; when it is told to end it says so for two seconds, and then there is nobody.
ANSWERS = r"""
use IO::Socket::INET; use IO::Select;
my $socket = IO::Socket::INET->new(LocalPort => 8000, Listen => 50, ReuseAddr => 1) or die;
my $end = 0; $SIG{TERM} = sub { $end ||= time + 2 };
while (!$end || time < $end) {
    IO::Select->new($socket)->can_read(0.1) or next;
    my $client = $socket->accept or next;
    my $number = <$client>; print $client $end ? "going\n" : "answer $number"; close $client;
}
"""
WORK = """
- name: Do what was asked for on this node only
  ansible.builtin.shell: |
    {{ lab_work[inventory_hostname] | default('true') }}
  changed_when: true
- name: End Docker and start it, as the upgrade of its package would
  ansible.builtin.shell: |
    kill "$(cat /var/run/docker.pid)"
    while [ -e /var/run/docker.pid ]; do sleep 0.2; done
    options="--shutdown-timeout 2 --cgroup-parent $TEST_MACHINE_CGROUP" # as the machine itself starts it
    setsid --fork dockerd $options >>/var/log/docker.log 2>&1 </dev/null
    echo {{ swarm_upgrade_word_now }} >> /var/tmp/work
  changed_when: true
"""


PLACED: dict[str, Any] = {
    "name": "placed",
    "image": machine.BASE,
    "command": ["sleep", "infinity"],
    "stop_grace_period": "1s",
    "wait_timeout": 60,
}


class Lab:
    """What the tests ask the lab for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
        (folder / "platform.yml").write_text(PLATFORM)
        (folder / "work.yml").write_text(WORK)

    def command(self, playbook: str, *options: str, **variables: object) -> list[str]:
        program = str(Path(sys.executable).parent / "ansible-playbook")
        return [program, playbook, "-i", "inventories/lab", "-e", json.dumps(variables), *options]

    def play(self, playbook: str, *options: str, fails: bool = False, **variables: object) -> str:
        """Run a playbook; give back what it said, with single spaces."""
        done = subprocess.run(
            self.command(playbook, *options, **variables),
            cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=900, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said
        return re.sub(r"\s+", " ", said)

    def upgrading(self, word: str, **variables: object) -> dict[str, object]:
        """The variables of an upgrade whose work has this word."""
        return {
            "swarm_upgrade_packages": [],
            "swarm_upgrade_word": word,
            "bitnet_upgrade_tasks": [str(self.folder / "work.yml")],
            "swarm_upgrade_timeout": 90,
            "swarm_upgrade_drain_seconds": 30,
            "lab_work": {},
            **variables,
        }

    def upgrade(self, word: str, *options: str, fails: bool = False, **variables: object) -> str:
        return self.play("bitnet.devops.upgrade", *options, fails=fails, **self.upgrading(word, **variables))

    def module(self, name: str, /, **options: object) -> dict[str, Any]:
        """Run a module on the first manager and give back its result, failed or not."""
        program, tree = str(Path(sys.executable).parent / "ansible"), self.folder / "tree"
        arguments = [
            "-i",
            "inventories/lab",
            "-m",
            f"bitnet.devops.{name}",
            "-a",
            json.dumps(options),
            "--tree",
            str(tree),
        ]
        done = subprocess.run(
            [program, ONE, *arguments],
            cwd=CHECKOUT,
            env=self.environment,
            capture_output=True,
            timeout=300,
            check=False,
        )
        return {**json.loads((tree / ONE).read_text()), "failed": done.returncode != 0}

    def docker(self, *command: str, on: str = ONE, check: bool = True) -> str:
        return machine.get(on).exec("docker", *command, timeout=120, check=check).strip()

    def nodes(self, on: str = ONE) -> dict[str, dict]:
        nodes = json.loads(self.docker("node", "inspect", *self.docker("node", "ls", "--quiet", on=on).split(), on=on))
        return {node["Description"]["Hostname"]: node for node in nodes}

    def drained(self) -> list[str]:
        return [name for name, node in self.nodes().items() if node["Spec"]["Availability"] == "drain"]

    def labels(self, name: str) -> dict[str, str]:
        return self.nodes()[name]["Spec"]["Labels"]

    def done(self) -> dict[str, list[str]]:
        """Which words' work each node has had."""
        cat = ("sh", "-c", "cat /var/tmp/work 2>/dev/null || true")
        return {name: machine.get(name).exec(*cat).split() for name in swarm.NODES}

    def places(self, service: str) -> Counter[str]:
        """On which nodes the tasks of a service run."""
        shown = ("--filter", "desired-state=running", "--format", "{{.Node}} {{.CurrentState}}")
        rows = self.docker("service", "ps", service, *shown).splitlines()
        return Counter(row.split()[0] for row in rows if " Running" in row)

    def await_(self, what: str, there, deadline: float = 60) -> None:
        end = time.monotonic() + deadline
        while not there():
            assert time.monotonic() < end, f"{what} did not come about within {deadline:.0f} s"
            time.sleep(0.5)

    @contextmanager
    def clients(self, workers: int = 3) -> Iterator[dict[int, str]]:
        """Numbered requests while the body runs, and what became of each. A client leaves a node that says it goes."""
        addresses = [machine.get(name).address for name in swarm.NODES]
        became: dict[int, str] = {}
        numbers, end = itertools.count(1), threading.Event()
        away = dict.fromkeys(addresses, 0.0)

        def ask(address: str, number: int) -> str:
            try:
                with socket.create_connection((address, 8000), timeout=2) as connection:
                    connection.sendall(b"%d\n" % number)
                    answer = connection.makefile().readline().strip()
            except ConnectionRefusedError:
                return "refused"
            except OSError as error:
                return f"broken: {error}"
            return answer or "broken: no answer"

        def client(first: int) -> None:
            while not end.is_set():
                number, seen = next(numbers), []
                for turn in range(len(addresses)):
                    address = addresses[(first + number + turn) % len(addresses)]
                    if time.monotonic() < away[address]:
                        continue
                    seen.append(ask(address, number))
                    if seen[-1] == f"answer {number}":
                        break
                    away[address] = time.monotonic() + 4
                became[number] = seen[-1] if seen else "nobody there"
                time.sleep(0.05)

        threads = [threading.Thread(target=client, args=(first,)) for first in range(workers)]
        for thread in threads:
            thread.start()
        try:
            yield became
        finally:
            end.set()
            for thread in threads:
                thread.join()


def changed(said: str) -> dict[str, int]:
    return {name: int(count) for name, count in re.findall(r"(lab-\d) : ok=\d+ changed=(\d+) ", said)}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    swarm.down()
    swarm.up(owner=os.getpid())
    try:
        made = Lab(tmp_path_factory.mktemp("lab"))
        made.play(str(made.folder / "platform.yml"))
        yield made
    finally:
        swarm.down()


@pytest.fixture(scope="module")
def services(lab):
    """A service on every node that answers, and one with two tasks."""
    port = ("--publish", "published=8000,target=8000,mode=host")
    short = ("--restart-delay", "0s", "--stop-grace-period")
    lab.docker("service", "create", *OURS, *port, *short, "5s", "--name", "front", "--mode", "global", machine.BASE,
               "perl", "-e", ANSWERS)  # fmt: skip
    spread = ("--placement-pref", "spread=node.labels.io.bitnet.failure-domain", "--update-monitor", "1s")
    lab.docker("service", "create", *OURS, *spread, *short, "1s", "--name", "slot", "--replicas", "2", machine.BASE,
               "sleep", "infinity")  # fmt: skip
    return lab


def place(lab: Lab, replicas: int, built: list[str], **options: object) -> tuple[dict, Counter[str]]:
    """A new service, placed for an image with these variants: what the module said, and where the tasks are."""
    found = lab.module("swarm_placement", image="it", built=built, **options)
    assert not found["failed"], found
    where = {name: found[name] for name in ("platforms", "constraints", "preferences")}
    lab.docker("service", "rm", "placed", check=False)
    made = lab.module("swarm_service", **PLACED, replicas=replicas, **where)
    assert not made["failed"], made
    return found, lab.places("placed")


def push(image: str) -> str:
    """Every machine gets the image and a registry that has it, so that all know it by one digest."""
    registry, name = "bitnet-test-registry", "127.0.0.1:5000/bitnet/swarm-intelligence"
    machine.run("docker", "build", "--quiet", "--tag", registry, str(CHECKOUT / "files" / "images" / "registry"))
    digests = set()
    for node in swarm.NODES:
        machine.load(node, [registry, image])
        script = f"""
            docker run --detach --network host --env REGISTRY_HTTP_ADDR=127.0.0.1:5000 {registry} >/dev/null
            docker tag {image} {name}:test
            for _ in $(seq 60); do docker push --quiet {name}:test >/dev/null && break; sleep 0.5; done
            docker image inspect --format '{{{{index .RepoDigests 0}}}}' {name}:test
        """
        digests.add(machine.get(node).exec("sh", "-c", script).split()[-1])
    assert len(digests) == 1, digests
    return digests.pop()


def test_tasks_go_where_the_image_runs_and_over_failure_domains(lab):
    """Labels are set by hand, as if the machines had other CPUs; the role sets them right again."""
    for name, variant, domain in ((ONE, V4, "east"), (TWO, V3, "west"), (THREE, V4, "west")):
        both = ["--label-add", f"io.bitnet.variant={variant}", "--label-add", f"io.bitnet.failure-domain={domain}"]
        lab.docker("node", "update", *both, name)
    found, places = place(lab, 4, [V3, V4])
    assert found["excluded"] == {} and places[ONE] == 2 and places[TWO] + places[THREE] == 2
    _found, places = place(lab, 3, [V4])
    assert places.keys() == {ONE, THREE}
    _found, places = place(lab, 2, [V3, V4], variants=[V3])
    assert places.keys() == {TWO}
    lab.docker("node", "update", "--label-add", "io.bitnet.slots=false", ONE)
    found, places = place(lab, 2, [V3], architectures=["amd64"])
    assert ONE in found["excluded"] and places.keys() <= {TWO, THREE}
    refused = lab.module("swarm_placement", image="it", built=["armv8.0-a"])
    assert refused["failed"] and f"{TWO} is linux/x86_64, and not linux/arm64" in refused["msg"]
    # Swarm itself keeps the tasks of an image for another architecture away.
    lab.docker("service", "rm", "placed")
    assert not lab.module("swarm_service", **PLACED, platforms=["linux/arm64"], wait=False)["failed"]
    lab.await_(
        "a word of Swarm's", lambda: "unsupported platform" in lab.docker("service", "ps", "--no-trunc", "placed")
    )
    lab.docker("service", "rm", "placed")
    lab.play(str(lab.folder / "platform.yml"))
    assert lab.labels(ONE)["io.bitnet.slots"] == "true" and lab.labels(ONE)["io.bitnet.failure-domain"] == ONE


@pytest.mark.full
def test_a_release_goes_where_it_runs_and_is_refused_where_it_does_not(lab, workload_image):
    """The real image on two of three nodes; the third is labelled as if it had another CPU."""
    image, playbook = push(workload_image), lab.folder / "rollout.yml"
    playbook.write_text(ROLLOUT)
    own = lab.labels(ONE)["io.bitnet.variant"]
    release = {"bitnet_image": image, "bitnet_model": "jargon", "swarm_rollout_replicas": 2}
    said = lab.play(str(playbook), **release, swarm_rollout_variants=["armv8.0-a"], fails=True)
    assert "swarm_rollout_variants: nodes of armv8.0-a were asked for" in said
    lab.docker("node", "update", "--label-add", f"io.bitnet.variant={V3 if own == V4 else V4}", THREE)
    lab.docker("node", "update", "--availability", "drain", ONE)
    lab.docker("node", "update", "--label-rm", "io.bitnet.slots", TWO)
    said = lab.play(str(playbook), **release, swarm_rollout_variants=[own], fails=True)
    assert f"swarm_rollout_image: no node can run a task of {image}: " in said
    assert f"{ONE} is drained" in said and f"{TWO} has no label io.bitnet.slots" in said
    assert f"{THREE} is labelled io.bitnet.variant={V3 if own == V4 else V4}, and not {own}" in said
    assert lab.docker("service", "ls", "--quiet") == ""
    assert machine.get(ONE).exec("find", "/var/lib/bitnet", "-name", "models") == ""
    lab.docker("node", "update", "--availability", "active", ONE)
    lab.docker("node", "update", "--label-add", "io.bitnet.slots=true", TWO)
    wanted = {**release, "swarm_rollout_variants": [own]}
    said = lab.play(str(playbook), "--check", "--diff", **wanted)
    assert f"node.labels.io.bitnet.variant=={own}" in said and lab.docker("service", "ls", "--quiet") == ""
    lab.play(str(playbook), **wanted)
    assert lab.places("bitnet-lab-blue") == Counter([ONE, TWO])
    assert changed(lab.play(str(playbook), **wanted)) == dict.fromkeys(swarm.NODES, 0)
    lab.docker("service", "rm", "bitnet-lab-blue")
    lab.play(str(lab.folder / "platform.yml"))


@pytest.mark.full
def test_a_check_says_who_would_be_taken_and_touches_nothing(services):
    said = services.upgrade("first", "--check")
    order = re.findall(r"(lab-\d): tasks first \(had none\)", said)
    leader = next(name for name, node in services.nodes().items() if node["ManagerStatus"].get("Leader"))
    assert sorted(order) == list(swarm.NODES) and order[-1] == leader
    assert services.drained() == [] and services.done() == {name: [] for name in swarm.NODES}


@pytest.mark.full
def test_three_nodes_are_upgraded_under_a_service_that_answers(services):
    with services.clients() as became:
        said = services.upgrade("first")
    assert services.done() == {name: ["first"] for name in swarm.NODES}
    assert services.drained() == [] and services.places("front") == Counter(swarm.NODES)
    assert len(services.places("slot")) == 2
    assert {services.labels(name).get("io.bitnet.upgraded") for name in swarm.NODES} == {"first"}
    assert not any("io.bitnet.upgrade" in services.labels(name) for name in swarm.NODES)
    assert set(changed(said)) == set(swarm.NODES) and min(changed(said).values()) > 0
    lost = {number: what for number, what in became.items() if what != f"answer {number}"}
    assert len(became) > 200 and lost == {}


@pytest.mark.full
def test_the_second_run_drains_nothing(services):
    before, tasks = services.done(), services.docker("service", "ps", "--quiet", "front", "slot")
    said = services.upgrade("first")
    assert changed(said) == dict.fromkeys(swarm.NODES, 0) and "nothing is to be upgraded" in said
    assert services.done() == before and services.docker("service", "ps", "--quiet", "front", "slot") == tasks


@pytest.mark.full
def test_it_stops_at_the_node_whose_work_fails_and_goes_on_there(services):
    order = re.findall(r"(lab-\d): tasks second", services.upgrade("second", "--check"))
    broken = order[1]
    said = services.upgrade("second", fails=True, lab_work={broken: "echo no space; exit 3"})
    assert f"{broken} was not upgraded: Do what was asked for on this node only" in said
    assert f"run this again, which goes on with {broken}" in said
    assert services.drained() == [broken] and services.labels(broken)["io.bitnet.upgrade"] == "active"
    assert {name: words[-1] for name, words in services.done().items()} == {
        order[0]: "second", broken: "first", order[2]: "first",
    }  # fmt: skip
    again = services.upgrade("second")
    assert f"{broken}: an earlier run left it drained, tasks second (had first)" in again
    assert services.drained() == [] and {words[-1] for words in services.done().values()} == {"second"}
    assert {name: words.count("second") for name, words in services.done().items()} == dict.fromkeys(swarm.NODES, 1)


@pytest.mark.full
def test_nothing_is_begun_with_a_manager_down(services):
    swarm.kill(THREE)
    services.await_("the loss of the manager", lambda: services.nodes()[THREE]["Status"]["State"] == "down")
    said = services.upgrade("third", fails=True)
    assert "cannot be spared now" in said and "was not touched" in said
    assert f"1 of 3 managers would live, and 2 must: take {THREE} back" in said or f"{THREE} itself is down" in said
    assert services.drained() == [] and "third" not in str(services.done())
    swarm.start(THREE)
    services.await_("the return of the manager", lambda: services.places("front") == Counter(swarm.NODES))


@pytest.mark.full
def test_what_a_person_has_drained_stays_drained(services):
    services.docker("node", "update", "--availability", "drain", TWO)
    services.await_("the end of its tasks", lambda: TWO not in services.places("front") + services.places("slot"))
    services.upgrade("fourth")
    assert services.drained() == [TWO] and "io.bitnet.upgrade" not in services.labels(TWO)
    assert {words[-1] for words in services.done().values()} == {"fourth"}
    services.docker("node", "update", "--availability", "active", TWO)
    services.await_("its return", lambda: services.places("front") == Counter(swarm.NODES))


@pytest.mark.full
def test_a_controller_that_dies_in_the_middle_is_taken_over(services):
    slow = {name: "touch /var/tmp/at-work; sleep 15" for name in swarm.NODES}
    with subprocess.Popen(
        services.command("bitnet.devops.upgrade", **services.upgrading("fifth", lab_work=slow)),
        cwd=CHECKOUT, env=services.environment, stdout=subprocess.DEVNULL, start_new_session=True,
    ) as running:  # fmt: skip
        at_work = ("sh", "-c", "ls /var/tmp/at-work 2>/dev/null || true")
        services.await_("the work", lambda: any(machine.get(name).exec(*at_work) for name in swarm.NODES), 180)
        os.killpg(running.pid, signal.SIGKILL)
    (left,) = services.drained()
    assert services.labels(left)["io.bitnet.upgrade"] == "active"
    with services.clients() as became:
        said = services.upgrade("fifth")
    assert f"{left}: an earlier run left it drained" in said
    assert services.drained() == [] and {words[-1] for words in services.done().values()} == {"fifth"}
    assert {what for number, what in became.items() if what != f"answer {number}"} == set()
    assert changed(services.upgrade("fifth")) == dict.fromkeys(swarm.NODES, 0)


@pytest.mark.full
def test_tasks_that_moved_together_are_spread_and_a_gap_needs_a_word(services):
    """As with two workers: after the first is back, the second has everything."""
    services.docker("service", "update", "--quiet", "--constraint-add", f"node.hostname!={ONE}", "slot")
    services.await_("two nodes with a task", lambda: services.places("slot") == Counter([TWO, THREE]))
    services.upgrade("sixth")
    assert services.places("slot") == Counter([TWO, THREE])
    services.docker("service", "scale", "slot=1")
    (only,) = services.places("slot")
    said = services.upgrade("seventh", fails=True)
    assert f"gap: while {only} is away all tasks of slot are there" in said and f"{only} was not touched" in said
    services.upgrade("seventh", swarm_upgrade_gap=True)
    assert {words[-1] for words in services.done().values()} == {"seventh"}


@pytest.mark.full
def test_locked_managers_are_opened(services):
    services.play(str(services.folder / "platform.yml"), swarm_cluster_autolock=True)
    services.upgrade("eighth", swarm_upgrade_gap=True)
    assert {words[-1] for words in services.done().values()} == {"eighth"}
    assert {node["ManagerStatus"]["Reachability"] for node in services.nodes().values()} == {"reachable"}
