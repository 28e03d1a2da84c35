# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""release_retention on a machine with a Swarm and the registry: what releases need stays and works, the rest goes.

Small images stand in for releases; retention does not look into them.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lab import machine

CHECKOUT = Path(__file__).resolve().parents[2]
BASE = "debian:bookworm-slim"
REPOSITORY = "127.0.0.1:5000/bitnet/swarm-intelligence"
REGISTRY = "bitnet-registry"
STATE = "/var/lib/bitnet"
LISTED = "{{.Repository}} {{.Tag}} {{.Digest}} {{.ID}}"
ACTIVE_MODEL, PARKED_MODEL, MOUNTED_MODEL, OLD_MODEL, FOREIGN_MODEL = (letter * 64 for letter in "abcde")
PLAY = """
- name: Prepare
  hosts: machine
  gather_facts: false
  tasks:
    - name: Run the registry that image_build runs
      ansible.builtin.include_role:
        name: bitnet.devops.image_build
        tasks_from: registry
      vars:
        image_build_engine: true
        image_build_registry_seen: {stdout: ""}
        image_build_base: debian:bookworm-slim
- name: Retain
  hosts: machine
  gather_facts: false
  tags: [never, retention]
  tasks:
    - name: Remove what no release needs
      ansible.builtin.import_role:
        name: bitnet.devops.swarm_rollout
        tasks_from: retention
      vars:
        swarm_rollout_image: ""
        swarm_rollout_retention_grace: 0
"""


class Lab:
    def __init__(self, host: machine.Machine, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.environment = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg")}
        variables = {
            "ansible_connection": "community.docker.docker",
            "ansible_host": host.container,
            "ansible_python_interpreter": "/usr/bin/python3",
        }
        (folder / "inventory.json").write_text(json.dumps({"all": {"hosts": {"machine": variables}}}))
        (folder / "play.yml").write_text(PLAY)

    def _ansible(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [str(Path(sys.executable).parent / program), "-i", str(self.folder / "inventory.json"), *arguments]
        return subprocess.run(
            command, cwd=CHECKOUT, env=self.environment, capture_output=True, text=True, timeout=300, check=False
        )

    def play(self, *arguments: str) -> str:
        done = self._ansible("ansible-playbook", str(self.folder / "play.yml"), *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def retain(self, *more: str, **options: object) -> dict:
        """Run the module and give back its result, failed or not."""
        result = self.folder / "results" / "machine"
        result.unlink(missing_ok=True)
        given = json.dumps({"grace": 0, **options})
        done = self._ansible(
            "ansible", "machine", "-m", "bitnet.devops.release_retention", "-a", given, "--tree",
            str(self.folder / "results"), "-vvv", *more,
        )  # fmt: skip
        assert result.exists(), done.stdout + done.stderr
        return {**json.loads(result.read_text()), "failed": done.returncode != 0}

    def docker(self, *command: str) -> str:
        return self.host.exec("docker", *command).strip()

    def shell(self, script: str) -> str:
        return self.host.exec("sh", "-euc", script).strip()

    def release(self, name: str, dockerfile: str, *, ours: bool = True, repository: str = REPOSITORY) -> str:
        """Build and push; give back the reference by digest."""
        label = "--label io.bitnet.owner=bitnet.devops" if ours else ""
        self.shell(
            f"mkdir -p /srv/{name}; cd /srv/{name}; head -c 3000000 /dev/urandom > filling\n"
            f"printf '{dockerfile}' > Dockerfile; docker build -q {label} -t {repository}:{name} . >/dev/null\n"
            f"docker push -q {repository}:{name}"
        )
        listed = self.docker("image", "inspect", "--format", "{{json .RepoDigests}}", f"{repository}:{name}")
        return next(entry for entry in json.loads(listed) if entry.startswith(repository + "@"))

    def tags(self, repository: str = "bitnet/swarm-intelligence") -> set[str]:
        listed = json.loads(self.shell(f"curl -fsS http://127.0.0.1:5000/v2/{repository}/tags/list"))
        return set(listed["tags"] or [])

    def local(self) -> set[str]:
        return set(self.docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split())

    def registry_bytes(self) -> int:
        return int(self.docker("exec", REGISTRY, "du", "-sb", "/var/lib/registry").split()[0])

    def everything(self) -> dict[str, object]:
        """All that retention could touch, for a comparison."""
        registry = json.loads(self.docker("container", "inspect", REGISTRY))[0]
        return {
            "images": sorted(self.docker("image", "ls", "--all", "--no-trunc", "--format", LISTED).splitlines()),
            "containers": sorted(self.docker("ps", "--all", "--quiet").split()),
            "tags": sorted(self.tags()),
            "bytes": self.registry_bytes(),
            "started": registry["State"]["StartedAt"],
            "models": self.shell(f"find {STATE} | sort"),
        }

    def model(self, sha256: str, ours: bool = True) -> None:
        record = json.dumps({"sha256": sha256})
        self.shell(
            f"mkdir -p {STATE}/models/{sha256} {STATE}/models/sources; cd {STATE}/models\n"
            f"echo GGUF > {sha256}/model.gguf; echo '{record}' > sources/{sha256[:12]}.json\n"
            + (f"echo '{record}' > {sha256}/model.json" if ours else "")
        )

    def service(self, environment: str, slot: str, image: str, replicas: int, model: str) -> None:
        ours = (
            f"io.bitnet.owner=bitnet.devops --label io.bitnet.environment={environment} --label io.bitnet.slot={slot}"
        )
        container = f"--label {ours}".replace("--label", "--container-label")
        self.shell(
            f"docker service create --quiet --detach --label {ours} {container} --replicas {replicas} "
            f"--mount type=bind,source={STATE}/models/{model},target=/models --stop-grace-period 1s "
            f"--update-monitor 1s --restart-condition none --name bitnet-{environment}-{slot} {image} >/dev/null"
        )

    def await_(self, what: str, script: str) -> None:
        end = time.monotonic() + 40
        while self.host.exec("sh", "-c", script, check=False).strip() != "yes":
            assert time.monotonic() < end, (
                f"{what} did not come; {self.docker('service', 'ls')} {self.docker('ps', '-a')}"
            )
            time.sleep(0.3)


SLEEPER = f'FROM {BASE}\\nCOPY filling /\\nCMD ["sleep", "infinity"]\\n'
EMPTY = "FROM scratch\\nCOPY filling /\\n"


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    host = machine.up("retention", images=[BASE])
    try:
        made = Lab(host, tmp_path_factory.mktemp("lab"))
        made.play()
        host.exec("docker", "swarm", "init")
        yield made
    finally:
        host.down()


def test_what_releases_need_stays_and_the_rest_goes(lab):
    for sha256 in (ACTIVE_MODEL, PARKED_MODEL, MOUNTED_MODEL, OLD_MODEL):
        lab.model(sha256)
    lab.model(FOREIGN_MODEL, ours=False)
    lab.release("unused", EMPTY)
    replaced = lab.release("replaced", SLEEPER)
    active = lab.release("active", SLEEPER)
    parked = lab.release("parked", EMPTY)
    lab.release("running", SLEEPER)
    lab.release("foreign", EMPTY, ours=False)
    edge = lab.release("edge", EMPTY, repository="127.0.0.1:5000/bitnet/edge")
    lab.release("old-edge", EMPTY, repository="127.0.0.1:5000/bitnet/edge")
    lab.docker("tag", f"{REPOSITORY}:unused", "mine:kept")

    # A slot whose release was replaced, one that is parked cold, both of other environments, and a container by hand.
    lab.service("local", "blue", replaced, 1, ACTIVE_MODEL)
    lab.await_("a first task", f"docker ps -q --filter ancestor={replaced} | grep -q . && echo yes")
    lab.docker("service", "update", "--quiet", "--detach", "--image", active, "bitnet-local-blue")
    lab.await_("the update", "docker service inspect bitnet-local-blue --format '{{if .UpdateStatus}}"
               "{{if eq .UpdateStatus.State \"completed\"}}yes{{end}}{{end}}'")  # fmt: skip
    lab.service("staging", "green", parked, 0, PARKED_MODEL)
    lab.service("staging", "edge", edge, 0, PARKED_MODEL)
    lab.docker("run", "--detach", "--name", "by-hand", "--volume", f"{STATE}/models/{MOUNTED_MODEL}:/models",
               f"{REPOSITORY}:running")  # fmt: skip

    young = lab.retain(grace=3600)
    assert (young["failed"], young["changed"]) == (False, False), young
    assert young["kept"][f"{REPOSITORY}:unused"] == "it is younger than 3600 s"
    asked = lab.retain("--check", keep_images=[replaced], keep_models=[OLD_MODEL])
    assert (len(asked["plan"]["manifests"]), asked["plan"]["models"]) == (2, []), asked

    before = lab.everything()
    look = lab.retain("--check", "--diff")
    assert lab.everything() == before, "check mode touches nothing"
    assert (look["failed"], look["changed"]) == (False, True), look
    going = look["plan"]
    tags = {name.rpartition(":")[2] for name in going["images"] if "@" not in name}
    assert tags == {"unused", "replaced", "old-edge"}
    assert len(going["manifests"]) == 3 and going["collect"]
    assert [name.rpartition(".")[0] for name in going["containers"]] == ["bitnet-local-blue.1"]
    assert going["models"] == [OLD_MODEL] and going["records"] == [f"{OLD_MODEL[:12]}.json"]
    assert look["diff"] == {"before": {kind: names for kind, names in going.items() if names}, "after": {}}
    assert set(look["needed"]["images"]) == {reference.partition("@")[2] for reference in (active, parked, edge)}
    assert set(look["needed"]["models"]) == {ACTIVE_MODEL, PARKED_MODEL}

    done = lab.retain()
    assert (done["failed"], done["changed"], done["plan"]) == (False, True, going), done
    assert lab.tags() == {"active", "parked", "running", "foreign"}
    assert lab.tags("bitnet/edge") == {"edge"}
    ours = {name.rpartition(":")[2] for name in lab.local() if name.startswith(REPOSITORY + ":")}
    assert ours == {"active", "parked", "running", "foreign"}
    assert {"mine:kept", "127.0.0.1:5000/bitnet/edge:edge", BASE} <= lab.local()
    assert before["bytes"] - lab.registry_bytes() > 8_500_000, "the space of two releases and an edge is free"
    folders = set(lab.shell(f"ls -A {STATE}/models").split())
    assert folders == {ACTIVE_MODEL, PARKED_MODEL, MOUNTED_MODEL, FOREIGN_MODEL, "sources"}
    assert f"{OLD_MODEL[:12]}.json" not in lab.shell(f"ls {STATE}/models/sources")
    assert done["kept"][f"bitnet/swarm-intelligence@{_digest(lab, 'foreign')}"].startswith("its image has no label")
    assert done["kept"][MOUNTED_MODEL] == "the container by-hand has it mounted"
    assert done["kept"][FOREIGN_MODEL] == "its folder has no model.json that names it"
    running = lab.docker("ps", "--format", "{{.Names}}").split()
    assert {"by-hand", REGISTRY} <= set(running) and any(name.startswith("bitnet-local-blue.1.") for name in running)

    after = lab.everything()
    again = lab.retain()
    assert (again["failed"], again["changed"], "diff" in again) == (False, False, False), again
    assert lab.everything() == after, "and so the registry was not stopped again"

    # What the registry kept is whole: the parked release comes back on a node that lost its image.
    lab.docker("image", "rm", "--force", f"{REPOSITORY}:parked")
    lab.docker("pull", "--quiet", parked)


def _digest(lab: Lab, tag: str) -> str:
    asked = f"curl -fsSI -H 'Accept: application/vnd.docker.distribution.manifest.v2+json' http://{REPOSITORY}"
    asked = asked.replace("5000/", "5000/v2/") + f"/manifests/{tag}"
    return re.search(r"sha256:[0-9a-f]{64}", lab.shell(asked)).group()


def test_a_run_that_was_killed_is_finished_by_the_next(lab):
    # After the delete and before the registry was started again, with a model half removed.
    lab.release("late", EMPTY)
    lab.shell(
        f"curl -fsS -X DELETE http://127.0.0.1:5000/v2/bitnet/swarm-intelligence/manifests/{_digest(lab, 'late')}\n"
        f"docker image rm {REPOSITORY}:late >/dev/null\n"
        f"touch {STATE}/registry-uncollected; mkdir -p {STATE}/models/.removing-x"
    )
    full = lab.registry_bytes()
    lab.docker("stop", REGISTRY)
    look = lab.retain("--check")
    assert (look["changed"], look["plan"]["collect"]) == (True, True), look
    assert lab.docker("ps", "--quiet", "--filter", f"name={REGISTRY}") == "", "check mode does not start it"
    done = lab.retain()
    assert (done["failed"], done["changed"], done["plan"]["models"]) == (False, True, [".removing-x"]), done
    assert full - lab.registry_bytes() > 2_500_000
    assert lab.retain()["changed"] is False


def test_a_registry_that_somebody_stopped_is_left_alone(lab):
    lab.docker("stop", REGISTRY)
    look = lab.retain()
    assert (look["failed"], look["changed"], look["registry"]) == (
        False, False, "it is stopped, and not by an earlier run of this module",
    )  # fmt: skip
    lab.docker("start", REGISTRY)


def test_the_role_does_the_same_and_other_hosts_are_told_what_is_needed(lab):
    lab.release("more", EMPTY)
    assert "changed=1" in lab.play("--tags", "retention")
    assert "changed=0" in lab.play("--tags", "retention")
    assert "more" not in lab.tags()
    nothing = lab.retain("--check", needed={"images": [], "models": []})
    going = {name.rpartition(":")[2] for name in nothing["plan"]["images"] if "@" not in name}
    assert going == {"edge"} | ({"parked"} & {name.rpartition(":")[2] for name in lab.local()})
    assert nothing["plan"]["models"] == [PARKED_MODEL], "what runs here stays, whatever is told"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"keep_images": ["name:tag"]}, "keep_images: 'name:tag' has no digest"),
        ({"needed": {"images": ["x"], "models": []}}, "needed.images: 'x' is not sha256:"),
    ],
)
def test_bad_input_changes_nothing(lab, options, says):
    failed = lab.retain(**options)
    assert failed["failed"] and says in failed["msg"], failed


def test_a_host_outside_a_swarm_has_to_be_told(lab):
    lab.docker("swarm", "leave", "--force")
    assert "is no manager of a Swarm" in lab.retain()["msg"]
    assert lab.retain("--check", needed={"images": [], "models": []})["failed"] is False
