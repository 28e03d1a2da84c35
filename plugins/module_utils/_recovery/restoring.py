# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a restore may write, and the restore itself."""

from __future__ import annotations

import json
import posixpath
import time
import typing as t
from dataclasses import dataclass

from .client import SAFE, Pgbackrest, Seen
from .errors import RecoveryError
from .plan import Plan, Target

MARK = "bitnet-restore.json"
SCHEMA = 1
# What a restored cluster needs beside its files until it has caught up.
HEADROOM = 1.1


@dataclass(frozen=True)
class Request:
    """What was asked for: the same again is nothing to do."""

    stanza: str
    target: Target
    label: str | None
    repo: int | None
    databases: tuple[str, ...]

    def mark(self) -> dict[str, t.Any]:
        return {
            "stanza": self.stanza,
            "target": self.target.text(),
            "timeline": self.target.timeline,
            "set": self.label,
            "repo": self.repo,
            "databases": list(self.databases),
        }


def beside(data: str) -> str:
    return f"{data.rstrip('/')}.restored"


def checked_path(path: str) -> str:
    if not SAFE.fullmatch(path) or posixpath.normpath(path) != path or path.count("/") < 2:
        raise RecoveryError(
            f"path: {path!r} is no absolute path below another folder, of letters, digits, ., _, - and /"
        )
    return path


def is_done(seen: Seen, request: Request, delta: bool) -> bool:
    """The same was restored there before, and nobody asks for it to be brought up to date."""
    mark = seen.mark or {}
    return not delta and seen.data and not seen.unfinished and mark.get("request") == request.mark()


def permit(path: str, seen: Seen, data: Seen, delta: bool, overwrite: bool) -> list[str]:
    """pgBackRest's options for what is at the path; refuses what would destroy something without a word."""
    if seen.other:
        raise RecoveryError(f"path: {path} is there and no folder; name another one")
    if seen.pid is not None:
        raise RecoveryError(
            f"path: a PostgreSQL runs on {path}, or has died there (postmaster.pid names process {seen.pid}). Nothing "
            "restores over a running one: stop it; if it is dead for certain, remove postmaster.pid"
        )
    if not seen.full:
        return []
    if seen.unfinished:
        return ["--delta"]  # what a restore that was cut off has left
    if not seen.data:
        raise RecoveryError(
            f"path: {path} holds something that is no cluster's data; name another folder, or empty this one"
        )
    live = seen.real == data.real
    if (live or seen.mark is None) and not overwrite:
        what = "the database's own data" if live else "data of a cluster that was not restored by this module"
        raise RecoveryError(
            f"path: {path} holds {what}, and a restore would overwrite it. Leave path out to restore beside it, or say "
            "overwrite_data: true to lose what is there"
        )
    if not (delta or overwrite):
        raise RecoveryError(
            f"path: {path} holds what was restored before ({describe(seen.mark)}). Name another folder, remove this "
            "one, or say delta: true to have it brought to what is asked for now"
        )
    return ["--delta"]


def describe(mark: t.Mapping[str, t.Any] | None) -> str:
    mark = mark or {}
    request = mark.get("request")
    target = request.get("target") if isinstance(request, dict) else None
    return f"backup {mark.get('label', 'unknown')}, target {target or 'unknown'}"


def require_room(path: str, seen: Seen, plan: Plan, databases: t.Sequence[str]) -> None:
    """Known before the first byte; where only some databases come nobody knows how much that is."""
    needed = int(plan.backup.size * HEADROOM)
    if seen.free is not None and not seen.full and not databases and seen.free < needed:
        raise RecoveryError(
            f"path: {path} has {seen.free >> 20} MiB free, and the backup {plan.backup.label} needs {needed >> 20}: "
            "make room, or name another folder"
        )


def options(
    client: Pgbackrest,
    plan: Plan,
    path: str,
    *,
    in_place: bool,
    databases: t.Sequence[str] = (),
    action: str = "promote",
) -> list[str]:
    """What pgBackRest is told. A copy keeps its WAL and its tablespaces to itself."""
    told = [
        f"--pg1-path={path}",
        f"--repo={plan.backup.repo}",
        f"--set={plan.backup.label}",
        *plan.target.options(),
        f"--target-timeline={plan.target.timeline}",
        *(f"--db-include={name}" for name in databases),
    ]
    if plan.target.time or plan.target.name:
        told.append(f"--target-action={action}")
    if not in_place:
        told += ["--archive-mode=off", f"--tablespace-map-all={path}.tablespaces"]
        # A restore empties the spool, in which the archiving of the living database notes what it has done.
        told.append(f"--spool-path={path}.spool")
    if plan.only is not None or not in_place:
        told.append(f"--recovery-option=restore_command={_restore_command(client, plan, path, in_place)}")
    return told


def _restore_command(client: Pgbackrest, plan: Plan, path: str, in_place: bool) -> str:
    where = [f"--config-path={client.config_path}", f"--pg1-path={path}", f"--stanza={client.stanza}"]
    if plan.only is not None:
        where.append(f"--repo={plan.only}")
    if not in_place:
        where.append("--no-archive-async")  # the queue of WAL is in the spool, too
    return f'pgbackrest {" ".join(where)} archive-get %f "%p"'


def restore(client: Pgbackrest, told: t.Sequence[str], path: str) -> float:
    """Returns the seconds that it took."""
    began = time.monotonic()
    client.place.sh('mkdir -p -m 0700 -- "$1"', path, what=f"making {path}")
    client.must("restore", *told)
    return round(time.monotonic() - began, 2)


def write_mark(client: Pgbackrest, path: str, request: Request, plan: Plan) -> None:
    mark = {"schema": SCHEMA, "request": request.mark(), "label": plan.backup.label, "repo": plan.backup.repo}
    client.place.sh('cat > "$1/$2"', path, MARK, what=f"the note of it in {path}", stdin=json.dumps(mark) + "\n")
