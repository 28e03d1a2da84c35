# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import asyncio
import json
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from api_lab import AUTHORIZED, TOKEN, wait_until
from swarm_intelligence import websocket
from swarm_intelligence.auth import Principal
from swarm_intelligence.engine import Piece
from swarm_intelligence.schemas import WsGenerate
from swarm_intelligence.websocket import Connection
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

PRINCIPAL = Principal("token:tests", "tests", frozenset({"generate"}))


def open_ws(api, headers=None):
    headers = AUTHORIZED if headers is None else headers
    return connect(api.url.replace("http", "ws") + "/ws", additional_headers=headers, proxy=None, open_timeout=10)


def say(socket, **message):
    socket.send(json.dumps(message))


def hear(socket):
    return json.loads(socket.recv(timeout=10))


def closed_with(socket):
    with pytest.raises(ConnectionClosed) as closed:
        for _unused in range(1000):
            socket.recv(timeout=10)
    return closed.value.rcvd.code


def test_a_generation(api):
    with open_ws(api) as socket:
        assert hear(socket) == {"type": "ready", "model": "fault-injector", "release": "unreleased"}
        say(socket, type="generate", id="a", prompt="Hi", max_tokens=2)
        assert [hear(socket) for _unused in range(3)] == [
            {"type": "token", "id": "a", "text": " one"},
            {"type": "token", "id": "a", "text": " two"},
            {
                "type": "done",
                "id": "a",
                "finish_reason": "length",
                "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
            },
        ]
        say(socket, type="generate", id="a", messages=[{"role": "user", "content": "Hi"}])
        assert hear(socket)["text"] == " one"
        assert api.metric("bitnet_websockets") == 1
    wait_until(lambda: api.metric("bitnet_websockets") == 0)
    assert api.metric('http_requests_total{method="WEBSOCKET",path="/ws",status="101"}') == 1


def test_token_in_the_first_message(api):
    with open_ws(api, {}) as socket:
        say(socket, type="auth", token=TOKEN)
        assert hear(socket)["type"] == "ready"


@pytest.mark.parametrize("first", ['{"type": "auth", "token": "wrong"}', '{"type": "generate"}', "nonsense"])
def test_a_wrong_first_message_closes(api, first):
    with open_ws(api, {}) as socket:
        socket.send(first)
        assert hear(socket)["error"]["code"] == "invalid_token"
        assert closed_with(socket) == 1008


def test_a_wrong_header_is_refused_in_the_handshake(api):
    with pytest.raises(InvalidStatus) as refused:
        open_ws(api, {"Authorization": "Bearer wrong"})
    assert refused.value.response.status_code == 401
    assert refused.value.response.headers["www-authenticate"]


def test_not_ready(start_api):
    with pytest.raises(InvalidStatus) as refused:
        open_ws(start_api(ready=False))
    assert refused.value.response.status_code == 503


def test_several_generations_and_cancel(api):
    api.injector.behaviour = "slow"
    with open_ws(api) as socket:
        hear(socket)
        say(socket, type="generate", id="a", prompt="Hi")
        say(socket, type="generate", id="b", prompt="Hi")
        seen = set()
        while seen != {"a", "b"}:
            seen.add(hear(socket)["id"])
        say(socket, type="cancel", id="a")
        wait_until(lambda: api.injector.open == 1)
        while (message := hear(socket))["type"] == "token":
            pass
        assert message == {"type": "done", "id": "a", "finish_reason": "cancelled", "usage": None}
    wait_until(lambda: api.injector.open == 0)  # the client that went freed the other one


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ("{", None),
        ('{"type": "dance"}', "type"),
        ('{"type": "generate", "id": "a"}', "prompt"),
        ('{"type": "generate", "id": "a", "prompt": "Hi", "messages": [{"role": "user", "content": "x"}]}', "prompt"),
        ('{"type": "generate", "prompt": "Hi"}', "id"),
        ('{"type": "generate", "id": "a", "prompt": "Hi", "temperature": 9}', "temperature"),
        ('{"type": "auth", "token": "x"}', "type"),
    ],
)
def test_wrong_messages_leave_the_connection_open(api, message, param):
    with open_ws(api) as socket:
        hear(socket)
        socket.send(message)
        answer = hear(socket)
        assert (answer["type"], answer["error"].get("param")) == ("error", param)
        say(socket, type="generate", id="next", prompt="Hi")
        assert hear(socket)["id"] == "next"


def test_generations_of_a_connection_are_bounded(start_api):
    api = start_api(parallel="1")
    api.injector.behaviour = "silent"
    with open_ws(api) as socket:
        hear(socket)
        for number in range(9):
            say(socket, type="generate", id=str(number), prompt="Hi")
        assert hear(socket)["error"]["code"] == "too_many"


def test_large_and_binary_messages(start_api):
    api = start_api(max_body_bytes="2048")
    with open_ws(api) as socket:
        hear(socket)
        socket.send("x" * 5000)
        assert closed_with(socket) == 1009
    with open_ws(api) as socket:
        hear(socket)
        socket.send(b"\x00")
        assert closed_with(socket) == 1003


def test_a_fault_of_the_engine(api):
    api.injector.behaviour = "error"
    with open_ws(api) as socket:
        hear(socket)
        say(socket, type="generate", id="a", prompt="Hi")
        assert hear(socket)["error"]["code"] == "engine_error"


def test_drain_closes_one_after_the_other_with_1012(api, monkeypatch):
    times = []
    close = Connection.close_for_drain

    async def noted(connection):
        times.append(time.monotonic())
        await close(connection)

    monkeypatch.setattr(Connection, "close_for_drain", noted)
    sockets = [open_ws(api) for _unused in range(5)]
    for socket in sockets:
        hear(socket)
    api.begin_drain()
    for socket in sockets:
        assert closed_with(socket) == 1012
    assert len(times) == 5
    assert max(times) - min(times) > 0.2  # four pauses of a tenth of a second, by the server's own clock
    assert api.service.metrics.announced_closes.labels("websocket")._value.get() == 5
    api.thread.join(10)
    assert not api.thread.is_alive()


def test_drain_cuts_a_generation_at_its_deadline(api):
    object.__setattr__(api.service.settings, "grace_seconds", 0.5)
    api.injector.behaviour = "slow"
    with open_ws(api) as socket:
        hear(socket)
        say(socket, type="generate", id="a", prompt="Hi")
        hear(socket)
        api.begin_drain()
        while (message := hear(socket))["type"] == "token":
            pass
        assert message["error"]["code"] == "draining"
        assert closed_with(socket) == 1012


def test_a_client_that_does_not_read_ends_its_generation_and_nothing_else(monkeypatch):
    ended = []

    @asynccontextmanager
    async def generation():
        try:
            yield SimpleNamespace()
        finally:
            ended.append("generation")

    async def pieces(_request):
        try:
            yield Piece("x")
        finally:
            ended.append("pieces")

    async def never(_text):
        await asyncio.sleep(60)

    monkeypatch.setattr(websocket, "SEND_SECONDS", 0.05)
    service = SimpleNamespace(generation=generation, pieces=pieces, account=lambda entry: ended.append(entry.status))
    connection = Connection(service, SimpleNamespace(send_text=never, headers={}))
    request = WsGenerate(type="generate", id="a", prompt="Hi")
    asyncio.run(asyncio.wait_for(connection._generate(request, PRINCIPAL), 5))  # no error that nobody would see
    assert ended == ["pieces", "generation", 499]
    assert connection.generations == {}
