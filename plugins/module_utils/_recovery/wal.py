# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names of WAL segments, their order, and the timelines that they are on."""

from __future__ import annotations

import json
import re
import typing as t
from dataclasses import dataclass, field

from .errors import RecoveryError

SEGMENT = re.compile(r"[0-9A-F]{24}")
ARCHIVED = re.compile(r"(?:.*/)?([0-9A-F]{24})-[0-9a-f]{40}(?:[.][a-z0-9]+)?")
HISTORY = re.compile(r"(?:.*/)?([0-9A-F]{8})[.]history")
DEFAULT_SIZE = 16 << 20


def lsn(text: str) -> int:
    """The number in a position such as C(0/3000028)."""
    high, _slash, low = text.partition("/")
    try:
        return (int(high, 16) << 32) + int(low, 16)
    except ValueError:
        raise RecoveryError(f"pgBackRest speaks of the WAL position {text!r}, which is none") from None


@dataclass(frozen=True)
class Numbering:
    """How positions become names. The size of a segment is chosen when a cluster is made."""

    size: int = DEFAULT_SIZE

    def number(self, segment: str) -> int:
        return int(segment[8:16], 16) * ((1 << 32) // self.size) + int(segment[16:24], 16)

    def name(self, timeline: int, number: int) -> str:
        high, low = divmod(number, (1 << 32) // self.size)
        return f"{timeline:08X}{high:08X}{low:08X}"


def numbering(known: t.Iterable[tuple[str, str]]) -> Numbering:
    """From segments of which a position is known. Nothing in a repository says the size itself."""
    pairs = [(segment, lsn(position)) for segment, position in known]
    for bits in (24, *range(20, 31)):
        made = Numbering(1 << bits)
        if all(made.number(segment) == position >> bits for segment, position in pairs):
            return made
    raise RecoveryError(f"no size of a WAL segment fits what pgBackRest says of its backups: {pairs[:3]}")


def timeline(segment: str) -> int:
    return int(segment[:8], 16)


@dataclass
class Archive:
    """What a repository holds of one cluster's WAL: when each segment came, and where timelines branched."""

    segments: dict[str, int] = field(default_factory=dict)
    # timeline -> ((ancestor, position at which it was left), ...), from its history file
    branches: dict[int, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    def newest(self) -> str | None:
        """Of the newest timeline the last; what a file's time says is no word on it."""
        return max(self.segments, default=None)

    def way(self, from_timeline: int, to_timeline: int, position: int) -> list[tuple[int, int]] | None:
        """The timelines from one to another, with the position at which each is left; None where none leads there."""
        if from_timeline == to_timeline:
            return [(to_timeline, -1)]
        branches = self.branches.get(to_timeline, ())
        ancestors = [ancestor for ancestor, _left in branches]
        if from_timeline not in ancestors:
            return None
        way = list(branches[ancestors.index(from_timeline) :])
        return None if way[0][1] < position else [*way, (to_timeline, -1)]


def listing(text: str, archive_id: str) -> tuple[dict[str, int], list[str]]:
    """The segments and the history files in the answer of C(repo-ls --output=json --recurse)."""
    segments: dict[str, int] = {}
    histories = []
    try:
        entries = json.loads(text, strict=False) if text.strip() else {}
    except ValueError as error:
        raise RecoveryError(f"pgbackrest repo-ls did not answer with JSON ({error})") from error
    for path, entry in entries.items():
        if not isinstance(entry, dict) or entry.get("type") != "file":
            continue
        segment, history = ARCHIVED.fullmatch(path), HISTORY.fullmatch(path)
        if segment:
            segments[segment.group(1)] = max(int(entry.get("time", 0)), segments.get(segment.group(1), 0))
        elif history:
            histories.append(f"{archive_id}/{history.group(1)}.history")
    return segments, sorted(histories)


def branches(text: str) -> tuple[tuple[int, int], ...]:
    """What a history file says; comments and blank lines are PostgreSQL's to ignore, too."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0].isdigit():
            found.append((int(words[0]), lsn(words[1])))
    return tuple(found)


def needed(way: t.Sequence[tuple[int, int]], first: int, last: int, numbers: Numbering) -> list[str]:
    """The names from one number to another: where a timeline is left, its successor has the segment, too."""
    names: list[str] = []
    at = first
    for line, left in way:
        end = last if left < 0 else min(last, left // numbers.size - 1)
        names.extend(numbers.name(line, number) for number in range(at, end + 1))
        at = max(at, end + 1)
    return names


def ranges(names: t.Sequence[str], numbers: Numbering) -> str:
    """Names for a person: neighbours as a range."""
    runs: list[list[str]] = []
    for name in names:
        if (
            runs
            and timeline(name) == timeline(runs[-1][-1])
            and numbers.number(name) == numbers.number(runs[-1][-1]) + 1
        ):
            runs[-1].append(name)
        else:
            runs.append([name])
    texts = [run[0] if len(run) == 1 else f"{run[0]} to {run[-1]}" for run in runs]
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
