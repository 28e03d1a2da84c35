# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three members of the role database on a Swarm of three machines, and numbered writes while one of them is hurt.

The machines are this test's own. A writer outside goes through PgBouncer of all members; where the leader is cut off, a
second one goes on beside it, past PgBouncer. Each test goes on from the last.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.lab import machine, swarm

# Three machines with four services each take minutes.
pytestmark = pytest.mark.full

CHECKOUT = Path(__file__).resolve().parents[2]
NODES = ("data-1", "data-2", "data-3")
ONE = NODES[0]
FOLDER = "/var/lib/bitnet/environments/local/database"
REGISTRY = "127.0.0.1:5000"
IMAGE = "bitnet-test-database-member"
PASSWORD = "a-password-of-our-own"
PLAYBOOK = """
- hosts: swarm_managers
  become: true
  gather_facts: false
  roles: [bitnet.devops.database]
  tasks:
    - name: Keep the summary
      ansible.builtin.copy:
        dest: /var/tmp/summary.json
        content: "{{ database_summary | to_json }}"
        mode: "0600"
      when: database_leads and not ansible_check_mode
"""
PATRONICTL = ("patronictl", "-c", "/etc/bitnet-database/patroni.yml")


@dataclasses.dataclass(frozen=True)
class Write:
    """One write as its client saw it: ack, unsure (a warning of PostgreSQL's) or no."""

    kind: str
    number: int
    at: float
    why: str


class Writer:
    """A container that writes numbers, on the host (`node` empty) or in a machine."""

    def __init__(self, name: str, image: str, where: str, node: str = "") -> None:
        self.name, self.node = name, node
        self.container = f"bitnet-test-database-{name}"
        script = (CHECKOUT / "tests/integration/database_writer.py").read_text()
        self.docker(
            "run", "--detach", "--name", self.container, *(["--network", "host"] if node else []),
            "--entrypoint", "python3", image, "-c", script, name, where,
        )  # fmt: skip

    def docker(self, *command: str) -> str:
        inside = ("docker", "exec", machine.container_name(self.node)) if self.node else ()
        return machine.run(*inside, "docker", *command, timeout=60)

    def writes(self) -> list[Write]:
        found = []
        for line in self.docker("logs", self.container).splitlines():
            kind, _name, number, at, *why = line.split(" ")
            found.append(Write(kind, int(number), float(at), " ".join(why)))
        return found

    def acknowledged(self) -> list[Write]:
        return [write for write in self.writes() if write.kind == "ack"]

    def end(self) -> None:
        self.docker("kill", self.container)

    def remove(self) -> None:
        self.docker("rm", "--force", self.container)


class Database:
    """The three members."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder, self.image = folder, image
        self.environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
        self.addresses = {name: machine.get(name).address for name in NODES}
        self.names = 0
        hosts = {name: {"ansible_host": machine.container_name(name)} for name in NODES}
        (folder / "hosts.json").write_text(json.dumps({
            "swarm_managers": {"hosts": hosts, "vars": {
                "ansible_connection": "community.docker.docker", "ansible_user": "root",
                "ansible_python_interpreter": "/usr/bin/python3",
            }}
        }))  # fmt: skip
        self.wanted: dict[str, Any] = {
            "database_image": image,
            "database_passwords": {"postgresql": PASSWORD},
            "database_postgresql_memory": "512M",
            "database_timeout": 300,
        }

    def play(self, *more: str, fails: bool = False, **options: object) -> str:
        playbook = self.folder / "data.yml"
        playbook.write_text(PLAYBOOK)
        variables = self.folder / "wanted.json"
        variables.write_text(json.dumps({**self.wanted, **options}))
        variables.chmod(0o600)
        program = str(Path(sys.executable).parent / "ansible-playbook")
        done = subprocess.run(
            [program, str(playbook), "-i", str(self.folder / "hosts.json"), "-e", f"@{variables}", *more],
            cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=1500, check=False,
        )  # fmt: skip
        said = done.stdout + done.stderr
        assert (done.returncode != 0) == fails, said[-8000:]
        return re.sub(r"\s+", " ", said)

    def inside(self, node: str, part: str, *command: str, check: bool = True) -> str:
        """A command in the container of a part."""
        service = f"bitnet-local-{part}-{node}"
        find = f"docker ps --quiet --filter label=com.docker.swarm.service.name={service}"
        return machine.get(node).exec(
            "sh", "-c", f'exec docker exec $({find}) "$@"', "-", *command, timeout=60, check=check
        )

    def list(self, asked: str = "") -> dict[str, dict[str, Any]]:
        for node in [asked] if asked else NODES:
            said = self.inside(node, "postgresql", *PATRONICTL, "list", "--format", "json", check=False)
            if said.startswith("["):
                return {row["Member"]: row for row in json.loads(said)}
        return {}

    def leader(self, asked: str = "") -> str:
        return next((name for name, row in self.list(asked).items() if row["Role"] == "Leader"), "")

    def whole(self) -> bool:
        rows = self.list()
        return (
            len(rows) == 3
            and sum(row["Role"] == "Leader" for row in rows.values()) == 1
            and sum(row["Role"] == "Sync Standby" for row in rows.values()) == 1
            and all(row["State"] in ("running", "streaming") for row in rows.values())
            and len({row["TL"] for row in rows.values()}) == 1
        )

    def await_(self, what: str, there: Callable[[], object], deadline: float = 120) -> float:
        began = time.monotonic()
        while not there():
            assert time.monotonic() - began < deadline, (
                f"{what} did not come about within {deadline:.0f} s: {self.list()}"
            )
            time.sleep(0.5)
        return time.monotonic() - began

    def sql(self, node: str, text: str, check: bool = True) -> str:
        psql = ("psql", "-h", "/run/bitnet-database", "-U", "postgres", "-Atc", text)
        return self.inside(node, "postgresql", *psql, check=check).strip()

    @contextmanager
    def writer(self, node: str = "") -> Iterator[Writer]:
        """Through PgBouncer of all members; with a node, from there and to its PostgreSQL."""
        self.names += 1
        hosts = "127.0.0.1" if node else ",".join(self.addresses.values())
        port = 5432 if node else 6432
        # A machine that is cut off answers nothing, not even that it is gone.
        impatient = "tcp_user_timeout=3000 keepalives_idle=2 keepalives_interval=1 keepalives_count=2"
        where = f"host={hosts} port={port} dbname=bitnet user=bitnet password={PASSWORD} sslmode=require {impatient}"
        made = Writer(f"w{self.names}", self.image if node else IMAGE, where, node)
        try:
            self.await_("writes", made.acknowledged, 60)
            yield made
        finally:
            made.end()

    def lost(self, *writers: Writer) -> list[str]:
        """What was acknowledged and is not there."""
        leader = self.leader()
        missing = []
        for writer in writers:
            there = set(self.sql(leader, f"select number from numbered where writer = '{writer.name}'").split())
            missing += [f"{writer.name} {write}" for write in writer.acknowledged() if str(write.number) not in there]
        return missing


def gap(writes: list[Write], after: float) -> float:
    """The longest time without an acknowledged write, from a moment on."""
    times = [write.at for write in writes if write.kind == "ack" and write.at >= after - 1]
    return max((later - earlier for earlier, later in itertools.pairwise(times)), default=0.0)


def describe(what: str, writer: Writer, after: float) -> float:
    """Prints what a writer saw, and gives back for how long nothing was acknowledged."""
    writes = writer.writes()
    kinds = {kind: sum(write.kind == kind for write in writes) for kind in ("ack", "unsure", "no")}
    away = gap(writes, after)
    print(f"{what}: {kinds}, nothing acknowledged for {away:.1f} s")
    return away


class Witness:
    """Looks at one PostgreSQL from within, also while it is cut off: when was it last one that takes writes?"""

    def __init__(self, database: Database, node: str) -> None:
        self.database, self.node, self.led = database, node, 0.0
        self.ends = threading.Event()
        self.thread = threading.Thread(target=self.look)
        self.thread.start()

    def look(self) -> None:
        while not self.ends.is_set():
            if self.database.sql(self.node, "select pg_is_in_recovery()", check=False) == "f":
                self.led = time.time()
            time.sleep(0.1)

    def end(self) -> float:
        self.ends.set()
        self.thread.join()
        return self.led


def provide(nodes: tuple[str, ...]) -> str:
    """A Swarm of managers, a registry on each, and in it the image of the members by the same digest."""
    for name, tag in (("database", IMAGE), ("registry", "bitnet-test-database-registry")):
        machine.run("docker", "build", "--quiet", "--tag", tag, str(CHECKOUT / "files" / "images" / name), timeout=1200)
    for name in nodes:
        machine.up(name, images=[machine.BASE], owner=os.getpid())
    first = machine.get(nodes[0])
    first.exec("docker", "swarm", "init", "--advertise-addr", "eth0")
    token = first.exec("docker", "swarm", "join-token", "--quiet", "manager").strip()
    digests = set()
    for name in nodes:
        there = machine.get(name)
        if name != nodes[0]:
            there.exec("docker", "swarm", "join", "--advertise-addr", "eth0", "--token", token, f"{first.address}:2377")
        there.load(IMAGE, "bitnet-test-database-registry")
        script = f"""
            docker run --detach --restart always --network host --env REGISTRY_HTTP_ADDR={REGISTRY} \\
                bitnet-test-database-registry
            docker tag {IMAGE} {REGISTRY}/bitnet/database:test
            for _ in $(seq 60); do docker push --quiet {REGISTRY}/bitnet/database:test && break; sleep 0.5; done
            docker image inspect --format '{{{{index .RepoDigests 0}}}}' {REGISTRY}/bitnet/database:test
        """
        digests.add(there.exec("sh", "-c", script).split()[-1])
    assert len(digests) == 1, digests
    return digests.pop()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    try:
        made = Database(tmp_path_factory.mktemp("database"), provide(NODES))
        made.play()
        yield made
    finally:
        for row in machine.run("docker", "ps", "--all", "--format", "{{.Names}}").split():
            if re.fullmatch(r"bitnet-test-database-w\d+", row):
                machine.run("docker", "rm", "--force", row)
        for name in NODES:
            machine.down(name)


def test_three_members_are_whole(database: Database) -> None:
    assert database.whole(), database.list()
    summary = json.loads(machine.get(ONE).exec("cat", "/var/tmp/summary.json"))
    assert summary["available"] and sorted(summary["postgresql"]["hosts"]) == sorted(database.addresses.values())
    assert PASSWORD not in json.dumps(summary)
    members = database.inside(ONE, "etcd", "etcdctl", "member", "list").splitlines()
    assert len(members) == 3 and all("started" in line for line in members), members
    parts = database.inside(ONE, "redis", "entrypoint.sh", "sentinel-cli", "sentinel", "ckquorum", "bitnet")
    assert parts.startswith("OK 3 usable Sentinels"), parts


def test_a_second_run_changes_nothing(database: Database) -> None:
    said = database.play("--diff")
    assert len(re.findall(r"ok=\d+ changed=0 unreachable=0 failed=0", said)) == 3, said[-3000:]
    assert PASSWORD not in said


def test_the_leaders_postgresql_is_killed_and_back_in_place(database: Database) -> None:
    leader = database.leader()
    with database.writer() as writer:
        began = time.time()
        machine.get(leader).exec("pkill", "-KILL", "-o", "-x", "postgres")
        time.sleep(20)
    away = describe("PostgreSQL killed", writer, began)
    assert database.leader() == leader, "back in place, and not elsewhere"
    assert not database.lost(writer)
    assert away < 10


def test_the_leaders_patroni_is_killed_and_nobody_notices(database: Database) -> None:
    leader = database.leader()
    with database.writer() as writer:
        began = time.time()
        machine.get(leader).exec("pkill", "-KILL", "-f", "bin/patroni ")
        time.sleep(15)
    away = describe("Patroni killed", writer, began)
    assert database.leader() == leader
    assert not database.lost(writer)
    assert away < 10


def test_the_leader_is_cut_off(database: Database) -> None:
    """Strict synchronous: demotion before promotion, nothing acknowledged is missing, nothing is on two timelines."""
    leader = database.leader()
    with database.writer() as writer, database.writer(leader) as beside:
        witness = Witness(database, leader)
        began = time.time()
        swarm.cut(leader)
        try:
            others = [name for name in NODES if name != leader]
            database.await_("another leader", lambda: database.leader(others[0]) in others)
            database.await_("writes again", lambda: writer.acknowledged()[-1].at > began + 5)
            time.sleep(5)
            led = witness.end()
        finally:
            swarm.mend(leader)
        database.await_("the old leader as a standby", database.whole, 180)
    away = describe("the leader cut off", writer, began)
    describe("beside it", beside, began)
    resumed = next(write.at for write in writer.acknowledged() if write.at > began + 3)
    print(f"the old leader led until {led - began:.1f} s, the new one took writes from {resumed - began:.1f} s on")
    assert not database.lost(writer, beside)
    assert led < resumed, "demotion before promotion"
    assert away < 30


def test_the_synchronous_standby_is_cut_off(database: Database) -> None:
    leader = database.leader()
    standby = next(name for name, row in database.list().items() if row["Role"] == "Sync Standby")
    with database.writer() as writer:
        began = time.time()
        swarm.cut(standby)
        try:
            time.sleep(35)
        finally:
            swarm.mend(standby)
        database.await_("all three", database.whole, 180)
    away = describe("the synchronous standby cut off", writer, began)
    assert database.leader() == leader
    assert not database.lost(writer)
    assert away < 30


def test_etcd_loses_its_quorum(database: Database) -> None:
    """All PostgreSQL reach each other, so the leader goes on; and when etcd is back, all is as it was."""
    leader = database.leader()
    with database.writer() as writer:
        began = time.time()
        for name in NODES[1:]:
            machine.get(name).exec("pkill", "-STOP", "-x", "etcd")
        try:
            time.sleep(40)
        finally:
            for name in NODES[1:]:
                machine.get(name).exec("pkill", "-CONT", "-x", "etcd")
        database.await_("all three", database.whole, 180)
    away = describe("etcd without a quorum", writer, began)
    assert not database.lost(writer)
    assert database.leader() == leader
    assert away < 15


def test_the_node_of_the_leader_is_lost_while_the_swarm_has_no_quorum(database: Database) -> None:
    """Without a manager that decides: another Docker is dead already when the leader's node goes."""
    leader = database.leader()
    other = next(name for name in NODES if name != leader)
    with database.writer() as writer:
        swarm.kill(other)
        began = time.time()
        swarm.cut(leader)
        try:
            database.await_("writes again", lambda: writer.acknowledged()[-1].at > began + 5)
        finally:
            swarm.mend(leader)
        away = describe("the leader's node lost without a quorum of managers", writer, began)
        swarm.start(other)
        database.await_("all three", database.whole, 240)
    assert not database.lost(writer)
    assert away < 30
