# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loss proof: is a request lost, cut or answered twice while slots are switched under load?

    make bench-switch                                   the knee, then every subject, in under ten minutes
    make bench-switch ARGS='--stand processes'          without Docker: HAProxy, Traefik and slots as processes
    make bench-switch ARGS='--rate 30 --seconds 10'     short

A load generator sends numbered requests (header X-Request-Number): completions at a rate, streams of server-sent
events and WebSocket generations that are always open. Its ledger takes down how each one ended; then the log of the
edge and the logs of the slots are laid beside it. Proved is: each accepted request ended exactly once, complete, or by
an announced close, which is counted apart; no number was at two slots, and the three sides contradict each other
nowhere. Requests that were refused before they were accepted (no connection; 429 or 503 with Retry-After) are no loss
and are counted as well.

Subjects, all under the same load:
    switch              the blue-green switch; with --url of an existing site whatever --switch-command does
    rolling-start-first docker service update --force of one service, behind the same edge with the same configuration
    rolling-stop-first  the same, the old task stopped first
    traefik-file        Traefik in front of two slots, switched by rewriting the file of its file provider

A site on a test machine (tests/lab) is loaded with
    --site-machine NAME --switch-command 'ansible ... action=switch ... {slot}'
and any other one with
    --url http://ADDRESS:8080 --token-file FILE --switch-command 'ansible ... action=switch ... {slot}'
    --edge-log-command 'COMMAND {since}' --slot-log-command 'COMMAND {slot} {since}'
where {slot} becomes blue or green, and {since} the second in which the load began. The commands print the logs since
then, of replaced tasks too (`docker service logs` may hang on those, `docker logs` of each container does not). Take
the probe token: its holder is told which slot answered. The edge must not limit the rate of one address
(traffic_rate_limit: 0), and its log must have the number.

Written to --output: result.json, table.md, plot.png, and the ledger of each subject, one JSON object per line. The exit
status is 1 when the switch is not proved; the subjects beside it are there for comparison.
Only loopback and private addresses are loaded.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import uvloop

from tests.lab import machine

from . import report
from .figures import Knee, Step
from .generator import Shape, Target, TargetError
from .processes import ProcessStand
from .scenario import Plan, Result, find_knee, run
from .stands import CHECKOUT, SLOTS, AskedLog, Log, StandError, Subject, command
from .swarm import SwarmStand, edge_dropped, service_log

SUBJECTS = ("switch", "rolling-start-first", "rolling-stop-first", "traefik-file")
MOVE_SECONDS = 180.0


def say(text: str) -> None:
    print(text, flush=True)


def arguments_of(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.switch_loss",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--stand", choices=("swarm", "processes"), default="swarm", help="where the subjects run (default swarm)")
    add("--subjects", default=",".join(SUBJECTS), help="which ones, separated by commas")
    add("--output", type=Path, default=CHECKOUT / ".cache" / "bench-switch", metavar="DIR")
    load = parser.add_argument_group("load")
    add = load.add_argument
    add("--rate", type=float, help="completions per second (default: 70 %% of the knee, at most 200)")
    add("--streams", type=int, default=100, help="streams that are open at a time (default 100)")
    add("--sockets", type=int, default=50, help="WebSockets, a generation at a time on each (default 50)")
    add("--tokens", type=int, default=4, help="of a completion (default 4)")
    add("--stream-tokens", type=int, default=12, help="of a stream or generation (default 12)")
    add("--pace", type=float, default=0.5, help="seconds from token to token of a stream (default 0.5)")
    add("--limit", type=int, default=200_000, help="most requests of one subject")
    add("--find-knee", action="store_true", help="find the knee of the first subject, and no more")
    moves = parser.add_argument_group("moves")
    add = moves.add_argument
    add("--switches", type=int, default=10)
    add("--rollbacks", type=int, default=4)
    add("--updates", type=int, default=2, help="rolling updates of each of those subjects (default 2)")
    add("--spacing", type=float, default=4.0, help="seconds between moves (default 4)")
    add("--warm-up", type=float, default=5.0, help="seconds before the first move (default 5)")
    add("--seconds", type=float, help="short: spread the switches over this time, and look for no knee")
    site = parser.add_argument_group("an existing site")
    add = site.add_argument
    add("--url", help="its edge; the subject `switch` is this one then")
    add("--token-file", type=Path, help="a file with the probe token")
    add("--site-machine", metavar="NAME", help="the test machine that it runs on: gives address, token and logs")
    add("--environment", default="local", help="the site's environment, with --site-machine (default local)")
    add("--switch-command", metavar="COMMAND", help="switches to {slot}; run without a shell")
    add("--rollback-command", metavar="COMMAND", help="(default: the switch command)")
    add("--edge-log-command", metavar="COMMAND", help="prints the edge's log since {since}")
    add("--slot-log-command", metavar="COMMAND", help="prints the log of {slot} since {since}")
    add("--active-slot", choices=SLOTS, default="blue", help="the site's active slot at the begin")
    swarm = parser.add_argument_group("the stand `swarm`")
    add = swarm.add_argument
    add("--machine", default="", help="a running test machine (tests/lab/machine.py) to use; else one is made")
    add("--image", default="bitnet/swarm-intelligence:under-test", help="the workload's image on the host's daemon")
    return parser.parse_args(argv)


def of_machine(options: argparse.Namespace, folder: Path) -> tuple[Log, dict[str, Log]]:
    """Fills in what a test machine knows of its site; gives back the logs of its edge and its slots."""
    try:
        host = machine.get(options.site_machine)
        path = f"/var/lib/bitnet/environments/{options.environment}/tokens/probe"
        token = host.exec("cat", path)
    except machine.LabError as error:
        raise StandError(str(error)) from error
    options.url = options.url or f"http://{host.address}:8080"
    if options.token_file is None:
        options.token_file = folder / "probe"
        options.token_file.touch(mode=0o600)
        options.token_file.write_text(token)
    name = f"bitnet-{options.environment}"
    slots: dict[str, Log] = {slot: service_log(host.container, f"{name}-{slot}") for slot in SLOTS}
    return service_log(host.container, f"{name}-edge"), slots


def site_subject(options: argparse.Namespace, folder: Path) -> Subject:
    """The site that exists, switched by the commands given."""
    edge: Log | None = None
    slots: dict[str, Log] = {}
    if options.site_machine:
        edge, slots = of_machine(options, folder)
    if not options.token_file or not options.switch_command:
        raise StandError("a site needs --switch-command, and with --url a --token-file")
    switch = options.switch_command
    commands = {"switch": switch, "rollback": options.rollback_command or switch}

    def filled(text: str, slot: str) -> list[str]:
        return [part.replace("{slot}", slot) for part in shlex.split(text)]

    async def act(kind: str, slot: str) -> tuple[int, str]:
        return await command(filled(commands[kind], slot), MOVE_SECONDS)

    if options.edge_log_command:
        edge = AskedLog(shlex.split(options.edge_log_command))
    if options.slot_log_command:
        slots = {slot: AskedLog(filled(options.slot_log_command, slot)) for slot in SLOTS}
    other = next(slot for slot in SLOTS if slot != options.active_slot)
    subject = Subject(
        "switch", switch, options.url, options.token_file, act,
        targets=(options.active_slot, other), edge_log=edge, slot_logs=slots,
    )  # fmt: skip
    if options.site_machine:
        state = f"/var/lib/bitnet/environments/{options.environment}/edge"
        subject.dropped = edge_dropped(machine.container_name(options.site_machine), state)
    return subject


def plan_for(subject: Subject, options: argparse.Namespace) -> Plan:
    updating = subject.kinds == ("update",)
    switches = options.updates if updating else options.switches
    plan = Plan(switches, options.rollbacks, options.spacing, options.warm_up, options.limit)
    if options.seconds is None:
        return plan
    return replace(plan, warm_up=min(2.0, plan.warm_up), spacing=options.seconds / max(len(plan.moves(subject)), 1))


def collect(
    options: argparse.Namespace, folder: Path, ends: ExitStack, wanted: list[str]
) -> tuple[dict[str, Subject], dict[str, str]]:
    """The subjects that can run, and why the others cannot."""
    subjects: dict[str, Subject] = {}
    if (options.url or options.site_machine) and "switch" in wanted:
        subjects["switch"] = site_subject(options, folder)
        Target.parse(options.url, options.token_file)
    rest = [name for name in wanted if name not in subjects]
    reason = f"the stand {options.stand} does not have it"
    if rest:
        try:
            stand = (
                ends.enter_context(SwarmStand(folder, options.image, options.machine, rest))
                if options.stand == "swarm"
                else ends.enter_context(ProcessStand(folder))
            )
            offered = stand.subjects()
            subjects.update({name: offered[name] for name in rest if name in offered})
        except StandError as error:
            if not subjects:
                raise
            reason = str(error)
    return subjects, {name: reason for name in wanted if name not in subjects}


async def measure(
    options: argparse.Namespace, subjects: list[Subject], results: list[Result], skipped: dict[str, str]
) -> tuple[Knee, list[Step]] | None:
    """Fills results one by one, so that what was measured survives what fails later."""
    shape = Shape(options.rate or 30.0, options.streams, options.sockets, options.tokens, options.stream_tokens,
                  options.pace)  # fmt: skip
    prefix = secrets.token_hex(2)
    knee = None
    if options.find_knee or (options.rate is None and options.seconds is None):
        say(f"The knee of {subjects[0].name}, with {shape.streams} streams and {shape.sockets} WebSockets open:")
        knee = await find_knee(subjects[0], shape, prefix, say)
        say(f"  the knee is {knee[0].rate:.0f} requests/s: {knee[0].reason}")
        shape = replace(shape, rate=max(5.0, min(200.0, round(0.7 * knee[0].rate))))
    if options.find_knee:
        return knee
    for subject in subjects:
        say(f"{subject.name}: {shape.rate:g} requests/s, {shape.streams} streams, {shape.sockets} WebSockets")
        try:
            results.append(await run(subject, shape, plan_for(subject, options), prefix, say))
        except (StandError, subprocess.SubprocessError) as error:
            skipped[subject.name] = f"it ended with an error: {error}"
            say(f"  {skipped[subject.name]}")
            continue
        say(f"  {results[-1].verdict.sentence()}")
    return knee


def write(
    options: argparse.Namespace, results: list[Result], skipped: dict[str, str], knee: tuple[Knee, list[Step]] | None
) -> None:
    options.output.mkdir(parents=True, exist_ok=True)
    stand = f"{options.stand}{', site ' + options.url if options.url else ''}"
    found = report.document(results, skipped, knee, stand)
    (options.output / "result.json").write_text(json.dumps(found, indent=2) + "\n")
    if not results:
        return
    text = report.markdown(results, skipped)
    (options.output / "table.md").write_text(text + "\n")
    for result in results:
        result.ledger.write(options.output / f"ledger-{result.subject.name}.jsonl")
    report.plot(results, options.output / "plot.png")
    say(f"\n{text}\n\nWritten to {options.output}: result.json, table.md, plot.png, ledger-*.jsonl")


def problems(results: list[Result], skipped: dict[str, str]) -> Iterator[str]:
    """Why the switch is not proved; nothing when it is."""
    if "switch" in skipped:
        yield f"switch: {skipped['switch']}"
    for result in results:
        if result.subject.name != "switch":
            continue
        if not result.verdict.proved:
            yield result.verdict.sentence()
            yield from result.reconciliation.findings[:10]
            yield from report.subject(result)["broken"][:10]
        for move in result.failures():
            yield f"{move.kind} to {move.target} ended with status {move.status}: {move.said.strip()[-500:]}"


def main(argv: list[str] | None = None) -> int:
    options = arguments_of(argv)
    wanted = [name for name in options.subjects.split(",") if name]
    unknown = sorted(set(wanted) - set(SUBJECTS))
    if unknown or not wanted:
        say(f"--subjects {options.subjects!r}: there are {', '.join(SUBJECTS)}")
        return 2
    results: list[Result] = []
    with ExitStack() as ends:
        folder = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="bitnet-loss-")))
        folder.chmod(0o755)
        try:
            subjects, skipped = collect(options, folder, ends, wanted)
            knee = uvloop.run(measure(options, list(subjects.values()), results, skipped))
        except (StandError, TargetError) as error:
            say(f"switch_loss: {error}")
            return 2
        write(options, results, skipped, knee)
    found = list(problems(results, skipped))
    for problem in found:
        print(problem, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
