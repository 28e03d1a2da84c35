# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services move to another version of a secret, with a Swarm of memory."""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.bitnet.devops.plugins.module_utils._swarm import service
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import Conflict
from ansible_collections.bitnet.devops.plugins.modules import secret_consumers

NODE = {"ID": "n", "Spec": {"Availability": "active"}, "Status": {"State": "ready"}}
OURS = {"io.bitnet.owner": "bitnet.devops", "io.bitnet.base": "smtp"}


class Swarm:
    """Whose tasks run at once, unless their service is broken."""

    def __init__(self) -> None:
        self.found = {name: self.made(name, "smtp-old") for name in ("mailer", "clerk")}
        self.secrets = ["smtp-old", "smtp-new"]
        self.broken: set[str] = set()
        self.updated: list[str] = []

    def __call__(self, _docker_host):
        return self

    @staticmethod
    def made(name, *secrets):
        references = [{"SecretName": secret, "SecretID": secret.upper(), "File": {"Name": "it"}} for secret in secrets]
        container = {"Image": "it", "Secrets": references}
        spec = {"Name": name, "Mode": {"Replicated": {"Replicas": 1}}, "TaskTemplate": {"ContainerSpec": container}}
        return {"ID": name, "Version": {"Index": 1}, "Spec": spec}

    def contents(self, _kind):
        return [{"ID": n.upper(), "CreatedAt": n, "Spec": {"Name": n, "Labels": OURS}} for n in self.secrets]

    def services(self):
        return list(self.found.values())

    def service(self, name):
        return self.found.get(name)

    def nodes(self):
        return [NODE]

    def tasks(self, service_id):
        state = "failed" if service_id in self.broken else "running"
        task = {"ID": f"{service_id}-{len(self.updated)}",
                "ServiceID": service_id, "NodeID": "n", "Slot": 1,
                "DesiredState": "running",
                "Status": {"State": state, "Err": "no", "Timestamp": "2026-11-27T10:00:00Z"},
                "CreatedAt": "2026-11-27T10:00:00Z",
                "Spec": self.found[service_id]["Spec"]["TaskTemplate"]}  # fmt: skip
        return [task]

    def logs(self, *_arguments):
        return []

    def update(self, seen, spec):
        assert spec["Labels"] == {}
        self.updated.append(spec["Name"])
        self.found[spec["Name"]] = {**seen, "Spec": spec}


@pytest.fixture
def run(monkeypatch, capsys):
    swarm = Swarm()
    monkeypatch.setattr(secret_consumers, "SwarmClient", swarm)
    monkeypatch.setattr(secret_consumers, "HAS_DOCKER", True)
    monkeypatch.setattr(service, "_POLL", 0)

    def module(*services, version="smtp-new", timeout=1, **options):
        arguments = {"base": "smtp", "version": version, "services": list(services), "wait_timeout": timeout}
        with patch_module_args({**arguments, **options}), pytest.raises(SystemExit):
            secret_consumers.main()
        return json.loads(capsys.readouterr().out)

    module.swarm = swarm
    return module


def test_they_move_in_their_order_and_once(run):
    said = run("mailer", "clerk", _ansible_check_mode=True)
    assert (said["moved"], said["verified"], run.swarm.updated) == (["mailer", "clerk"], [], [])
    assert said["diff"]["before"] == {"mailer": ["smtp-old"], "clerk": ["smtp-old"]}
    said = run("mailer", "clerk")
    assert (said["changed"], said["moved"], said["verified"]) == (True, ["mailer", "clerk"], ["mailer", "clerk"])
    [reference] = run.swarm.found["mailer"]["Spec"]["TaskTemplate"]["ContainerSpec"]["Secrets"]
    assert reference == {"SecretName": "smtp-new", "SecretID": "SMTP-NEW", "File": {"Name": "it"}}
    said = run("mailer", "clerk")
    assert (said["changed"], said["verified"], len(run.swarm.updated)) == (False, ["mailer", "clerk"], 2)


def test_the_next_is_not_touched_when_one_does_not_run(run):
    run.swarm.broken.add("mailer")
    said = run("mailer", "clerk", timeout=0)
    assert said["failed"] and "service mailer is not running as specified" in said["msg"]
    assert run.swarm.updated == ["mailer"]


@pytest.mark.parametrize(
    ("services", "version", "says"),
    [
        (["mailer", "gone"], "smtp-new", "services: the Swarm has no service gone"),
        (["mailer", "other"], "smtp-new", "services: other refers to no version of smtp"),
        (["mailer"], "smtp-3", "version: the Swarm has no secret smtp-3 of smtp"),
    ],
)
def test_nothing_is_touched_when_one_cannot_move(run, services, version, says):
    run.swarm.found["other"] = run.swarm.made("other", "else")
    said = run(*services, version=version)
    assert said["failed"] and says in said["msg"] and run.swarm.updated == []


def test_whoever_would_stay_is_named(run):
    said = run("mailer")
    assert said["failed"] and "services: clerk also refers to a version of smtp that is not smtp-new" in said["msg"]
    assert run.swarm.updated == []
    assert "clerk, mailer also refers" in run()["msg"]
    # One that is made while the others move.
    run.swarm.found.pop("clerk")
    update = run.swarm.update

    def and_another(seen, spec):
        update(seen, spec)
        run.swarm.found["late"] = run.swarm.made("late", "smtp-old", "smtp-new")

    run.swarm.update = and_another
    assert "services: late also refers" in run("mailer")["msg"] and run.swarm.updated == ["mailer"]


def test_somebody_else_writes(run, monkeypatch):
    def conflict(*_arguments):
        raise Conflict("out of sequence")

    monkeypatch.setattr(run.swarm, "update", conflict)
    assert "changed by somebody else at the same time; run again" in run("mailer", "clerk")["msg"]


def test_no_services_is_nothing_to_do(run):
    run.swarm.found = {"other": run.swarm.made("other", "else"), "moved": run.swarm.made("moved", "smtp-new")}
    said = run()
    assert (said["changed"], said["moved"], said["verified"]) == (False, [], [])
