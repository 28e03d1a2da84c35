# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks of secrets on two managers, whose Swarm is a stand-in; SOPS, age and all files are real.

Every run is as talkative as can be, with a log and a fact cache, and is searched for the values of all its secrets.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
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
        command = [BIN / "ansible-playbook", "-vvv", "--diff", "-i", self.folder / "hosts.yml",
                   "-e", f"@{self.folder}/given.json", *options, f"bitnet.devops.{playbook}"]  # fmt: skip
        # The controller's own environment is a source, and has its values.
        watched = self.values - set(environment.values()) or {"nothing-is-known-before-the-first-run"}
        with leaks.ProcessWatch(self.needles(watched)) as watch:
            done = subprocess.run(
                list(map(str, command)), env={**os.environ, **ours, **environment}, cwd=CHECKOUT,
                capture_output=True, text=True, timeout=580, check=False,
            )  # fmt: skip
        assert (done.returncode == 0) == succeeds, done.stdout[-6000:] + done.stderr[-3000:]
        self.know()
        needles = self.needles(self.values or {"nothing-is-known-before-the-first-run"})
        found = watch.found()
        found += leaks.in_text(needles, "the output", done.stdout + done.stderr)
        found += leaks.in_files(needles, [log, temporary, *([cache] if cache.exists() else [])])
        configs = json.dumps(self.swarm.kept)
        found += leaks.in_text(needles, "the Swarm, beside its secrets", configs)
        for host in HOSTS:
            state = self.folder / host
            kept = [state / "environments/test" / below for below in ("secrets/store.json", "database", "tokens")]
            found += leaks.in_files(needles, [state], allowed=kept) if state.exists() else []
        assert [str(leak) for leak in found] == []
        return re.sub(r"\s+", " ", done.stdout + done.stderr)


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


def test_from_nothing_to_a_rotation_that_was_killed(world: World) -> None:
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
    smtp = "bitnet-test-smtp-" + world.store()["secrets"]["smtp"]["current"]
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
    new = "bitnet-test-smtp-" + world.store()["secrets"]["smtp"]["current"]
    assert world.swarm.updates == [("mailer", new), ("clerk", new)] and world.value("smtp") == SMTP_NEXT
    assert smtp not in world.swarm.names() and new in world.swarm.names()
    assert world.store()["secrets"]["smtp"]["phase"] == "" and world.store("south") == world.store()
    assert SOPS_VALUE not in json.dumps(world.store())

    # Break the glass.
    file = world.folder / "handed-over"
    said = world.play("break_glass", "-e", json.dumps({
        "secrets_glass": "smtp", "secrets_glass_by": "alice", "secrets_glass_reason": "the mailer is down",
        "secrets_glass_file": str(file),
    }))  # fmt: skip
    assert file.read_text() == SMTP_NEXT and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert world.store("south")["revealed"][0]["by"] == "alice"
    assert "smtp (its time is over)" in world.play("secrets")


def test_what_cannot_be_is_refused_before_anything_is_changed(world: World) -> None:
    world.sops(smtp="no token since it has blanks")
    for declared, more, says in (
        ({"smtp": {"kind": "token", "sources": ["sops"]}}, {}, "sops has 28 characters that are no token"),
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
    world.variables["bitnet_secrets"] = {"smtp": {"kind": "password"}}
    world.play("secrets")
    old = world.value("smtp")
    for host in HOSTS:
        (world.folder / host / "environments/test/secrets/store.json").unlink()
    said = world.play("secrets", succeeds=False)
    assert "secrets_make_anew is false, and no manager that was reached" in said
    world.play("secrets", "-e", "secrets_make_anew=true")
    assert world.value("smtp") != old
