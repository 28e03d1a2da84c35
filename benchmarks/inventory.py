# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What `ansible-inventory --list` costs with our plugins, as ratios of CPU time measured in one run.

    make bench-inventory                                 10,000 hosts in 100 clusters, 5 rounds
    make bench-inventory ARGS="--hosts 2000 --rounds 2"  short
    make bench-inventory ARGS="--only growth"            2,500, 5,000, 10,000 and 20,000 hosts in the same rounds

Of what one fleet file declares:
    fleet     the plugin bitnet.devops.fleet, enabled as in this project's ansible.cfg
    script    an executable that prints the same inventory, `cat` of a file
    yaml      the same inventory as a file of ansible.builtin.yaml
    auto      the plugin fleet as Ansible finds it when nobody enabled it: ansible.builtin.auto reads the file first
Of a Swarm (--nodes, on a stand-in for a manager's API; --docker-host, a real one):
    live      the plugin bitnet.devops.docker_swarm
    community community.docker.docker_swarm

All subjects of the first kind must print the same. Each round runs each of them once, in an order that turns. Counted
is the CPU time, user and system, of the command and its children. The exit status says whether the limits hold: the
fleet takes at most 1.3 times the CPU of the script, at most 400 MB of memory, and grows as the hosts do, from a
quarter of them to twice as many.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.unit.engine_api import Engine, node

CHECKOUT = Path(__file__).resolve().parents[1]
MOST_TIMES = 1.3
MOST_MB = 400
# Twice the hosts may take so many times the CPU, beyond what starting takes. Quadratic growth would be 4.
MOST_GROWTH = 2.6
VARIANTS = ("x86-64-v4-vnni", "armv8.2-a-dotprod")


class Run:
    """One command: its CPU seconds, its memory in MB, what it printed."""

    def __init__(self, source: Path, *options: str, **environment: str) -> None:
        command = [str(Path(sys.executable).with_name("ansible-inventory")), "-i", str(source), "--list", *options]
        variables = {**os.environ, "ANSIBLE_CONFIG": str(CHECKOUT / "ansible.cfg"), **environment}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = subprocess.Popen(command, cwd=source.parent, env=variables, stdout=out, stderr=err)
            _pid, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            out.seek(0)
            err.seek(0)
            self.out, told = out.read(), err.read().decode()
        if process.returncode or "Failed to parse" in told:
            raise SystemExit(f"{' '.join(command)}: {told[:800]}")
        self.cpu = usage.ru_utime + usage.ru_stime
        self.mb = usage.ru_maxrss / 1024


def fleet_text(hosts: int, clusters: int) -> str:
    lines = ["plugin: bitnet.devops.fleet", "environments:"]
    per_environment = -(-clusters // 2)
    cluster = 0
    for environment in ("staging", "production")[: min(2, clusters)]:
        lines += [f"  {environment}:", "    regions:", "      us-east-1:", "        clusters:"]
        for _number in range(min(per_environment, clusters - cluster)):
            lines += [f"          c{cluster}:", "            platform: swarm", "            nodes:"]
            for host in range(cluster, hosts, clusters):
                index = host // clusters
                role = "manager" if index < 3 else "worker"
                lines.append(
                    f"              c{cluster}-n{index}: {{roles: [{role}], address: 10.{host >> 16}.{host >> 8 & 255}."
                    f"{host & 255}, variant: {VARIANTS[host % 2]}, failure_domain: rack-{index % 5}}}"
                )
            cluster += 1
    return "\n".join(lines) + "\n"


def content(printed: bytes) -> Any:
    """What was printed, where the order of hosts in a group says nothing."""
    document = json.loads(printed)
    for group in document.values():
        for key in ("hosts", "children"):
            if isinstance(group.get(key), list):
                group[key].sort()
    return document


def rounds(subjects: dict[str, Callable[[], Run]], count: int) -> dict[str, list[Run]]:
    """Each subject once in each round; one run before, which writes the caches of compiled code, is not counted."""
    names = list(subjects)
    found: dict[str, list[Run]] = {name: [] for name in names}
    for each in subjects.values():
        each()
    for number in range(count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(subjects[name]())
    return found


def ratios(of: list[Run], to: list[Run]) -> list[float]:
    return [a.cpu / b.cpu for a, b in zip(of, to, strict=True)]


def table(found: dict[str, list[Run]], base: str, title: str) -> Iterator[str]:
    yield f"| {title} | CPU, {base} is 1 | memory |"
    yield "| --- | --- | --- |"
    for name, runs in found.items():
        each = ratios(runs, found[base])
        spread = f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})"
        yield f"| {name} | {spread} | {max(run.mb for run in runs):.0f} MB |"


def declared(folder: Path, options: argparse.Namespace) -> bool:
    source = folder / "it.fleet.yml"
    source.write_text(fleet_text(options.hosts, options.clusters))
    printed = Run(source, "--export").out
    (folder / "printed.json").write_bytes(printed)
    script = folder / "script"
    script.write_text(f"#!/bin/sh\nexec cat {folder}/printed.json\n")
    script.chmod(0o755)
    (folder / "static.yml").write_bytes(Run(source, "--export", "--yaml").out)
    found = rounds(
        {
            "fleet": lambda: Run(source),
            "script": lambda: Run(script),
            "yaml": lambda: Run(folder / "static.yml"),
            "auto": lambda: Run(source, ANSIBLE_INVENTORY_ENABLED="host_list,script,auto,yaml,ini,toml"),
        },
        options.rounds,
    )
    wanted = content(found["script"][0].out)
    for name, runs in found.items():
        if content(runs[0].out) != wanted:
            raise SystemExit(f"{name} and script do not print the same inventory")
    print("\n".join(table(found, "script", f"{options.hosts:,} hosts in {options.clusters:,} clusters")), flush=True)
    times, memory = statistics.median(ratios(found["fleet"], found["script"])), max(run.mb for run in found["fleet"])
    print(f"\nfleet: {times:.2f} times the script's CPU (at most {MOST_TIMES}), {memory:.0f} MB (at most {MOST_MB})\n")
    return times <= MOST_TIMES and memory <= MOST_MB


def growth(folder: Path, options: argparse.Namespace) -> bool:
    sizes = [options.hosts // 4, options.hosts // 2, options.hosts, options.hosts * 2]
    subjects: dict[str, Callable[[], Run]] = {}
    for size in [options.clusters, *sizes]:
        source = folder / f"{size}.fleet.yml"
        source.write_text(fleet_text(size, max(1, options.clusters * size // options.hosts)))
        subjects[str(size)] = lambda source=source: Run(source)  # type: ignore[misc]
    found = rounds(subjects, options.rounds)
    start = found[str(options.clusters)]
    print("| hosts | CPU beyond the start, that of the row above is 1 | memory |\n| --- | --- | --- |")
    worst = 0.0
    for before, size in zip([0, *sizes], sizes, strict=False):
        cell = ""
        if before:
            pairs = zip(found[str(size)], found[str(before)], start, strict=True)
            grown = statistics.median((run.cpu - base.cpu) / (less.cpu - base.cpu) for run, less, base in pairs)
            worst, cell = max(worst, grown), f"{grown:.2f}"
        print(f"| {size:,} | {cell} | {max(run.mb for run in found[str(size)]):.0f} MB |")
    print(f"\ntwice the hosts: at most {worst:.2f} times the CPU (at most {MOST_GROWTH})\n")
    return worst <= MOST_GROWTH


def live(folder: Path, options: argparse.Namespace) -> bool:
    manager, host, title = None, options.docker_host, "a real Swarm"
    if not host:
        nodes = [node(f"n{number}", "manager" if number < 3 else "worker") for number in range(options.nodes)]
        manager = Engine(nodes).listen(folder / "engine.sock")
        host, title = f"unix://{folder}/engine.sock", f"{options.nodes:,} live nodes"
    ours, theirs = folder / "it.docker_swarm.yml", folder / "community.docker_swarm.yml"
    swarm = f"swarms:\n  - {{cluster: one, docker_host: {json.dumps(host)}}}\n"
    ours.write_text(f"plugin: bitnet.devops.docker_swarm\n{swarm}")
    theirs.write_text(f"plugin: community.docker.docker_swarm\ndocker_host: {json.dumps(host)}\n")
    enabled = "community.docker.docker_swarm"
    subjects = {"live": lambda: Run(ours), "community": lambda: Run(theirs, ANSIBLE_INVENTORY_ENABLED=enabled)}
    if manager:
        calls = {}
        for name, run in subjects.items():
            manager.calls.clear()
            run()
            calls[name] = sum(manager.calls.values())
        print(f"calls: {', '.join(f'{name} {count}' for name, count in calls.items())}\n")
    print("\n".join(table(rounds(subjects, options.rounds), "community", title)))
    if manager:
        manager.close()
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.inventory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=10_000)
    parser.add_argument("--clusters", type=int, default=100)
    parser.add_argument("--nodes", type=int, default=2000, help="live nodes of the stand-in (default 2000)")
    parser.add_argument("--docker-host", default="", help="a real manager in place of the stand-in")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=["declared", "growth", "live"], help="one part; left out, all three")
    options = parser.parse_args()
    if options.clusters < 1 or options.hosts < 8 * options.clusters or min(options.rounds, options.nodes) < 1:
        parser.error("there are at least 8 hosts in each cluster, 1 round and 1 node")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {options.rounds} rounds\n", flush=True)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        parts = {part.__name__: part for part in (declared, growth, live)}
        holds = [parts[name](Path(folder), options) for name in ([options.only] if options.only else parts)]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
