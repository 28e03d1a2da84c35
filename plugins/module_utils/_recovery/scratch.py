# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A restored cluster on trial: started on a private socket, asked, stopped and removed."""

from __future__ import annotations

import os
import posixpath
import re
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

from .client import SAFE, Place
from .errors import RecoveryError
from .info import printable
from .plan import Plan
from .restoring import HELD
from .wal import lsn

PREFIX = "bitnet-verify."
OWNER = re.compile(re.escape(PREFIX) + r"(\d+)-(\d+)-([0-9a-f]{8})")
# A socket's whole path has 107 bytes at most, and PostgreSQL adds its own name.
LONGEST = 50
CLEAN_UP_SECONDS = 90

# Nothing of the living database's settings: they may name its sockets, standbys, archive and libraries.
SETTINGS = """\
listen_addresses = ''
unix_socket_directories = '{folder}'
port = 5432
hba_file = '{folder}/pg_hba.conf'
ident_file = '{folder}/pg_ident.conf'
hot_standby = off
archive_mode = off
fsync = off
shared_buffers = 128MB
max_prepared_transactions = {prepared}
log_destination = stderr
logging_collector = off
lc_messages = C
"""
PREPARE = r"""
set -eu
cat > "$1/postgresql.conf"
printf 'local all all trust\n' > "$1/pg_hba.conf"
: > "$1/pg_ident.conf"
grep -E '^(restore_command|recovery_)' "$1/data/postgresql.auto.conf" > "$1/recovery.conf" || true
cat "$1/recovery.conf" > "$1/data/postgresql.auto.conf"
"""
# Its output goes to a file: the server would keep a pipe open. pg_ctl calls a server started that still recovers.
START = r"""
fail() { grep -E 'FATAL|PANIC|ERROR' "$1/log" | tail -n 5 >&2; exit 1; }
settings="-c config_file=$1/postgresql.conf"
"$2/pg_ctl" -D "$1/data" -w -t "$3" -l "$1/log" -o "$settings" start > "$1/start" 2>&1 || fail "$1"
until "$2/pg_isready" -q -h "$1" -p 5432; do
    "$2/pg_ctl" -D "$1/data" status > /dev/null 2>&1 || fail "$1"
    sleep 0.2
done
"""
# The names of other runs' folders. A link, or what another user has made, is none of ours.
OURS = r"""
[ -d "$1" ] || exit 0
cd -- "$1" || exit 1
if [ -n "$(find . -maxdepth 0 -perm /022)" ]; then
    echo "others can write to $1: name a folder (scratch) that only its owner can write to" >&2
    exit 1
fi
find . -mindepth 1 -maxdepth 1 -type d -user "$(id -u)" -name "$2*" -printf '%f\n'
"""
# Nothing while a restore or a start of a killed run still works there, which both hold the lock.
REMOVE = r"""
if [ -d "$1/data" ] && [ ! -L "$1/data" ]; then
    exec 9< "$1/data"
    flock --timeout 20 9 || exit 10
    if [ -e "$1/data/postmaster.pid" ]; then
        "$2/pg_ctl" -D "$1/data" -w -t 30 -m immediate stop > /dev/null 2>&1 9<&-
    fi
fi
rm -rf --one-file-system -- "$1" || { sleep 2; rm -rf --one-file-system -- "$1"; }
"""
# Of the last record, where it begins. Without it nobody knows how far recovery came.
REDONE = re.compile(r"redo done at ([0-9A-F]+/[0-9A-F]+)")
REACHED = re.compile(r"last completed transaction was at log time (.+)")


@dataclass(frozen=True)
class Server:
    """Where psql and its like connect to."""

    place: Place
    bin_dir: str
    socket: str
    port: str
    user: str

    def command(self, database: str, program: str, *arguments: str) -> list[str]:
        # A name in the environment is a name, while one on the command line may be a whole connection string.
        variables = {"HOST": self.socket, "PORT": self.port, "USER": self.user, "DATABASE": database}
        settings = [f"PG{name}={value}" for name, value in variables.items()]
        return ["env", *settings, "PGCONNECT_TIMEOUT=10", f"{self.bin_dir}/{program}", *arguments]

    def sql(self, database: str, text: str, what: str) -> list[str]:
        """The lines of its answer."""
        options = ["--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--set=ON_ERROR_STOP=1"]
        answer = self.place.must(self.command(database, "psql", *options), what, text)
        return [line for line in answer.splitlines() if line]


def quoted(table: str) -> str:
    """C(schema.table) or C(table) for a statement."""
    parts = table.split(".")
    if not 1 <= len(parts) <= 2 or not all(parts) or any(ord(sign) < 32 or sign == '"' for sign in table):
        raise RecoveryError(f"tables: {table!r} is no table: give its name, or schema.name")
    return ".".join(f'"{part}"' for part in parts)


def hash_statements(tables: t.Sequence[str]) -> str:
    """Rows in any order: a sum of the hashes of their texts, which depend on these settings. One statement for all."""
    settings = {"timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "1"}
    lines = [f"SET {name} = '{value}';" for name, value in {**settings, "bytea_output": "hex"}.items()]
    # A row is row_.*, since row_ alone is the column of that name in a table that has one.
    value = "count(*) || ':' || coalesce(sum(hashtextextended(CAST((row_.*) AS text), 0)::numeric), 0)"
    parts = [
        f"SELECT {at} AS place, {value} AS line FROM {quoted(table)} AS row_"  # noqa: S608 - quoted
        for at, table in enumerate(tables)
    ]
    lines.append(f"SELECT line FROM ({' UNION ALL '.join(parts)}) AS parts ORDER BY place;")  # noqa: S608
    return "\n".join(lines) + "\n"


def hashes(server: Server, database: str, tables: t.Sequence[str]) -> dict[str, str]:
    """Rows and hash of each table."""
    lines = server.sql(database, hash_statements(tables), "the look at the restored tables")
    return dict(zip(tables, _as_many(lines, len(tables))))


def hashes_at(
    server: Server, database: str, tables: t.Sequence[str], point: str, seconds: int
) -> tuple[dict[str, str], int]:
    """Those of the living database, and the position of a restore point before which nobody can write."""
    locks = ", ".join(quoted(table) for table in tables)
    text = (
        f"BEGIN; SET LOCAL lock_timeout = '10s'; SET LOCAL statement_timeout = '{seconds}s';\n"
        f"LOCK TABLE {locks} IN SHARE MODE;\n{hash_statements(tables)}"
        f"SELECT pg_create_restore_point('{point}');\nCOMMIT;\n"
    )
    try:
        lines = server.sql(database, text, "the look at the tables of the living database")
    except RecoveryError as error:
        if "statement timeout" not in str(error):
            raise
        raise RecoveryError(
            f"lock_seconds: the tables could not be read within {seconds} s, and nobody can write to them meanwhile; "
            "they are free again. Give more seconds, or fewer or smaller tables"
        ) from error
    *rows, position = _as_many(lines, len(tables) + 1)
    return dict(zip(tables, rows)), lsn(position)


def _as_many(lines: list[str], number: int) -> list[str]:
    if len(lines) != number:
        raise RecoveryError(
            f"tables: awaited {number} lines of psql, and {len(lines)} came: {printable(' '.join(lines))}"
        )
    return lines


class Scratch:
    """A folder whose name says which process it belongs to, so that a later run can remove what a killed one left."""

    def __init__(self, place: Place, parent: str, bin_dir: str) -> None:
        for option, path in (("scratch", parent), ("bin_dir", bin_dir)):
            if not SAFE.fullmatch(path) or posixpath.normpath(path) != path:
                raise RecoveryError(f"{option}: {path!r} has to be an absolute path of letters, digits, ., _, - and /")
        if len(parent) > LONGEST:
            raise RecoveryError(
                f"scratch: {parent!r} is too long for the path of a socket; name a folder of up to {LONGEST} characters"
            )
        self.place, self.parent, self.bin_dir = place, parent, bin_dir
        self.folder = posixpath.join(parent, f"{PREFIX}{os.getpid()}-{_began(os.getpid())}-{_boot()}")
        self.data = f"{self.folder}/data"

    def dead(self) -> list[str]:
        """What runs have left that were killed; refuses a place in which others can put things."""
        names = self.place.sh(OURS, self.parent, PREFIX, what=f"the look at {self.parent} (scratch)").splitlines()
        return [name for name in names if (owner := OWNER.fullmatch(name)) and not _lives(*owner.groups())]

    def remove_dead(self) -> list[str]:
        dead = self.dead()
        for name in dead:
            self._remove(posixpath.join(self.parent, name))
        return dead

    def make(self) -> None:
        self.place.sh(
            'mkdir -p -m 0700 -- "$1" && mkdir -m 0700 -- "$2" "$3"',
            self.parent,
            self.folder,
            self.data,
            what=f"making {self.folder}",
        )

    def remove(self) -> None:
        self._remove(self.folder)

    def _remove(self, folder: str) -> None:
        command = ["sh", "-c", REMOVE, "sh", folder, self.bin_dir]
        done = self.place.run(command, f"removing {folder}", least=CLEAN_UP_SECONDS)
        if done.rc == HELD:
            raise RecoveryError(
                f"scratch: {folder} is of a run that was killed, and what it began still works there: wait for its end "
                "('ps --no-headers -eo pid,args' shows it), and run this again"
            )
        if done.rc != 0:
            raise RecoveryError(f"removing {folder} failed: {done.said()}")

    def control(self) -> dict[str, str]:
        text = self.place.must([f"{self.bin_dir}/pg_controldata", "-D", self.data], "pg_controldata")
        pairs = (line.partition(":") for line in text.splitlines())
        return {name.strip(): value.strip() for name, _colon, value in pairs}

    def start(self) -> float:
        """Returns the seconds until it takes connections, recovered."""
        prepared = self.control().get("max_prepared_xacts setting", "0")
        settings = SETTINGS.format(folder=self.folder, prepared=int(prepared) if prepared.isdigit() else 0)
        self.place.sh(PREPARE, self.folder, what="preparing the start", stdin=settings)
        began = time.monotonic()
        left = self.place.left()
        done = self.place.run(
            # The lock is not the server's, which stays: --close.
            ["flock", "--close", self.data, "sh", "-c", START, "sh", self.folder, self.bin_dir, str(left)],
            "the recovery of the restored cluster",
        )
        if done.rc != 0:
            raise RecoveryError(
                "the restored cluster does not start: "
                f"{printable(done.err.strip() or done.out.strip()) or 'it says nothing'}"
            )
        return round(time.monotonic() - began, 2)

    def wrong_with_recovery(self, plan: Plan) -> str:
        """Empty where it came to the end of what was planned.

        PostgreSQL takes an archive-get that fails for the end of the archive, and calls that recovered.
        """
        text = self.place.sh(
            'grep -E "redo done at|ERROR: \\[" "$1/log" || true', self.folder, what="the look at its log"
        )
        failed = [line for line in text.splitlines() if "ERROR: [" in line]
        if failed:
            return f"WAL could not be fetched: {printable(failed[0])}"
        redone = REDONE.findall(text)
        if not redone:
            return "its log does not say how far it came ('redo done at')"
        if not (plan.target.time or plan.target.name) and lsn(redone[-1]) < plan.reaches:
            return f"it ended at {redone[-1]}, before {plan.last}, up to which the archive has everything"
        return ""

    def reached(self) -> str | None:
        """When the last transaction was committed that WAL has brought back."""
        text = self.place.sh(
            'grep "last completed transaction" "$1/log" || true', self.folder, what="the look at its log"
        )
        found = REACHED.findall(text)
        return found[-1].strip() if found else None

    def server(self, user: str) -> Server:
        return Server(self.place, self.bin_dir, self.folder, "5432", user)

    def stop(self) -> None:
        left = str(self.place.left())
        self.place.must(
            [f"{self.bin_dir}/pg_ctl", "-D", self.data, "-w", "-t", left, "-m", "fast", "stop"],
            "the stop of the restored cluster",
        )


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]


def _began(pid: int) -> str:
    """When a process began, in ticks since the boot: a number is given again, a number with this is not."""
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]


def _lives(pid: str, began: str, boot: str) -> bool:
    try:
        return boot == _boot() and _began(int(pid)) == began
    except OSError:
        return False
