# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import datetime
import json
import re

import pytest
from ansible_collections.bitnet.devops.plugins.filter import claimed_model, not_promoted
from ansible_collections.bitnet.devops.plugins.module_utils import _promotion

from tests.unit import consensus_world as world

NOW = datetime.datetime(2026, 11, 26, 12, tzinfo=datetime.timezone.utc)


def kept(outcome="promote", release=world.RELEASE, hours=2.0, **more):
    at = (NOW - datetime.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return json.dumps({"schema": 1, "release": release, "outcome": outcome, "decided_at": at, **more})


def look(*contents, environment="staging", cluster="", host="one"):
    return {"environment": environment, "cluster": cluster, "host": host, "contents": list(contents)}


def silent(**more):
    return {name: value for name, value in look(**more).items() if name != "contents"}


def problems(looks, after=("staging",), soak=3600):
    return _promotion.not_promoted(after, looks, world.RELEASE, soak, NOW)


@pytest.mark.parametrize(
    ("looks", "says"),
    [
        ([look(kept())], ""),
        ([look(kept(), kept("rollback"))], ""),
        ([silent(), look(kept(), host="two")], ""),
        ([look(kept("rollback"), kept())], "is rollback"),
        ([look(kept(release=world.OTHER_RELEASE))], "holds no decision"),
        ([look("no json", "[]", kept(schema=2), kept(decided_at="soon"))], "holds no decision"),
        ([look()], "run bitnet.devops.consensus"),
        ([look(kept(hours=0.5))], "soaks for 3600 s, until 2026-11-26T12:30:00Z"),
        ([silent(), silent(host="two")], r"none of its managers \(one, two\)"),
        ([look(kept(), environment="dev")], "the inventory has no manager of it"),
        ([look(kept(), cluster="a"), look(cluster="b", host="two")], "staging in b: it holds no decision"),
    ],
)
def test_what_the_environments_before_must_hold(looks, says):
    found = problems(looks)
    if not says:
        assert found == []
        return
    [problem] = found
    assert problem.startswith("staging")
    assert re.search(says, problem), problem


def test_nothing_before_is_no_obstacle_and_each_one_is_named():
    assert problems([], after=()) == []
    assert len(problems([look(kept(), environment="dev")], after=("dev", "staging", "qa"))) == 2
    ask = not_promoted.FilterModule().filters()["not_promoted"]
    assert ask(["qa"], [], world.RELEASE) == ["qa: the inventory has no manager of it, so nothing is known"]


def test_the_model_that_most_name():
    named = claimed_model.FilterModule().filters()["claimed_model"]
    verdicts = [world.verdict("a"), world.verdict("b", model=world.OTHER_MODEL), world.verdict("c")]
    noise = [None, "x", {}, {"payload": "!"}, {"payload": "e30="}, world.verdict("d", release=world.OTHER_RELEASE)]
    assert named([*noise, *verdicts], world.RELEASE) == world.MODEL
    assert named(noise, world.RELEASE) == ""
