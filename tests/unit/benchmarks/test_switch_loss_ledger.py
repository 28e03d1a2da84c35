# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger judges each request by what came back, and the verdict falls with a single one that is not whole."""

from __future__ import annotations

import json

import pytest

from benchmarks.switch_loss.ledger import (
    Answer,
    Entry,
    Ledger,
    LedgerFull,
    Outcome,
    judge_generation,
    judge_http,
    judge_socket,
    judge_sse,
    judge_status,
    read,
    table,
)

WHOLE = json.dumps({"choices": [{"text": " t0 t1", "finish_reason": "length"}]})
REFUSAL = {"retry-after": "5"}


def error(code, message="no"):
    return json.dumps({"error": {"code": code, "message": message}})


def http(body, status=200, headers=None, **fields):
    values = {"connected": True, "status": status, "headers": headers or {}, "framed": True, **fields}
    return Answer(body=bytearray(body.encode()), **values)


def sse(*events, **fields):
    return http(
        "".join(f"data: {item if isinstance(item, str) else json.dumps(item)}\n\n" for item in events), **fields
    )


def token(text, finish=None):
    return {"choices": [{"text": text, "finish_reason": finish}]}


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (http(WHOLE), Outcome.COMPLETE),
        (http(json.dumps({"choices": [{"text": "a real model's", "finish_reason": "stop"}]})), Outcome.COMPLETE),
        (http(WHOLE, framed=False), Outcome.TRUNCATED),
        (http(WHOLE[:-3]), Outcome.TRUNCATED),
        (http(json.dumps({"choices": [{"text": " t0", "finish_reason": "length"}]})), Outcome.TRUNCATED),
        (http(json.dumps({"choices": [{"text": " t0 t0 t1", "finish_reason": "stop"}]})), Outcome.DUPLICATED),
        (Answer(fault="ConnectionRefusedError"), Outcome.REFUSED),
        (Answer(connected=True, fault="ConnectionResetError"), Outcome.LOST),
        (http(error("bad_gateway"), 502, REFUSAL), Outcome.LOST),
        (http("Bad Gateway", 502), Outcome.LOST),
        (http(error("gateway_timeout"), 504, REFUSAL), Outcome.LOST),
        (http(error("engine_error"), 502), Outcome.FAILED),
        (http(error("not_ready"), 503, REFUSAL), Outcome.REFUSED),
        (http(error("draining", "This slot is being drained"), 503, REFUSAL), Outcome.REFUSED),
        (http(error("draining", "drained before the answer was complete."), 503, REFUSAL), Outcome.ANNOUNCED),
        (http(error("engine_lost"), 503, REFUSAL), Outcome.LOST),
        (http(error("queue_full"), 429, REFUSAL), Outcome.REFUSED),
        (http("no available server", 503), Outcome.REFUSED),
        (http(error("engine_error"), 503), Outcome.FAILED),
        (http(error("internal_error"), 500), Outcome.FAILED),
        (http(error("invalid_token"), 401), Outcome.FAILED),
    ],
)
def test_a_completion(answer, outcome):
    assert judge_http(answer, tokens=2)[0] is outcome


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (sse(token(" t0"), token(" t1"), token("", "length"), "[DONE]"), Outcome.COMPLETE),
        (sse(token(" t0"), token(" t1"), token("", "length")), Outcome.TRUNCATED),
        (sse(token(" t0"), token(" t1"), "[DONE]"), Outcome.TRUNCATED),
        (sse(token(" t0"), token("", "length"), "[DONE]"), Outcome.TRUNCATED),
        (sse(token(" t1"), token(" t0"), token("", "length"), "[DONE]"), Outcome.COMPLETE),  # no stand-in's text
        (sse(token(" t0"), token(" t1"), token("", "length"), "[DONE]", framed=False), Outcome.TRUNCATED),
        (sse(token(" t0"), token(" t0"), token(" t1"), token("", "length"), "[DONE]"), Outcome.DUPLICATED),
        (sse(token(" t0"), token(" t1"), token("", "length"), "[DONE]", "[DONE]"), Outcome.DUPLICATED),
        (sse(token(" t0"), json.loads(error("draining")), "[DONE]"), Outcome.ANNOUNCED),
        (sse(token(" t0"), json.loads(error("engine_lost")), "[DONE]"), Outcome.LOST),
        (sse(token(" t0"), json.loads(error("engine_error")), "[DONE]"), Outcome.FAILED),
        (sse(token(" t0"), '{"choices": [{"te'), Outcome.TRUNCATED),
        (sse(status=None), Outcome.LOST),
    ],
)
def test_a_stream(answer, outcome):
    assert judge_sse(answer, tokens=2)[0] is outcome


DONE = {"type": "done", "finish_reason": "length"}


@pytest.mark.parametrize(
    ("text", "last", "code", "outcome"),
    [
        (" t0 t1", DONE, None, Outcome.COMPLETE),
        (" t0", DONE, None, Outcome.TRUNCATED),
        (" t0 t1 t1", DONE, None, Outcome.DUPLICATED),
        (" t0", {"type": "done", "finish_reason": "cancelled"}, None, Outcome.TRUNCATED),
        (" t0", {"type": "error", "error": {"code": "draining"}}, None, Outcome.ANNOUNCED),
        ("", {"type": "error", "error": {"code": "draining"}}, None, Outcome.REFUSED),
        ("", {"type": "error", "error": {"code": "too_many"}}, None, Outcome.REFUSED),
        (" t0", {"type": "error", "error": {"code": "engine_lost"}}, None, Outcome.LOST),
        (" t0", None, 1012, Outcome.ANNOUNCED),
        ("", None, 1012, Outcome.REFUSED),  # sent while the connection was being closed
        (" t0", None, 1006, Outcome.TRUNCATED),
        ("", None, None, Outcome.LOST),
        ("", None, 1001, Outcome.LOST),
    ],
)
def test_a_generation_on_a_websocket(text, last, code, outcome):
    assert judge_generation(text, last, code, tokens=2)[0] is outcome


def test_a_websocket():
    assert judge_socket(1000, ours=True)[0] is Outcome.COMPLETE
    assert judge_socket(1012, ours=False)[0] is Outcome.ANNOUNCED
    assert judge_socket(1006, ours=False)[0] is Outcome.LOST
    assert judge_socket(1000, ours=False)[0] is Outcome.LOST  # nobody had asked for the end
    assert judge_status(503, REFUSAL, b"")[0] is Outcome.REFUSED


def test_numbers_are_one_word_and_never_twice():
    ledger = Ledger("ab1x")
    numbers = [ledger.begin(kind, 0.0).number for kind in ("http", "sse", "ws", "socket")]
    assert numbers == ["ab1xh000000", "ab1xs000001", "ab1xw000002", "ab1xc000003"]
    assert all(len(number) <= 20 for number in numbers)  # what the edge keeps of it
    with pytest.raises(ValueError):
        Ledger("not-one-word")


def test_the_ledger_is_bounded():
    ledger = Ledger("a", limit=1)
    ledger.begin("http", 0.0)
    with pytest.raises(LedgerFull):
        ledger.begin("http", 0.0)


def test_a_second_end_stays_visible():
    ledger = Ledger("a")
    entry = ledger.begin("http", 0.0)
    ledger.end(entry, (Outcome.COMPLETE, ""), 1.0)
    ledger.end(entry, (Outcome.COMPLETE, ""), 2.0)
    assert (entry.outcome, entry.end) == (Outcome.DUPLICATED, 1.0)


def test_what_has_no_end_is_lost(tmp_path):
    ledger = Ledger("a")
    ledger.end(ledger.begin("sse", 0.0), (Outcome.COMPLETE, ""), 1.0)
    ledger.begin("http", 0.5)
    assert table(ledger)["http"] == {Outcome.LOST: 1}
    ledger.close(3.0)
    ledger.write(tmp_path / "ledger.jsonl")
    assert read(tmp_path / "ledger.jsonl") == list(ledger)
    assert [entry.outcome for entry in ledger] == [Outcome.COMPLETE, Outcome.LOST]
    assert Entry("n", "http", 0.0).seconds is None
