# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three edges behind an address that moves, on the machines of `make lab`: switches under load, and what goes wrong.

The slots are small programs in the edge's image: which of them answers is the matter, not what. Each test goes on from
the last.
"""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.lab import machine, swarm

CHECKOUT = Path(__file__).resolve().parents[2]
ONE, TWO, THREE = swarm.NODES
STATE = "/var/lib/bitnet/environments/lab"
TOKEN = "a-token-that-the-probe-has"
REGISTRY = "127.0.0.1:5000"
RELEASES = {"blue": "aaaaaaaaaaaa", "green": "bbbbbbbbbbbb"}
OTHER = {"blue": "green", "green": "blue"}
PLAYBOOK = """
- hosts: swarm
  become: true
  gather_facts: false
  roles: [bitnet.devops.{role}]
"""
# A slot: /slow is a stream of half a second, whose end a client can tell; the rest is what the role asks for.
SLOT = r"""
use strict; use warnings; use IO::Socket::INET;
my $listener = IO::Socket::INET->new(LocalPort => 8080, Listen => 512, ReuseAddr => 1) or die;
my $ends = 0;
$SIG{CHLD} = "IGNORE";
$SIG{TERM} = sub { $ends = 1; close $listener };
until ($ends) {
    my $client = $listener->accept or next;
    if (fork) { close $client; next }
    $SIG{TERM} = "IGNORE";
    close $listener;
    my $head = "";
    while (<$client>) { last if /^\r?$/; $head .= $_ }
    my ($path) = $head =~ m{^\S+ (\S+)};
    my $status = $path eq "/v1/models" && $head !~ /^authorization:/im ? "401 Unauthorized" : "200 OK";
    print $client "HTTP/1.1 $status\r\nX-Node: $ENV{NODE}\r\nConnection: close\r\n";
    if ($path eq "/slow") {
        print $client "Transfer-Encoding: chunked\r\n\r\n";
        for (1 .. 10) { print $client "4\r\nbit \r\n"; $client->flush; select undef, undef, undef, 0.05 }
        print $client "0\r\n\r\n";
    } else {
        print $client "Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";
    }
    exit;
}
1 while wait > 0;
"""


@dataclasses.dataclass(frozen=True)
class Answer:
    """One request. Acknowledged is what got a status line; C(node) is where the replica runs that answered."""

    at: float
    edge: str
    outcome: str
    slot: str = ""
    node: str = ""


class Load:
    """Clients at the address that moves and at every edge; each of their requests is a connection of its own."""

    def __init__(self, targets: dict[str, str], workers: int = 2) -> None:
        self.targets = targets
        self.workers = workers
        self.answers: list[Answer] = []
        self._end = threading.Event()

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()))
        self._thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_unused: object) -> None:
        time.sleep(1)
        self._end.set()
        self._thread.join()

    async def _all(self) -> None:
        await asyncio.gather(*(
            self._work(edge, address) for edge, address in self.targets.items() for _unused in range(self.workers)
        ))  # fmt: skip

    async def _work(self, edge: str, address: str) -> None:
        while not self._end.is_set():
            at = time.monotonic()
            outcome, slot, node = await self._ask(address)
            self.answers.append(Answer(at, edge, outcome, slot, node))
            if outcome != "complete":
                await asyncio.sleep(0.1)

    async def _ask(self, address: str) -> tuple[str, str, str]:
        try:
            reader, writer = await asyncio.wait_for(asyncio.open_connection(address, 8080), 2)
        except (OSError, TimeoutError):
            return "refused", "", ""
        slot = node = ""
        outcome = "no answer"
        try:
            writer.write(
                f"GET /slow HTTP/1.1\r\nHost: edge\r\nAuthorization: Bearer {TOKEN}\r\n"
                "Connection: close\r\n\r\n".encode()
            )
            head = (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).decode("latin-1")
            outcome = "cut"
            slot = "".join(re.findall(r"(?mi)^x-bitnet-slot: (\w+)", head))
            node = "".join(re.findall(r"(?mi)^x-node: (\S+)", head))
            if " 200 " not in head[:20]:
                outcome = f"status {head[9:12]}"
            elif (await asyncio.wait_for(reader.read(-1), 10)).endswith(b"0\r\n\r\n"):
                outcome = "complete"
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return outcome, slot, node

    def count(self) -> Counter[str]:
        return Counter(answer.outcome for answer in self.answers)

    def lost(self, *victims: str) -> list[Answer]:
        """Acknowledged and not complete, and not in flight on a node that was hurt."""
        return [
            answer for answer in self.answers
            if answer.outcome not in ("complete", "refused", "no answer")
            and answer.edge not in ("address", *victims) and answer.node not in victims
        ]  # fmt: skip

    def gap(self, edge: str = "address") -> float:
        """The longest time without an answer that began and was complete."""
        begun = sorted(answer.at for answer in self.answers if answer.edge == edge and answer.outcome == "complete")
        return max((later - earlier for earlier, later in pairwise(begun)), default=float("inf"))

    def slots(self, edge: str, since: float) -> set[str]:
        return {answer.slot for answer in self.answers if answer.edge == edge and answer.at > since and answer.slot}


class Edges:
    """The environment `lab`: plays roles and modules on its machines, and hurts them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.wanted: dict[str, object] = {}
        self.environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
        self.addresses = {name: machine.get(name).address for name in swarm.NODES}
        network = ipaddress.ip_network(f"{self.addresses[ONE]}/16", strict=False)
        self.address = str(network.broadcast_address - 15)  # far from where Docker begins

    @property
    def targets(self) -> dict[str, str]:
        return {"address": self.address, **self.addresses}

    def play(self, role: str, *options: str, fails: bool = False, **wanted: object) -> str:
        playbook = self.folder / f"{role}.yml"
        playbook.write_text(PLAYBOOK.format(role=role))
        program = str(Path(sys.executable).parent / "ansible-playbook")
        done = subprocess.run(
            [program, str(playbook), "-i", "inventories/lab", "-e", json.dumps({**self.wanted, **wanted}), *options],
            cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=590, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said[-8000:]
        return re.sub(r"\s+", " ", said)

    def module(self, node: str, name: str, **options: object) -> dict[str, Any]:
        """The result of a module on a machine, failed or not."""
        folder = self.folder / f"tree-{threading.get_ident()}"
        program = str(Path(sys.executable).parent / "ansible")
        done = subprocess.run(
            [program, node, "-i", "inventories/lab", "-m", f"bitnet.devops.{name}", "--tree", str(folder),
             "-a", json.dumps({"environment": "lab", **options})],
            cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        result = folder / node
        assert result.exists(), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(result.read_text())
        result.unlink()
        return found

    def switch(self, target: str, node: str = ONE, action: str = "switch", **options: object) -> dict[str, Any]:
        wish = {"action": action, "release": RELEASES[target], "slot": target, "timeout": 90, **options}
        return self.module(node, "traffic_switch", **wish)

    def docker(self, name: str, *command: str, check: bool = True) -> str:
        return machine.get(name).exec("docker", *command, timeout=60, check=check).strip()

    def label(self, node: str, name: str) -> str:
        form = f'{{{{index .Spec.Labels "io.bitnet.{name}"}}}}'
        return self.docker(node, "service", "inspect", "--format", form, "bitnet-lab-edge", check=False)

    def holder(self, *asked: str) -> str:
        """The machines that have the address."""
        looked = asked or swarm.NODES
        return " ".join(
            n for n in looked if f" {self.address}/" in machine.get(n).exec("ip", "address", "show", "eth0")
        )

    def leader(self) -> str:
        form = "{{.Hostname}} {{.ManagerStatus}}"
        for line in self.docker(TWO, "node", "ls", "--format", form).splitlines():
            if line.endswith("Leader"):
                return line.split()[0]
        raise AssertionError("there is no leader")

    def managers(self) -> int:
        return len(self.docker(ONE, "node", "ls", "--format", "{{.ManagerStatus}}").split())

    def await_(self, what: str, there: Callable[[], object], deadline: float = 90) -> float:
        began = time.monotonic()
        while not there():
            assert time.monotonic() - began < deadline, f"{what} did not come about within {deadline:.0f} s"
            time.sleep(0.3)
        return time.monotonic() - began

    def whole(self) -> bool:
        """All three edges run and do what is decided, and nothing is open."""
        with suppress(AssertionError):
            info = self.module(TWO, "traffic_info", journal=0)
            return info.get("agree", False) and len(info["edges"]) == 3 and not info["lost"] and not info["operation"]
        return False

    def hurt_during_a_switch(self, target: str, hurt: Callable[[], object], node: str) -> tuple[dict[str, Any], float]:
        """What the switch said, and when it had ended. The hurt comes when the operation is seen to be open."""
        result: list[dict[str, Any]] = []
        asking = threading.Thread(target=lambda: result.append(self.switch(target, node)))
        asking.start()
        self.await_("the operation", lambda: self.label(node, "operation") not in ("", "<no value>"), 120)
        hurt()
        asking.join()
        return result[0], time.monotonic()

    def ended(self, result: dict[str, Any], target: str, node: str) -> None:
        """The switch has ended, or says that it has not, and the next run ends it."""
        if result.get("routing", {}).get("active") != target:
            print(f"the switch: {result.get('msg', result)}")
            assert result["failed"]
            again = self.switch(target, node, wait_seconds=60)
            assert again.get("routing", {}).get("active") == target, again
            result = again
        print(f"the switch ended with the edges {sorted(result['edges'])}, lost {result['lost']}")
        assert self.label(node, "active-slot") == target


def put(name: str, path: str, text: str, mode: str = "0600") -> None:
    script = f'mkdir -p "$(dirname {path})" && cat > {path} && chmod {mode} {path}'
    container = machine.container_name(name)
    subprocess.run(
        ["docker", "exec", "--interactive", container, "sh", "-c", script],
        input=text,
        text=True,
        check=True,
        timeout=60,
    )


def provide_images() -> str:
    """The edge's image, and a registry on each machine that has it: every node pulls it by the same digest."""
    for name in ("edge", "registry"):
        context = str(CHECKOUT / "files" / "images" / name)
        machine.run("docker", "build", "--quiet", "--tag", f"bitnet-test-edges-{name}", context)
    digests = set()
    for node in swarm.NODES:
        machine.load(node, ["bitnet-test-edges-edge", "bitnet-test-edges-registry"])
        script = f"""
            docker run --detach --restart always --network host --env REGISTRY_HTTP_ADDR={REGISTRY} \\
                bitnet-test-edges-registry
            docker tag bitnet-test-edges-edge {REGISTRY}/bitnet/edge:test
            for _ in $(seq 60); do docker push --quiet {REGISTRY}/bitnet/edge:test && break; sleep 0.5; done
            docker image inspect --format '{{{{index .RepoDigests 0}}}}' {REGISTRY}/bitnet/edge:test
        """
        digests.add(machine.get(node).exec("sh", "-c", script).split()[-1])
    assert len(digests) == 1, digests
    return digests.pop()


def run_slot(edges: Edges, slot: str, image: str) -> None:
    labels = {"owner": "bitnet.devops", "environment": "lab", "slot": slot, "release": RELEASES[slot], "replicas": "3"}
    options = [part for key, value in labels.items() for part in ("--label", f"io.bitnet.{key}={value}")]
    edges.docker(
        ONE, "service", "create", "--quiet", "--detach", "--name", f"bitnet-lab-{slot}", "--network", "bitnet-lab",
        "--endpoint-mode", "dnsrr", "--replicas", "3", "--no-healthcheck", "--env", "NODE={{.Node.Hostname}}",
        "--restart-delay", "0s", *options, "--entrypoint", "perl", image, "-e", SLOT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def edges(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Edges]:
    swarm.down()
    swarm.up(owner=os.getpid())
    try:
        made = Edges(tmp_path_factory.mktemp("edges"))
        made.play("swarm_cluster")
        image = provide_images()
        for name in swarm.NODES:
            put(name, f"{STATE}/tokens/probe", f"{TOKEN}\n")
        for slot in RELEASES:
            run_slot(made, slot, image)
        made.wanted = {"traffic_image": image, "traffic_virtual_address": f"{made.address}/16"}
        made.said = made.play("traffic")  # type: ignore[attr-defined]
        yield made
    finally:
        if not os.environ.get("BITNET_TEST_KEEP"):
            swarm.down()


@contextmanager
def load(edges: Edges) -> Iterator[Load]:
    with Load(edges.targets) as clients:
        yield clients
    print(f"{len(clients.answers)} requests: {dict(clients.count())}; longest gap at the address {clients.gap():.1f} s")


def test_three_edges_stand_behind_one_address(edges: Edges) -> None:
    info = edges.module(THREE, "traffic_info")
    assert info["agree"] and sorted(info["edges"]) == sorted(swarm.NODES) and info["lost"] == []
    assert all(edge["up"] == {"blue": 3, "green": 3} for edge in info["edges"].values()), info["edges"]
    assert edges.holder() in swarm.NODES, "exactly one machine has the address"
    for name in swarm.NODES:
        found = machine.get(name).exec(
            "sh", "-c", f"cd {STATE} && stat --format '%n %a %U' keepalived keepalived/*.conf edge"
        )
        assert found.split("\n")[:3] == ["keepalived 700 root", "keepalived/keepalived.conf 600 root", "edge 700 root"]
    for headers, status in (([], "404"), (["-H", f"Authorization: Bearer {TOKEN}"], "200")):
        url = f"http://{edges.addresses[TWO]}:8080/edge/state"
        assert machine.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", *headers, url) == status


def test_a_second_run_changes_nothing(edges: Edges) -> None:
    said = edges.play("traffic", "--diff")
    assert len(re.findall(r"ok=\d+ changed=0 unreachable=0 failed=0", said)) == 3, said[-2000:]
    assert TOKEN not in said


def test_switches_there_and_back_lose_nothing_at_any_edge(edges: Edges) -> None:
    with load(edges) as clients:
        for target, node in (("green", ONE), ("blue", THREE)):
            result = edges.switch(target, node)
            assert result.get("routing", {}).get("active") == target, result
            seen = time.monotonic()
            assert result["lost"] == []
            print(f"seen by clients at all edges after {result['seconds']['to_client']:.1f} s")
            time.sleep(1.5)
            for edge in edges.targets:
                assert clients.slots(edge, seen + 0.2) == {target}, edge
    assert set(clients.count()) == {"complete"}, clients.count()
    services = edges.docker(ONE, "service", "ls", "--format", "{{.Name}}").split()
    assert "bitnet-lab-route" not in services, "the job that told the edges has gone"


def test_the_address_leaves_a_host_whose_edge_dies(edges: Edges) -> None:
    holder = edges.holder()
    with load(edges) as clients:
        edges.docker(ONE if holder != ONE else TWO, "node", "update", "--availability", "drain", holder)
        took = edges.await_("another holder", lambda: edges.holder() not in ("", holder))
        time.sleep(2)
    print(f"the address moved after {took:.1f} s")
    assert clients.gap() < 10
    assert not clients.lost(holder), clients.lost(holder)[:5]
    left = edges.holder()
    edges.docker(ONE, "node", "update", "--availability", "active", holder)
    edges.await_("the edge", edges.whole)
    assert edges.holder() == left, "who comes back takes nothing"


def test_a_node_is_drained_during_a_switch(edges: Edges) -> None:
    target = OTHER[edges.label(ONE, "active-slot")]
    with load(edges) as clients:
        result, _at = edges.hurt_during_a_switch(
            target, lambda: edges.docker(ONE, "node", "update", "--availability", "drain", THREE), ONE
        )
        edges.ended(result, target, ONE)
    assert not clients.lost(THREE), clients.lost(THREE)[:5]
    edges.docker(ONE, "node", "update", "--availability", "active", THREE)
    edges.await_("the edge", edges.whole)


@pytest.mark.full
def test_the_leaders_daemon_is_killed_during_a_switch(edges: Edges) -> None:
    victim = edges.leader()
    node = next(name for name in swarm.NODES if name != victim)
    target = OTHER[edges.label(node, "active-slot")]
    with load(edges) as clients:
        result, at = edges.hurt_during_a_switch(target, lambda: swarm.kill(victim), node)
        edges.await_("a leader", lambda: edges.label(node, "active-slot"), 60)
        edges.ended(result, target, node)
        edges.await_("a holder that is well", lambda: edges.holder() not in ("", victim), 60)
        at = time.monotonic()
        time.sleep(2)
    assert not clients.lost(victim), clients.lost(victim)[:5]
    assert clients.slots("address", at) == {target}
    swarm.start(victim)
    edges.await_("the edge", edges.whole)
    assert edges.module(victim, "traffic_info")["routing"]["active"] == target


@pytest.mark.full
def test_the_holder_of_the_address_is_cut_off_during_a_switch(edges: Edges) -> None:
    victim = edges.holder()
    node = next(name for name in swarm.NODES if name != victim)
    others = [name for name in swarm.NODES if name != victim]
    target = OTHER[edges.label(node, "active-slot")]
    with load(edges) as clients:
        cut = time.monotonic()

        def hurt() -> None:
            nonlocal cut
            cut = time.monotonic()
            swarm.cut(victim)

        result, _at = edges.hurt_during_a_switch(target, hurt, node)
        edges.await_("a leader", lambda: edges.label(node, "active-slot"), 60)
        edges.ended(result, target, node)
        ended = time.monotonic()
        assert edges.holder(*others) in others
        swarm.mend(victim)
        edges.await_("one holder", lambda: edges.holder() in others)
        edges.await_("the edge", edges.whole)
        time.sleep(2)
    assert not clients.lost(victim), clients.lost(victim)[:5]
    assert clients.slots("address", ended) == {target}, "the stale edge has got nothing from the address"
    stale = [answer.at for answer in clients.answers if answer.edge == victim and answer.slot == OTHER[target]]
    late = [at for at in stale if at > ended]
    print(f"asked at its own address, the edge that came back gave {len(late)} answers of the old slot")
    assert cut < ended


@pytest.mark.full
def test_a_worker_is_lost_during_a_switch(edges: Edges) -> None:
    edges.docker(ONE if edges.leader() != ONE else TWO, "node", "demote", THREE)
    edges.await_("the demotion", lambda: edges.managers() == 2)
    target = OTHER[edges.label(ONE, "active-slot")]
    container = machine.container_name(THREE)
    with load(edges) as clients:
        result, _at = edges.hurt_during_a_switch(target, lambda: machine.run("docker", "kill", container), ONE)
        edges.ended(result, target, ONE)
    assert not clients.lost(THREE), clients.lost(THREE)[:5]
    machine.run("docker", "start", container)
    machine.await_docker(container)
    edges.await_("the edge", edges.whole)
    edges.docker(ONE, "node", "promote", THREE)


@pytest.mark.full
def test_the_address_goes_when_it_is_not_wanted(edges: Edges) -> None:
    edges.await_("all managers", lambda: edges.managers() == 3)
    edges.play("traffic", "--check", traffic_virtual_address="")
    assert edges.holder() in swarm.NODES
    edges.play("traffic", traffic_virtual_address="")
    assert edges.holder() == ""
    for name in swarm.NODES:
        assert "keepalived" not in machine.get(name).exec("sh", "-c", f"ls {STATE}; ps -e -o comm=")
    said = edges.play("traffic", traffic_virtual_address="")
    assert len(re.findall(r"ok=\d+ changed=0 unreachable=0 failed=0", said)) == 3, said[-2000:]
