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

# Three machines with an edge each take minutes.
pytestmark = pytest.mark.full

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

    def lost(self, victim: str, moved: float = 0) -> list[Answer]:
        """Acknowledged, not complete, and not in flight on the node that was hurt, which may have had the address."""
        return [
            answer for answer in self.answers
            if answer.outcome not in ("complete", "refused", "no answer")
            and victim not in (answer.edge, answer.node) and not (answer.edge == "address" and answer.at < moved)
        ]  # fmt: skip

    def gap(self, edge: str = "address") -> float:
        """The longest time without an answer that began and was complete."""
        begun = sorted(answer.at for answer in self.answers if answer.edge == edge and answer.outcome == "complete")
        return max((later - earlier for earlier, later in pairwise(begun)), default=float("inf"))

    def slots(self, edge: str, since: float) -> set[str]:
        return {answer.slot for answer in self.answers if answer.edge == edge and answer.at > since and answer.slot}


@dataclasses.dataclass(frozen=True)
class Hurt:
    """What the switch said, when the address had left the node that was hurt, and when the switch had ended."""

    result: dict[str, Any]
    moved: float
    ended: float


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
        wish = {"action": action, "release": RELEASES[target], "slot": target, "timeout": 150, **options}
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

    def hurt_during_a_switch(self, target: str, victim: str, hurt: Callable[[str], object], node: str) -> Hurt:
        """A switch that waits for the last replica of its target when the victim is hurt, and goes on then.

        The hurt edge is told nothing any more. What the switch did not end the next one does.
        """
        had_address = self.holder() == victim
        self.docker(node, "service", "scale", "--detach", f"bitnet-lab-{target}=2")
        self.await_("the loss of a replica", lambda: self.running(node, target) == 2)
        asked: list[dict[str, Any]] = []
        asking = threading.Thread(target=lambda: asked.append(self.switch(target, node)))
        asking.start()
        self.await_("the operation", lambda: self.label(node, "operation") not in ("", "<no value>"), 120)
        hurt(victim)
        self.await_("a leader", lambda: self.docker(node, "service", "ls", check=False), 60)
        self.docker(node, "service", "scale", "--detach", f"bitnet-lab-{target}=3")
        moved = time.monotonic()
        if had_address:
            others = [name for name in swarm.NODES if name != victim]
            self.await_("another holder", lambda: self.holder(*others))
            moved = time.monotonic()
        asking.join()
        result = asked[0]
        if result.get("routing", {}).get("active") != target:
            print(f"the switch: {result.get('msg', result)}")
            result = self.switch(target, node, wait_seconds=60)
            assert result.get("routing", {}).get("active") == target, result
            print("the next run ended it")
        print(
            f"{victim} hurt; edges {sorted(result['edges'])}, lost {result['lost']}, {result['seconds']['total']:.0f} s"
        )
        assert self.label(node, "active-slot") == target
        return Hurt(result, moved, time.monotonic())

    def running(self, node: str, slot: str) -> int:
        listed = self.docker(node, "service", "ls", "--filter", f"name=bitnet-lab-{slot}", "--format", "{{.Replicas}}")
        return int(listed.partition("/")[0] or 0)


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
        made.play("traffic")
        yield made
    finally:
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
    active = edges.label(ONE, "active-slot")
    with load(edges) as clients:
        for target, node in ((OTHER[active], ONE), (active, THREE)):
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
        moved = time.monotonic()
        time.sleep(2)
    print(f"the address moved after {took:.1f} s")
    assert clients.gap() < 10
    assert not clients.lost(holder, moved), clients.lost(holder, moved)[:5]
    left = edges.holder()
    edges.docker(ONE, "node", "update", "--availability", "active", holder)
    edges.await_("the edge", edges.whole)
    assert edges.holder() == left, "who comes back takes nothing"


def test_a_node_is_drained_during_a_switch(edges: Edges) -> None:
    target = OTHER[edges.label(ONE, "active-slot")]
    with load(edges) as clients:
        hurt = edges.hurt_during_a_switch(
            target, THREE, lambda name: edges.docker(ONE, "node", "update", "--availability", "drain", name), ONE
        )
    assert hurt.result["lost"] == [], "drained is not down"
    assert not clients.lost(THREE, hurt.moved), clients.lost(THREE, hurt.moved)[:5]
    edges.docker(ONE, "node", "update", "--availability", "active", THREE)
    edges.await_("the edge", edges.whole)


def test_the_leaders_daemon_is_killed_during_a_switch(edges: Edges) -> None:
    victim = edges.leader()
    node = next(name for name in swarm.NODES if name != victim)
    target = OTHER[edges.label(node, "active-slot")]
    with load(edges) as clients:
        hurt = edges.hurt_during_a_switch(target, victim, swarm.kill, node)
        time.sleep(2)
    assert hurt.result["lost"] == [victim]
    assert not clients.lost(victim, hurt.moved), clients.lost(victim, hurt.moved)[:5]
    assert clients.slots("address", hurt.ended) == {target}
    swarm.start(victim)
    edges.await_("the edge", edges.whole)
    assert edges.module(victim, "traffic_info")["routing"]["active"] == target


def test_the_holder_of_the_address_is_cut_off_during_a_switch(edges: Edges) -> None:
    victim = edges.holder()
    others = [name for name in swarm.NODES if name != victim]
    target = OTHER[edges.label(others[0], "active-slot")]
    with load(edges) as clients:
        hurt = edges.hurt_during_a_switch(target, victim, swarm.cut, others[0])
        assert hurt.result["lost"] == [victim]
        asked = machine.get(victim).exec("cat", f"{STATE}/edge/routing.map")
        assert f"active {OTHER[target]}" in asked, "nobody told it"
        swarm.mend(victim)
        edges.await_("one holder", lambda: edges.holder() in others)
        edges.await_("the edge", edges.whole)
        time.sleep(2)
    assert not clients.lost(victim, hurt.moved), clients.lost(victim, hurt.moved)[:5]
    assert clients.slots("address", hurt.ended) == {target}, "the stale edge has got nothing from the address"
    late = [a for a in clients.answers if a.edge == victim and a.slot == OTHER[target] and a.at > hurt.ended]
    print(f"asked at its own address, the edge that came back gave {len(late)} answers of the old slot")


def test_a_worker_is_lost_during_a_switch(edges: Edges) -> None:
    edges.await_("the managers", lambda: edges.managers() == 3)
    edges.docker(ONE, "node", "demote", THREE)
    edges.await_("the demotion", lambda: edges.managers() == 2)
    target = OTHER[edges.label(ONE, "active-slot")]

    def lose(name: str) -> None:
        """As if its power were gone, but that its address stays its own."""
        swarm.cut(name)
        machine.get(name).exec("pkill", "-KILL", "-x", "dockerd|containerd|containerd-shim.*|keepalived|haproxy|perl")
        machine.get(name).exec("rm", "-f", "/var/run/docker/containerd/containerd.pid")

    with load(edges) as clients:
        hurt = edges.hurt_during_a_switch(target, THREE, lose, ONE)
    assert hurt.result["lost"] == [THREE]
    assert not clients.lost(THREE, hurt.moved), clients.lost(THREE, hurt.moved)[:5]
    swarm.mend(THREE)
    swarm.start(THREE)
    edges.await_("the edge", edges.whole)
    edges.docker(ONE, "node", "promote", THREE)
    edges.await_("the managers", lambda: edges.managers() == 3)


def test_the_address_goes_when_it_is_not_wanted(edges: Edges) -> None:
    assert edges.holder() in swarm.NODES
    edges.play("traffic", "--check", traffic_virtual_address="")
    assert edges.holder() in swarm.NODES
    edges.play("traffic", traffic_virtual_address="")
    assert edges.holder() == ""
    for name in swarm.NODES:
        assert "keepalived" not in machine.get(name).exec("sh", "-c", f"ls {STATE}; ps -e -o comm=")
    said = edges.play("traffic", traffic_virtual_address="")
    assert len(re.findall(r"ok=\d+ changed=0 unreachable=0 failed=0", said)) == 3, said[-2000:]
