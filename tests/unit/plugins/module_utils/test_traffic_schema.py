# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate that refuses a way back which the schema does not allow any more."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
import swarm_intelligence.schema as service
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.plan import Refused, Seen, Wish, plan
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.routing import Routing, Slot
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.schema import Schema, newest, refusal, schema_of

OLD, NEW = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


def seen(schemas="0003-0003", schema=None, active="green"):
    slots = {
        "blue": Slot("blue", "bitnet-local-blue", True, OLD, "b1", 1, 1, 1, schemas),
        "green": Slot("green", "bitnet-local-green", True, NEW, "b1", 1, 1, 1, "0003-0005" if schemas else ""),
    }
    return Seen(Routing(active), slots, schema=schema)


def back(world, **more):
    return plan(Wish("rollback", OLD, **more), world).changed


def test_the_service_and_the_gate_judge_alike():
    numbers = ("0001", "0002", "0003", "0004")
    for revision, oldest, minimum, maximum in itertools.product(numbers, repeat=4):
        if oldest <= revision and minimum <= maximum:
            problem = service.Schema(revision, oldest).problem(minimum, maximum)
            assert bool(problem) == bool(refusal(f"{minimum}-{maximum}", Schema(revision, oldest)))


def test_a_schema_that_only_grew_lets_a_release_come_back():
    assert back(seen(schema=Schema("0003", "0001")))
    assert back(seen(schema=Schema("0005", "0001")))
    assert back(seen(schema=Schema("0005", "0003")))


def test_a_schema_that_took_something_away_does_not():
    with pytest.raises(Refused, match=f"{OLD} in blue cannot take over.*schema 0005.*know 0004 or later.*up to 0003"):
        back(seen(schema=Schema("0005", "0004")))
    with pytest.raises(Refused, match="cannot take over"):  # the same by another name, and also when told not to ask
        plan(Wish("switch", OLD), seen(schema=Schema("0005", "0004")))
    with pytest.raises(Refused, match="cannot take over"):
        back(seen(schema=Schema("0005", "0004")), check_schema=False)


def test_no_data_is_no_way_back_unless_somebody_says_so():
    with pytest.raises(Refused, match=r"no slot can say.*check_schema=false"):
        back(seen())
    assert back(seen(), check_schema=False)
    assert plan(Wish("switch", OLD), seen()).changed  # forward it is not asked for


def test_without_a_database_nothing_is_asked():
    assert back(seen(schemas=""))


def test_a_slot_that_is_yet_to_start_brings_its_schema():
    world = seen(schemas="0005-0005", schema=Schema("0003", "0001"))
    with pytest.raises(Refused, match="needs 0005"):
        plan(Wish("switch", OLD), world)
    assert plan(Wish("switch", OLD, hold=True), world).changed


def test_what_is_active_is_not_judged():
    world = dataclasses.replace(seen(schema=Schema("0005", "0004")), routing=Routing("blue"))
    assert not plan(Wish("rollback", OLD), world).changed


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"{}", b'{"database": null}', b'{"database": {"schema": null, "schema_seconds_ago": null}}',
     b'{"database": {"schema": {"revision": "0003; DROP", "oldest": "0001"}, "schema_seconds_ago": 1}}',
     b'{"database": {"schema": {"revision": 3, "oldest": "0001"}, "schema_seconds_ago": 1}}'],
)  # fmt: skip
def test_what_a_slot_may_answer_that_is_no_schema(body):
    assert schema_of(body) is None


def test_the_latest_word_counts():
    fresh = json.dumps({"database": {"schema": {"revision": "0005", "oldest": "0004"}, "schema_seconds_ago": 0.4}})
    old = json.dumps({"database": {"schema": {"revision": "0003", "oldest": "0001"}, "schema_seconds_ago": 900}})
    assert newest([schema_of(old.encode()), None, schema_of(fresh.encode())]) == Schema("0005", "0004", 0.4)
    assert newest([None]) is None


def test_the_image_is_labelled_with_what_its_code_knows():
    dockerfile = Path(__file__).resolve().parents[4] / "files" / "images" / "Dockerfile"
    assert f'io.bitnet.schemas="{service.MINIMUM}-{service.MAXIMUM}"' in dockerfile.read_text()
