# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The number that a client gives its request is in the log line of that request, and nothing else of a client is."""

from __future__ import annotations

import json
import logging

import httpx
import pytest
from api_lab import AUTHORIZED, wait_until
from swarm_intelligence.logs import number_of
from websockets.sync.client import connect

NUMBER = "X-Request-Number"


@pytest.fixture
def generated(caplog):
    """Fields of the lines `generated` so far."""
    caplog.set_level(logging.INFO, logger="swarm_intelligence")
    return lambda: [record.fields for record in caplog.records if record.getMessage() == "generated"]


@pytest.mark.parametrize("value", ["7", "3h000123", "x" * 32])
def test_numbers_that_are_logged(value):
    assert number_of(value) == value


@pytest.mark.parametrize("value", [None, "", "x" * 33, "a b", "a\n", 'a"', "../a", "\u0663", "a-1"])
def test_numbers_that_are_not(value):
    assert number_of(value) is None


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_with_a_number(api, generated, stream):
    body = {"prompt": "Hi", "stream": stream}
    headers = {**AUTHORIZED, NUMBER: "1h000007"}
    assert httpx.post(f"{api.url}/v1/completions", json=body, headers=headers, trust_env=False).status_code == 200
    wait_until(generated)
    assert [line["request_number"] for line in generated()] == ["1h000007"]


@pytest.mark.parametrize("headers", [{}, {NUMBER: 'x", "level": "error'}, {NUMBER: "1" * 33}])
def test_a_request_without_one_that_can_be_used(api, generated, headers):
    headers = {**AUTHORIZED, **headers}
    answer = httpx.post(f"{api.url}/v1/chat/completions", headers=headers, trust_env=False,
                        json={"messages": [{"role": "user", "content": "Hi"}]})  # fmt: skip
    assert answer.status_code == 200
    wait_until(generated)
    assert "request_number" not in generated()[0]


@pytest.mark.parametrize(
    ("headers", "identity", "expected"),
    [
        ({NUMBER: "1c000001"}, "1w000002", {"connection_number": "1c000001", "request_number": "1w000002"}),
        ({NUMBER: "1c000001"}, "my own id", {"connection_number": "1c000001"}),
        ({}, "1w000002", {}),  # an id is the client's own matter unless it asks for it
    ],
)
def test_a_generation_on_a_websocket(api, generated, headers, identity, expected):
    url = api.url.replace("http", "ws") + "/ws"
    with connect(url, additional_headers={**AUTHORIZED, **headers}, proxy=None) as socket:
        socket.send(json.dumps({"type": "generate", "id": identity, "prompt": "Hi"}))
        while json.loads(socket.recv(timeout=10))["type"] != "done":
            pass
    line = generated()[0]
    assert {name: line[name] for name in ("connection_number", "request_number") if name in line} == expected
