# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due, what is wrong, and what a restore would take."""

from __future__ import annotations

import re
import typing as t
from dataclasses import dataclass, field
from datetime import datetime, timezone

from .errors import RecoveryError, spoken
from .info import Backup, Stanza
from .wal import Archive, Numbering, needed, numbering, ranges, timeline

# How much a backup of each type needs of others: a full one stands alone.
RANK = {"full": 0, "diff": 1, "incr": 2}
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


@dataclass(frozen=True)
class Rules:
    """How old a backup of each type, or a better one, may be."""

    full: int
    diff: int
    any: int


@dataclass(frozen=True)
class Due:
    type: str | None
    why: str


def due(backups: t.Sequence[Backup], wanted: str, rules: Rules, now: float) -> Due:
    """The type of the next backup; none where what there is is young enough. The backups are of one repository."""
    for kind, limit in {"full": rules.full, "diff": rules.diff, "incr": rules.any}.items():
        if wanted in ("auto", kind):
            newest = [backup for backup in backups if RANK.get(backup.type, 9) <= RANK[kind]][-1:]
            if kind != "full" and not any(backup.type == "full" for backup in backups):
                return Due("full", "there is no full backup that another one could be based on")
            if not newest:
                return Due(kind, f"there is no {_or_better(kind)}")
            age = now - newest[0].stop
            if age >= limit:
                return Due(
                    kind,
                    f"the newest {_or_better(kind)}, {newest[0].label}, is {spoken(age)} old ({spoken(limit)} are "
                    "allowed)",
                )
    newest_of_all = backups[-1]
    return Due(None, f"{newest_of_all.label} is {spoken(max(now - newest_of_all.stop, 0))} old, and nothing is due")


def _or_better(kind: str) -> str:
    return {"full": "full backup", "diff": "full or differential backup", "incr": "backup"}[kind]


@dataclass(frozen=True)
class Target:
    """Where recovery ends: at the end of the archive, at a moment, or at a restore point."""

    time: datetime | None = None
    name: str | None = None
    timeline: str = "latest"

    def text(self) -> str:
        if self.time:
            return self.time.strftime("%Y-%m-%d %H:%M:%S.%f+00")
        return self.name or "latest"

    def options(self) -> list[str]:
        if self.time:
            return ["--type=time", f"--target={self.text()}"]
        return ["--type=name", f"--target={self.name}"] if self.name else ["--type=default"]


def target(time: str | None, name: str | None, line: str) -> Target:
    if time and name:
        raise RecoveryError("target_time, target_name: recovery ends at one of both; leave one out")
    if name is not None and (not 1 <= len(name.encode()) <= 63 or CONTROL.search(name)):
        raise RecoveryError(f"target_name: {name!r} is no restore point: its name has 1 to 63 bytes")
    if line != "latest" and not re.fullmatch(r"[1-9][0-9]{0,8}", line):
        raise RecoveryError(f"target_timeline: {line!r} is neither latest nor the number of a timeline")
    return Target(moment(time) if time else None, name, line)


def moment(text: str) -> datetime:
    """A moment that everybody understands alike: without a zone it would be the one of whoever reads it."""
    found = re.fullmatch(
        r"(\d{4}-\d\d-\d\d)[T ](\d\d:\d\d(?::\d\d)?)([.]\d{1,6})?\s*(Z|[+-]\d\d(?::?\d\d)?)", text.strip()
    )
    if not found:
        raise RecoveryError(
            f"target_time: {text!r} is no date, time and zone, as in 2026-11-27 09:30:00+00 or 2026-11-27T09:30:00Z"
        )
    day, clock, part, zone = found.groups()
    zone = "+0000" if zone == "Z" else zone.replace(":", "").ljust(5, "0")
    clock = clock if clock.count(":") == 2 else f"{clock}:00"
    try:
        return datetime.strptime(f"{day} {clock}{part or '.0'}{zone}", "%Y-%m-%d %H:%M:%S.%f%z").astimezone(
            timezone.utc
        )
    except ValueError as error:
        raise RecoveryError(f"target_time: {text!r} is no moment ({error})") from None


def clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


@dataclass(frozen=True)
class Plan:
    backup: Backup
    target: Target
    first: str
    last: str
    segments: int
    # The repository that WAL is taken from alone, where another one does not answer and would be waited for.
    only: int | None = None

    def lines(self) -> list[str]:
        kind = {"full": "full", "diff": "differential", "incr": "incremental"}.get(self.backup.type, self.backup.type)
        lines = [
            f"{kind} backup {self.backup.label} of repository {self.backup.repo}, ended at {clock(self.backup.stop)}"
        ]
        if self.backup.references:
            lines.append(f"it needs {', '.join(self.backup.references)}")
        lines.append(f"WAL from {self.first} to {self.last} ({self.segments} segments), all of it in the archive")
        lines.append(f"recovery ends at {self.target.text()}")
        return lines


@dataclass(frozen=True)
class Outlook:
    """What of a way from a backup is missing, and how far it reaches."""

    last: str
    names: t.Sequence[str]
    missing: t.Sequence[str]


def outlook(
    backup: Backup, archive: Archive, numbers: Numbering, line: str = "latest", until: float | None = None
) -> Outlook:
    """The way from the backup to the newest WAL of a timeline, or to the first segment that came after a moment."""
    known = {timeline(name) for name in archive.segments}
    to = max(known | {timeline(backup.wal_stop)}) if line == "latest" else int(line)
    way = archive.way(timeline(backup.wal_stop), to, _position(backup))
    if way is None:
        raise RecoveryError(
            f"timeline {to} does not come from the backup {backup.label}: give target_timeline: "
            f"{timeline(backup.wal_stop)}, or another set"
        )
    first = numbers.number(backup.wal_start)
    end = max(
        (numbers.number(name) for name in archive.segments if timeline(name) == to),
        default=numbers.number(backup.wal_stop),
    )
    names = needed(way, first, max(end, numbers.number(backup.wal_stop)), numbers)
    if until is not None:
        least = numbers.number(backup.wal_stop)
        after = [
            at
            for at, name in enumerate(names)
            if numbers.number(name) >= least and archive.segments.get(name, 0) > until
        ]
        if not after:
            newest = max((archive.segments[name] for name in names if name in archive.segments), default=backup.stop)
            raise RecoveryError(
                f"target_time: no WAL is archived from after {clock(until)} (the newest came at {clock(newest)}): "
                "nothing shows where to end. Leave target_time out to restore all there is, or let the living "
                "database finish its segment (SELECT pg_switch_wal())"
            )
        names = names[: after[0] + 1]
    return Outlook(names[-1], names, [name for name in names if name not in archive.segments])


def _position(backup: Backup) -> int:
    high, _slash, low = backup.lsn_stop.partition("/")
    return (int(high, 16) << 32) + int(low, 16)


def restore(
    stanza: Stanza, archives: t.Mapping[int, Archive], wanted: Target, label: str | None = None, repo: int | None = None
) -> Plan:
    """The newest backup from which the target can be reached, with the WAL that this takes."""
    backups = _candidates(stanza, wanted, label, repo)
    archive, numbers = _together(archives), _numbers(backups)
    until = wanted.time.timestamp() if wanted.time else None
    refusals = []
    for backup in backups:
        try:
            seen = outlook(backup, archive, numbers, wanted.timeline, until)
        except RecoveryError as error:
            refusals.append(str(error))
            continue
        if not seen.missing:
            only = _alone(stanza, archives, seen.names)
            return Plan(backup, wanted, seen.names[0], seen.last, len(seen.names), only)
        refusals.append(_gap(backup, seen, archive, numbers, wanted))
    raise RecoveryError(refusals[0])


def _together(archives: t.Mapping[int, Archive]) -> Archive:
    joined = Archive()
    for archive in archives.values():
        joined = archive.joined(joined)
    return joined


def _alone(stanza: Stanza, archives: t.Mapping[int, Archive], names: t.Sequence[str]) -> int | None:
    """pgBackRest asks every repository for WAL that none has, and minutes for one that does not answer."""
    if len(stanza.usable()) == len(stanza.repositories):
        return None
    return next((key for key in sorted(archives) if archives[key].segments.keys() >= set(names)), None)


def _candidates(stanza: Stanza, wanted: Target, label: str | None, repo: int | None) -> list[Backup]:
    """The newest first, and of equal ones that of the first repository. WAL mends what a sound backup is behind."""
    if repo is not None:
        stanza.repository(repo)
    backups = sorted(stanza.current(repo)[::-1], key=lambda backup: backup.page_errors)
    if not backups:
        problems = [problem for repository in stanza.repositories if (problem := repository.problem(stanza.name))]
        raise RecoveryError(
            "; ".join(problems) or f"stanza {stanza.name} has no backup: make one, bitnet.devops.pgbackrest_backup does"
        )
    if label is not None:
        chosen = [backup for backup in backups if backup.label == label]
        if not chosen:
            raise RecoveryError(
                f"set: there is no backup {label!r}; there are {', '.join(backup.label for backup in backups[:8])}"
            )
        backups = chosen
    if wanted.time is None:
        return backups
    before = [backup for backup in backups if backup.stop < wanted.time.timestamp()]
    if not before:
        oldest = min(backups, key=lambda backup: backup.stop)
        raise RecoveryError(
            f"target_time: {wanted.text()} is before the end of {'the' if label else 'the oldest'} backup "
            f"{oldest.label}, {clock(oldest.stop)}: a backup leads to what came after it only. Give a later moment"
        )
    return before


def _gap(backup: Backup, seen: Outlook, archive: Archive, numbers: Numbering, wanted: Target) -> str:
    whole = seen.names[: seen.names.index(seen.missing[0])]
    text = (
        f"the archive lacks {ranges(seen.missing, numbers)}: from the backup {backup.label} recovery to "
        f"{wanted.text()} would end before it. Bring it back into the archive, "
    )
    if numbers.number(seen.missing[0]) <= numbers.number(backup.wal_stop):
        return f"{text}or name another backup (set): this one cannot be restored without it"
    reach = clock(archive.segments[whole[-1]])
    return f"{text}give a target_time before {reach}, or take a backup now, which does without it"


@dataclass
class State:
    """What a person or an alert wants to know."""

    newest: str | None = None
    archived_at: int | None = None
    age: float | None = None
    missing: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def state(stanza: Stanza, archives: t.Mapping[int, Archive], rpo: int, max_age: int, now: float) -> State:
    """Of each repository: it stands for itself when the others are gone."""
    found = State()
    if not stanza.repositories:
        found.problems.append("the configuration names no repository: give repo1-path or repo1-type")
    for repository in stanza.repositories:
        problem = repository.problem(stanza.name)
        if problem:
            found.problems.append(problem)
            continue
        archive, backups = archives.get(repository.key, Archive()), stanza.current(repository.key)
        wrong = [*_wrong_with_archive(found, archive, rpo, now), *_wrong_with_backups(backups, max_age, now)]
        missing = sorted(_missing(backups, archive)) if backups else []
        if missing:
            found.missing += [name for name in missing if name not in found.missing]
            shown = ranges(missing, _numbers(backups))
            wrong.append(f"it lacks the WAL {shown}; no recovery gets past it. A backup taken now does without it")
        found.problems += [f"repository {repository.key}: {sentence}" for sentence in wrong]
    return found


def _wrong_with_archive(found: State, archive: Archive, rpo: int, now: float) -> t.Iterator[str]:
    newest = max(archive.segments, key=lambda name: (archive.segments[name], name), default=None)
    if newest is None:
        yield "it has no WAL at all: look at archive_mode and archive_command of PostgreSQL"
        return
    came = archive.segments[newest]
    if found.archived_at is None or came > found.archived_at:
        found.newest, found.archived_at, found.age = newest, came, max(now - came, 0.0)
    if now - came > rpo:
        yield (
            f"the newest WAL, {newest}, came {spoken(now - came)} ago, and {spoken(rpo)} are allowed (rpo): what was "
            "written since is in no archive. Look at pg_stat_archiver and the log of PostgreSQL. A database in which "
            "nothing is written archives nothing: probe tells the two apart"
        )


def _wrong_with_backups(backups: t.Sequence[Backup], max_age: int, now: float) -> t.Iterator[str]:
    if not backups:
        yield "it has no backup"
        return
    age = now - backups[-1].stop
    if age > max_age:
        yield (
            f"the newest backup, {backups[-1].label}, is {spoken(age)} old, and {spoken(max_age)} are allowed "
            "(backup_max_age)"
        )
    if backups[-1].page_errors:
        yield (
            f"pages in the newest backup, {backups[-1].label}, have a wrong checksum: the database itself is damaged. "
            "Restore beside it (from an earlier backup, which needs no further word), and look at its disk"
        )


def _numbers(backups: t.Sequence[Backup]) -> Numbering:
    return numbering((backup.wal_start, backup.lsn_start) for backup in backups)


def _missing(backups: t.Sequence[Backup], archive: Archive) -> set[str]:
    """What any of the backups lacks on its way to the newest WAL."""
    numbers = _numbers(backups)
    missing: set[str] = set()
    for backup in backups:
        try:
            missing.update(outlook(backup, archive, numbers).missing)
        except RecoveryError:
            # Of a timeline that was left before the backup ended: it needs its own WAL only.
            own = [(timeline(backup.wal_start), -1)]
            names = needed(own, numbers.number(backup.wal_start), numbers.number(backup.wal_stop), numbers)
            missing.update(name for name in names if name not in archive.segments)
    return missing
