# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""swarm_service and swarm_content against a real Swarm, on a test machine of its own."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import machine
from tests.swarm_options import options

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGE = "debian:bookworm-slim"
NAME = "swarm-service"
# Ready when the file is there, which the container makes after the seconds that SLOW says, or never.
READY = 'echo "waiting ${SLOW:-0}"; sleep ${SLOW:-0}; touch /tmp/ready; exec sleep infinity'


class Lab:
    def __init__(self, host: machine.Machine, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.inventory = folder / "inventory.json"
        variables = {
            "ansible_connection": "community.docker.docker",
            "ansible_host": host.container,
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        self.inventory.write_text(json.dumps({"all": {"hosts": {"machine": variables}}}))

    def command(self, module: str, options: dict[str, object], *more: str) -> list[str]:
        ansible = str(Path(sys.executable).parent / "ansible")
        arguments = ["-i", str(self.inventory), "-m", f"bitnet.devops.{module}", "-a", json.dumps(options)]
        return [ansible, "machine", *arguments, "--tree", str(self.folder / "results"), *more]

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}

    def run(self, module: str, *more: str, **options: object) -> dict:
        """Run a module on the machine and give back its result, failed or not."""
        result = self.folder / "results" / "machine"
        result.unlink(missing_ok=True)
        done = subprocess.run(
            self.command(module, options, *more),
            cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=180, check=False,
        )  # fmt: skip
        assert result.exists(), done.stdout + done.stderr
        return {**json.loads(result.read_text()), "failed": done.returncode != 0}

    def service(self, *more: str, **options: object) -> dict:
        return self.run("swarm_service", *more, **options)

    def docker(self, *command: str) -> str:
        return self.host.exec("docker", *command).strip()

    def inspect(self, name: str) -> dict:
        return json.loads(self.docker("service", "inspect", name))[0]


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    host = machine.up(NAME, images=[IMAGE])
    try:
        host.exec("docker", "swarm", "init")
        host.exec("docker", "network", "create", "--driver", "overlay", "inside")
        yield Lab(host, tmp_path_factory.mktemp("lab"))
    finally:
        host.down()


@pytest.fixture
def ready(lab, request):
    """Options of a small service that gets ready; it is removed after the test."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name)[:60].strip("-")
    yield {
        "name": name,
        "image": IMAGE,
        "command": ["bash", "-c", READY],
        "healthcheck": {
            "test": ["CMD", "test", "-e", "/tmp/ready"],
            "interval": "1s",
            "retries": 2,
            "start_period": "60s",
        },
        "networks": ["inside"],
        "stop_grace_period": "1s",
        "update_config": {"monitor": "1s"},
        "restart_policy": {"delay": "0s"},
        "wait_timeout": 90,
    }
    lab.host.exec("docker", "service", "rm", name, check=False)


def test_create_update_and_nothing_to_do(lab, ready):
    look = lab.service("--check", "--diff", **ready)
    assert (look["changed"], look["plan"]["action"], look["service"]) == (True, "create", {})
    assert lab.docker("service", "ls", "--quiet", "--filter", f"name={ready['name']}") == ""

    made = lab.service(**ready, replicas=2)
    assert (made["failed"], made["changed"], made["plan"]["action"]) == (False, True, "create"), made
    assert [(task["state"], task["desired"]) for task in made["tasks"]] == [("running", "running")] * 2

    again = lab.service(**ready, replicas=2)
    assert (again["changed"], again["plan"]) == (False, {"action": "none", "fields": []})

    version = lab.inspect(ready["name"])["Version"]
    look = lab.service(
        "--check", "--diff", "-vvv", **ready, replicas=2, env={"A": "1"}
    )  # less, and Ansible hides the diff
    assert (look["changed"], look["diff"]["before"], look["diff"]["after"]) == (True, {"env": {}}, {"env": {"A": "1"}})
    assert lab.inspect(ready["name"])["Version"] == version, "check mode writes nothing"

    updated = lab.service(**ready, replicas=2, env={"A": "1"})
    assert (updated["changed"], updated["plan"]["fields"]) == (True, ["env"])
    assert updated["service"]["update_state"] == "completed"
    assert lab.inspect(ready["name"])["Spec"]["TaskTemplate"]["ContainerSpec"]["Env"] == ["A=1"]


def test_every_option_reads_back_as_it_was_given(lab, ready):
    lab.host.exec(
        "sh", "-c", "printf x | docker secret create full-secret -; printf x | docker config create full-config -"
    )
    full = {
        **ready,
        "args": ["ignored"],
        "container_labels": {"team": "a"},
        "user": "0:0",
        "init": True,
        "cap_drop": ["all"],
        "cap_add": ["chown"],
        "mounts": [
            {"type": "tmpfs", "target": "/run/x", "tmpfs_size": "8M", "tmpfs_mode": "1777"},
            {"source": "/etc/hostname", "target": "/mnt/name", "read_only": True},
            {"type": "volume", "source": "full", "target": "/mnt/volume"},
        ],
        "secrets": [{"source": "full-secret", "mode": "0400"}],
        "configs": [{"source": "full-config", "target": "/etc/full.cfg"}],
        "limits": {"cpus": 0.5, "memory": "64M"},
        "reservations": {"memory": "8M"},
        "constraints": ["node.role == manager"],
        "preferences": ["node.labels.zone"],
        "max_replicas_per_node": 3,
        "update_config": {"monitor": "1s", "max_failure_ratio": 0.1, "parallelism": 0},
        "rollback_config": {"order": "start-first"},
        "logging": {"driver": "json-file", "options": {"max-size": "1m"}},
        "publish": [{"published": 18080, "target": 80}],
    }
    made = lab.service(**full)
    assert made["changed"] and not made["failed"], made
    assert lab.service(**full)["changed"] is False


def test_a_foreign_service_is_refused_and_stays_as_it_is(lab, ready):
    lab.docker("service", "create", "--detach", "--quiet", "--name", ready["name"], IMAGE, "sleep", "infinity")
    before = lab.inspect(ready["name"])["Version"]
    for state in ("present", "absent"):
        refused = lab.service(**{**ready, "state": state})
        assert refused["failed"]
        assert "has no label io.bitnet.owner, so it is not ours" in refused["msg"]
    assert lab.inspect(ready["name"])["Version"] == before


def test_what_the_switch_owns_stays_as_found(lab, ready):
    owned = {"owned_elsewhere": ["replicas", "labels.active"], "labels": {"active": "blue"}}
    lab.service(**ready, **owned)
    lab.docker("service", "update", "--quiet", "--label-add", "active=green", "--replicas", "2", ready["name"])
    again = lab.service(**ready, **owned)
    assert again["changed"] is False
    assert again["service"]["labels"]["active"] == "green"
    assert lab.inspect(ready["name"])["Spec"]["Mode"]["Replicated"]["Replicas"] == 2


def test_drift_is_repaired(lab, ready):
    lab.service(**ready)
    lab.docker("service", "update", "--quiet", "--host-add", "elsewhere:10.1.1.1", "--env-add", "X=1", ready["name"])
    repaired = lab.service(**ready)
    assert (repaired["changed"], repaired["plan"]["fields"]) == (True, ["env", "other"])
    assert "Hosts" not in lab.inspect(ready["name"])["Spec"]["TaskTemplate"]["ContainerSpec"]


def test_a_service_that_crashes_at_start_says_why(lab, ready):
    crash = {**ready, "command": ["bash", "-c", "echo the model is missing >&2; exit 3"]}
    failed = lab.service(**crash)
    assert failed["failed"] and failed["waited"] < 60
    for part in (
        "is not running as specified",
        "exit code 3",
        "the model is missing",
        f"docker service ps --no-trunc {ready['name']}",
    ):
        assert part in failed["msg"]


def test_an_update_that_crashes_is_paused_and_the_next_run_goes_on(lab, ready):
    lab.service(**ready)
    switch = {**ready, "mounts": [{"source": "/srv/flag", "target": "/flag"}]}
    lab.host.exec("sh", "-c", "rm -rf /srv/flag; mkdir /srv/flag")
    switch["command"] = ["bash", "-c", f"test -e /flag/go || {{ echo no flag >&2; exit 4; }}; {READY}"]
    failed = lab.service(**switch)
    assert failed["failed"] and "paused the update" in failed["msg"] and "no flag" in failed["msg"], failed

    look = lab.service("--check", **switch)
    assert (look["changed"], look["plan"]["action"]) == (True, "resume")
    lab.host.exec("touch", "/srv/flag/go")
    resumed = lab.service(**switch)
    assert not resumed["failed"], resumed["msg"]
    assert lab.service(**switch)["changed"] is False


def test_a_service_that_never_gets_ready_meets_its_deadline(lab, ready):
    failed = lab.service(**{**ready, "env": {"SLOW": "600"}, "wait_timeout": 8})
    assert failed["failed"] and 8 <= failed["waited"] < 30
    for part in ("the deadline of 8 s passed", "Awaited: 1 tasks running", "is starting", "waiting 600"):
        assert part in failed["msg"]


def test_an_image_that_is_not_there(lab, ready):
    failed = lab.service(**{**ready, "image": "127.0.0.1:9/none@sha256:" + "0" * 64})
    assert failed["failed"] and "No such image" in failed["msg"]


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ({"networks": ["nowhere"]}, "networks: the Swarm has no network 'nowhere'"),
        ({"secrets": [{"source": "none"}]}, "secrets: the Swarm has no secret 'none'"),
        ({"configs": [{"source": "none"}]}, "configs: the Swarm has no config 'none'"),
        ({"limits": {"memory": "lots"}}, "limits.memory: 'lots' is no size"),
        ({"docker_host": "unix:///nowhere.sock"}, "docker_host: no Docker answers at unix:///nowhere.sock"),
    ],
    ids=["network", "secret", "config", "size", "host"],
)
def test_bad_input_changes_nothing(lab, ready, option, sentence):
    failed = lab.service(**{**ready, "name": "never", **option})
    assert failed["failed"] and sentence in failed["msg"]
    assert lab.docker("service", "ls", "--quiet", "--filter", "name=never") == ""


def test_absent_waits_until_the_tasks_have_ended(lab, ready):
    lab.service(**ready)
    look = lab.service("--check", name=ready["name"], state="absent")
    assert look["changed"] and lab.inspect(ready["name"])
    gone = lab.service(name=ready["name"], state="absent")
    assert (gone["changed"], gone["plan"]["action"]) == (True, "remove")
    label = f"label=com.docker.swarm.service.name={ready['name']}"
    assert lab.docker("ps", "--quiet", "--filter", label) == ""
    assert lab.service(name=ready["name"], state="absent")["changed"] is False


def test_a_killed_playbook_leaves_a_service_that_the_next_run_waits_for(lab, ready):
    slow = {**ready, "env": {"SLOW": "15"}}
    with subprocess.Popen(
        lab.command("swarm_service", slow), cwd=CHECKOUT, env=lab.environment, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as first:  # fmt: skip
        deadline = time.monotonic() + 60
        while not lab.docker("service", "ls", "--quiet", "--filter", f"name={ready['name']}"):
            assert time.monotonic() < deadline, "the first run made no service"
            time.sleep(0.2)
        os.killpg(first.pid, signal.SIGKILL)
    second = lab.service(**slow)
    assert (second["failed"], second["changed"], second["plan"]["action"]) == (False, False, "none"), second
    assert second["waited"] > 0
    assert second["tasks"][0]["state"] == "running"


KEY = "0123456789abcdef0123456789abcdef"


def names(lab, kind, base):
    return sorted(lab.docker(kind, "ls", "--filter", f"name={base}", "--format", "{{.Name}}").split())


def test_a_config_is_kept_once_per_content_and_collected_when_nobody_uses_it(lab, ready):
    base = "content-config"
    look = lab.run("swarm_content", "--check", base=base, config="one\n")
    assert (look["changed"], names(lab, "config", base)) == (True, [])

    one = lab.run("swarm_content", base=base, config="one\n", labels={"team": "a"})
    assert (one["failed"], one["changed"], one["name"]) == (False, True, look["name"]), one
    made = json.loads(lab.docker("config", "inspect", one["name"]))[0]["Spec"]
    assert made["Labels"] == {
        "team": "a", "io.bitnet.owner": "bitnet.devops", "io.bitnet.schema": "1", "io.bitnet.base": base
    }  # fmt: skip
    assert lab.docker("config", "inspect", "--pretty", one["name"]).rstrip().endswith("one")
    assert lab.run("swarm_content", base=base, config="one\n", labels={"team": "a"})["changed"] is False

    two = lab.run("swarm_content", "--diff", "-vvv", base=base, config="two\n")
    assert two["changed"] and two["name"] != one["name"]
    assert (two["diff"]["before"], two["diff"]["after"]) == ("one\n", "two\n")

    service = {**ready, "configs": [{"source": one["name"], "target": "/etc/it"}]}
    assert not lab.service(**service)["failed"]
    kept = lab.run("swarm_content", base=base, config="two\n", state="collected")
    assert (kept["changed"], kept["removed"]) == (False, []), "a service refers to it"

    service["configs"] = [{"source": two["name"], "target": "/etc/it"}]
    assert not lab.service(**service)["failed"]
    look = lab.run("swarm_content", "--check", base=base, config="two\n", state="collected")
    assert (look["changed"], look["removed"]) == (True, [one["name"]])
    assert names(lab, "config", base) == sorted([one["name"], two["name"]])
    collected = lab.run("swarm_content", base=base, config="two\n", state="collected")
    assert (collected["changed"], collected["removed"]) == (True, [one["name"]])
    assert names(lab, "config", base) == [two["name"]]
    assert lab.run("swarm_content", base=base, config="two\n", state="collected")["changed"] is False


def test_what_is_not_ours_is_neither_taken_nor_collected(lab):
    base = "content-foreign"
    name = lab.run("swarm_content", "--check", base=base, config="x")["name"]
    lab.host.exec("sh", "-c", f"printf y | docker config create {name} -; printf z | docker config create {base}-old -")
    refused = lab.run("swarm_content", base=base, config="x")
    assert refused["failed"]
    assert f"{name} exists and has no label io.bitnet.owner=bitnet.devops" in refused["msg"]
    assert lab.run("swarm_content", base=base, config="other", state="collected")["removed"] == []
    assert names(lab, "config", base) == sorted([name, f"{base}-old"])


def test_the_name_of_a_secret_is_keyed_and_its_value_in_no_result(lab):
    base, value = "content-secret", "a-value-that-nobody-should-read"
    made = lab.run("swarm_content", "--diff", "-vvv", base=base, secret=value, key=KEY)
    assert (made["failed"], made["changed"]) == (False, True), made
    assert hashlib.sha256(value.encode()).hexdigest()[:12] not in made["name"], "it could be guessed from its name"
    assert made["name"] == f"{base}-{hmac.new(KEY.encode(), value.encode(), hashlib.sha256).hexdigest()[:12]}"
    assert value not in json.dumps(made) and KEY not in json.dumps(made)
    assert lab.run("swarm_content", base=base, secret=value, key=KEY)["changed"] is False

    other = lab.run("swarm_content", base=base, secret=value, key=KEY[::-1])
    assert other["changed"] and other["name"] != made["name"], "another key, another name"
    collected = lab.run("swarm_content", base=base, secret=value, key=KEY, state="collected")
    assert collected["removed"] == [other["name"]]
    assert names(lab, "secret", base) == [made["name"]]

    for wrong, sentence in (
        ({"secret": value, "key": "short"}, "key: 5 characters are too few"),
        ({"secret": "", "key": KEY}, "the content has 0 bytes"),
        ({"secret": value}, "missing"),
        ({"config": "x", "key": KEY}, "mutually exclusive"),
    ):
        failed = lab.run("swarm_content", base=base, **wrong)
        assert failed["failed"] and sentence in failed["msg"], failed["msg"]
        assert value not in json.dumps(failed)
    assert names(lab, "secret", base) == [made["name"]]


# Runs on the machine with the module's own code; another writer comes between its look and its write.
CONFLICT = """
import json, subprocess, sys
sys.path.insert(0, "/opt")
from _swarm.client import Conflict, SwarmClient
from _swarm.service import present
from _swarm.spec import from_options

name, times = sys.argv[1], int(sys.argv[2])

class Interrupted(SwarmClient):
    def update(self, service, spec):
        global times
        if times:
            times -= 1
            theirs = ["docker", "service", "update", "--quiet", "--detach", "--label-add", f"theirs={times}", name]
            subprocess.run(theirs, check=True, stdout=subprocess.DEVNULL)
        super().update(service, spec)

options = json.load(sys.stdin)
try:
    outcome = present(Interrupted("unix:///var/run/docker.sock"), name, from_options(options),
                      owned_elsewhere=["labels.theirs"], act=True, wait=False, timeout=1)
    print(json.dumps(outcome.result()["plan"]))
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(
    ("times", "expected"), [(1, '"action": "update"'), (99, "Refused service")], ids=["once", "always"]
)
def test_a_write_in_between_is_seen_and_nothing_of_it_is_lost(lab, ready, times, expected):
    lab.service(**ready)
    source = CHECKOUT / "plugins" / "module_utils" / "_swarm"
    subprocess.run(["docker", "cp", str(source), f"{lab.host.container}:/opt/"], check=True, capture_output=True)
    wanted = json.dumps(options(**{**ready, "env": {"MINE": "1"}}))
    done = subprocess.run(
        ["docker", "exec", "-i", lab.host.container, "python3", "-c", CONFLICT, ready["name"], str(times)],
        input=wanted, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert expected in done.stdout, done.stdout + done.stderr
    spec = lab.inspect(ready["name"])["Spec"]
    assert "theirs" in spec["Labels"], "the other writer's label is kept"
    assert (spec["TaskTemplate"]["ContainerSpec"].get("Env") == ["MINE=1"]) == (times == 1)
