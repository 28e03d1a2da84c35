# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of secrets on two managers, whose Swarm is a stand-in; SOPS, age and all files are real.

Every run is as talkative as can be, with a log and a fact cache, and is searched for the values of all its secrets.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import signal
import socketserver
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import leaks

pytestmark = [
    pytest.mark.full,  # whole playbooks run in each
    pytest.mark.skipif(os.geteuid() != 0, reason="what the role keeps is root's"),
]

CHECKOUT = Path(__file__).resolve().parents[3]
BIN = Path(sys.executable).parent
HOSTS = ("north", "south")
DOCKER = f"""#!{sys.executable}
import json, os, sys
if "info" in sys.argv:
    print("true")
else:
    print("\\n".join(json.load(open(os.environ["FAKE"] + "/secrets"))))
"""
SOPS_VALUE = "sops/has-the-password+of&smtp"  # a token may have such letters
SMTP_NEXT = "another/value+of&smtp-in-sops"


class Swarm:
    """One raft for all hosts: its secrets, configs and services."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: dict[str, list[dict[str, Any]]] = {"secrets": [], "configs": [], "services": []}
        self.values: dict[str, str] = {}
        self.updates: list[tuple[str, str]] = []
        self.clock = 0
        self.kill_at_an_update = False
        self.updating, self.go_on = threading.Event(), threading.Event()
        swarm = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self, body: Any, status: int = 200) -> None:
                text = b"" if status == 204 else json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def do_GET(self) -> None:
                what = re.sub(r"^/v[\d.]+/|\?.*|^/", "", self.path)
                here = {"version": {"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Version": "20.10.24"},
                        "info": {"Swarm": {"NodeID": "n", "ControlAvailable": True}}, "nodes": [NODE]}  # fmt: skip
                self._answer(swarm.tasks() if what == "tasks" else {**here, **swarm.kept}.get(what, []))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
                kind, _slash, rest = re.sub(r"^/v[\d.]+/|\?.*", "", self.path).partition("/")
                if rest == "create":
                    swarm.create(kind, body)
                    self._answer({"ID": f"id-of-{body['Name']}"}, 201)
                else:
                    swarm.update(rest.removesuffix("/update"), body)
                    self._answer({"Warnings": None})

            def do_DELETE(self) -> None:
                kind, _slash, identity = re.sub(r"^/v[\d.]+/", "", self.path).partition("/")
                swarm.kept[kind] = [one for one in swarm.kept[kind] if one["ID"] != identity]
                swarm.note()
                self._answer(None, 204)

            def address_string(self) -> str:
                return "it"

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = socketserver.ThreadingUnixStreamServer(str(folder / "docker.sock"), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        self.note()

    def create(self, kind: str, body: dict[str, Any]) -> None:
        self.clock += 1
        if kind == "secrets":
            self.values[body["Name"]] = base64.b64decode(body.pop("Data")).decode()
        self.kept[kind].append(
            {
                "ID": f"id-of-{body['Name']}",
                "CreatedAt": f"2026-11-27T10:{self.clock // 60:02}:{self.clock % 60:02}Z",
                "Spec": body,
            }
        )
        self.note()

    def serve(self, name: str, secret: str) -> None:
        """A service that has the secret of that name."""
        reference = {"SecretName": secret, "SecretID": f"id-of-{secret}", "File": {"Name": "it"}}
        spec = {"Name": name, "Labels": {}, "Mode": {"Replicated": {"Replicas": 1}},
                "TaskTemplate": {"ContainerSpec": {"Image": "it", "Secrets": [reference]}}}  # fmt: skip
        self.kept["services"].append({"ID": f"id-of-{name}", "Version": {"Index": 1}, "Spec": spec})

    def update(self, identity: str, spec: dict[str, Any]) -> None:
        if self.kill_at_an_update:
            self.updating.set()
            self.go_on.wait(60)
            self.kill_at_an_update = False
            return  # as if the request had never come
        [service] = [one for one in self.kept["services"] if one["ID"] == identity]
        service["Version"]["Index"] += 1
        service["Spec"] = spec
        self.updates.append((spec["Name"], self.secret_of(spec["Name"])))

    def secret_of(self, name: str) -> str:
        [service] = [one for one in self.kept["services"] if one["Spec"]["Name"] == name]
        return service["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"][0]["SecretName"]

    def tasks(self) -> list[dict[str, Any]]:
        return [
            {"ID": f"{one['ID']}.{one['Version']['Index']}", "ServiceID": one["ID"], "NodeID": "n", "Slot": 1,
             "DesiredState": "running", "Spec": one["Spec"]["TaskTemplate"], "Version": {"Index": 1},
             "CreatedAt": "2026-11-27T10:00:00Z", "Status": {"State": "running", "Timestamp": "2026-11-27T10:00:00Z"}}
            for one in self.kept["services"]
        ]  # fmt: skip

    def note(self) -> None:
        (self.folder / "secrets").write_text(json.dumps([one["Spec"]["Name"] for one in self.kept["secrets"]]))

    def names(self) -> list[str]:
        return sorted(one["Spec"]["Name"] for one in self.kept["secrets"])


NODE = {
    "ID": "n", "Spec": {"Role": "manager", "Availability": "active", "Labels": {}}, "Status": {"State": "ready"},
    "Description": {"Hostname": "n", "Platform": {"OS": "linux", "Architecture": "x86_64"}},
}  # fmt: skip


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.swarm = Swarm(folder)
        self.values: set[str] = set()  # every one that there has been
        self.variables: dict[str, Any] = {}
        (folder / "docker").write_text(DOCKER)
        (folder / "docker").chmod(0o755)
        hosts = {name: {"bitnet_state_dir": str(folder / name)} for name in HOSTS}
        inventory = {"swarm_managers": {"hosts": hosts, "vars": {
            "ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ansible_become": False,
            "bitnet_environment": "test", "bitnet_docker_host": f"unix://{folder}/docker.sock",
        }}}  # fmt: skip
        (folder / "hosts.yml").write_text(yaml.safe_dump(inventory))

    def store(self, host: str = "north") -> dict[str, Any]:
        return json.loads((self.folder / host / "environments/test/secrets/store.json").read_text())

    def file(self, below: str, host: str = "north") -> str:
        return (self.folder / host / "environments/test" / below).read_text()

    def value(self, name: str) -> str:
        entry = self.store()["secrets"][name]
        return next(one["value"] for one in entry["versions"] if one["id"] == entry["current"])

    def know(self) -> None:
        for host in HOSTS:
            if (self.folder / host / "environments/test/secrets/store.json").exists():
                store = self.store(host)
                self.values |= {one["value"] for entry in store["secrets"].values() for one in entry["versions"]}
                self.values.add(store["key"])

    def sops(self, **values: str) -> None:
        """A file as a user makes it, with a key of age's own making."""
        key = self.folder / "age.key"
        if not key.exists():
            subprocess.run(["age-keygen", "-o", key], check=True, capture_output=True)
            self.values.add(key.read_text().splitlines()[-1])
        public = re.search("public key: (age1[a-z0-9]+)", key.read_text())
        assert public is not None
        file = self.folder / "secrets.sops.yaml"
        done = subprocess.run(
            [BIN / "sops" if (BIN / "sops").exists() else "sops", "encrypt", "--age", public[1], "--input-type", "json",
             "--output-type", "yaml", "/dev/stdin"],
            input=json.dumps(values), capture_output=True, text=True, check=True, cwd=self.folder,
        )  # fmt: skip
        file.write_text(done.stdout)
        assert not any(value in file.read_text() for value in values.values())
        self.values |= set(values.values())
        self.variables["bitnet_secrets_sops_file"] = str(file)

    @staticmethod
    def needles(values: set[str]) -> leaks.Needles:
        return leaks.Needles({f"secret {number}": value for number, value in enumerate(sorted(values))})

    def play(self, playbook: str, *options: str, succeeds: bool = True, **environment: str) -> str:
        """Run it; what it said. Its log, its facts, its temporary files and its processes hold no value."""
        self.know()
        (self.folder / "given.json").write_text(json.dumps(self.variables))
        log, cache, temporary = (self.folder / name for name in ("ansible.log", "facts", "tmp"))
        temporary.mkdir(exist_ok=True)
        ours = {
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1", "FAKE": str(self.folder),
            "ANSIBLE_LOG_PATH": str(log),
            "ANSIBLE_CACHE_PLUGIN": "jsonfile", "ANSIBLE_CACHE_PLUGIN_CONNECTION": str(cache),
            "ANSIBLE_LOCAL_TEMP": str(temporary), "ANSIBLE_REMOTE_TEMP": str(temporary), "ANSIBLE_PIPELINING": "true",
            "SOPS_AGE_KEY_FILE": str(self.folder / "age.key"), "PATH": f"{self.folder}:{BIN}:{os.environ['PATH']}",
        }  # fmt: skip
        if not playbook.endswith(".yml"):
            playbook = f"bitnet.devops.{playbook}"
        command = [BIN / "ansible-playbook", "-vvv", "--diff", "-i", self.folder / "hosts.yml",
                   "-e", f"@{self.folder}/given.json", *options, playbook]  # fmt: skip
        # The controller's own environment is a source, and has its values.
        watched = self.values - set(environment.values()) or {"nothing-is-known-before-the-first-run"}
        with leaks.ProcessWatch(self.needles(watched)) as watch:
            started = subprocess.Popen(
                list(map(str, command)), env={**os.environ, **ours, **environment}, cwd=CHECKOUT,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            if self.swarm.kill_at_an_update:
                assert self.swarm.updating.wait(300)
                kill(started.pid)
                self.swarm.go_on.set()
            stdout, stderr = started.communicate(timeout=580)
        assert (started.returncode == 0) == succeeds, stdout[-6000:] + stderr[-3000:]
        self.know()
        needles = self.needles(self.values or {"nothing-is-known-before-the-first-run"})
        found = watch.found()
        found += leaks.in_text(needles, "the output", stdout + stderr)
        found += leaks.in_files(needles, [log, temporary, *([cache] if cache.exists() else [])])
        configs = json.dumps(self.swarm.kept)
        found += leaks.in_text(needles, "the Swarm, beside its secrets", configs)
        for host in HOSTS:
            state = self.folder / host
            kept = [state / "environments/test" / below for below in ("secrets/store.json", "database", "tokens")]
            found += leaks.in_files(needles, [state], allowed=kept) if state.exists() else []
        assert [str(leak) for leak in found] == []
        return re.sub(r"\s+", " ", stdout + stderr)


def kill(pid: int) -> None:
    """The process and all that it has started, as the kernel does when memory is short: nobody tidies up."""
    children = [
        int(child) for one in Path(f"/proc/{pid}/task").iterdir() for child in (one / "children").read_text().split()
    ]
    os.kill(pid, signal.SIGKILL)
    for child in children:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            kill(child)


def recap(said: str) -> int:
    """How many tasks changed something, on all hosts."""
    return sum(int(number) for number in re.findall(r"changed=(\d+)", said))


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    if not shutil.which("age-keygen"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (["update"], ["install", "--no-install-recommends", "age"]):
            subprocess.run(["apt-get", "-qy", *command], env=environment, check=True, timeout=600, capture_output=True)
    made = World(tmp_path)
    yield made
    made.swarm.server.shutdown()


def test_from_nothing_to_a_rotation_that_stopped(world: World) -> None:
    world.sops(smtp=SOPS_VALUE)
    world.variables["bitnet_secrets"] = {
        "postgresql": {"rotate_days": 90},
        "redis": {},
        "smtp": {"kind": "token", "sources": ["sops"], "consumers": ["mailer", "clerk"]},
        "given": {"kind": "key", "length": 64, "environment": "OUR_KEY"},
    }
    made_before = world.folder / "south/environments/test/database/redis"
    made_before.parent.mkdir(parents=True)
    made_before.write_text("a-password-that-the-role-made\n")

    said = world.play("secrets", "--check")
    assert recap(said) > 0 and world.swarm.names() == [] and not (world.folder / "north").exists()

    key = "k" * 20 + "-of-the-environment"
    world.values.add(key)
    world.play("secrets", OUR_KEY=key)
    assert [world.value(name) for name in ("smtp", "given", "redis")] == [
        SOPS_VALUE,
        key,
        "a-password-that-the-role-made",
    ]
    assert re.fullmatch("[A-Za-z0-9]{48}", world.value("postgresql"))
    for host in HOSTS:
        assert world.store(host) == world.store()
        assert world.file("database/redis", host).strip() == "a-password-that-the-role-made"
        for path in (world.folder / host / "environments/test").glob("*/*"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    smtp = "bitnet-test-secret-smtp-" + world.store()["secrets"]["smtp"]["current"]
    assert world.swarm.values[smtp] == SOPS_VALUE and len(world.swarm.names()) == 2

    # The environment has it no more; what is kept stays. And a manager that has lost its files gets them again.
    assert recap(world.play("secrets")) == 0
    shutil.rmtree(world.folder / "south")
    assert recap(world.play("secrets")) > 0 and world.store("south") == world.store()

    # Its source has another value: a rotation has to bring it.
    world.swarm.serve("mailer", smtp)
    world.sops(smtp=SMTP_NEXT)
    said = world.play("secrets")
    assert "smtp (its source has a new value)" in said and world.value("smtp") == SOPS_VALUE

    # One consumer is not there: it stops where both hold. The next run goes on.
    said = world.play("rotate", "-e", "secrets_rotate=smtp", succeeds=False)
    assert "services: the Swarm has no service clerk" in said and world.swarm.updates == []
    assert world.store()["secrets"]["smtp"]["phase"] == "moving" and smtp in world.swarm.names()
    world.swarm.serve("clerk", smtp)
    said = world.play("rotate", "-e", "secrets_rotate=smtp")
    new = "bitnet-test-secret-smtp-" + world.store()["secrets"]["smtp"]["current"]
    assert world.swarm.updates == [("mailer", new), ("clerk", new)] and world.value("smtp") == SMTP_NEXT
    assert smtp not in world.swarm.names() and new in world.swarm.names()
    assert world.store()["secrets"]["smtp"]["phase"] == "" and world.store("south") == world.store()
    assert SOPS_VALUE not in json.dumps(world.store())


def test_breaking_the_glass(world: World) -> None:
    world.variables["bitnet_secrets"] = {"smtp": {"kind": "password"}, "redis": {}}
    world.play("secrets")
    file = world.folder / "handed-over"

    def glass(name: str, path: Path) -> list[str]:
        return ["-e", json.dumps({
            "secrets_glass": name, "secrets_glass_by": "alice", "secrets_glass_reason": "the mailer is down",
            "secrets_glass_file": str(path),
        })]  # fmt: skip

    file.write_text("of somebody else")
    said = world.play("break_glass", *glass("smtp", file), succeeds=False)
    assert "which is there already: name one that is new" in said and file.read_text() == "of somebody else"
    file.unlink()
    said = world.play("break_glass", *glass("smtp", file.parent / "gone/it"), succeeds=False)
    assert "which is in no folder of the controller" in said and world.store()["revealed"] == []
    said = world.play("break_glass", "--check", *glass("smtp", file))
    assert "is in " + str(file) not in said and not file.exists() and world.store()["revealed"] == []
    said = world.play("break_glass", *glass("smtp", file))
    assert f"smtp of test is in {file} on the controller" in said
    assert file.read_text() == world.value("smtp") and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert world.store("south")["revealed"][0]["by"] == "alice"
    assert "smtp (its time is over)" in world.play("secrets")
    said = world.play("break_glass", *glass("redis", world.folder / "another"))
    assert "and give it a new value in a source of bitnet_secrets" in said
    said = world.play("secrets")
    assert "redis was given to somebody, and nothing rotates it: give a new value" in said
    assert "redis (its time is over)" not in said


def test_what_cannot_be_is_refused_before_anything_is_changed(world: World) -> None:
    world.sops(smtp="no token since it has blanks")
    for declared, more, says in (
        ({"smtp": {"kind": "token", "sources": ["sops"]}}, {}, "sops_file has 28 characters that are no token"),
        ({"smtp": {"kind": "word"}}, {}, "bitnet_secrets.smtp.kind is 'word': give one of"),
        ({"late": {"kind": "key", "sources": ["sops"]}}, {}, "bitnet_secrets.late: none of its sources"),
        (
            {"redis": {}},
            {"database_passwords": {"redis": "a-password-of-our-own"}},
            "redis is declared in bitnet_secrets",
        ),
        ({"late": {"kind": "key"}}, {"bitnet_secrets_sops_file": "gone.yaml"}, "gone.yaml cannot be decrypted"),
    ):
        before = dict(world.variables)
        world.variables.update(more, bitnet_secrets=declared)
        said = world.play("secrets", succeeds=False)
        assert says in said
        world.variables = before
        assert world.swarm.names() == [] and not (world.folder / "north/environments/test/secrets/store.json").exists()


def test_what_is_lost_everywhere_is_not_made_anew_without_a_word(world: World) -> None:
    world.variables["bitnet_secrets"] = {"smtp": {"kind": "password"}, "redis": {}}
    world.play("secrets")
    old = world.value("smtp")
    kept = {host: world.folder / host / "environments/test/secrets/store.json" for host in HOSTS}
    first = {host: path.read_text() for host, path in kept.items()}

    def lose() -> None:
        for path in kept.values():
            path.unlink()

    # The words of a command line are texts, and "false" is one that is not empty.
    lose()
    said = world.play("secrets", "-e", "secrets_make_anew=false", succeeds=False)
    assert "secrets_make_anew is false, and no manager that was reached has the values of redis, smtp" in said
    # Of those that roles have, too.
    world.variables["bitnet_secrets"] = {"redis": {}}
    assert "has the values of redis" in world.play("secrets", succeeds=False)
    # And of those that are not in an older store that somebody has brought back.
    for host, path in kept.items():
        path.write_text(first[host])
    world.variables["bitnet_secrets"] = {"smtp": {"kind": "password"}, "redis": {}, "late": {"kind": "key"}}
    world.play("secrets")
    for host, path in kept.items():
        path.write_text(first[host])
    names = world.swarm.names()
    assert "(serial 1) is older than what the Swarm knows (serial 2)" in world.play("secrets", succeeds=False)
    assert world.swarm.names() == names and all(path.read_text() == first[host] for host, path in kept.items())

    lose()
    world.play("secrets", "-e", "secrets_make_anew=true")
    assert world.value("smtp") != old and world.store("south") == world.store()
    # The secrets with the values that are lost are gone, and it goes on as ever.
    assert len(world.swarm.names()) == 2 and not set(names) & set(world.swarm.names())
    assert recap(world.play("secrets")) == 0


def test_a_manager_that_was_away_brings_no_old_value_back(world: World) -> None:
    world.variables["bitnet_secrets"] = {"smtp": {"kind": "password", "consumers": ["mailer"]}}
    world.play("secrets")
    store = world.folder / "south/environments/test/secrets/store.json"
    away, old = store.read_text(), world.swarm.names()
    world.swarm.serve("mailer", old[0])
    said = world.play("rotate", "-e", "secrets_rotate=smtp", "--limit", "north", succeeds=False)
    assert "south of the group swarm_managers cannot be reached, or --limit leaves it out" in said
    assert world.store()["secrets"]["smtp"]["phase"] == "" and world.swarm.names() == old

    world.play("rotate", "-e", "secrets_rotate=smtp")
    store.write_text(away)
    names, configs = world.swarm.names(), json.dumps(world.swarm.kept["configs"])
    world.variables["bitnet_secrets"]["late"] = {"kind": "key"}
    for options in ((), ("--check",)):
        said = world.play("secrets", "--limit", "south", *options, succeeds=False)
        assert "(serial 1) is older than what the Swarm knows (serial 7)" in said
    assert (world.swarm.names(), json.dumps(world.swarm.kept["configs"]), store.read_text()) == (names, configs, away)
    world.play("secrets")
    assert world.store("south") == world.store() and old[0] not in world.swarm.names()

    # In check mode with a store that is there: nothing to do, and something.
    assert recap(world.play("secrets", "--check")) == 0
    world.variables["bitnet_secrets"]["later"] = {"kind": "key"}
    serial = world.store()["serial"]
    assert recap(world.play("secrets", "--check")) > 0 and world.store()["serial"] == serial


def test_a_rotation_that_is_killed_goes_on(world: World) -> None:
    world.variables["bitnet_secrets"] = {"smtp": {"kind": "password", "consumers": ["mailer"]}}
    world.play("secrets")
    [old], value = world.swarm.names(), world.value("smtp")
    world.swarm.serve("mailer", old)
    world.swarm.kill_at_an_update = True
    world.play("rotate", "-e", "secrets_rotate=smtp", succeeds=False)
    assert world.store()["secrets"]["smtp"]["phase"] == "moving" and world.store("south") == world.store()
    new = world.value("smtp")
    assert len(world.swarm.names()) == 2 and world.swarm.secret_of("mailer") == old and new != value
    # A run of all secrets in between disturbs nothing, and the rotation brings the value that was prepared.
    assert "smtp (a rotation has begun)" in world.play("secrets")
    world.play("rotate", "-e", "secrets_rotate=smtp")
    assert world.value("smtp") == new and world.swarm.names() == [world.swarm.secret_of("mailer")] != [old]


def test_an_index_is_not_written_over_by_a_run_that_was_slower(world: World) -> None:
    world.variables["bitnet_secrets"] = {"smtp": {"kind": "password"}}
    world.play("secrets")
    configs = json.dumps(world.swarm.kept["configs"])
    slower = world.folder / "slower.yml"
    slower.write_text(yaml.safe_dump([{
        "hosts": "north", "gather_facts": False,
        "vars": {"secrets_index": {"bitnet-test-secret-smtp": "older"}, "secrets_index_store": {"serial": 0}},
        "tasks": [{"ansible.builtin.include_role": {"name": "bitnet.devops.secrets", "tasks_from": "index"}}],
    }]))  # fmt: skip
    said = world.play(str(slower), succeeds=False)
    assert "names a newer store of secrets (serial 1) than this run has (serial 0)" in said
    assert json.dumps(world.swarm.kept["configs"]) == configs
