# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""roles.py on a real PostgreSQL: the users of a database, and two that take turns while a password is rotated."""

from __future__ import annotations

import importlib.util
import io
import json
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from data_lab import PASSWORD, Postgres

FILE = Path(__file__).resolve().parents[3] / "files" / "images" / "database" / "roles.py"
ONE, TWO, THREE = "the-first-password", "the-second-password", "the-third-password"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    made = Postgres()
    with psycopg.connect(made.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE postgres SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
    yield made
    made.remove()


@pytest.fixture
def roles(server, monkeypatch, capsys):
    found = importlib.util.spec_from_file_location("roles", FILE)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    monkeypatch.setattr(module, "SOCKET", str(server.folder))
    monkeypatch.setenv("PGPASSWORD", PASSWORD)

    def run(logins, withdrawn=(), database="app", check=False):
        wanted = {"database": database, "owner": "app", "logins": logins, "withdrawn": list(withdrawn)}
        monkeypatch.setattr("sys.argv", ["roles.py", str(server.port), *(["--check"] if check else [])])
        monkeypatch.setattr("sys.stdin", io.StringIO(json.dumps(wanted)))
        module.main()
        out = capsys.readouterr().out
        assert not any(password in out for password in logins.values())
        return json.loads(out)["changed"]

    run.module = module
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute("DROP DATABASE IF EXISTS app")
        for user in ("app_2", "app"):
            connection.execute(f"DROP ROLE IF EXISTS {user}")
    return run


def connect(server, user, password):
    url = f"postgresql://{user}:{password}@127.0.0.1:{server.port}/app"
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def may(server, user, password):
    try:
        connect(server, user, password).close()
    except psycopg.OperationalError:
        return False
    return True


def test_one_user(server, roles):
    assert roles({"app": ONE}, check=True) == ["user app", "password of app", "database app"]
    assert roles({"app": ONE}) == ["user app", "password of app", "database app"]
    assert roles({"app": ONE}) == []
    assert roles({"app": TWO}, check=True) == ["password of app"] and may(server, "app", ONE)
    assert roles({"app": TWO}) == ["password of app"]
    assert (may(server, "app", ONE), may(server, "app", TWO)) == (False, True)


def test_two_take_turns_and_what_they_make_is_everybodys(server, roles):
    roles({"app": ONE})
    with connect(server, "app", ONE) as first:
        first.execute("CREATE TABLE before (n int)")
        assert roles({"app": ONE, "app_2": TWO}, check=True)[0] == "password of app_2"
        assert roles({"app": ONE, "app_2": TWO}) == ["password of app_2", "app_2 a member of app", "app_2 acts as app"]
        assert roles({"app": ONE, "app_2": TWO}) == []
        # Both hold, and each uses and changes what the other has made, as a migration does.
        with connect(server, "app_2", TWO) as second:
            second.execute("ALTER TABLE before ADD what text")
            second.execute("CREATE TABLE after (n int)")
        first.execute("ALTER TABLE after ADD what text")
        [owners] = first.execute(
            "SELECT array_agg(tableowner::text) FROM pg_tables WHERE schemaname = 'public'"
        ).fetchall()
        assert owners[0] == ["app", "app"]
        # The first is withdrawn, with the sessions that it still has.
        assert roles({"app_2": TWO}, ["app"]) == ["app withdrawn", "1 sessions of app ended"]
        with pytest.raises(psycopg.OperationalError):
            first.execute("SELECT 1")
    assert (may(server, "app", ONE), may(server, "app_2", TWO)) == (False, True)
    assert roles({"app_2": TWO}, ["app"]) == []
    # And back.
    assert roles({"app": THREE, "app_2": TWO}) == ["password of app"]
    assert roles({"app": THREE}, ["app_2"]) == ["app_2 withdrawn"]
    assert [may(server, *who) for who in (("app", THREE), ("app", ONE), ("app_2", TWO))] == [True, False, False]


def test_a_new_server_whose_turn_is_the_second_users(server, roles):
    """As after a restore elsewhere: the owner is there, and may not log in."""
    assert "database app" in roles({"app_2": TWO}, ["app"])
    assert (may(server, "app_2", TWO), may(server, "app", ONE)) == (True, False)
    assert roles({"app_2": TWO}, ["app"]) == []


def stranger(server, password):
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE ROLE app_2 LOGIN PASSWORD '{password}'")


def test_a_user_of_somebody_else_keeps_password_and_sessions(server, roles):
    """Of the name that the second login would have."""
    roles({"app": ONE})
    stranger(server, THREE)
    with connect(server, "app_2", THREE) as theirs:
        for logins, withdrawn in (({"app": ONE}, ["app_2"]), ({"app": ONE, "app_2": TWO}, [])):
            with pytest.raises(SystemExit, match="the user app_2 is not one that acts as app, so it is somebody"):
                roles(logins, withdrawn)
        # Not even as a member of the owner, which an admin may be.
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("GRANT app TO app_2")
        with pytest.raises(SystemExit, match="app_2 is not one that acts as app"):
            roles({"app": ONE}, ["app_2"])
        theirs.execute("SELECT 1")
    assert may(server, "app_2", THREE)


def test_a_second_login_is_made_whole_or_not_at_all(server, roles, monkeypatch):
    """Killed in the middle, what is left would be taken for somebody else's."""
    roles({"app": ONE})
    act_as = roles.module.Server.act_as

    def killed(*_arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(roles.module.Server, "act_as", killed)
    with pytest.raises(KeyboardInterrupt):
        roles({"app": ONE, "app_2": TWO})
    monkeypatch.setattr(roles.module.Server, "act_as", act_as)
    assert roles({"app": ONE, "app_2": TWO})[0] == "password of app_2" and may(server, "app_2", TWO)


def test_a_standby_ends_sessions_when_it_has_heard_of_it(server, roles, monkeypatch, capsys):
    roles({"app": ONE, "app_2": TWO})
    ask = roles.module.Server.ask

    def standby(self, query, *values):
        return (True,) if "pg_is_in_recovery" in query else ask(self, query, *values)

    def run(check=False):
        monkeypatch.setattr(roles.module.Server, "ask", standby)
        with pytest.raises(SystemExit) as ended:
            roles({"app_2": TWO}, ["app"], check=check)
        monkeypatch.setattr(roles.module.Server, "ask", ask)
        return ended.value.code, json.loads(capsys.readouterr().out)["changed"]

    with connect(server, "app", ONE) as first:
        assert run() == (4, [])
        with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
            connection.execute("ALTER ROLE app NOLOGIN PASSWORD NULL")
        assert run(check=True) == (3, ["1 sessions of app ended"])
        first.execute("SELECT 1")
        assert run() == (3, ["1 sessions of app ended"])
        with pytest.raises(psycopg.OperationalError):
            first.execute("SELECT 1")
    assert run() == (3, [])


def test_nobody_is_withdrawn_who_is_not_there(roles):
    assert roles({"app": ONE}, ["app_2"]) == ["user app", "password of app", "database app"]
    assert roles({"app": ONE}, ["app_2"]) == []


def test_a_database_of_somebody_else_is_left_alone(roles):
    with pytest.raises(SystemExit, match="the database postgres belongs to bitnet, not to app: name its owner"):
        roles({"app": ONE}, database="postgres")
