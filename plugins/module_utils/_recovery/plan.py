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
from .wal import Archive, Numbering, lsn, needed, numbering, ranges, timeline

# How much a backup of each type needs of others: a full one stands alone.
RANK = {"full": 0, "diff": 1, "incr": 2}
# Seconds that clocks of a host and of a store may differ by; what is further ahead is of a clock that jumped.
SKEW = 30


class Doubt(RecoveryError):
    """Another backup does not help: somebody has to say what is meant."""


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
            if age < -SKEW:
                return Due(kind, _ahead(f"the newest {_or_better(kind)}, {newest[0].label},", -age))
            if age >= limit:
                return Due(
                    kind,
                    f"the newest {_or_better(kind)}, {newest[0].label}, is {spoken(age)} old ({spoken(limit)} are "
                    "allowed)",
                )
    newest_of_all = backups[-1]
    return Due(None, f"{newest_of_all.label} is {spoken(max(now - newest_of_all.stop, 0))} old, and nothing is due")


def _ahead(what: str, by: float) -> str:
    return f"{what} is dated {spoken(by)} ahead of now, so that its age says nothing: a clock jumped; look at NTP"


def _or_better(kind: str) -> str:
    return {"full": "full backup", "diff": "full or differential backup", "incr": "backup"}[kind]


@dataclass(frozen=True)
class Target:
    """Where recovery ends: at the end of the archive, at a moment, or at a restore point and its position."""

    time: datetime | None = None
    name: str | None = None
    position: int = 0
    timeline: str = "latest"

    def text(self) -> str:
        if self.time:
            return self.time.strftime("%Y-%m-%d %H:%M:%S.%f+00")
        return self.name or "latest"

    def options(self) -> list[str]:
        if self.time:
            return ["--type=time", f"--target={self.text()}"]
        return ["--type=name", f"--target={self.name}"] if self.name else ["--type=default"]


def target(time: str | None, line: str) -> Target:
    if line != "latest" and not re.fullmatch(r"[1-9][0-9]{0,8}", line):
        raise RecoveryError(f"target_timeline: {line!r} is neither latest nor the number of a timeline")
    return Target(moment(time) if time else None, timeline=line)


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
    # Where the last of them begins.
    reaches: int
    # What does not stand in the way, and has to be known.
    warnings: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        kind = {"full": "full", "diff": "differential", "incr": "incremental"}.get(self.backup.type, self.backup.type)
        lines = [
            f"{kind} backup {self.backup.label} of repository {self.backup.repo}, ended at {clock(self.backup.stop)}"
        ]
        if self.backup.references:
            lines.append(f"it needs {', '.join(self.backup.references)}")
        lines.append(f"WAL from {self.first} to {self.last} ({self.segments} segments), all of it in that repository")
        lines.append(f"recovery ends at {self.target.text()}")
        return lines


@dataclass(frozen=True)
class Outlook:
    """What of a way from a backup is missing, and how far it reaches."""

    last: str
    names: t.Sequence[str]
    missing: t.Sequence[str]
    # Missing between the assumed end and the newest WAL.
    later: t.Sequence[str] = ()


def outlook(backup: Backup, archive: Archive, numbers: Numbering, wanted: Target) -> Outlook:
    """The way from the backup to the newest WAL of a timeline, to a position, or to what came after a moment.

    A segment does not say of which time it is. When it came into the repository does, as long as the archive kept up.
    """
    line, until = wanted.timeline, wanted.time.timestamp() if wanted.time else None
    known = {timeline(name) for name in archive.segments}
    to = max(known | {timeline(backup.wal_stop)}) if line == "latest" else int(line)
    way = archive.way(timeline(backup.wal_stop), to, lsn(backup.lsn_stop))
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
    later: list[str] = []
    if wanted.position:
        names = [name for name in names if numbers.number(name) <= wanted.position // numbers.size]
    if until is not None:
        if line == "latest":
            _require_one_timeline(way, archive, numbers, until)
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
        later = [name for name in names[after[0] + 1 :] if name not in archive.segments]
        names = names[: after[0] + 1]
    return Outlook(names[-1], names, [name for name in names if name not in archive.segments], later)


def _require_one_timeline(way: t.Sequence[tuple[int, int]], archive: Archive, numbers: Numbering, until: float) -> None:
    """Where a timeline was left while it had more WAL, a moment from then on may be meant on it or on its successor."""
    for (line, left), (successor, _left) in zip(way, way[1:]):
        at = left // numbers.size
        before = archive.segments.get(numbers.name(line, at - 1), 0)
        first = archive.segments.get(numbers.name(successor, at))
        goes_on = any(timeline(name) == line and numbers.number(name) >= at for name in archive.segments)
        if goes_on and first is not None and before < until < first:
            raise Doubt(
                f"target_time: {clock(until)} may be of timeline {line}, which goes on behind the place where timeline "
                f"{successor} left it, or of timeline {successor}, whose first WAL came at {clock(first)}: give "
                f"target_timeline, {line} for what was written at that moment then, or {successor}"
            )


def restore(
    stanza: Stanza, archives: t.Mapping[int, Archive], wanted: Target, label: str | None = None, repo: int | None = None
) -> Plan:
    """The newest backup from which the target can be reached with the WAL of its own repository.

    Of one repository only: pgBackRest gives archive-get the repository that a restore is told to take.
    """
    backups = _candidates(stanza, wanted, label, repo)
    numbers = _numbers(backups)
    refusals: list[str] = []
    for backup in backups:
        archive = archives.get(backup.repo, Archive())
        try:
            seen = outlook(backup, archive, numbers, wanted)
        except Doubt:
            raise
        except RecoveryError as error:
            refusals.append(str(error))
            continue
        if not seen.missing:
            passed = [each for each in backups if each.page_errors and each.end() > backup.end()]
            return Plan(
                backup,
                wanted,
                seen.names[0],
                seen.last,
                len(seen.names),
                numbers.number(seen.last) * numbers.size,
                tuple(_warnings(backup, seen, numbers, refusals, passed)),
            )
        refusals.append(_gap(backup, seen, archive, numbers, wanted))
    raise RecoveryError(refusals[0])


def _warnings(
    backup: Backup, seen: Outlook, numbers: Numbering, refusals: t.Sequence[str], damaged: t.Sequence[Backup]
) -> t.Iterator[str]:
    yield from (f"another backup is taken since {refusal}" for refusal in refusals)
    for other in damaged:
        yield (
            f"the backup {other.label} is newer and not taken: pages in it have a wrong checksum. Name it (set) to "
            "have it nevertheless"
        )
    if backup.page_errors:
        yield f"pages in the backup {backup.label} have a wrong checksum, and no sound backup leads to the target"
    if seen.later:
        yield (
            f"behind {seen.last}, where the target should be reached, the archive lacks {ranges(seen.later, numbers)}. "
            "If WAL came late that day the target may lie there; PostgreSQL then ends with 'recovery ended before "
            "configured recovery target was reached'"
        )


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
    if wanted.position:
        backups = [backup for backup in backups if lsn(backup.lsn_stop) <= wanted.position]
        if not backups:
            raise RecoveryError(
                f"{'set' if label else 'repo'}: there is no such backup from before the restore point that was made now"
            )
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
    newest = archive.newest()
    if newest is None:
        yield "it has no WAL at all: look at archive_mode and archive_command of PostgreSQL"
        return
    came = archive.segments[newest]
    if found.newest is None or newest > found.newest:
        found.newest, found.archived_at, found.age = newest, came, max(now - came, 0.0)
    if came - now > SKEW:
        yield _ahead(f"the newest WAL, {newest},", came - now)
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
    if age < -SKEW:
        yield _ahead(f"the newest backup, {backups[-1].label},", -age)
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
            missing.update(outlook(backup, archive, numbers, Target()).missing)
        except RecoveryError:
            # Of a timeline that was left before the backup ended: it needs its own WAL only.
            own = [(timeline(backup.wal_start), -1)]
            names = needed(own, numbers.number(backup.wal_start), numbers.number(backup.wal_stop), numbers)
            missing.update(name for name in names if name not in archive.segments)
    return missing
