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

SCHEMA = 1
# Of `flock`, when another one holds the lock; pgBackRest's own begin at 25.
HELD = 10
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
    action: str

    def mark(self) -> dict[str, t.Any]:
        return {
            "stanza": self.stanza,
            "target": self.target.text(),
            "timeline": self.target.timeline,
            "set": self.label,
            "repo": self.repo,
            "databases": list(self.databases),
            "action": self.action,
        }


def beside(data: str) -> str:
    return f"{posixpath.normpath(data)}.restored"


def checked_path(path: str) -> str:
    if not SAFE.fullmatch(path) or posixpath.normpath(path) != path or path.count("/") < 2:
        raise RecoveryError(
            f"path: {path!r} is no absolute path, of letters, digits, ., _, - and /, of a folder below another one, "
            "as /srv/restored is"
        )
    return path


def tablespaces(path: str) -> str:
    return f"{path}.tablespaces"


def own(seen: Seen) -> bool:
    """It is the copy of which the note beside it speaks."""
    return seen.mark is not None and seen.mark.get("identity") == seen.identity


def is_done(seen: Seen, request: Request, plan: Plan) -> bool:
    """A copy of the same is there, and nobody has started it since."""
    mark = seen.mark or {}
    same = mark.get("request") == request.mark() and mark.get("last") == plan.last
    return own(seen) and same and seen.unstarted and not seen.unfinished and seen.pid is None


def permit(path: str, seen: Seen, data: Seen, spaces: Seen, *, delta: bool, overwrite: bool) -> list[str]:
    """pgBackRest's options for what is at the path; refuses what would destroy something without a word."""
    live = seen.real == data.real
    if seen.other:
        raise RecoveryError(f"path: {path} is there and no folder; name another one")
    if seen.pid is not None:
        raise RecoveryError(
            f"path: a PostgreSQL runs on {path}, or has died there (postmaster.pid names process {seen.pid}). Nothing "
            "restores over a running one: stop it; if it is dead for certain, remove postmaster.pid"
        )
    if seen.held:
        raise at_work(path)
    if not seen.full:
        if spaces.full and not live:
            raise RecoveryError(
                f"path: {spaces.real} is not empty; the tablespaces of {path} go there. Remove what an earlier restore "
                "has left there, or name another folder"
            )
        return []
    if seen.unfinished:
        return ["--delta"]  # what a restore that was cut off has left
    if not seen.data:
        raise RecoveryError(
            f"path: {path} holds something that is no cluster's data; name another folder, or empty this one"
        )
    if (live or not own(seen)) and not overwrite:
        what = "the database's own data" if live else "data of a cluster that was not restored by this module"
        raise RecoveryError(
            f"path: {path} holds {what}, and a restore would overwrite it. Leave path out to restore beside it, or say "
            "overwrite_data: true to lose what is there"
        )
    if not (delta or overwrite):
        raise RecoveryError(
            f"path: {path} holds what was restored before ({describe(seen.mark)}). Name another folder, remove this "
            f"one and {spaces.real}, or say delta: true to have it brought to what is asked for now"
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


def _restore_command(client: Pgbackrest, path: str, repo: int) -> str:
    """Of a copy: asynchronously it would use the lock and the spool of the living database's archive-push."""
    where = f"--config-path={client.config_path} --pg1-path={path} --repo={repo} --stanza={client.stanza}"
    return f'pgbackrest {where} --no-archive-async archive-get %f "%p"'


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
        # A restore empties the stanza's spool, and the configured one is the living database's.
        told += [
            "--archive-mode=off",
            f"--tablespace-map-all={tablespaces(path)}",
            f"--spool-path={path}.spool",
            f"--recovery-option=restore_command={_restore_command(client, path, plan.backup.repo)}",
        ]
    return told


def make(client: Pgbackrest, path: str, seen: Seen, spaces: Seen) -> Seen:
    """The folder; without the empty ones that a restore has left there, among which pgBackRest would not go on."""
    client.place.sh('mkdir -p -m 0700 -- "$1"', path, what=f"making {path}")
    for folder in (seen, spaces):
        if folder.folder and not folder.full and not seen.full:
            emptied = 'find "$1/" -mindepth 1 -type d -empty -delete'
            client.place.sh(emptied, folder.real, what=f"emptying {folder.real}")
    return client.place.look(path)


def at_work(path: str) -> RecoveryError:
    return RecoveryError(
        f"path: another restore is at work in {path}, perhaps of a run that was killed: wait for its end ('ps "
        "--no-headers -eo pid,args' shows it), and run this again"
    )


def restore(client: Pgbackrest, told: t.Sequence[str], path: str) -> float:
    """Returns the seconds that it took. Whoever is killed leaves a pgBackRest that goes on, and holds the lock."""
    began = time.monotonic()
    # Whoever looks has the lock for a moment.
    command = ["flock", "--timeout", "2", "--conflict-exit-code", str(HELD), path, *client.command("restore", *told)]
    done = client.place.run(command, "pgbackrest restore")
    if done.rc == HELD:
        raise at_work(path)
    if done.rc != 0:
        raise client.failed("restore", done)
    return round(time.monotonic() - began, 2)


def write_mark(client: Pgbackrest, seen: Seen, request: Request, plan: Plan) -> None:
    """Beside the copy, where no backup of it takes it along, and before anything is restored."""
    mark = {
        "schema": SCHEMA,
        "identity": seen.identity,
        "request": request.mark(),
        "label": plan.backup.label,
        "last": plan.last,
    }
    where = f"{seen.real}.restore.json"
    client.place.sh('cat > "$1"', where, what=f"the note {where}", stdin=json.dumps(mark) + "\n")
