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
REMOVE = r"""
if [ -e "$1/data/postmaster.pid" ]; then
    "$2/pg_ctl" -D "$1/data" -w -t 30 -m immediate stop > /dev/null 2>&1
fi
rm -rf --one-file-system -- "$1" || { sleep 2; rm -rf --one-file-system -- "$1"; }
"""
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
    """Rows in any order: a sum of the hashes of their texts, which depend on these settings."""
    settings = {"timezone": "UTC", "datestyle": "ISO", "intervalstyle": "postgres", "extra_float_digits": "1"}
    lines = [f"SET {name} = '{value}';" for name, value in {**settings, "bytea_output": "hex"}.items()]
    for table in tables:
        value = "count(*) || ':' || coalesce(sum(hashtextextended(r::text, 0)::numeric), 0)"
        lines.append(f"SELECT {value} FROM {quoted(table)} AS r;")  # noqa: S608 - quoted
    return "\n".join(lines) + "\n"


def hashes(server: Server, database: str, tables: t.Sequence[str], point: str = "") -> dict[str, str]:
    """Rows and hash of each table; with the name of a restore point as of that, before which nobody can write."""
    text, what = hash_statements(tables), "the look at the restored tables"
    if point:
        locks = ", ".join(quoted(table) for table in tables)
        begin = f"BEGIN; SET LOCAL lock_timeout = '10s'; LOCK TABLE {locks} IN SHARE MODE;"
        text = f"{begin}\n{text}SELECT pg_create_restore_point('{point}');\nCOMMIT;\n"
        what = "the look at the tables of the living database"
    lines = server.sql(database, text, what)
    if len(lines) < len(tables):
        raise RecoveryError(f"tables: {len(tables)} were asked for, and {len(lines)} answered")
    return dict(zip(tables, lines))


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

    def remove_dead(self) -> list[str]:
        """What runs have left that were killed."""
        names = self.place.sh(
            'ls -A -- "$1" 2>/dev/null || true', self.parent, what=f"the look at {self.parent}"
        ).splitlines()
        dead = [name for name in names if (owner := OWNER.fullmatch(name)) and not _lives(*owner.groups())]
        for name in dead:
            self._remove(posixpath.join(self.parent, name))
        return dead

    def make(self) -> None:
        self.place.sh(
            'mkdir -p -- "$1" && mkdir -m 0700 -- "$2"', self.parent, self.folder, what=f"making {self.folder}"
        )

    def remove(self) -> None:
        self._remove(self.folder)

    def _remove(self, folder: str) -> None:
        self.place.sh(REMOVE, folder, self.bin_dir, what=f"removing {folder}", least=CLEAN_UP_SECONDS)

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
            ["sh", "-c", START, "sh", self.folder, self.bin_dir, str(left)], "the recovery of the restored cluster"
        )
        if done.rc != 0:
            raise RecoveryError(
                "the restored cluster does not start: "
                f"{printable(done.err.strip() or done.out.strip()) or 'it says nothing'}"
            )
        return round(time.monotonic() - began, 2)

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
