# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Client, edge and backend must tell one story; each way in which they do not is found."""

from __future__ import annotations

import json

import pytest

from benchmarks.switch_loss.ledger import Entry, Outcome
from benchmarks.switch_loss.reconcile import BackendLine, EdgeLine, parse_backend, parse_edge, reconcile, verdict

RUN = "ab1x"


def entries(**outcomes):
    kinds = {"h": "http", "s": "sse", "w": "ws", "c": "socket"}
    return {
        RUN + name: Entry(RUN + name, kinds[name[0]], 0.0, 0.1, 0.2, Outcome(outcome))
        for name, outcome in outcomes.items()
    }


def edge(*names, status=200, state="----", retries="0"):
    return [EdgeLine(RUN + name, "blue", status, state, retries) for name in names]


def backend(*names, slot="blue"):
    return [BackendLine(RUN + name, slot) for name in names]


def judged(found, edge_lines, backend_lines):
    return verdict(found.values(), reconcile(found, edge_lines, backend_lines))


def test_one_story():
    found = entries(h1="complete", s2="complete", w3="complete", c4="complete", h5="refused", h6="announced")
    said = judged(found, edge("h1", "s2", "h6") + edge("c4", status=101, state="CD--"), backend("h1", "s2", "w3"))
    assert said.proved
    assert (said.accepted, said.findings, said.sides) == (5, 0, "client, edge, backend")
    assert said.sentence().startswith("nothing that was accepted was lost: of 5 accepted, 4 complete, 1 closed with")
    assert {entry.slot for entry in found.values()} == {"blue", None}


@pytest.mark.parametrize("outcome", ["lost", "truncated", "duplicated", "failed"])
def test_one_request_is_enough_to_fail(outcome):
    found = entries(**{f"h{number}": "complete" for number in range(99)}, h99=outcome)
    names = [name.removeprefix(RUN) for name in found]
    said = judged(found, edge(*names), backend(*names))
    assert not said.proved
    assert f"1 {outcome}" in said.sentence()


@pytest.mark.parametrize("outcome", ["announced", "refused"])
def test_announced_and_refused_are_counted_apart(outcome):
    said = judged(entries(h1="complete", s2=outcome), edge("h1", "s2"), backend("h1"))
    assert said.proved
    assert said.counts[Outcome(outcome)] == 1
    assert said.accepted == (2 if outcome == "announced" else 1)


@pytest.mark.parametrize(
    ("edge_lines", "backend_lines", "says"),
    [
        (edge("h1"), backend("h1") + backend("h1", slot="green"), "as well as by blue"),
        (edge("h1"), backend("h1", "h1"), "twice"),
        (edge("h1", "h1"), backend("h1"), "the edge saw it twice"),
    ],
)
def test_what_two_have_worked_on_is_duplicated(edge_lines, backend_lines, says):
    found = entries(h1="complete")
    assert not judged(found, edge_lines, backend_lines).proved
    assert found[RUN + "h1"].outcome is Outcome.DUPLICATED
    assert says in found[RUN + "h1"].detail


@pytest.mark.parametrize(
    ("edge_lines", "backend_lines", "says"),
    [
        ([], backend("h1"), "not in the edge's log"),
        (edge("h1"), [], "no backend generated it"),
        (edge("h1", state="SD--"), backend("h1"), "the edge says 200 SD--"),
        (edge("h1", status=502), backend("h1"), "the edge says 502"),
        (edge("h1", "h7"), backend("h1"), "no client sent it"),
        (edge("h1"), backend("h1", "h7"), "no client sent it"),
    ],
)
def test_contradictions(edge_lines, backend_lines, says):
    found = entries(h1="complete")
    result = reconcile(found, edge_lines, backend_lines)
    assert not verdict(found.values(), result).proved
    assert len(result.findings) == 1
    assert says in result.findings[0]


@pytest.mark.parametrize(("dropped", "proved"), [(0, False), (1, False), (2, True), (9, True)])
def test_lines_that_the_edge_admits_to_have_dropped(dropped, proved):
    found = entries(h1="complete", h2="complete", h3="complete")
    result = reconcile(found, edge("h1"), backend("h1", "h2", "h3"), dropped)
    assert verdict(found.values(), result).proved is proved
    assert result.unlogged == (2 if proved else 0)


def test_refused_to_the_client_and_worked_on():
    assert not judged(entries(h1="complete", w2="refused"), None, backend("h1", "w2")).proved


def test_another_slot_than_the_answer_named():
    found = entries(h1="complete")
    found[RUN + "h1"].slot = "green"
    assert not judged(found, None, backend("h1")).proved


def test_logs_that_are_not_there_are_not_taken_for_agreement():
    said = judged(entries(h1="complete"), None, None)
    assert said.sides == "client"
    assert said.proved  # by the client alone, and the sentence says so
    assert "contradictions between client" in said.sentence()


def test_nothing_accepted_proves_nothing():
    assert not judged(entries(h1="refused"), [], []).proved
    assert not judged({}, [], []).proved


def test_a_lost_request_that_was_finished():
    found = entries(s1="truncated")
    result = reconcile(found, edge("s1", state="SD--"), backend("s1"))
    assert result.finished_unseen == 1
    assert found[RUN + "s1"].detail.endswith("[edge: 200 SD-- blue]")


HAPROXY = (
    "10.0.1.2:4711 [25/Nov/2026:16:49:40.123] edge green/replica1 0/0/1/12/13 200 345 - - {state} 1/1/0/0/{retries} "
    '0/0{captured} "POST /v1/completions HTTP/1.1"'
)


@pytest.mark.parametrize("captured", [" {ab1xh000001}", " {curl/8|ab1xh000001}", " {ab1xh000001} {text/plain}"])
@pytest.mark.parametrize("prefix", ["", "bitnet-local-edge.x.y@node    | "])
def test_lines_of_haproxy(captured, prefix):
    line = prefix + HAPROXY.format(state="--NI", retries="+1", captured=captured)
    assert parse_edge([line], RUN) == [EdgeLine("ab1xh000001", "green", 200, "--NI", "+1")]


def test_lines_that_are_passed_over():
    lines = [HAPROXY.format(state="----", retries="0", captured=text) for text in ("", " {other1}", " {}")]
    assert parse_edge([*lines, "", "[NOTICE] (1) : New worker (8) forked", "{}"], RUN) == []
    assert parse_backend(["{}", "nonsense", '{"request_number": "ab1x', '{"request_number": "zz", "message": "x"}'],
                         RUN, "blue") == []  # fmt: skip


def test_lines_of_traefik():
    line = {"request_X-Request-Number": "ab1xs000002", "ServiceName": "blue@file", "DownstreamStatus": 200,
            "RetryAttempts": 0}  # fmt: skip
    assert parse_edge([json.dumps(line)], RUN) == [EdgeLine("ab1xs000002", "blue", 200, "----", "0")]


def test_lines_of_a_slot():
    line = json.dumps({"message": "generated", "path": "/ws", "request_number": "ab1xw000003"})
    other = json.dumps({"message": "drained", "request_number": "ab1xw000003"})
    assert parse_backend([line, other], RUN, "blue") == [BackendLine("ab1xw000003", "blue")]
    task = "bitnet-local-blue.1.abc@node    | "
    assert parse_backend([task + line], RUN, "blue") == [BackendLine("ab1xw000003", "blue:bitnet-local-blue.1.abc")]
