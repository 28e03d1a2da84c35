# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Figures of a run: percentiles, the knee, how soon the last client saw a switch. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .ledger import Entry, Outcome


def percentile(values: Sequence[float], share: float) -> float:
    """Nearest rank; of nothing it is not a number."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


@dataclass(frozen=True)
class Step:
    """One rate that was tried."""

    asked: float
    achieved: float
    """Complete answers per second."""
    p95: float
    broken: int
    """Requests that were refused, failed or not begun because too many ran."""

    def fault(self, quiet_p95: float, factor: float, floor: float) -> str:
        """Why this rate is beyond the knee; empty when it is carried."""
        if self.broken:
            return f"{self.broken} requests were refused or could not be begun"
        if self.achieved < 0.95 * self.asked:
            return f"only {self.achieved:.1f} of {self.asked:.1f} requests/s were answered"
        limit = max(factor * quiet_p95, floor)
        if not self.p95 <= limit:
            return f"p95 is {self.p95 * 1000:.0f} ms, more than {limit * 1000:.0f}"
        return ""


@dataclass(frozen=True)
class Knee:
    rate: float
    """The highest rate that was carried, with all below it; 0 when none was."""
    reason: str


def knee(steps: Sequence[Step], factor: float = 4, floor: float = 0.1) -> Knee:
    """The last rate before throughput breaks or p95 rises above factor times the first step's (and floor seconds)."""
    carried = 0.0
    for step in steps:
        fault = step.fault(steps[0].p95, factor, floor)
        if fault:
            return Knee(carried, f"at {step.asked:.0f} requests/s {fault}")
        carried = step.asked
    return Knee(carried, "no rate that was tried broke it")


@dataclass
class Move:
    """A switch, a rollback or an update: times in seconds since the ledger began."""

    kind: str
    target: str
    begun: float
    ended: float = 0.0
    status: int = 0
    said: str = ""

    @property
    def seconds(self) -> float:
        return self.ended - self.begun

    def said_seconds(self, name: str) -> float | None:
        """What traffic_switch says of itself (its return value `seconds`), where the command printed that."""
        found = re.search(rf'"?\b{name}"?: ([0-9.]+)', self.said)
        return float(found[1]) if found else None


@dataclass(frozen=True)
class Convergence:
    """A move as its clients saw it, by the begin of new requests."""

    first_new: float
    """Seconds from the move's begin to the first new request on the target."""
    last_old: float
    """Seconds from the move's begin to the last new request on another slot."""

    @property
    def spread(self) -> float:
        """How long new requests went to both."""
        return max(0.0, self.last_old - self.first_new)


def convergence(entries: Iterable[Entry], move: Move, until: float) -> Convergence | None:
    """From the slots that answered requests which began after the move did; nothing when the target answered none."""
    new: list[float] = []
    old = [0.0]
    for entry in entries:
        if entry.slot is None or entry.kind == "ws" or not move.begun <= entry.begun < until:
            continue  # a generation stays on the slot of its connection
        (new if entry.slot == move.target else old).append(entry.begun - move.begun)
    return Convergence(min(new), max(old)) if new else None


def gap(entries: Iterable[Entry], begun: float, until: float) -> float:
    """The longest time within which no plain request that began was answered whole."""
    times = sorted(
        entry.begun
        for entry in entries
        if entry.kind == "http" and entry.outcome is Outcome.COMPLETE and begun <= entry.begun < until
    )
    edges = [begun, *times, until]
    return max(after - before for before, after in zip(edges, edges[1:]))


def latencies(entries: Iterable[Entry], begun: float = 0, until: float = float("inf")) -> list[float]:
    return [
        entry.seconds
        for entry in entries
        if entry.kind == "http" and entry.outcome is Outcome.COMPLETE and entry.seconds is not None
        and begun <= entry.begun < until
    ]  # fmt: skip
