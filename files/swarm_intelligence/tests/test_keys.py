# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""API keys, with a real PostgreSQL: through the command line and through the API."""

from __future__ import annotations

import json

import httpx
import psycopg
import pytest
from api_lab import wait_until
from swarm_intelligence import keys
from websockets.sync.client import connect


@pytest.fixture
def cli(run, url_file):
    def command(*arguments):
        code, document, said = run(*arguments, "--json", "--url-file", url_file)
        assert code == 0, said
        return document

    command("database", "migrate")
    return command


def ask(api, key, method="POST", path="/v1/completions", body=None):
    return httpx.request(
        method, api.url + path, json=body or ({"prompt": "Hi"} if method == "POST" else None),
        headers={"Authorization": f"Bearer {key}"}, timeout=60, trust_env=False,
    )  # fmt: skip


def start(start_api, data, **variables):
    api = start_api(**data, **variables)
    wait_until(lambda: api.service.data.database.up and api.service.data.redis.up)
    return api


def test_a_key_from_making_to_its_end(start_api, data, cli, database_url, monkeypatch):
    made = cli("keys", "create", "reports", "--scope", "generate")
    key = made["key"]
    assert keys.FORM.fullmatch(key)
    with psycopg.connect(database_url) as connection:
        rows = str(connection.execute("SELECT * FROM api_keys").fetchall())
    assert key not in rows and key.split("_", 2)[2] not in rows
    assert "key" not in cli("keys", "list")[0] and "digest" not in cli("keys", "list")[0]

    api = start(start_api, data)
    assert ask(api, key).status_code == 200
    assert ask(api, key, "GET", "/v1/models").status_code == 200
    assert ask(api, key[:-1] + ("A" if key[-1] != "A" else "B")).status_code == 401
    refused = ask(api, key, path="/v1/jobs", body={"url": "/v1/completions", "body": {"prompt": "Hi"}})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "insufficient_scope")

    monkeypatch.setattr(keys, "FRESH_SECONDS", 0.2)
    assert cli("keys", "revoke", made["id"])["changed"] is True
    assert cli("keys", "revoke", made["id"])["changed"] is False
    wait_until(lambda: ask(api, key).status_code == 401)


def test_an_expired_key_is_no_key(start_api, data, cli, database_url):
    made = cli("keys", "create", "visitor", "--scope", "generate", "--days", "1")
    api = start(start_api, data)
    assert ask(api, made["key"]).status_code == 200
    known = api.service.data.keys._known[keys.digest_of(made["key"])]
    known.expires_at = known.expires_at.replace(year=2020)  # also while it is remembered
    assert ask(api, made["key"]).status_code == 401


def test_an_open_websocket_ends_with_its_key(start_api, data, cli, monkeypatch):
    monkeypatch.setattr(keys, "FRESH_SECONDS", 0.0)
    made = cli("keys", "create", "talker", "--scope", "generate")
    api = start(start_api, data)
    address = api.url.replace("http", "ws") + "/ws"
    with connect(address, additional_headers={"Authorization": f"Bearer {made['key']}"}, proxy=None) as socket:

        def last_message():
            socket.send(json.dumps({"type": "generate", "id": "a", "prompt": "Hi"}))
            while (message := json.loads(socket.recv(timeout=60)))["type"] not in ("done", "error"):
                pass
            return message

        assert last_message()["type"] == "done"
        cli("keys", "revoke", made["id"])
        assert last_message()["error"]["code"] == "invalid_token"
    with connect(address, proxy=None) as socket:
        socket.send(json.dumps({"type": "auth", "token": made["key"]}))
        assert json.loads(socket.recv(timeout=60))["error"]["code"] == "invalid_token"


def test_keys_go_on_while_the_database_is_away(start_api, data, cli, postgres, monkeypatch):
    monkeypatch.setattr(keys, "FRESH_SECONDS", 0.0)
    first = cli("keys", "create", "first", "--scope", "generate")["key"]
    second = cli("keys", "create", "second", "--scope", "generate")["key"]
    api = start(start_api, data)
    assert ask(api, first).status_code == 200
    postgres.stop()
    try:
        assert ask(api, first).status_code == 200  # known before
        answer = ask(api, second)  # neither known nor unknown
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "keys_unavailable")
        assert answer.headers["retry-after"]
        assert ask(api, "nonsense").status_code == 401
        assert ask(api, "a-token-of-the-tests").status_code == 200  # of the file
        assert api.get("/ready", authorized=False).json() == {"ready": True, "database": "away", "redis": "up"}
        assert api.metric("bitnet_database_up") == 0
    finally:
        postgres.start()
    wait_until(lambda: ask(api, second).status_code == 200)


@pytest.mark.parametrize(
    "key",
    ["bitnet_", "bitnet_" + "a" * 12, "bitnet_aaaaaaaaaaaa_' OR 1=1 --" + "x" * 30,
     "bitnet_" + "é" * 12 + "_" + "x" * 43, "x" * 5000, "bitnet_aaaaaaaaaaaa_" + "x" * 44, "%00",
     "bitnet_aaaaaaaaaaaa_" + "x" * 43],
)  # fmt: skip
def test_hostile_keys_are_unknown(start_api, data, cli, key):
    api = start(start_api, data)
    headers = {"Authorization": b"Bearer " + key.encode()}
    assert httpx.get(api.url + "/v1/models", headers=headers, trust_env=False, timeout=60).status_code == 401
    assert len(api.service.data.keys._known) <= 1  # only what has the form is looked up


@pytest.mark.parametrize("name", ["", "Name", "a b", "a'; DROP TABLE api_keys; --", "x" * 64, "_a", "a\n", "\0"])
def test_names_of_keys_are_checked(run, cli, url_file, name):
    code, _none, said = run("keys", "create", name, "--json", "--scope", "generate", "--url-file", url_file)
    assert (code, "cannot be used" in said) == (1, True)
    assert cli("keys", "list") == []


def test_an_unknown_key_is_not_revoked(run, cli, url_file):
    code, _none, said = run("keys", "revoke", "nobody", "--json", "--url-file", url_file)
    assert (code, "keys list" in said) == (1, True)
