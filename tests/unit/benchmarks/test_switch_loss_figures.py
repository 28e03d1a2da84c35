# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Percentiles, the knee, convergence; the order of moves; and that table, JSON and plot say what the ledger holds."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from benchmarks.switch_loss import report
from benchmarks.switch_loss.figures import Convergence, Move, Step, convergence, gap, knee, latencies, percentile
from benchmarks.switch_loss.generator import Shape, Target, TargetError
from benchmarks.switch_loss.ledger import Entry, Ledger, Outcome
from benchmarks.switch_loss.reconcile import reconcile, verdict
from benchmarks.switch_loss.scenario import Plan, Result, spread
from benchmarks.switch_loss.stands import StandError, Subject, with_numbers


def test_percentile():
    values = [float(number) for number in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.95), percentile(values, 1)) == (51.0, 96.0, 100.0)
    assert math.isnan(percentile([], 0.5))


def step(asked, achieved=None, p95=0.02, broken=0):
    return Step(asked, asked if achieved is None else achieved, p95, broken)


@pytest.mark.parametrize(
    ("steps", "rate", "says"),
    [
        ([step(10), step(20), step(40)], 40, "no rate that was tried broke it"),
        ([step(10), step(20), step(40, achieved=30)], 20, "only 30.0 of 40.0 requests/s"),
        ([step(10), step(20), step(40, p95=0.5), step(80)], 20, "p95 is 500 ms, more than 100"),
        ([step(10, p95=0.1), step(20, p95=0.35), step(40, p95=0.5)], 20, "more than 400"),
        ([step(10), step(20, p95=0.09)], 20, "no rate"),  # under the floor latency is nobody's trouble
        ([step(10), step(20, broken=3)], 10, "3 requests were refused"),
        ([step(10, p95=math.nan)], 0, "p95 is nan"),
        ([], 0, "no rate"),
    ],
)
def test_knee(steps, rate, says):
    found = knee(steps)
    assert found.rate == rate
    assert says in found.reason


def entry(begun, slot, kind="http", outcome=Outcome.COMPLETE):
    return Entry(f"a{begun}", kind, begun, begun + 0.1, begun + 0.2, outcome, slot=slot)


def test_convergence_counts_new_requests_only():
    entries = [
        entry(9.9, "blue"), entry(10.1, "blue"), entry(10.3, "green"), entry(10.5, "blue"), entry(10.6, "green"),
        entry(12.0, "blue", kind="ws"),  # its connection is older than the move
        entry(13.0, None), entry(20.1, "blue"),
    ]  # fmt: skip
    found = convergence(entries, Move("switch", "green", begun=10.0), until=20.0)
    assert found == Convergence(pytest.approx(0.3), pytest.approx(0.5))
    assert found.spread == pytest.approx(0.2)
    assert convergence([entry(10.5, None)], Move("switch", "green", 10.0), 20.0) is None
    assert convergence([entry(10.5, "blue")], Move("switch", "green", 10.0), 20.0) is None


def test_gap_and_latencies():
    entries = [entry(10.5, "blue"), entry(11.0, "blue", outcome=Outcome.REFUSED), entry(13.0, "green")]
    assert gap(entries, 10.0, 14.0) == pytest.approx(2.5)
    assert gap([], 10.0, 14.0) == pytest.approx(4.0)
    assert latencies(entries, begun=11.0) == [pytest.approx(0.2)]


@pytest.mark.parametrize(("switches", "rollbacks"), [(10, 4), (3, 1), (2, 2), (5, 0), (1, 1)])
def test_rollbacks_are_spread_among_switches(switches, rollbacks):
    order = spread(switches, rollbacks, ("switch", "rollback"))
    assert (order.count("switch"), order.count("rollback")) == (switches, rollbacks)
    assert order[0] == "switch"


def subject(**fields):
    async def act(kind, target):
        return 0, ""

    return Subject("switch", "by a test", "http://127.0.0.1:1", Path("token"), act, **fields)


def test_moves_go_to_the_other_slot_each_time():
    moves = Plan(switches=3, rollbacks=1).moves(subject())
    assert [target for _unused, target in moves] == ["green", "blue", "green", "blue"]
    updates = Plan(switches=2, rollbacks=4).moves(subject(kinds=("update",), targets=("service",)))
    assert updates == [("update", "service"), ("update", "service")]


def test_only_this_machine_and_test_machines_are_loaded(tmp_path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    assert Target.parse("http://localhost:8080", token) == Target("127.0.0.1", 8080, "secret")
    assert Target.parse("http://172.17.0.2", token).port == 80
    assert Target.parse("http://[::1]:1", token).authority == "[::1]:1"
    for url in ("http://8.8.8.8", "http://bitnet.example", "https://127.0.0.1", "127.0.0.1:80", ""):
        with pytest.raises(TargetError):
            Target.parse(url, token)
    with pytest.raises(TargetError):
        Target.parse("http://127.0.0.1", tmp_path / "none")


def test_the_edge_gets_the_capture_once():
    plain = "frontend edge\n    bind :8080\n    mode http\n"
    captured = with_numbers(plain)
    assert "\n    http-request capture req.hdr(X-Request-Number) len 20\n    mode http\n" in captured
    assert with_numbers(captured) == captured
    with pytest.raises(StandError):
        with_numbers("frontend edge\n")


def result_of(*outcomes):
    ledger = Ledger("a1x")
    for number, outcome in enumerate(outcomes):
        made = ledger.begin("http", number / 2)
        made.slot = "blue" if number < 2 else "green"
        ledger.end(made, (outcome, "because"), number / 2 + 0.1)
    found = reconcile(ledger.entries, None, None)
    moves = [Move("switch", "green", 0.9, 1.0)]
    return Result(subject(), Shape(), ledger, moves, 2.0, 2.1, 0, found, verdict(ledger, found))


@pytest.mark.parametrize("broken", [False, True])
def test_table_json_and_plot(tmp_path, broken):
    result = result_of(
        Outcome.COMPLETE, Outcome.COMPLETE, Outcome.LOST if broken else Outcome.COMPLETE, Outcome.REFUSED
    )
    result.moves[0].said = '{"changed": true, "seconds": {"to_client": 0.21, "total": 0.734}}'
    text = report.markdown([result], {"traefik-file": "it is not installed"})
    assert "traffic_switch itself took 0.73 s at worst" in text
    assert ("NOT PROVED" in text) is broken
    assert f"| switch | 1 | 3 | {2 if broken else 3} | 0 | {int(broken)} | 0 | 0 | 0 | 1 |" in text
    assert "traefik-file: not run, it is not installed" in text
    document = json.loads(json.dumps(report.document([result], {}, (knee([step(10)]), [step(10)]), "tests")))
    assert document["subjects"]["switch"]["proved"] is not broken
    assert document["subjects"]["switch"]["outcomes"]["lost"] == int(broken)
    assert len(document["subjects"]["switch"]["broken"]) == int(broken)
    assert document["knee"]["rate"] == 10
    report.plot([result], tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
