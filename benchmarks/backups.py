# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a day's backup costs: pgBackRest as the collection sets it up, beside `pg_dump | gzip` of the same database.

    make bench-backups                                     1 GB, 5 % changed, three rounds
    make bench-backups ARGS="--megabytes 50 --rounds 1"    short: that it works, no figure

The database is a ledger of 20 parts, one for each day, and a day changes one part (5 %): `--layout parts`. With
`--layout whole` it is one table of which 5 % of the rows change wherever they are. pgBackRest 2.45 copies each file
that has changed as a whole, so that this touches everything; from 2.46 on it can copy blocks.

Each round dumps, makes a full backup, changes 5 %, dumps and makes an incremental backup. Archived WAL is said beside
the incremental one, since a day costs both. The exit status says whether the limits hold: a full backup at least 5
times as fast as the dump, an incremental one at least 20 times as small.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from typing import Any

import tests.conftest  # noqa: F401  pylint: disable=unused-import  # where ansible_collections is
from tests.integration.backup_lab import Lab

FASTER, SMALLER = 5, 20
PARTS = 20
ROW_BYTES = 150


def fill(lab: Lab, megabytes: int, parts: bool) -> int:
    rows = megabytes * 1_000_000 // ROW_BYTES
    kind = "PARTITION BY RANGE (day)" if parts else ""
    lab.sql(f"CREATE TABLE ledger (day int, n bigint, key text, tokens int, note text) {kind}")
    for day in range(PARTS):
        if parts:
            lab.sql(f"CREATE TABLE ledger_{day} PARTITION OF ledger FOR VALUES FROM ({day}) TO ({day + 1})")
        lab.sql(
            f"INSERT INTO ledger SELECT {day}, n, md5(n::text), n % 1000, md5((n * 7)::text) || md5((n * 11)::text) "  # noqa: S608
            f"FROM generate_series(1, {rows // PARTS}) n"
        )
    lab.sql("VACUUM ANALYZE ledger; CHECKPOINT")
    return int(lab.sql("SELECT pg_database_size('postgres')"))


def change(lab: Lab, parts: bool, around: int) -> None:
    where = f"day = {around % PARTS}" if parts else f"n % {PARTS} = {around % PARTS}"
    lab.sql(f"UPDATE ledger SET tokens = tokens + 1 WHERE {where}; CHECKPOINT")  # noqa: S608 - numbers


def timed(action: Any) -> tuple[float, Any]:
    began = time.monotonic()
    result = action()
    return time.monotonic() - began, result


def dump(lab: Lab) -> int:
    """As the seed does it; its size."""
    file = lab.folder / "copies" / "dump.sql.gz"
    lab.run("sh", "-c", f"pg_dump -U postgres -h {lab.folder} postgres | gzip > {file}", timeout=3600)
    return file.stat().st_size


def archived(lab: Lab) -> int:
    return sum(path.stat().st_size for path in (lab.folder / "repo1/archive").rglob("*") if path.is_file())


def one_round(lab: Lab, number: int, parts: bool) -> dict[str, float]:
    dump_seconds, _size = timed(lambda: dump(lab))
    full_seconds, full = timed(lambda: lab.module("backup", type="full", max_age="0", timeout=3600))
    before = archived(lab)
    change(lab, parts, number)
    again_seconds, dump_size = timed(lambda: dump(lab))
    incr_seconds, incr = timed(lambda: lab.module("backup", type="incr", max_age="0", timeout=3600))
    day = incr["backup"]["repo_copied"] + archived(lab) - before
    found = {
        "dump, s": dump_seconds,
        "full, s": full_seconds,
        "full is so many times as fast": dump_seconds / full_seconds,
        "full, MB": full["backup"]["repo_copied"] / 1e6,
        "dump after the change, s": again_seconds,
        "dump, MB": dump_size / 1e6,
        "incremental, s": incr_seconds,
        "incremental, MB": incr["backup"]["repo_copied"] / 1e6,
        "incremental is so many times as small": dump_size / incr["backup"]["repo_copied"],
        "incremental and WAL, MB": day / 1e6,
    }
    print(f"round {number + 1}: {', '.join(f'{name} {value:.1f}' for name, value in found.items())}", flush=True)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--layout", choices=["parts", "whole"], default="parts")
    options = parser.parse_args()
    lab = Lab()
    try:
        size = fill(lab, options.megabytes, options.layout == "parts")
        version = subprocess.run(["pgbackrest", "version"], capture_output=True, text=True, check=True).stdout.strip()
        where = f"{version}, {size / 1e6:.0f} MB, layout {options.layout}"
        print(f"{where}, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True)
        rounds = [one_round(lab, number, options.layout == "parts") for number in range(options.rounds)]
    finally:
        lab.remove()
    for name in rounds[0]:
        values = [found[name] for found in rounds]
        print(f"{name}: {statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")
    faster = statistics.median(found["full is so many times as fast"] for found in rounds)
    smaller = statistics.median(found["incremental is so many times as small"] for found in rounds)
    holds = faster >= FASTER and smaller >= SMALLER
    print(f"the limits ({FASTER} times as fast, {SMALLER} times as small) {'hold' if holds else 'do not hold'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
