# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""roles.py PORT [--check]    makes the database and its user what the JSON on standard input says, on the leader

{"database": "bitnet", "user": "bitnet", "password": "..."}; prints {"changed": [what, ...]}. Passwords come by standard
input and go to the server as SCRAM verifiers, so that neither a process list nor the server's log has them.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys

import psycopg2
import psycopg2.extensions
from psycopg2 import sql

SOCKET = "/run/bitnet-database"


def fits(verifier: str | None, password: str) -> bool:
    """Is this the verifier of the password (RFC 5802)?"""
    try:
        scheme, rounds, keys = (verifier or "").split("$")
        iterations, salt = rounds.split(":")
        stored = base64.b64decode(keys.split(":")[0])
        salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(salt), int(iterations))
    except ValueError:
        return False
    client = hmac.new(salted, b"Client Key", hashlib.sha256).digest()
    return scheme == "SCRAM-SHA-256" and hmac.compare_digest(hashlib.sha256(client).digest(), stored)


def main() -> None:
    port, act = sys.argv[1], "--check" not in sys.argv[2:]
    wanted = json.load(sys.stdin)
    user, database = wanted["user"], wanted["database"]
    changed = []
    connection = psycopg2.connect(host=SOCKET, port=port, user="postgres", dbname="postgres", connect_timeout=5)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("SET statement_timeout = '30s'")
        cursor.execute("SELECT pg_is_in_recovery()")
        if cursor.fetchone()[0]:
            print("roles.py: this member does not lead", file=sys.stderr)
            sys.exit(3)
        cursor.execute("SELECT rolpassword FROM pg_authid WHERE rolname = %s", [user])
        found = cursor.fetchone()
        if found is None or not fits(found[0], wanted["password"]):
            changed.append(f"user {user}" if found is None else f"password of {user}")
            verifier = psycopg2.extensions.encrypt_password(wanted["password"], user, connection, "scram-sha-256")
            verb = sql.SQL("CREATE" if found is None else "ALTER")
            if act:
                cursor.execute(sql.SQL("{} ROLE {} LOGIN PASSWORD %s").format(verb, sql.Identifier(user)), [verifier])
        cursor.execute("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", [database])
        found = cursor.fetchone()
        if found is None:
            changed.append(f"database {database}")
            if act:
                names = sql.Identifier(database), sql.Identifier(user)
                cursor.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(*names))
        elif found[0] != user:
            sys.exit(f"roles.py: the database {database} belongs to {found[0]}, not to {user}: name its owner")
    print(json.dumps({"changed": changed}))


if __name__ == "__main__":
    main()
