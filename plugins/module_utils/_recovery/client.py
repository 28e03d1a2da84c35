# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs pgBackRest and its like where PostgreSQL is: on this host, or by a command that leads into its container."""

from __future__ import annotations

import json
import posixpath
import re
import subprocess
import time
import typing as t
from dataclasses import dataclass

from . import configuration, wal
from .errors import RecoveryError
from .info import UNREADABLE, Stanza, parse, printable

ERROR = re.compile(r"ERROR: \[(\d{3})\]: (.*(?:\n\s{6,}.*)*)")
LOCKED = 50
# A path that can stand in a command of PostgreSQL's without quotes.
SAFE = re.compile(r"/[A-Za-z0-9._/-]*")
# Of `timeout`, which pgBackRest and PostgreSQL do not use.
TIMED_OUT, KILLED = 124, 137
PAUSE = 2.0
# pgBackRest tries four times for so long each to reach a store, 60 s by default.
LOOKS, ANSWER_SECONDS = ("info", "repo-ls", "repo-get"), 5
# Bytes: with fewer than these, no file of a backup fits.
FULL = 32 << 20
# What all modules take.
OPTIONS: dict[str, dict[str, t.Any]] = {
    "stanza": {"type": "str", "default": "main"},
    "config_path": {"type": "str", "default": "/etc/pgbackrest"},
    "inside": {"type": "list", "elements": "str", "default": []},
}
KILL_AFTER = 10

# What is at a path, for `sh -c`; the path is $1. Facts are one a line: its own words are no paths. Folders without a
# file are what a restore leaves that was ended before its first one: they count as empty. pgBackRest takes
# backup.manifest away before it gives pg_control its name, which is the last thing that it does.
LOOK = r"""
set -eu
up=$1 rest=
while [ ! -d "$up" ]; do
    rest="/$(basename -- "$up")$rest"
    up=$(dirname -- "$up")
done
at=$(cd -- "$up" && pwd -P)
printf 'real %s%s\n' "${at%/}" "$rest"
if [ ! -d "$1" ]; then
    if [ -e "$1" ] || [ -L "$1" ]; then echo other; else echo absent; fi
else
    cd -- "$1"
    printf 'identity %s\n' "$(stat -c %i-%W .)"
    flock --shared --nonblock . true || echo held
    inside=$(find . -mindepth 1 '(' ! -type d -o ! -readable -o -name lost+found ')' -print -quit)
    if [ -z "$inside" ]; then echo empty; else echo full; fi
    if [ -e PG_VERSION ]; then echo data; fi
    if [ -e backup.manifest ] || [ -e global/pg_control.pgbackrest.tmp ]; then echo unfinished; fi
    if [ -e recovery.signal ] && [ -e global/pg_control ]; then echo waiting; fi
    if [ -e postmaster.pid ]; then printf 'pid %s\n' "$(head -n 1 postmaster.pid)"; fi
    if [ -f "$at.restore.json" ]; then printf 'mark %s\n' "$(tr -d '\n' < "$at.restore.json")"; fi
fi
printf 'free %s\n' "$(df -Pk -- "$up" | awk 'END { print $4 }')"
"""
# What waits for the archive, from the folder of the cluster: how many segments, and since when the oldest one does.
# That it is not there is an answer; that it may not be looked at is none.
WAITING = r"""
set -eu
said=$(stat -- "$1" 2>&1) || case $said in
    *"No such file or directory"*) echo absent; exit 0 ;;
    *) printf '%s\n' "$said" >&2; exit 1 ;;
esac
cd -- "$1/pg_wal/archive_status"
names=$(ls -A)
printf '%s\n' "$names" | { grep '[.]ready$' || true; } | xargs -r stat -c %Y -- 2>/dev/null | sort -n |
    awk 'NR == 1 { oldest = $1 } END { print NR, oldest + 0 }'
"""
READ_CONFIG = r"""
for file in "$1/pgbackrest.conf" "$1"/conf.d/*.conf; do
    if [ -f "$file" ]; then grep -E '^ *([[]|pg1-|spool-path)' "$file" || true; fi
done
"""


# Why WAL is not pushed, in the spool folder $1 of the stanza $2. Each new try takes the error of the last one away.
PUSHED = r"""
for try in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
    for file in "$1/archive/$2/out/"*.error; do
        if [ -f "$file" ] && tail -n +2 "$file" | head -n 5 | grep .; then exit 0; fi
    done
    sleep 0.3
done
"""


@dataclass(frozen=True)
class Done:
    rc: int
    out: str
    err: str

    def said(self) -> str:
        """pgBackRest's own error where there is one, else what was said last."""
        found = ERROR.search(self.err) or ERROR.search(self.out)
        if found:
            return printable(f"[{found.group(1)}] {found.group(2)}")
        return printable("\n".join((self.err.strip() or self.out.strip()).splitlines()[-5:])) or "nothing"


def _end(process: subprocess.Popen[str]) -> None:
    """Of a command that is left before its end: `timeout` passes TERM on, and KILL it could not."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(2 * KILL_AFTER)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Place:
    """Where the commands run, and until when: one deadline for all of them."""

    def __init__(self, inside: t.Sequence[str], timeout: int) -> None:
        if timeout < 1:
            raise RecoveryError(f"timeout: {timeout} is no number of seconds from 1 on")
        self.inside, self.timeout = list(inside), timeout
        self.deadline = time.monotonic() + timeout

    def left(self) -> int:
        return max(int(self.deadline - time.monotonic()), 1)

    def late(self) -> bool:
        return time.monotonic() >= self.deadline

    def run(self, argv: t.Sequence[str], what: str, stdin: str = "", least: int = 1) -> Done:
        """Ended where it runs: a killed `docker exec` would leave it alive. Clean-ups have a least time."""
        seconds = max(self.left(), least)
        # No locale: messages are read here.
        command = [*self.inside, "timeout", f"--kill-after={KILL_AFTER}", str(seconds), "env", "LC_ALL=C", *argv]
        try:
            # Ended with all that it started, and read as it goes: run_command does neither.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function,consider-using-with
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
                cwd="/",
            )
        except FileNotFoundError as error:
            raise RecoveryError(f"inside: {command[0]} is not there ({error})") from error
        try:
            out, err = process.communicate(stdin, timeout=seconds + 3 * KILL_AFTER)
        except subprocess.TimeoutExpired as error:
            raise self.timed_out(what, "nothing, and it does not let itself be ended") from error
        finally:
            _end(process)
        result = Done(process.returncode, out, err)
        if result.rc == TIMED_OUT or (result.rc == KILLED and self.late()):
            raise self.timed_out(what, result.said())
        if result.rc == 127:
            raise RecoveryError(
                f"{argv[0]} is not there ({result.said()}): install it where PostgreSQL runs, or name the place "
                "(inside)"
            )
        return result

    def timed_out(self, what: str, seen: str) -> RecoveryError:
        return RecoveryError(f"timeout: awaited {what} within {self.timeout} s; last seen: {seen or 'nothing'}")

    def must(self, argv: t.Sequence[str], what: str, stdin: str = "", least: int = 1) -> str:
        done = self.run(argv, what, stdin, least)
        if done.rc != 0:
            raise RecoveryError(f"{what} failed: {done.said()}")
        return done.out

    def sh(self, script: str, *arguments: str, what: str, stdin: str = "", least: int = 1) -> str:
        return self.must(["sh", "-c", script, "sh", *arguments], what, stdin, least)

    def look(self, path: str) -> Seen:
        facts = {}
        for line in self.sh(LOOK, path, what=f"the look at {path}").splitlines():
            word, _blank, rest = line.partition(" ")
            facts[word] = rest
        try:
            mark = json.loads(facts["mark"]) if "mark" in facts else None
        except ValueError:
            mark = None
        free = facts.get("free", "")
        return Seen(
            real=facts.get("real", path),
            identity=facts.get("identity", ""),
            folder="empty" in facts or "full" in facts,
            other="other" in facts,
            full="full" in facts,
            data="data" in facts,
            unfinished="unfinished" in facts,
            unstarted="waiting" in facts,
            held="held" in facts,
            pid=facts.get("pid"),
            mark=mark if isinstance(mark, dict) else None,
            free=int(free) * 1024 if free.isdigit() else None,
        )


@dataclass(frozen=True)
class Seen:
    """What is at a path."""

    # Without links, also of one that is not there yet.
    real: str
    # Of the folder, and of no other one that comes to lie at the same path.
    identity: str = ""
    folder: bool = False
    other: bool = False
    full: bool = False
    data: bool = False
    unfinished: bool = False
    # Restored, and not recovered since.
    unstarted: bool = False
    # A restore works there.
    held: bool = False
    pid: str | None = None
    mark: dict[str, t.Any] | None = None
    free: int | None = None


@dataclass(frozen=True)
class Cluster:
    """Where the database lives and listens."""

    path: str
    socket: str
    port: str
    spool: str


class Pgbackrest:
    """One stanza."""

    def __init__(self, place: Place, stanza: str, config_path: str) -> None:
        if not configuration.STANZA.fullmatch(stanza):
            raise RecoveryError(f"stanza: {stanza!r} has to be up to 63 small letters, digits, - and _")
        if not SAFE.fullmatch(config_path):
            raise RecoveryError(
                f"config_path: {config_path!r} has to be a path of letters, digits, ., _, - and / from / on"
            )
        self.place, self.stanza, self.config_path = place, stanza, config_path

    def command(self, name: str, *options: str) -> list[str]:
        return [
            "pgbackrest",
            f"--config-path={self.config_path}",
            f"--stanza={self.stanza}",
            "--log-level-console=off",
            "--log-level-stderr=warn",
            *([f"--io-timeout={ANSWER_SECONDS}"] if name in LOOKS else []),
            name,
            *options,
        ]

    def run(self, name: str, *options: str) -> Done:
        return self.place.run(self.command(name, *options), f"pgbackrest {name}")

    def must(self, name: str, *options: str) -> str:
        done = self.run(name, *options)
        if done.rc != 0:
            raise self.failed(name, done)
        return done.out

    def info(self) -> Stanza:
        return parse(self.must("info", "--output=json"), self.stanza)

    def failed(self, name: str, done: Done) -> RecoveryError:
        """What pgBackRest says, and what to do about it."""
        said = done.said()
        if UNREADABLE.search(said):
            try:
                problems = [problem for repo in self.info().repositories if (problem := repo.problem(self.stanza))]
            except RecoveryError:
                problems = []
            if problems:
                return RecoveryError(f"pgbackrest {name} failed: {'; '.join(problems)}")
        if "[082]" in said:
            said = f"{said.partition(' HINT')[0]}: {self.push_error() or 'nobody says why'}"
        way_out = self._full(said) or next((text for pattern, text in WAYS_OUT if re.search(pattern, said)), "")
        more = f"More: its log, {self.stanza}-{name}.log in log-path (/var/log/pgbackrest)"
        return RecoveryError(f"pgbackrest {name} failed: {said}. {way_out}{more}")

    def _full(self, said: str) -> str:
        """pgBackRest 2.45 does not always say why it could not write: the disk is asked."""
        written = re.search(r"unable to (?:write|open|create path) '(/[^']+)'", said)
        free = self.place.look(posixpath.dirname(written.group(1))).free if written else None
        if written is None or free is None or free > FULL:
            return ""
        return f"{posixpath.dirname(written.group(1))} has {free >> 10} KiB free. {WAYS_OUT[0][1]}"

    def cluster(self) -> Cluster:
        texts = self.place.sh(READ_CONFIG, self.config_path, what=f"the look at {self.config_path}")
        found = configuration.of_cluster(texts, self.stanza)
        if "path" not in found:
            raise RecoveryError(
                f"config_path: in {self.config_path} nothing says where the stanza {self.stanza} lives (pg1-path): "
                "name the folder of pgbackrest.conf (config_path) and run as a user who may read it"
            )
        return Cluster(
            found["path"],
            found.get("socket-path", "/var/run/postgresql"),
            found.get("port", "5432"),
            found.get("spool-path", "/var/spool/pgbackrest"),
        )

    def push_error(self) -> str:
        """Why WAL is not archived; empty where nobody has said so."""
        text = self.place.sh(PUSHED, self.cluster().spool, self.stanza, what="the look at what waits for the archive")
        return printable(text).rstrip(".")

    def archives(self, stanza: Stanza) -> dict[int, wal.Archive]:
        """The WAL of the cluster as it is now, by repository; those that cannot be read are left out."""
        found = {}
        for repository in stanza.usable():
            database = stanza.databases.get(repository.key)
            archive_id = stanza.archives.get((repository.key, database or 0))
            if archive_id is None:
                found[repository.key] = wal.Archive()
                continue
            at, repo = f"archive/{self.stanza}/{archive_id}", f"--repo={repository.key}"
            text = self.must("repo-ls", repo, "--recurse", "--output=json", at)
            segments, histories = wal.listing(text, at)
            branches = {}
            for path in histories:
                line = int(path.rpartition("/")[2].partition(".")[0], 16)
                branches[line] = wal.branches(self.must("repo-get", repo, path))
            found[repository.key] = wal.Archive(segments, branches)
        return found


# By the numbers of pgBackRest's errors, in its src/build/error/error.yaml; the first that fits.
WAYS_OUT = (
    (
        r"No space left",
        "The disk is full: give it room, or, if it is a repository's, keep less in it (retention_full). The database "
        "keeps its WAL meanwhile. ",
    ),
    (r"stop file|^\[062\]", "Somebody has stopped pgBackRest here: 'pgbackrest start' lets it work again. "),
    (
        r"system-id|do not match the database|^\[0(44|51|58)\]",
        "The cluster is not the one of the repository. Compare 'Database system identifier' of pg_controldata with "
        "archive.info in the repository. If they differ, it is a wrong cluster, or a wrong stanza or pg1-path. After "
        "pg_upgrade, and only then: 'pgbackrest stanza-upgrade'. ",
    ),
    (r"^\[050\]", "Another pgBackRest works on this stanza ('pgbackrest info' says so): wait for its end. "),
    (r"^\[082\]", "WAL does not arrive: look at archive_command, pg_stat_archiver and the log of PostgreSQL. "),
    (r"^\[040\]", "The folder that it names is not empty: empty it, or name another one (path). "),
    (
        r"^\[0(26|28|29|95)\]",
        "A file in the repository is damaged: restore from another backup (set) or repository, and make a full one. ",
    ),
    (
        r"^\[0(27|3[0-7]|89|96)\]",
        "Its configuration is wrong there: look at pgbackrest.conf and conf.d (config_path). ",
    ),
    (r"^\[046\]", "This pgBackRest does not know that version of PostgreSQL: install a newer one. "),
    (r"^\[056\]", "PostgreSQL does not answer: is it running, and are pg1-socket-path, pg1-port and the user right? "),
    (
        r"^\[(039|049|101)\]|unable to connect|HTTP request failed",
        "The store does not answer as it should: look at its address and keys. ",
    ),
    (
        r"^\[(041|042|047|053|055|064|073|105)\]",
        "Is it there, and may this user read and write it? Run as the user that owns the repository and the cluster. ",
    ),
    (r"^\[106\]|clock skew", "The clock jumped: set it right, and wait until it is past the newest backup. "),
)
