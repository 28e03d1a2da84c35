# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Numbered writes, one transaction each, until the container is stopped; in the image of the members, with psycopg2.

database_writer.py NAME CONNECTION    prints `ack NAME NUMBER TIME` for what was acknowledged, else `no ... WHY`
"""

from __future__ import annotations

import contextlib
import sys
import time

import psycopg2

TABLE = "CREATE TABLE IF NOT EXISTS numbered (writer text, number bigint, at timestamptz, PRIMARY KEY (writer, number))"


def main() -> None:
    name, where = sys.argv[1:]
    connection, number = None, 0
    while True:
        number += 1
        try:
            if connection is None:
                connection = psycopg2.connect(where, connect_timeout=2)
                if number == 1:
                    with connection, connection.cursor() as cursor:
                        cursor.execute(TABLE)
                    connection.notices.clear()
            with connection, connection.cursor() as cursor:
                cursor.execute("INSERT INTO numbered VALUES (%s, %s, now())", [name, number])
        except psycopg2.Error as error:
            print("no", name, number, f"{time.time():.3f}", str(error).strip().replace("\n", " ")[:200], flush=True)
            if connection is not None:
                with contextlib.suppress(psycopg2.Error):
                    connection.close()
                connection = None
            time.sleep(0.1)
            continue
        # A warning means that the commit is on this machine and that its standby was not waited for.
        kind = "unsure" if connection.notices else "ack"
        print(kind, name, number, f"{time.time():.3f}", *[n.strip() for n in connection.notices], flush=True)
        connection.notices.clear()
        time.sleep(0.02)


if __name__ == "__main__":
    main()
