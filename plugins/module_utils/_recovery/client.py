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

# What is at a path, for `sh -c`; the path is $1. Facts are one a line: its own words are no paths.
LOOK = r"""
set -eu
if [ ! -d "$1" ]; then
    if [ -e "$1" ] || [ -L "$1" ]; then echo other; else echo absent; fi
    up=$(dirname -- "$1")
    while [ ! -d "$up" ]; do up=$(dirname -- "$up"); done
else
    up=$1
    cd -- "$1"
    printf 'real %s\n' "$(pwd -P)"
    if [ -z "$(ls -A .)" ]; then echo empty; else echo full; fi
    if [ -e PG_VERSION ]; then echo data; fi
    if [ -e backup.manifest ]; then
        echo unfinished
    elif [ -e recovery.signal ] && [ -e backup_label ] && [ ! -e bitnet-restore.json ]; then
        echo unfinished # its module was killed, and no PostgreSQL has run on it
    fi
    if [ -e postmaster.pid ]; then printf 'pid %s\n' "$(head -n 1 postmaster.pid)"; fi
    if [ -e bitnet-restore.json ]; then printf 'mark %s\n' "$(tr -d '\n' < bitnet-restore.json)"; fi
fi
printf 'free %s\n' "$(df -Pk -- "$up" | awk 'END { print $4 }')"
"""
# What waits for the archive, from the folder of the cluster: how many segments, and since when the oldest one does.
WAITING = r"""
cd -- "$1/pg_wal/archive_status" 2>/dev/null || exit 0
ls | grep '[.]ready$' | xargs -r stat -c %Y -- 2>/dev/null | sort -n |
    awk 'NR == 1 { oldest = $1 } END { if (NR) print NR, oldest }'
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
            process = subprocess.Popen(
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
            folder="empty" in facts or "full" in facts,
            other="other" in facts,
            full="full" in facts,
            data="data" in facts,
            unfinished="unfinished" in facts,
            pid=facts.get("pid"),
            mark=mark if isinstance(mark, dict) else None,
            free=int(free) * 1024 if free.isdigit() else None,
        )


@dataclass(frozen=True)
class Seen:
    """What is at a path."""

    real: str
    folder: bool = False
    other: bool = False
    full: bool = False
    data: bool = False
    unfinished: bool = False
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
        if free is None or free > FULL:
            return ""
        return f"There are {free >> 10} KiB free. {WAYS_OUT[0][1]}"

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


WAYS_OUT = (
    (
        r"No space left|\[28\]",
        "The repository is full: give it room, or keep less (retention_full). The database keeps its WAL meanwhile. ",
    ),
    (r"^\[050\]", "Another pgBackRest works on this stanza ('pgbackrest info' says so): wait for its end. "),
    (r"^\[082\]", "WAL does not arrive: look at archive_command, pg_stat_archiver and the log of PostgreSQL. "),
    (r"^\[0(55|41|42|37)\].*(missing|open|option)", "Run as the user that owns the repository and the configuration. "),
    (r"^\[056\]", "PostgreSQL does not answer: is it running, and are pg1-socket-path, pg1-port and the user right? "),
    (
        r"^\[04[69]\]|unable to connect|HTTP request failed",
        "The store does not answer as it should: look at its address and keys. ",
    ),
    (r"stop file|^\[062\]", "Somebody has stopped pgBackRest here: 'pgbackrest start' lets it work again. "),
    (
        r"does not match system-id|^\[051\]",
        "It is another cluster than the repository's: 'pgbackrest stanza-upgrade' after pg_upgrade. ",
    ),
    (
        r"checksum|\[0(27|29|95)\]",
        "A file in the repository is damaged: restore from another backup (set) or repository, and make a full one. ",
    ),
)
