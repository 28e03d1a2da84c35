# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of Ansible, as a user calls them, on inventories that a test writes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from ansible_collections.bitnet.devops.plugins.inventory import docker_swarm, fleet

CHECKOUT = Path(__file__).resolve().parents[4]
PLUGINS = {"fleet": fleet, "docker_swarm": docker_swarm}


@pytest.fixture
def ansible(tmp_path):
    """Runs a command in a folder of its own, with the checkout's settings; what it prints is JSON if it lists."""

    def run(command, *arguments, fails=False, **environment):
        done = subprocess.run(
            [Path(sys.executable).with_name(command), *arguments],
            cwd=tmp_path,
            env={
                **os.environ,
                "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"),
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_INVENTORY_ANY_UNPARSED_IS_FAILED": "1",
                "COLUMNS": "1000",
                **environment,
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        listing = json.loads(done.stdout) if "--list" in arguments and not fails else {}
        hosts = listing.get("_meta", {}).get("hostvars", {})
        return SimpleNamespace(groups=listing, hosts=hosts, out=done.stdout, err=" ".join(done.stderr.split()))

    run.folder = tmp_path
    return run


def examples(name: str) -> list[str]:
    return PLUGINS[name].EXAMPLES.split("\n---\n")
