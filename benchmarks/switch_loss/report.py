# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The outcome as a table, as JSON, and as a plot of requests by slot over time."""

from __future__ import annotations

import math
import os
import platform
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from .figures import Knee, Step, latencies, percentile
from .ledger import BROKEN, KINDS, Outcome
from .ledger import table as by_kind
from .scenario import Result

COLOURS = {"blue": "tab:blue", "green": "tab:green", "old": "tab:blue", "new": "tab:green"}
OUTCOMES = list(Outcome)


def milliseconds(value: float) -> str:
    return "-" if math.isnan(value) else f"{value * 1000:.0f}"


def worst(values: list[float]) -> str:
    return f"{max(values):.2f}" if values else "-"


def markdown(results: list[Result], skipped: dict[str, str]) -> str:
    """One row for each subject, then each kind of request, then what was not run and why."""
    lines = [
        "| subject | moves | accepted | complete | announced | lost | truncated | duplicated | failed | refused "
        "| last on the old slot, worst s "
        "| both slots at once, worst s | longest gap s | p95 ms | p95 ms around moves |",
        "|---|" + "---|" * 14,
    ]
    for result in results:
        counts = result.verdict.counts
        found = [seen for seen in result.convergences() if seen and len(result.subject.targets) > 1]
        cells = [
            result.subject.name,
            len(result.moves),
            result.verdict.accepted,
            *(counts[name] for name in (Outcome.COMPLETE, Outcome.ANNOUNCED, *BROKEN, Outcome.REFUSED)),
            worst([seen.last_old for seen in found]),
            worst([seen.spread for seen in found]),
            worst(result.gaps()),
            milliseconds(percentile(latencies(result.ledger), 0.95)),
            milliseconds(percentile(result.around_moves(), 0.95)),
        ]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", "| subject | kind | " + " | ".join(outcome.value for outcome in OUTCOMES) + " |"]
    lines.append("|---|---|" + "---|" * len(OUTCOMES))
    for result in results:
        counts_by_kind = by_kind(result.ledger)
        for kind in KINDS:
            row = [str(counts_by_kind[kind][outcome]) for outcome in OUTCOMES]
            lines.append(f"| {result.subject.name} | {kind} | " + " | ".join(row) + " |")
    lines.append("")
    lines += [f"{result.subject.name}: {result.verdict.sentence()}" for result in results]
    for result in results:
        total, to_client = (
            [said for move in result.moves if (said := move.said_seconds(name)) is not None]
            for name in ("total", "to_client")
        )
        if total:
            lines.append(
                f"{result.subject.name}: traffic_switch itself took {worst(total)} s at worst; from its decision to "
                f"the first client on the new slot {worst(to_client)} s"
            )
    lines += [f"{name}: not run, {reason}" for name, reason in skipped.items()]
    return "\n".join(lines)


def document(
    results: list[Result], skipped: dict[str, str], found: tuple[Knee, list[Step]] | None, stand: str
) -> dict[str, Any]:
    return {
        "schema": 1,
        "machine": {"cpus": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "stand": stand,
        "knee": None if found is None else {**vars(found[0]), "steps": [vars(step) for step in found[1]]},
        "subjects": {result.subject.name: subject(result) for result in results},
        "not_run": skipped,
    }


def subject(result: Result) -> dict[str, Any]:
    times, around = latencies(result.ledger), result.around_moves()
    sides = result.reconciliation
    moves = [
        {
            **{name: _number(value) for name, value in vars(move).items()},
            "seconds": _number(move.seconds),
            "first_new": _number(found.first_new) if found else None,
            "last_old": _number(found.last_old) if found else None,
            "longest_gap": _number(gap),
        }
        for move, found, gap in zip(result.moves, result.convergences(), result.gaps(), strict=True)
    ]
    return {
        "what": result.subject.what,
        "load": vars(result.shape),
        "seconds": _number(result.seconds),
        "proved": result.verdict.proved,
        "sentence": result.verdict.sentence(),
        "accepted": result.verdict.accepted,
        "outcomes": {outcome.value: result.verdict.counts[outcome] for outcome in OUTCOMES},
        "by_kind": {
            kind: {outcome.value: number for outcome, number in counts.items()}
            for kind, counts in by_kind(result.ledger).items()
        },
        "not_begun": result.not_begun,
        "latency_seconds": {f"p{share}": _number(percentile(times, share / 100)) for share in (50, 95, 99)},
        "latency_seconds_around_moves": {f"p{share}": _number(percentile(around, share / 100)) for share in (50, 95)},
        "moves": moves,
        "reconciled": {**vars(sides), "sides": sides.sides, "findings": sides.findings[:200]},
        "broken": [
            f"{entry.number} {entry.outcome.value} at {entry.begun:.2f} s: {entry.detail}"
            for entry in result.ledger
            if entry.outcome in BROKEN
        ][:200],
    }


def _number(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return round(value, 4) if math.isfinite(value) else None


def plot(results: list[Result], path: Path, slice_seconds: float = 0.5) -> None:
    """Requests by the slot that answered, in half seconds of their begin; moves are lines, what broke is a cross."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(results), 1, figsize=(11, 2.6 * len(results) + 0.6), squeeze=False)
    for axis, result in zip(axes[:, 0], results, strict=True):
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        crosses: dict[int, int] = Counter()
        for entry in result.ledger:
            slot = int(entry.begun / slice_seconds)
            if entry.outcome in BROKEN:
                crosses[slot] += 1
            if entry.kind in ("http", "sse"):
                name = "refused" if entry.outcome is Outcome.REFUSED else entry.slot or "slot not known"
                counts[name][slot] += 1
        slices = range(int(result.seconds / slice_seconds) + 1)
        times = [number * slice_seconds for number in slices]
        for name, found in sorted(counts.items()):
            rates = [found[number] / slice_seconds for number in slices]
            colour = "tab:red" if name == "refused" else COLOURS.get(name, "tab:grey")
            axis.step(times, rates, where="post", label=name, color=colour, linewidth=1.2)
        for move in result.moves:
            axis.axvline(move.begun, color="black", linestyle=":" if move.kind == "rollback" else "--", linewidth=0.7)
        if crosses:
            axis.plot([number * slice_seconds for number in crosses], [0] * len(crosses), "x", color="red",
                      label="lost, truncated, duplicated or failed", clip_on=False)  # fmt: skip
        axis.set_title(f"{result.subject.name}: {result.verdict.sentence().rpartition(';')[0]}", fontsize=8, loc="left")
        axis.set_ylabel("requests/s", fontsize=8)
        axis.set_xlim(0, result.seconds)
        axis.set_ylim(bottom=0)
        axis.tick_params(labelsize=7)
        axis.legend(fontsize=7, loc="upper right")
    axes[-1, 0].set_xlabel("seconds; dashed: switch or update, dotted: rollback", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
