# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab: three test machines on the host's bridge, which are one Swarm (inventories/lab) or three of one node each
(inventories/lab-environments). Its machines can be hurt and mended.

python -m tests.lab.swarm up         `make lab` runs this, and then the playbook
python -m tests.lab.swarm kill lab-1     kill -9 of its daemon;     start lab-1 takes it back
python -m tests.lab.swarm cut lab-1      nothing reaches it any more;    mend lab-1 takes it back
python -m tests.lab.swarm down
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from tests.lab import machine

NODES = ("lab-1", "lab-2", "lab-3")


def up(owner: int = 0) -> list[str]:
    """Start the machines that do not run; gives back which these were."""
    machine.ensure_base()
    started = []
    for name in NODES:
        try:
            machine.get(name)
        except machine.LabError:
            machine.up(name, images=[machine.BASE], owner=owner)
            started.append(name)
    return started


def down() -> None:
    """Remove the machines with everything that belongs to them."""
    for name in NODES:
        machine.down(name)


def kill(name: str) -> None:
    """End the daemon of a machine with SIGKILL; what it ran goes on without it."""
    machine.get(name).exec("pkill", "-KILL", "-x", "dockerd")


def start(name: str) -> None:
    """Start the daemon of a machine again, as its entrypoint does."""
    container = machine.container_name(name)
    daemon = f"rm -f /var/run/docker.pid; exec dockerd --shutdown-timeout 2 --cgroup-parent /{container}"
    machine.get(name)
    machine.run("docker", "exec", "--detach", container, "sh", "-c", f"{daemon} >>/var/log/docker.log 2>&1")
    machine.await_docker(container)


def cut(name: str) -> None:
    """Let nothing in or out, as if the cable were pulled; `docker exec` still reaches the machine."""
    _rules(name, "--insert")


def mend(name: str) -> None:
    """Take back what cut did."""
    _rules(name, "--delete")


def _rules(name: str, action: str) -> None:
    for chain, direction in (("INPUT", "--in-interface"), ("OUTPUT", "--out-interface")):
        machine.get(name).exec("iptables", "--wait", action, chain, direction, "eth0", "--jump", "DROP")


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="tests.lab.swarm", description="Three test machines for a Swarm.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start the machines that do not run")
    commands.add_parser("down", help="remove them")
    for action, what in ((kill, "kill -9 of a daemon"), (start, "start it again"),
                         (cut, "cut a machine off"), (mend, "let it be reached again")):  # fmt: skip
        command = commands.add_parser(action.__name__, help=what)
        command.add_argument("node", choices=NODES)
        command.set_defaults(action=action)
    options = parser.parse_args()
    try:
        if options.command == "up":
            started = up()
            print("\n".join(f"{name}: {'started' if name in started else 'runs already'}" for name in NODES))
        elif options.command == "down":
            down()
        else:
            options.action(options.node)
    except (machine.LabError, subprocess.SubprocessError) as error:
        print(f"tests.lab.swarm: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
