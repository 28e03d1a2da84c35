# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A fresh machine on which a user with sudo does what README says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from tests.lab import machine

CHECKOUT = Path(__file__).resolve().parents[2]
# How a host reaches its package registries: a proxy, an own certificate authority, mirrors.
NETWORK = re.compile(r"(?i)(https?_proxy|no_proxy|ssl_cert_(file|dir)|(pip|uv)_.+|requests_ca_bundle)$")
UNDER_TEST = "bitnet/swarm-intelligence:under-test"
NETWORK_FILES = ("/etc/ssl/certs", "/etc/pip.conf")


def writing_tasks(output: str, roles: str) -> list[str]:
    """What a playbook's output says of the tasks of these roles (a pattern) that changed something, in their order."""
    tasks: list[str] = []
    for part in re.split(r"^(?=(?:TASK|PLAY|RUNNING HANDLER) )", output, flags=re.MULTILINE):
        banner = re.match(rf"TASK \[bitnet\.devops\.(?:{roles}) : .+?\](?= \*+$)", part, re.MULTILINE)
        if banner and re.search(r"^changed: \[", part, re.MULTILINE) and banner[0] not in tasks:
            tasks.append(banner[0])
    return tasks


class Site:
    """A machine on which `make site` has run once; its user is ops."""

    def __init__(self, name: str) -> None:
        """Start the machine and run `make site` in a clean checkout."""
        mounts = [f"{path}:{path}:ro" for path in NETWORK_FILES if Path(path).exists()]
        # The machine is Debian 12, whose own Python is too old for ansible-core: lend it the one that runs this test.
        mounts.append(f"{sys.base_prefix}:{sys.base_prefix}:ro")
        self.machine = machine.up(name, flavour="bare", mounts=mounts, cache=True, owner=os.getpid())
        self.environment = {name: value for name, value in os.environ.items() if NETWORK.match(name)}
        self.environment["BITNET_PYTHON"] = f"{sys.base_prefix}/bin/python3.{sys.version_info.minor}"
        self.environment.pop("UV_CACHE_DIR", None)
        for parent in Path(sys.base_prefix).parents:  # which may be closed to others, as root's home is
            self.machine.exec("chmod", "o+x", str(parent))
        self.shell("sudo apt-get update -qq && sudo apt-get install -qqy make git >/dev/null")
        self._copy_checkout()
        began = time.monotonic()
        self.first_run = self.make("site", timeout=2400)
        self.first_seconds = time.monotonic() - began

    def _copy_checkout(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=CHECKOUT, check=True, capture_output=True,
        ).stdout  # fmt: skip
        files = b"\0".join(name for name in listed.split(b"\0") if name and (CHECKOUT / os.fsdecode(name)).exists())
        pack = subprocess.run(
            ["tar", "-c", "--null", "-T", "-"], cwd=CHECKOUT, input=files, check=True, capture_output=True
        ).stdout
        unpack = "mkdir -p ~/bitnet.devops && tar -x -C ~/bitnet.devops && cd ~/bitnet.devops && git init -q"
        subprocess.run([*self._exec(), "bash", "-c", unpack], input=pack, check=True, capture_output=True)

    def _exec(self) -> list[str]:
        command = ["docker", "exec", "--interactive", "--user", "ops", "--workdir", "/home/ops"]
        for name, value in {**self.environment, "HOME": "/home/ops"}.items():
            command += ["--env", f"{name}={value}"]
        return [*command, self.machine.container]

    def shell(self, script: str, timeout: float = 300) -> str:
        """Run a script as ops; give back what it printed, or fail with it."""
        done = subprocess.run(
            [*self._exec(), "bash", "-c", script], capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, (
            f"{script}: exit code {done.returncode}\n{done.stdout[-8000:]}\n{done.stderr[-4000:]}"
        )
        return done.stdout

    def make(self, target: str, arguments: str = "", timeout: float = 900) -> str:
        """Run `make TARGET` in the checkout."""
        self.environment["ARGS"] = arguments
        return self.shell(f"cd ~/bitnet.devops && make {target} 2>&1", timeout)

    def kill_during(
        self, target: str, moment: str, arguments: str = "", after: float = 0, timeout: float = 600
    ) -> bool:
        """Run `make TARGET` and kill -9 ansible-playbook that many seconds after its output matches moment.

        The module that runs then lives on, as it would for a user. False: the run ended well and never came to it.
        """
        self.environment["ARGS"] = arguments
        end = time.monotonic() + timeout
        command = [*self._exec(), "bash", "-c", f"cd ~/bitnet.devops && make {target} 2>&1"]
        said = ""
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
            assert running.stdout
            for line in running.stdout:
                said += line
                if re.search(moment, line):
                    time.sleep(after)
                    self.shell("pkill -9 -f '[a]nsible-playbook' || true")
                    running.kill()
                    return True
                assert time.monotonic() < end, f"{moment} did not come within {timeout:.0f} s"
        assert running.returncode == 0, f"make {target} failed before {moment}:\n{said[-8000:]}"
        return False

    def services(self) -> dict[str, Any]:
        """Specifications of all Swarm services, by name."""
        listed = self.shell("sudo docker service ls -q | xargs sudo docker service inspect")
        return {service["Spec"]["Name"]: service["Spec"] for service in json.loads(listed)}

    def export_workload_image(self) -> str:
        """Bring the image that runs here onto the host's daemon; give back its name there."""
        reference = self.services()["bitnet-local-blue"]["TaskTemplate"]["ContainerSpec"]["Image"]
        identity = self.shell(f"sudo docker image inspect --format '{{{{.Id}}}}' {reference}").strip()
        with subprocess.Popen([*self._exec(), "sudo", "docker", "save", identity], stdout=subprocess.PIPE) as saving:
            subprocess.run(["docker", "load", "--quiet"], stdin=saving.stdout, check=True, capture_output=True)
        assert saving.returncode == 0, f"docker save {reference} failed"
        subprocess.run(["docker", "tag", identity, UNDER_TEST], check=True)
        return UNDER_TEST

    def down(self) -> None:
        """Remove the machine."""
        self.machine.down()
