# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Three environments in every combination of what can become of each: all new or all old, or said to be mixed."""

from __future__ import annotations

import itertools

import pytest
from ansible_collections.bitnet.devops.plugins.filter import hive_mind as plugin
from ansible_collections.bitnet.devops.plugins.module_utils import _hive_mind as hive

RELEASE, BEFORE = "1c7ff3ec1f0c", "aaaaaaaaaaaa"
NAMES = ("dev", "staging", "production")
RECORD = {"schema": 1, "release": RELEASE, "slot": "green", "first": False, "old_slot": "blue", "old_release": BEFORE}
OPEN = {"id": "1", "action": "rollout", "release": RELEASE, "paused": ""}


def look(active="blue", release=BEFORE, **more):
    return {
        "present": True, "active": active, "release": release, "share": 0, "hold": False, "edges": True, "agree": True,
        "moves": None, "operation": {}, "record": {}, **more,
    }  # fmt: skip


# What a look can find, with what it is and what takes it back.
LOOKS = {
    "old": (look(), hive.OLD, ""),
    "prepared": (look(operation=OPEN), hive.OLD, hive.ABORT),
    "prepared, and the record is there": (look(operation=OPEN, record=RECORD), hive.OLD, hive.ABORT),
    "paused": (look(operation={**OPEN, "paused": "lunch"}, record=RECORD), hive.OLD, ""),
    "somebody else's operation": (look(operation={**OPEN, "release": "bbbbbbbbbbbb"}), hive.OLD, ""),
    "committed": (look("green", RELEASE, record=RECORD), hive.NEW, hive.ROLL_BACK),
    "committed, not closed": (look("green", RELEASE, record=RECORD, operation=OPEN), hive.NEW, hive.ROLL_BACK),
    "an edge is behind": (look("green", RELEASE, record=RECORD, agree=False), hive.BETWEEN, hive.ROLL_BACK),
    "no edge runs": (look(operation=OPEN, record=RECORD, edges=False, agree=False), hive.OLD, hive.ABORT),
    "a share": (look(share=10, operation=OPEN), hive.BETWEEN, hive.ABORT),
    "requests wait": (look(hold=True, operation=OPEN, record=RECORD), hive.BETWEEN, hive.ABORT),
    "new before": (look("green", RELEASE), hive.NEW, ""),
    "new since another hive": (look("green", RELEASE, record={**RECORD, "ended": "new"}), hive.NEW, ""),
    "a record of another release": (look(record={**RECORD, "release": "bbbbbbbbbbbb"}), hive.OLD, ""),
    "nothing to move": (look("green", RELEASE, moves=False), hive.NEW, ""),
    "another binding, not moved": (look("blue", RELEASE, moves=True, operation=OPEN), hive.OLD, hive.ABORT),
    "another binding, moved": (
        look("green", RELEASE, moves=True, record={**RECORD, "old_release": RELEASE}), hive.NEW, hive.ROLL_BACK,
    ),
    "no edge yet": (look("", "", present=False), hive.OLD, ""),
    "the first release": (look("green", RELEASE, record={**RECORD, "first": True}), hive.NEW, hive.REMOVE),
    "lost": ({}, hive.UNREACHABLE, ""),
}  # fmt: skip
STAGES = ("", hive.PREPARED, hive.COMMITTING, hive.COMMITTED, hive.FAILED)


def rows(stages, looks=({}, {}, {}), release=RELEASE):
    return [
        hive.Row(f"{name}-1", name, name, stage, release=release if stage else "", look=seen)
        for name, stage, seen in zip(NAMES, stages, looks)
    ]


@pytest.mark.parametrize("what", LOOKS)
def test_what_one_environment_is(what):
    seen, state, action = LOOKS[what]
    [part] = hive.parts([hive.Row("one", "dev", stage=hive.FAILED, release=RELEASE, look=seen)])
    assert (part.state(""), part.action("")) == (state, action)


@pytest.mark.parametrize("stages", list(itertools.product(STAGES, repeat=3)))
def test_nothing_is_committed_unless_all_are_prepared_nor_kept_unless_all_have_committed(stages):
    found = hive.parts(rows(stages))
    assert (hive.not_prepared(found) == []) == (set(stages) == {hive.PREPARED})
    assert (hive.not_committed(found) == []) == (set(stages) == {hive.COMMITTED})
    for name, stage in zip(NAMES, stages):
        said = " ".join(hive.not_committed(found))
        assert name in said or stage in (hive.PREPARED, hive.COMMITTED)


def after(what, action):
    """What an action makes of an environment, if nothing goes wrong."""
    seen = LOOKS[what][0]
    if action == hive.ROLL_BACK:
        return {**seen, "active": "blue", "release": BEFORE, "agree": True, "operation": {}}
    if action == hive.REMOVE:
        return {**seen, "present": False, "operation": {}}
    return {**seen, "share": 0, "hold": False, "operation": {}} if action == hive.ABORT else seen


def test_compensation_takes_back_what_this_hive_has_moved_and_no_more():
    for kinds in itertools.product(LOOKS, repeat=3):
        compensate(kinds)


def compensate(kinds):
    found = hive.parts(rows((hive.COMMITTED, hive.FAILED, hive.COMMITTED), [LOOKS[kind][0] for kind in kinds]))
    plan = hive.settle(found)
    assert plan["actions"] == {f"{name}-1": LOOKS[kind][2] for name, kind in zip(NAMES, kinds) if LOOKS[kind][2]}
    ended = [after(kind, LOOKS[kind][2]) for kind in kinds]
    settled = hive.settle(hive.parts(rows((hive.COMMITTED, hive.FAILED, hive.COMMITTED), ended)))
    assert settled["actions"] == {}
    assert [host for host in settled["closes"] if settled["states"][host[:-2]] != hive.OLD] == []
    states = set(settled["states"].values())
    assert (settled["outcome"] == hive.ALL_OLD) == (states == {hive.OLD})
    assert (settled["outcome"] == hive.ALL_NEW) == (states == {hive.NEW})
    # Only what was new before this hive, or cannot be reached, may keep the end from being all old.
    untouchable = {"new before", "new since another hive", "nothing to move", "lost"}
    assert states <= {hive.OLD} or untouchable & set(kinds)
    assert len(settled["report"]) == 4 and settled["report"][0].startswith(settled["outcome"])


def test_where_all_have_committed_nothing_is_taken_back():
    for kinds in itertools.product(LOOKS, repeat=3):
        plan = hive.settle(hive.parts(rows([hive.COMMITTED] * 3, [LOOKS[kind][0] for kind in kinds])))
        assert (plan["reasons"], plan["actions"]) == ([], {})
        assert (plan["outcome"] == hive.ALL_NEW) == all(LOOKS[kind][1] == hive.NEW for kind in kinds)
        recorded = [f"{name}-1" for name, kind in zip(NAMES, kinds) if LOOKS[kind][2] in (hive.ROLL_BACK, hive.REMOVE)]
        assert plan["outcome"] != hive.ALL_NEW or plan["closes"] == recorded


def test_an_environment_that_is_lost_is_mixed_and_named():
    looks = [LOOKS["committed"][0], {}, LOOKS["old"][0]]
    plan = hive.settle(hive.parts(rows((hive.COMMITTED, hive.COMMITTING, hive.FAILED), looks)))
    assert plan["outcome"] == hive.MIXED
    assert plan["reasons"] == ["staging was lost while it committed", "production failed: see above"]
    assert plan["report"][1:] == [
        f"dev: new (slot green, release {RELEASE})",
        "staging: unreachable, and where it is is not known",
        f"production: old (slot blue, release {BEFORE})",
    ]


def test_environments_of_different_releases_do_not_go_together():
    found = hive.parts(
        [
            hive.Row("a", "dev", stage=hive.PREPARED, release=RELEASE),
            hive.Row("b", "qa", stage=hive.PREPARED, release=BEFORE),
        ]
    )
    [problem] = hive.not_prepared(found)
    assert "different releases" in problem and f"{BEFORE} in qa" in problem and "bitnet_image" in problem


def test_one_manager_speaks_for_its_environment_and_another_may_take_over():
    found = hive.parts(
        [
            hive.Row("one", "dev", "a", stage=hive.PREPARED, release=RELEASE),  # and then it was lost
            hive.Row("two", "dev", "a", release=RELEASE, look=look(operation=OPEN)),
            hive.Row(
                "three", "dev", "b", stage=hive.COMMITTED, release=RELEASE, look=look("green", RELEASE, record=RECORD)
            ),
        ]
    )
    assert [part.name for part in found] == ["dev/a", "dev/b"]
    assert hive.settle(found)["actions"] == {"two": hive.ABORT, "three": hive.ROLL_BACK}


def test_the_filter_reads_what_hosts_remember():
    hostvars = {
        "one": {"bitnet_environment": "dev", "swarm_rollout_stage": "prepared", "swarm_rollout_release": RELEASE},
        "two": {
            "bitnet_environment": "qa",
            "swarm_rollout_stage": "failed",
            "swarm_rollout_failure": "gate token: fail",
        },
    }
    plan = plugin.FilterModule().filters()["hive_mind"](["one", "two"], hostvars)
    assert plan["not_prepared"] == ["qa failed: gate token: fail"]
    assert plan["outcome"] == hive.MIXED
