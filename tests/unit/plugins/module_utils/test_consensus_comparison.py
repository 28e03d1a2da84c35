# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What was measured under different bindings, side by side."""

from __future__ import annotations

from ansible_collections.bitnet.devops.plugins.module_utils._consensus.comparison import comparison, lines
from ansible_collections.bitnet.devops.plugins.module_utils._consensus.decision import decide
from ansible_collections.bitnet.devops.plugins.module_utils._release import binding_id

from tests.unit import consensus_world as world


def gate(p95, errors=0.0):
    figures = {
        "asked": 20,
        "slot": {"p95_ms": p95, "error_ratio": errors},
        "baseline": {"p95_ms": 1.0},
        "edge": "10.0.0.1",
        "cold": True,
    }
    return ({**world.GOOD_GATE, "figures": figures},)


FEW = {"replicas": 1, "limits": {"memory": "1g"}, "threads": 2}
MANY = {"replicas": 1, "limits": {"memory": "2g"}, "threads": 8, "placement": ["ssd"]}


def said(name, binding, p95, rate, **more):
    return world.said(name, binding=binding, gates=gate(p95), figures={"tokens_per_second": rate}, **more)


def test_what_differs_and_what_was_measured():
    compared = comparison(
        {"staging": said("staging", MANY, 81.5, 20), "development": said("development", FEW, 120, 30.5)},
        ["staging", "development"],
    )
    assert compared["bindings"] == {
        "development": {"id": binding_id(FEW), "binding": FEW},
        "staging": {"id": binding_id(MANY), "binding": MANY},
    }
    assert compared["differing"] == {
        "limits.memory": {"development": "1g", "staging": "2g"},
        "placement": {"staging": ["ssd"]},
        "threads": {"development": 2, "staging": 8},
    }
    assert compared["measured"] == {
        "compare.asked": {"values": {"development": 20, "staging": 20}, "best": []},
        "compare.slot.error_ratio": {
            "values": {"development": 0.0, "staging": 0.0},
            "best": ["development", "staging"],
        },
        "compare.slot.p95_ms": {"values": {"development": 120, "staging": 81.5}, "best": ["staging"]},
        "tokens_per_second": {"values": {"development": 30.5, "staging": 20}, "best": ["development"]},
    }
    told = lines(compared)
    assert "binding threads: development 2, staging 8" in told
    assert "measured compare.slot.p95_ms: development 120, staging 81.5; best: staging" in told


def test_nothing_is_best_by_itself_or_where_it_was_refused():
    fast, slow = said("staging", FEW, 10, 99), said("development", FEW, 100, 1)
    compared = comparison({"staging": fast, "development": slow}, ["development"])
    assert compared["differing"] == {}
    assert {name: found["best"] for name, found in compared["measured"].items() if found["best"]} == {}
    third = said("production", FEW, 50, 50)
    compared = comparison({"staging": fast, "development": slow, "production": third}, ["development", "production"])
    assert compared["measured"]["compare.slot.p95_ms"]["best"] == ["production"]


def test_what_does_not_count_is_not_compared():
    policy = world.policy({"development": False, "staging": False}, 1)
    lie = world.verdict("staging", signer="mallory", binding=MANY)
    result = decide(policy, [world.verdict("development", binding=FEW), lie], [], world.SOON).result()
    assert set(result["comparison"]["bindings"]) == {"development"}
    assert result["report"][0] == "promote: 1 of 2 say promote (development), 1 are needed"
    assert result["report"][1].startswith("ignored, forged: verdict ")


def test_lines_for_people_hold_no_control_characters():
    escape = said("staging", {"a\x1b[2J": "b\nc"}, 1, 1)
    compared = comparison({"staging": escape, "development": said("development", FEW, 1, 1)}, [])
    [told] = [line for line in lines(compared) if "[2J" in line]
    assert told == 'binding a?[2J: staging "b\\nc"'
