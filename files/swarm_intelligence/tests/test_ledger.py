# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger, with a real PostgreSQL that goes and comes back."""

from __future__ import annotations

import json
import socket

import psycopg
from api_lab import AUTHORIZED, TOKEN, wait_until
from swarm_intelligence.entry import Entry
from websockets.sync.client import connect


def rows(url, columns="path, status, prompt_tokens, completion_tokens"):
    with psycopg.connect(url) as connection:
        return connection.execute(f"SELECT {columns} FROM requests ORDER BY began_at").fetchall()


def start(start_api, data, **variables):
    api = start_api(**data, **variables)
    wait_until(lambda: api.service.data.database.up)
    return api


def test_a_row_for_each_request(start_api, data, database_url):
    api = start(start_api, data, release="r1", slot="green")
    api.post("/v1/completions", {"prompt": "Hi"})
    api.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "stream": True})
    api.post("/v1/completions", {"prompt": 5})
    api.injector.behaviour = "cut"
    api.post("/v1/completions", {"prompt": "Hi", "stream": True})
    api.injector.behaviour = "tokens"
    with connect(api.url.replace("http", "ws") + "/ws", additional_headers=AUTHORIZED, proxy=None) as websocket:
        websocket.send(json.dumps({"type": "generate", "id": "a", "prompt": "Hi"}))
        while json.loads(websocket.recv(timeout=60))["type"] != "done":
            pass
    wait_until(lambda: len(rows(database_url)) == 5)
    assert rows(database_url) == [
        ("/v1/completions", 200, 3, 2),
        ("/v1/chat/completions", 200, 3, 2),
        ("/v1/completions", 400, 0, 0),
        ("/v1/completions", 503, 0, 0),
        ("/ws", 200, 3, 2),
    ]
    same = ("token:tests", "local", "fault-injector", "r1", "green")
    assert set(rows(database_url, "owner, environment, model, release, slot")) == {same}
    assert api.metric('bitnet_ledger_rows_total{kind="written"}') == 5


def test_a_client_that_goes_is_499(start_api, data, database_url):
    api = start(start_api, data)
    api.injector.behaviour = "slow"
    body = json.dumps({"prompt": "Hi"}).encode()
    client = socket.create_connection(("127.0.0.1", int(api.url.rsplit(":", 1)[1])))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {TOKEN}\r\nContent-Length: {len(body)}"
    client.sendall(head.encode() + b"\r\n\r\n" + body)
    wait_until(lambda: api.service.intake.running == 1)
    client.close()
    wait_until(lambda: rows(database_url, "status") == [(499,)])


def test_nothing_is_written_of_who_is_not_known(start_api, data, database_url):
    api = start(start_api, data)
    assert api.get("/v1/models", authorized=False).status_code == 401
    api.post("/v1/completions", {"prompt": "Hi"})
    wait_until(lambda: len(rows(database_url)) == 1)


def test_rows_outlive_an_absence_of_the_database(start_api, data, database_url, postgres):
    api = start(start_api, data)
    postgres.stop()
    for _unused in range(5):
        assert api.post("/v1/completions", {"prompt": "Hi"}).status_code == 200
    wait_until(lambda: api.metric("bitnet_ledger_waiting") == 5)
    postgres.start()
    wait_until(lambda: api.metric('bitnet_ledger_rows_total{kind="written"}') == 5)
    assert len(rows(database_url)) == 5
    assert api.metric('bitnet_ledger_rows_total{kind="lost"}') == 0


def test_over_the_bound_the_newest_are_lost_and_counted(start_api, data, database_url, postgres):
    api = start(start_api, data)
    api.service.data.ledger.bound = 3
    postgres.stop()
    for _unused in range(5):
        assert api.post("/v1/completions", {"prompt": "Hi"}).status_code == 200
    assert api.metric('bitnet_ledger_rows_total{kind="lost"}') == 2
    postgres.start()
    wait_until(lambda: len(rows(database_url)) == 3)


def test_a_frozen_database_slows_no_request(start_api, data, postgres):
    """It takes connections and answers none: the worst way to be away."""
    api = start(start_api, data)
    postgres.freeze(True)
    try:
        for _unused in range(3):
            assert api.post("/v1/completions", {"prompt": "Hi"}).elapsed.total_seconds() < 3
        wait_until(lambda: not api.service.data.database.up)
    finally:
        postgres.freeze(False)
    wait_until(lambda: api.service.data.database.up)
    wait_until(lambda: api.metric('bitnet_ledger_rows_total{kind="written"}') == 3)


def test_a_row_that_is_not_taken_keeps_no_other_away(start_api, data, database_url):
    api = start(start_api, data)

    def add():
        for owner in ("token:a", "token:\0", "token:b"):
            api.service.data.ledger.add(Entry(owner, "/ws", 200))

    api.loop.call_soon_threadsafe(add)
    wait_until(lambda: rows(database_url, "owner") == [("token:a",), ("token:b",)])
    assert api.metric('bitnet_ledger_rows_total{kind="lost"}') == 1


def test_the_end_of_the_service_writes_what_waits(start_api, data, database_url):
    api = start(start_api, data)
    api.post("/v1/completions", {"prompt": "Hi"})
    api.stop()
    assert len(rows(database_url)) == 1
