# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""roles.py PORT [--check]    makes the database and its users what the JSON on standard input says, on the leader

On a standby it ends the sessions of who is withdrawn, and exits with 3; with 4 while such a login may log in there yet.

{"database": "bitnet", "owner": "bitnet", "logins": {"bitnet": "password", ...}, "withdrawn": ["bitnet_2"]}; prints
{"changed": [what, ...]}. Whoever may log in is the owner, or acts as the owner: what one of them makes belongs to
all, so that they can take turns. Who is withdrawn, and is there, can log in no more, and its sessions are ended; it may
still be the owner. Passwords come by standard input and go to the server as SCRAM verifiers, so that neither a process
list nor the server's log has them.
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


class Server:
    """The leader. What is not as it should be is noted, and made so unless it is only looked at."""

    def __init__(self, cursor: psycopg2.extensions.cursor, act: bool) -> None:
        self.cursor, self.act = cursor, act
        self.changed: list[str] = []

    def ask(self, query: str, *values: object) -> tuple | None:
        self.cursor.execute(query, values)
        return self.cursor.fetchone()

    def do(self, what: str, statement: str, *names: str, values: tuple[str, ...] = ()) -> None:
        self.changed.append(what)
        if self.act:
            self.cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)), values)

    def owner(self, owner: str) -> None:
        """There whether or not it may log in: others become members of it."""
        if self.ask("SELECT 1 FROM pg_authid WHERE rolname = %s", owner) is None:
            self.do(f"user {owner}", "CREATE ROLE {}", owner)

    def acts_as(self, user: str, owner: str) -> bool:
        """Is this one that login() has made? A name alone says nothing: it may be somebody else's."""
        asked = (
            "SELECT 1 FROM pg_auth_members JOIN pg_db_role_setting ON setrole = member AND setdatabase = 0"
            " WHERE roleid = to_regrole(%s) AND member = to_regrole(%s) AND %s = ANY (setconfig)"
        )
        return user == owner or self.ask(asked, owner, user, f"role={owner}") is not None

    def refuse_a_stranger(self, user: str, owner: str) -> None:
        found = self.ask("SELECT 1 FROM pg_authid WHERE rolname = %s", user)
        if found is not None and not self.acts_as(user, owner):
            sys.exit(
                f"roles.py: the user {user} is not one that acts as {owner}, so it is somebody else's, and a rotation "
                "needs its name: rename it, or take another database_user"
            )

    def login(self, user: str, password: str, owner: str) -> None:
        self.refuse_a_stranger(user, owner)
        # Whole or not at all: half of it would be taken for a stranger.
        self.cursor.execute("BEGIN")
        found = self.ask("SELECT rolpassword, rolcanlogin FROM pg_authid WHERE rolname = %s", user)
        if found is None or not found[1] or not fits(found[0], password):
            verifier = psycopg2.extensions.encrypt_password(password, user, self.cursor, "scram-sha-256")
            verb = "CREATE" if found is None else "ALTER"
            self.do(f"password of {user}", verb + " ROLE {} LOGIN PASSWORD %s", user, values=(verifier,))
        if user != owner:
            self.act_as(user, owner)
        self.cursor.execute("COMMIT")

    def act_as(self, user: str, owner: str) -> None:
        member = self.ask(
            "SELECT 1 FROM pg_auth_members WHERE roleid = to_regrole(%s) AND member = to_regrole(%s)", owner, user
        )
        if member is None:
            self.do(f"{user} a member of {owner}", "GRANT {} TO {}", owner, user)
        acts = self.ask(
            "SELECT 1 FROM pg_db_role_setting"
            " WHERE setrole = to_regrole(%s) AND setdatabase = 0 AND %s = ANY (setconfig)",
            user,
            f"role={owner}",
        )
        if acts is None:
            self.do(f"{user} acts as {owner}", "ALTER ROLE {} SET role TO {}", user, owner)

    def withdraw(self, user: str, owner: str) -> None:
        self.refuse_a_stranger(user, owner)
        found = self.ask("SELECT rolpassword IS NULL AND NOT rolcanlogin FROM pg_authid WHERE rolname = %s", user)
        if found is not None and not found[0]:
            self.do(f"{user} withdrawn", "ALTER ROLE {} NOLOGIN PASSWORD NULL", user)
        self.end_sessions(user)

    def end_sessions(self, user: str) -> None:
        sessions = self.ask("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", user)
        if sessions and sessions[0]:
            end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s"
            self.do(f"{sessions[0]} sessions of {user} ended", end, values=(user,))

    def database(self, name: str, owner: str) -> None:
        found = self.ask("SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = %s", name)
        if found is None:
            self.do(f"database {name}", "CREATE DATABASE {} OWNER {}", name, owner)
        elif found[0] != owner:
            sys.exit(f"roles.py: the database {name} belongs to {found[0]}, not to {owner}: name its owner")


def main() -> None:
    port, act = sys.argv[1], "--check" not in sys.argv[2:]
    wanted = json.load(sys.stdin)
    connection = psycopg2.connect(host=SOCKET, port=port, user="postgres", dbname="postgres", connect_timeout=5)
    connection.autocommit = True
    with connection.cursor() as cursor:
        server = Server(cursor, act)
        server.ask("SELECT set_config('statement_timeout', '30s', false)")
        if server.ask("SELECT pg_is_in_recovery()") == (True,):
            late = []
            for user in wanted["withdrawn"]:
                if not server.acts_as(user, wanted["owner"]):
                    continue  # the leader says what is wrong with it
                if server.ask("SELECT 1 FROM pg_authid WHERE rolname = %s AND rolcanlogin", user):
                    late.append(user)
                else:
                    server.end_sessions(user)
            print(json.dumps({"changed": server.changed}))
            more = "".join(f", and {user} may log in" for user in late)
            print(f"roles.py: this member does not lead{more}", file=sys.stderr)
            sys.exit(4 if late else 3)
        server.owner(wanted["owner"])
        for user, password in wanted["logins"].items():
            server.login(user, password, wanted["owner"])
        server.database(wanted["database"], wanted["owner"])
        for user in wanted["withdrawn"]:
            server.withdraw(user, wanted["owner"])
    print(json.dumps({"changed": server.changed}))


if __name__ == "__main__":
    main()
