# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gate concludes: no data is never a pass, and what says nothing about the slot is no data."""

from __future__ import annotations

import dataclasses
import json

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._traffic import gate
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.gate import FAIL, INCONCLUSIVE, PASS, Answer

COMPLETION = json.dumps({"choices": [{"text": "x"}], "usage": {"completion_tokens": 1}}).encode()
GOOD = Answer(200, "green", 0.1, COMPLETION)


def say(status, slot="green", **more):
    return Answer(status, slot, **more)


@pytest.mark.parametrize(
    ("health", "ready", "verdict", "says"),
    [
        (say(200), say(200), PASS, "/health and /ready of green answered 200"),
        (say(200), say(503, body=b"not ready"), FAIL, "GET /ready: status 503 from green: not ready"),
        (say(200), say(503, ""), FAIL, "GET /ready: status 503"),
        (say(200), say(204), FAIL, "GET /ready: status 204"),
        (say(404), say(200), FAIL, "GET /health: status 404"),
        (say(200, "blue"), say(200, "blue"), INCONCLUSIVE, "slot blue answered in its place"),
        (say(200, ""), say(200, ""), INCONCLUSIVE, "did not say which slot answered"),
        (say(200), say(200, "blue"), INCONCLUSIVE, "GET /ready: slot blue"),
        (say(200, "blue"), say(500), FAIL, "GET /ready: status 500"),
        (say(500), say(200, "blue"), FAIL, "GET /health: status 500"),
        (say(200), say(429, ""), INCONCLUSIVE, "refused for the rate"),
        (Answer(None, error="refused", reached=False), say(200), INCONCLUSIVE, "the edge took no request"),
        (Answer(None, error="cut"), say(200), FAIL, "GET /health: cut"),
    ],
)
def test_healthy(health, ready, verdict, says):
    judged = gate.healthy({"/health": health, "/ready": ready}, "green")
    assert (judged.verdict, says in judged.reason) == (verdict, True), judged


def test_nothing_asked_is_inconclusive():
    assert gate.healthy({}, "green").verdict == INCONCLUSIVE


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (GOOD, PASS),
        (say(200, body=b"{}"), FAIL),
        (say(200, body=b"[1]"), FAIL),
        (say(200, body=b"not JSON"), FAIL),
        (say(200, body=b'{"choices": [], "usage": {"completion_tokens": 1}}'), FAIL),
        (say(200, body=b'{"choices": [1], "usage": {"completion_tokens": 0}}'), FAIL),
        (say(401), FAIL),
        (say(401, ""), INCONCLUSIVE),
        (dataclasses.replace(GOOD, slot="blue"), INCONCLUSIVE),
    ],
)
def test_token(answer, verdict):
    assert gate.token(answer, "green").verdict == verdict


@pytest.mark.parametrize(
    ("values", "share", "expected"), [([1], 0.95, 1), ([3, 1, 2], 0.5, 2), (range(1, 101), 0.95, 95), ([1, 2], 0.95, 2)]
)
def test_percentile_is_a_value_that_was_measured(values, share, expected):
    assert gate.percentile(list(values), share) == expected


def tally(slot, seconds=(), errors=0, silent=0):
    return gate.Tally(slot, list(seconds), ["status 500"] * errors, ["refused"] * silent)


NOISE, SLOWER, SLOW, FAST = [0.130] * 20, [0.2] * 20, [0.900] * 20, [0.100] * 20


@pytest.mark.parametrize(
    ("slot", "baseline", "limits", "verdict", "says"),
    [
        (tally("green", FAST), tally("blue", FAST), {}, PASS, "share this machine"),
        (tally("green", SLOW), tally("blue", FAST), {}, FAIL, "a ratio of 9.00; allowed is 1.5"),
        (tally("green", SLOW), tally("blue", FAST), {"latency_ratio": 10}, PASS, "a ratio of 9.00"),
        (
            tally("green", SLOWER),
            tally("blue", FAST),
            {"latency_floor_ms": 100},
            PASS,
            "up to 100 ms counts as noise",
        ),
        (tally("green", NOISE), tally("blue", FAST), {"latency_ratio": 1.1}, PASS, "counts as noise"),
        (tally("green", FAST), tally("blue", SLOW), {}, PASS, "a ratio of 0.11"),
        (tally("green", FAST[1:], 1), tally("blue", FAST), {}, FAIL, "1 of 20 requests to green failed"),
        (tally("green", FAST[1:], 1), tally("blue", FAST), {"error_ratio": 0.05}, PASS, "1 of 20"),
        (tally("green", FAST[2:], 2), tally("blue", FAST), {"error_ratio": 0.05}, FAIL, "2 of 20"),
        (tally("green"), tally("blue", FAST), {}, INCONCLUSIVE, "only 0 of 20"),
        (tally("green", FAST[1:], 0, 1), tally("blue", FAST), {}, INCONCLUSIVE, "only 19 of 20"),
        (tally("green", FAST[:5]), tally("blue", FAST[:5]), {}, INCONCLUSIVE, "only 5 of 20"),
        (tally("green", [], 3), tally("blue", FAST), {}, FAIL, "3 of 3 requests to green failed"),
        (tally("green", FAST), tally("blue", [], 20), {}, INCONCLUSIVE, "0 answers of blue are fewer than 5"),
        (tally("green", FAST), tally("blue", FAST[:4], 0, 16), {}, INCONCLUSIVE, "the last: refused"),
        (tally("green", [], 20), tally("blue", FAST), {"error_ratio": 1}, INCONCLUSIVE, "0 answers of green"),
        (tally("green", FAST), None, {}, PASS, "the latency was not judged"),
        (tally("green", FAST[1:], 1), None, {}, FAIL, "the last: status 500"),
    ],
)
def test_compare(slot, baseline, limits, verdict, says):
    judged = gate.compare(slot, baseline, gate.Limits(**limits), 20)
    assert (judged.verdict, says in judged.reason) == (verdict, True), judged
    assert judged.figures["slot"]["errors"] == len(slot.errors)


def test_a_tally_counts_a_completion_without_a_token_as_an_error():
    counted = gate.Tally("green")
    for answer in (GOOD, say(200, body=b"{}"), say(500), say(200, "blue", body=COMPLETION)):
        counted.add(answer)
    assert (len(counted.seconds), len(counted.errors), len(counted.silent)) == (1, 2, 1)


STAT = """# pxname,svname,act,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,econ,eresp,srv_abrt,
edge,FRONTEND,,0,999,0,0,9,0,,,,
green,replica1,1,0,100,0,1,2,0,3,4,1,
green,BACKEND,1,0,100,0,1,2,0,3,4,1,
blue,BACKEND,0,,,,,,,,,,
"""


def test_counters_are_read_by_name():
    assert gate.seen("Name: HAProxy\nPid: 12\n", STAT, "green") == gate.Seen(12, 103, 2, 3, 4, 1, 1)
    assert gate.seen("", STAT, "blue") == gate.Seen(0, 0, 0, 0, 0, 0, 0)
    with pytest.raises(gate.GateError, match="no backend red"):
        gate.seen("", STAT, "red")


@pytest.mark.parametrize(
    ("more", "allowed", "verdict", "says"),
    [
        ({"requests": 1100}, 0.0, PASS, "0 errors in 100 requests"),
        ({}, 0.0, INCONCLUSIVE, "no request was answered by green in 30 s"),
        ({"requests": 1100, "status_5xx": 6}, 0.0, FAIL, "1 errors in 100"),
        ({"requests": 1100, "status_5xx": 6}, 0.01, PASS, "ratio of 0.010"),
        ({"requests": 1100, "status_5xx": 7, "connect_errors": 2}, 0.02, PASS, "2 errors in 100"),
        ({"requests": 1100, "response_errors": 3}, 0.0, FAIL, "3 answers failed"),
        ({"requests": 1100, "status_5xx": 6, "response_errors": 1}, 0.0, FAIL, "1 errors in 100"),
        ({"requests": 1100, "response_errors": 2, "cut": 2}, 0.0, FAIL, "2 errors in 100"),
        ({"requests": 1100, "status_5xx": 6, "response_errors": 1, "cut": 1}, 0.0, FAIL, "2 errors in 100"),
        ({"requests": 1100, "status_5xx": 7, "response_errors": 2, "cut": 1}, 0.0, FAIL, "3 errors in 100"),
        ({"connect_errors": 2}, 0.5, FAIL, "2 errors in 0 requests"),
        ({"requests": 1100, "pid": 2}, 0.0, INCONCLUSIVE, "restarted or reloaded"),
        ({"requests": 10}, 0.0, INCONCLUSIVE, "restarted or reloaded"),
    ],
)
def test_watch(more, allowed, verdict, says):
    before = gate.Seen(1, 1000, 5, 0, 0, 0, 1)
    judged = gate.watch(before, dataclasses.replace(before, **more), "green", 30, allowed)
    assert (judged.verdict, says in judged.reason) == (verdict, True), judged


@pytest.mark.parametrize(
    ("status", "verdict"), [(0, PASS), (1, FAIL), (2, FAIL), (3, FAIL), (4, INCONCLUSIVE), (-9, FAIL)]
)
def test_command(status, verdict):
    assert gate.command(status, "").verdict == verdict


def test_the_reason_of_a_command_is_bounded():
    reason = gate.command(1, "\n".join(f"line {number} {'x' * 500}" for number in range(100))).reason
    assert "line 99" in reason and "line 89" not in reason and len(reason) < 1600
    assert gate.command(-9, " \n").reason == "signal 9 ended it"


def test_a_gate_that_never_returns_has_not_passed():
    late = gate.no_result(3, "status 503")
    assert (late.verdict, late.reason) == (INCONCLUSIVE, "no result within 3 s; seen last: status 503")
