# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin docker_swarm against a real Swarm, whose API it reaches as it does by ssh."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.lab import machine

CHECKOUT = Path(__file__).resolve().parents[2]
IMAGE = "debian:bookworm-slim"
LABELS = {
    "io.bitnet.owner": "bitnet.devops",
    "io.bitnet.environment": "production",
    "io.bitnet.slot": "blue",
    "io.bitnet.release": "r1",
}
NODE = {"roles": ["manager"], "variant": "x86-64-v3"}


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    host = machine.up("inventory", images=[IMAGE])
    folder = tmp_path_factory.mktemp("inventory")
    try:
        host.exec("docker", "swarm", "init")
        labels = [f"--label={key}={value}" for key, value in LABELS.items()]
        service = ["docker", "service", "create", "--quiet", "--name=bitnet-production-blue", "--replicas=2", *labels]
        host.exec(*service, IMAGE, "sleep", "infinity")
        ssh = folder / "ssh"  # the machine has no sshd: what it would start there is started without it
        ssh.write_text(f"#!/bin/sh\nexec docker exec -i {host.container} docker system dial-stdio\n")
        ssh.chmod(0o755)
        yield host, folder
    finally:
        machine.down("inventory")


def listed(folder: Path, nodes: dict) -> dict:
    cluster = {"platform": "swarm", "nodes": nodes}
    environments = {"production": {"regions": {"here": {"clusters": {"one": cluster}}}}}
    fleet = {"plugin": "bitnet.devops.fleet", "environments": environments}
    swarms = [{"cluster": "one", "docker_host": "ssh://ops@machine"}]
    live = {"plugin": "bitnet.devops.docker_swarm", "fleet": "it.fleet.yml", "swarms": swarms}
    (folder / "it.fleet.yml").write_text(yaml.safe_dump(fleet))
    (folder / "it.docker_swarm.yml").write_text(yaml.safe_dump(live))
    done = subprocess.run(
        [Path(sys.executable).with_name("ansible-inventory"), "-i", folder / "it.docker_swarm.yml", "--list"],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
            "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return plain(json.loads(done.stdout))


def plain(value):
    """Without the marks of what is not to be rendered."""
    if isinstance(value, dict):
        return value.get("__ansible_unsafe") or {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def test_a_real_swarm_beside_its_fleet(lab):
    host, folder = lab
    hostname = host.exec("hostname").strip()
    found = listed(folder, {hostname: NODE, "w1": {"roles": ["worker"]}})
    node = found["_meta"]["hostvars"][hostname]
    assert node["bitnet_node"]["leader"]
    assert node["bitnet_node"]["state"] == "ready"
    assert node["bitnet_drift"] == ["has '' as label io.bitnet.variant, declared is 'x86-64-v3'"]
    assert [task["slot"] for task in node["bitnet_tasks"]] == ["blue", "blue"]
    slot = node["bitnet_slots"]["production"]["blue"]
    assert (slot["release"], slot["replicas"], slot["running"]) == ("r1", 2, 2)
    assert found["service_bitnet_production_blue"]["hosts"] == [hostname]
    assert sorted(found["drifted"]["hosts"]) == sorted([hostname, "w1"])

    host.exec("docker", "node", "update", "--label-add", "io.bitnet.variant=x86-64-v3", hostname)
    assert not listed(folder, {hostname: NODE}).get("drifted")


def test_a_manager_that_stops_keeps_the_declared_nodes(lab):
    host, folder = lab
    hostname = host.exec("hostname").strip()
    host.exec("docker", "swarm", "leave", "--force")
    found = listed(folder, {hostname: NODE})
    assert found["unreachable"]["hosts"] == [hostname]
    assert "is no manager of a Swarm" in found["_meta"]["hostvars"][hostname]["bitnet_swarm_error"]
