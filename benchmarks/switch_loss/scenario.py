# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs subjects: load, moves while it runs, then the ledger against the logs; and the search for the knee."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from .figures import Convergence, Knee, Move, Step, convergence, gap, knee, latencies, percentile
from .generator import Load, Shape, Target, new_ledger
from .ledger import Ledger, Outcome
from .reconcile import BackendLine, EdgeLine, Reconciliation, Verdict, parse_backend, parse_edge, reconcile, verdict
from .stands import Subject

Say = Callable[[str], None]
LOGS_SECONDS = 3.0


@dataclass(frozen=True)
class Plan:
    """How many moves of each of a subject's kinds, how far apart, and the calm before and after."""

    switches: int = 10
    rollbacks: int = 4
    spacing: float = 5.0
    warm_up: float = 5.0
    limit: int = 200_000

    def moves(self, subject: Subject) -> list[tuple[str, str]]:
        """Kind and target of each. Rollbacks are spread among the switches, each of them undoing the one before it."""
        kinds = spread(self.switches, self.rollbacks if len(subject.kinds) > 1 else 0, subject.kinds)
        targets = subject.targets
        return [(kind, targets[(number + 1) % len(targets)]) for number, kind in enumerate(kinds)]


def spread(first: int, second: int, kinds: Sequence[str]) -> list[str]:
    """`first` moves of the first kind, `second` of the last kind evenly among them, never one of those at the begin."""
    order: list[str] = []
    taken = 0
    for number in range(first):
        order.append(kinds[0])
        due = (number + 1) * second // first
        order += [kinds[-1]] * (due - taken)
        taken = due
    return order


@dataclass
class Result:
    """All that one subject gave."""

    subject: Subject
    shape: Shape
    ledger: Ledger
    moves: list[Move]
    stopped: float
    """When nothing new was begun any more; what ran then was waited for, until `seconds`."""
    seconds: float
    not_begun: int
    reconciliation: Reconciliation
    verdict: Verdict

    def until(self, number: int) -> float:
        """When the move after this one begins."""
        return self.moves[number + 1].begun if number + 1 < len(self.moves) else self.stopped

    def convergences(self) -> list[Convergence | None]:
        return [convergence(self.ledger, move, self.until(number)) for number, move in enumerate(self.moves)]

    def gaps(self) -> list[float]:
        """The longest time without an answered request, for each move."""
        return [gap(self.ledger, move.begun, self.until(number)) for number, move in enumerate(self.moves)]

    def around_moves(self) -> list[float]:
        """Latencies of requests that began while a move ran, or within a second after it."""
        return [
            value
            for move in self.moves
            for value in latencies(self.ledger, move.begun, max(move.ended, move.begun + 1))
        ]

    def failures(self) -> list[Move]:
        return [move for move in self.moves if move.status]


async def run(subject: Subject, shape: Shape, plan: Plan, prefix: str, say: Say) -> Result:
    """One subject under load."""
    subject.ready()
    logs = [*subject.slot_logs.values(), *([subject.edge_log] if subject.edge_log else [])]
    for log in logs:
        log.mark()
    dropped = subject.dropped()
    ledger = new_ledger(prefix, plan.limit)
    load = Load(Target.parse(subject.url, subject.token_file), shape, ledger)
    running = asyncio.create_task(load.run())
    moves: list[Move] = []
    try:
        await _calm(plan.warm_up, running)
        for kind, target in plan.moves(subject):
            if running.done():
                break
            move = Move(kind, target, load.now())
            moves.append(move)
            move.status, move.said = await subject.act(kind, target)
            move.ended = load.now()
            say(f"  {subject.name}: {kind} to {target} in {move.seconds:.2f} s" + _trouble(move))
            await _calm(plan.spacing + subject.settle, running)
    finally:
        stopped = load.now()
        load.stop()
        await running
    seconds = load.now()
    edge, backend = await _logs(subject, ledger)
    found = reconcile(ledger.entries, edge, backend, max(0, subject.dropped() - dropped))
    return Result(subject, shape, ledger, moves, stopped, seconds, load.not_begun, found, verdict(ledger, found))


def _trouble(move: Move) -> str:
    return f", exit status {move.status}: {move.said.strip()[-300:]}" if move.status else ""


async def _calm(seconds: float, running: asyncio.Task[None]) -> None:
    await asyncio.wait([running], timeout=seconds)


async def _logs(subject: Subject, ledger: Ledger) -> tuple[list[EdgeLine] | None, list[BackendLine] | None]:
    """Read until nothing new comes: logs reach us a moment after the answers."""
    end = time.monotonic() + 15
    before = -1
    while True:
        edge = parse_edge(subject.edge_log.lines(), ledger.run) if subject.edge_log else None
        backend = (
            [line for slot, log in subject.slot_logs.items() for line in parse_backend(log.lines(), ledger.run, slot)]
            if subject.slot_logs
            else None
        )
        now = len(edge or []) + len(backend or [])
        if now == before or time.monotonic() > end:
            return edge, backend
        before = now
        await asyncio.sleep(LOGS_SECONDS if subject.edge_log and subject.slot_logs else 0.5)


async def find_knee(
    subject: Subject, shape: Shape, prefix: str, say: Say, *, first: float = 25, factor: float = 1.3, seconds: float = 5
) -> tuple[Knee, list[Step]]:
    """Raise the rate, with streams and WebSockets as they are, until something breaks."""
    subject.ready()
    steps: list[Step] = []
    rate = first
    while len(steps) < 16:
        for _attempt in ("first", "second"):  # what else the machine did may be over by then
            step = await _step(subject, replace(shape, rate=rate, deadline=20), prefix, seconds)
            say(f"  {step.asked:.0f} requests/s: {step.achieved:.1f} answered, p95 {step.p95 * 1000:.1f} ms")
            found = knee([*steps, step])
            if found.rate >= rate:
                break
        steps.append(step)
        if found.rate < rate:
            return found, steps
        rate *= factor
    return knee(steps), steps


async def _step(subject: Subject, shape: Shape, prefix: str, seconds: float) -> Step:
    load = Load(Target.parse(subject.url, subject.token_file), shape, new_ledger(prefix))
    running = asyncio.create_task(load.run())
    await _calm(2, running)  # streams and WebSockets have been opened
    begun = load.now()
    skipped = load.not_begun
    await _calm(seconds, running)
    ended = load.now()
    load.stop()
    await running
    within = [entry for entry in load.ledger if entry.kind == "http" and begun <= entry.begun < ended]
    whole = [
        entry for entry in load.ledger
        if entry.kind == "http" and entry.outcome is Outcome.COMPLETE and entry.end and begun <= entry.end < ended
    ]  # fmt: skip
    broken = sum(entry.outcome is not Outcome.COMPLETE for entry in within) + load.not_begun - skipped
    times = latencies(load.ledger, begun, ended)
    return Step(shape.rate, len(whole) / (ended - begun), percentile(times, 0.95), broken)
