# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The generator against the real api-server, in front of the fault injector of the workload's tests."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter

import pytest

from benchmarks.switch_loss.generator import Load, Shape, Target
from benchmarks.switch_loss.ledger import Ledger, Outcome
from benchmarks.switch_loss.ledger import table as by_kind
from benchmarks.switch_loss.reconcile import parse_backend, reconcile, verdict
from benchmarks.switch_loss.stands import free_port

SHAPE = Shape(rate=20, streams=3, sockets=2, stream_tokens=2, deadline=10)


def loaded(server, seconds=2.0, during=None, shape=SHAPE, limit=5000):
    """Load the server for a while; do something to it in the middle."""
    ledger = Ledger("a1x", limit)

    async def run():
        load = Load(server.target, shape, ledger)
        running = asyncio.create_task(load.run())
        await asyncio.wait([running], timeout=seconds / 2)
        if during:
            during()
        await asyncio.wait([running], timeout=seconds / 2)
        load.stop()
        await running

    asyncio.run(run())
    return ledger


def outcomes(ledger):
    return Counter(entry.outcome for entry in ledger)


def test_all_is_well(start):
    server = start()
    ledger = loaded(server)
    assert set(outcomes(ledger)) == {Outcome.COMPLETE}
    counts = {kind: found.total() for kind, found in by_kind(ledger).items()}
    assert 20 <= counts["http"] <= 45
    assert counts["socket"] == 2
    assert counts["sse"] > 3
    assert counts["ws"] > 2
    server.process.terminate()
    server.process.wait(20)  # its log is written
    said = verdict(ledger, reconcile(ledger.entries, None, parse_backend(server.log.lines(), "a1x", "blue")))
    assert said.proved
    assert said.sides == "client, backend"
    assert {entry.slot for entry in ledger if entry.kind != "socket"} == {"blue"}
    assert all(entry.begun <= entry.first <= entry.end for entry in ledger)


def test_a_server_that_is_killed_mid_stream(start):
    server = start()
    server.injector.behaviour = "slow"  # 400 tokens, 50 ms apart
    ledger = loaded(server, during=server.process.kill)
    counts = by_kind(ledger)
    assert counts["sse"][Outcome.TRUNCATED] == 3  # they had begun
    assert counts["ws"][Outcome.TRUNCATED] == 2
    assert counts["socket"][Outcome.LOST] == 2
    assert counts["http"][Outcome.LOST] > 10  # accepted, and no answer had begun
    assert counts["http"][Outcome.REFUSED] > 5  # those after it were not accepted
    assert not counts["http"][Outcome.COMPLETE]
    said = verdict(ledger, reconcile(ledger.entries, None, parse_backend(server.log.lines(), "a1x", "blue")))
    assert not said.proved


def test_a_drain_that_ends_in_announced_closes(start):
    server = start(GRACE_SECONDS="0.5")
    server.injector.behaviour = "slow"
    ledger = loaded(server, seconds=3, during=lambda: server.process.send_signal(signal.SIGTERM))
    counts = by_kind(ledger)
    assert counts["sse"][Outcome.ANNOUNCED] == 3
    assert counts["ws"][Outcome.ANNOUNCED] >= 2
    assert counts["socket"][Outcome.ANNOUNCED] == 2
    assert counts["http"][Outcome.ANNOUNCED] > 10
    assert not {Outcome.LOST, Outcome.TRUNCATED, Outcome.DUPLICATED, Outcome.FAILED} & set(outcomes(ledger))


def test_a_drain_that_lets_all_of_it_finish(start):
    server = start(GRACE_SECONDS="5")
    ledger = loaded(server, during=lambda: server.process.send_signal(signal.SIGTERM))
    begun_before = [entry for entry in ledger if entry.kind in ("http", "sse") and entry.begun < 0.9]
    assert begun_before
    assert {entry.outcome for entry in begun_before} == {Outcome.COMPLETE}
    assert by_kind(ledger)["socket"][Outcome.ANNOUNCED] == 2
    assert by_kind(ledger)["sse"][Outcome.ANNOUNCED] == 0


@pytest.mark.parametrize(
    ("behaviour", "http", "sse"),
    [
        ("cut", Outcome.LOST, Outcome.LOST),
        ("error", Outcome.FAILED, Outcome.FAILED),
        ("error-in-stream", Outcome.FAILED, Outcome.FAILED),
        ("loading", Outcome.REFUSED, Outcome.REFUSED),
    ],
)
def test_an_engine_that_fails(start, behaviour, http, sse):
    server = start()
    server.injector.behaviour = behaviour
    counts = by_kind(loaded(server, seconds=1))
    assert set(counts["http"]) == {http}
    assert set(counts["sse"]) == {sse}
    assert set(counts["socket"]) == {Outcome.COMPLETE}  # an error of a generation leaves the connection


def test_no_end_within_the_deadline(start):
    server = start()
    server.injector.behaviour = "silent"
    ledger = loaded(server, seconds=0.5, shape=Shape(rate=10, streams=1, sockets=1, deadline=0.5))
    counts = by_kind(ledger)
    assert set(counts["http"]) == set(counts["sse"]) == set(counts["ws"]) == {Outcome.LOST}


def test_a_bounded_number_of_requests(start):
    ledger = loaded(start(), seconds=20, limit=40)
    assert sum(outcomes(ledger).values()) == 40
    assert set(outcomes(ledger)) == {Outcome.COMPLETE}


def test_nobody_listens(tmp_path):
    (tmp_path / "token").write_text("x")

    class Nobody:
        target = Target.parse(f"http://127.0.0.1:{free_port()}", tmp_path / "token")

    assert set(outcomes(loaded(Nobody, seconds=0.5))) == {Outcome.REFUSED}
