# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The switch on a driver in memory that fails, dies or is overtaken where it is told to."""

from __future__ import annotations

import dataclasses
import datetime
from typing import Any

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import Conflict, DockerFailed
from ansible_collections.bitnet.devops.plugins.module_utils._traffic import switch
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.edge import EdgeFailed, counts
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.operation import Holder, Operation, operation_from
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.plan import Refused, Wish
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.routing import (
    BadRecord,
    Frozen,
    Router,
    Routing,
    Slot,
    frozen_from,
    routing_of_labels,
    routing_of_map,
)
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.schema import Schema
from ansible_collections.bitnet.devops.plugins.module_utils._traffic.swarm import State

OLD, NEW = "aaaaaaaaaaaa", "bbbbbbbbbbbb"


class Killed(BaseException):
    """The process is gone: nothing of it acts any more."""


class FakeClock(switch.Clock):
    def __init__(self) -> None:
        self.time = 0.0
        self.jump = 0

    def now(self) -> str:
        noon = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.timezone.utc)
        return (noon + datetime.timedelta(seconds=self.time + self.jump)).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def monotonic(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds


class World:
    """What survives a killed process: the authority, the edges, the slots, the journal."""

    environment = "local"

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.version = 1
        self.routing = Routing("blue")
        self.operation: Operation | None = None
        self.frozen: Frozen | None = None
        self.slots = {
            "blue": Slot("blue", "bitnet-local-blue", True, OLD, "b1", 1, 1, 1),
            "green": Slot("green", "bitnet-local-green", True, NEW, "b1", 1, 1, 1),
        }
        self.edges = {"one": Routing("blue"), "two": Routing("blue")}
        self.down: list[str] = []
        self.connections = {"blue": 3, "green": 0}
        self.entries: list[dict[str, Any]] = []
        self.effects: list[str] = []
        self.die_at: tuple[int, str] | None = None
        self.dead = False
        self.conflicts = 0
        self.edge_error = ""
        self.starts = True
        self.database: Schema | None = None

    # -- deaths

    def _effect(self, name: str, act: Any) -> None:
        if self.dead:
            raise Killed
        number = len(self.effects)
        if self.die_at == (number, "before"):
            self.dead = True
            raise Killed
        self.effects.append(name)
        act()
        if self.die_at == (number, "after"):
            self.dead = True
            raise Killed

    def revive(self) -> None:
        """Another process comes: the killed one's holder does not live any more."""
        self.dead, self.die_at = False, None
        if self.operation and self.operation.holder:
            gone = dataclasses.replace(self.operation.holder, life=self.operation.holder.life + "-gone", pid=1)
            self.operation = dataclasses.replace(self.operation, holder=gone)

    # -- the driver

    def state(self) -> State:
        if self.dead:
            raise Killed
        return State(self.version, self.routing, self.operation, self.frozen, dict(self.slots))

    def write(self, state: State, routing: Routing, operation: Operation | None, frozen: Frozen | None) -> None:
        def act() -> None:
            if self.conflicts:
                self.conflicts -= 1
                self.version += 1
            if state.version != self.version:
                raise Conflict("update out of sequence")
            self.version += 1
            self.routing, self.operation, self.frozen = routing, operation, frozen

        self._effect("write", act)

    def routers(self) -> list[Router]:
        if self.dead:
            raise Killed
        up = {name: slot.running for name, slot in self.slots.items()}
        if self.edge_error:
            return [Router(name, error=self.edge_error) for name in self.edges]
        return [Router(name, routing, up, dict(self.connections)) for name, routing in self.edges.items()]

    def reserve(self, _routing: Routing) -> None:
        if self.edge_error == "disk full":
            raise EdgeFailed("disk full")
        self._effect("reserve", lambda: None)

    def apply(self, routing: Routing) -> None:
        for name in self.edges:
            if self.edge_error:
                raise EdgeFailed(self.edge_error)
            self._effect(f"edge {name}", lambda name=name: self.edges.update({name: routing}))

    def schema(self) -> Schema | None:
        return self.database

    def tidy(self) -> None:
        if self.dead:
            raise Killed

    def lost(self) -> list[str]:
        return list(self.down)

    def client_sees(self) -> str:
        seen = {routing.active for routing in self.edges.values()}
        return seen.pop() if len(seen) == 1 and not self.edge_error else "(nothing)"

    def scale(self, slot: str, replicas: int) -> None:
        def act() -> None:
            running = replicas if self.starts or slot == "blue" or not replicas else 0
            self.slots[slot] = dataclasses.replace(self.slots[slot], replicas=replicas, running=running)

        if self.slots[slot].replicas != replicas:
            self._effect(f"scale {slot} {replicas}", act)

    def living(self, slot: str) -> int:
        return self.slots[slot].running

    def record(self, entry: dict[str, Any]) -> None:
        if not any(found["id"] == entry["id"] for found in self.entries):
            self._effect("record", lambda: self.entries.append(entry))

    def journal(self, most: int) -> list[dict[str, Any]]:
        return self.entries[::-1][:most]

    # -- shortcuts

    def run(self, action: str, *, act: bool = True, **options: Any) -> switch.Outcome:
        return switch.run(self, Wish(action, **{"timeout": 10, **options}), act=act, clock=self.clock)

    def settled(self, active: str) -> bool:
        everywhere = all(routing == Routing(active) for routing in [self.routing, *self.edges.values()])
        return everywhere and self.operation is None


def everything(world: World) -> Any:
    return (world.version, world.routing, world.operation, world.frozen, world.slots, world.edges, world.entries)


@pytest.fixture
def world() -> World:
    return World()


def test_a_switch_moves_every_edge_and_is_in_the_journal(world: World) -> None:
    outcome = world.run("switch", release=NEW, asked_by="alice")
    assert outcome.plan.changed
    assert world.settled("green")
    entry = world.entries[0]
    assert (entry["asked_by"], entry["outcome"], entry["release"]) == ("alice", "switched", NEW)
    assert [step["step"] for step in entry["steps"]] == ["opened", "green active", "seen by a client"]
    assert world.effects.index("reserve") < world.effects.index("edge one"), "room is made before anything is decided"


def test_a_second_time_there_is_nothing_to_do(world: World) -> None:
    world.run("switch", release=NEW)
    before = everything(world)
    outcome = world.run("switch", release=NEW)
    assert not outcome.plan.changed
    assert everything(world) == before


@pytest.mark.parametrize("action", ["prepare", "switch", "rollback", "park", "freeze"])
def test_check_mode_plans_and_touches_nothing(world: World, action: str) -> None:
    before = everything(world)
    outcome = world.run(action, act=False, release=NEW, reason="why")
    assert outcome.plan.changed
    assert everything(world) == before
    assert not world.effects
    assert outcome.plan.before != outcome.plan.after


def test_steps_by_shares(world: World) -> None:
    world.run("prepare", release=NEW, drain_seconds=0)
    for share in (10, 50):
        world.run("switch", release=NEW, share=share)
        assert world.routing == Routing("blue", share)
        assert world.operation and world.operation.holder is None
    with pytest.raises(Refused, match=r"share: 50 % .*abort"):
        world.run("switch", release=NEW, share=20)
    world.run("switch", release=NEW)
    assert world.settled("green")
    assert [entry["outcome"] for entry in world.entries] == ["switched"]
    assert world.entries[0]["action"] == "rollout"


def test_abort_takes_everything_back(world: World) -> None:
    world.run("switch", release=NEW, share=30)
    world.run("abort", reason="latency")
    assert world.settled("blue")
    assert (world.entries[0]["outcome"], world.entries[0]["reason"]) == ("aborted", "latency")
    assert not world.run("abort").plan.changed


def test_rollback_names_a_release_that_the_idle_slot_holds_ready(world: World) -> None:
    world.run("switch", release=NEW)
    with pytest.raises(Refused, match="does not hold release cccc"):
        world.run("rollback", release="cccc")
    with pytest.raises(Refused, match="release: a rollback names"):
        world.run("rollback")
    world.slots["blue"] = dataclasses.replace(world.slots["blue"], running=0)
    with pytest.raises(switch.TimedOut, match="not ready to take traffic: 0 of 1 tasks"):
        world.run("rollback", release=OLD)
    assert world.settled("green")
    world.slots["blue"] = dataclasses.replace(world.slots["blue"], running=1)
    world.run("rollback", release=OLD)
    assert world.settled("blue")
    assert [entry["outcome"] for entry in world.entries] == ["switched", "refused", "rolled back"]


def test_an_idle_slot_that_dies_between_gate_and_switch_changes_nothing(world: World) -> None:
    operation = world.run("prepare", release=NEW, drain_seconds=0).operation
    world.slots["green"] = dataclasses.replace(world.slots["green"], running=0)
    with pytest.raises(switch.TimedOut, match="Nothing was switched"):
        world.run("switch", release=NEW, operation=operation.id)
    assert world.routing == Routing("blue")
    assert world.operation and world.operation.holder is None, "the rollout stays open, to go on"


def test_pause_resume_and_freeze(world: World) -> None:
    with pytest.raises(Refused, match="nothing to pause"):
        world.run("pause", reason="lunch")
    world.run("switch", release=NEW, share=10)
    world.run("pause", reason="lunch", asked_by="bob")
    with pytest.raises(Refused, match=r"paused: lunch \(bob\).*action=resume"):
        world.run("switch", release=NEW, wait_seconds=1)
    world.run("resume")
    world.run("freeze", reason="closing", asked_by="carol")
    with pytest.raises(Refused, match=r"frozen by carol .* thaw"):
        world.run("switch", release=NEW)
    world.run("abort")
    world.run("thaw")
    world.run("switch", release=NEW)
    assert world.settled("green")


def test_a_pause_while_somebody_holds_the_operation_stays_in_its_history(world: World) -> None:
    world.run("prepare", release=NEW)
    world.slots["green"] = dataclasses.replace(world.slots["green"], running=0)
    sleep, slept = world.clock.sleep, []

    def others_act(seconds: float) -> None:
        sleep(seconds)
        slept.append(seconds)
        if len(slept) == 3:
            world.run("pause", reason="lunch", asked_by="bob")
        elif len(slept) == 6:
            world.run("resume", asked_by="bob")
            world.slots["green"] = dataclasses.replace(world.slots["green"], running=1)

    world.clock.sleep = others_act  # type: ignore[method-assign]
    world.run("switch", release=NEW)
    assert world.settled("green")
    steps = [step["step"] for step in world.entries[0]["steps"]]
    assert steps.index("pause") < steps.index("resume") < steps.index("green active")


def test_a_freeze_lets_back_only_to_what_has_been_active(world: World) -> None:
    world.run("prepare", release=NEW)
    world.run("freeze", reason="closing", asked_by="carol")
    with pytest.raises(Refused, match=f"{NEW} has never taken over, .*frozen by carol"):
        world.run("rollback", release=NEW)
    world.run("abort")
    with pytest.raises(Refused, match="never taken over"):
        world.run("rollback", release=NEW)
    world.run("thaw")
    world.run("switch", release=NEW)
    world.run("freeze", reason="closing", asked_by="carol")
    world.run("rollback", release=OLD)
    assert world.settled("blue"), "what was there before the first switch has no entry, and has been active"
    world.run("rollback", release=NEW)
    assert world.settled("green")


def test_drain_waits_for_connections_and_counts_what_is_left(world: World) -> None:
    world.connections["green"] = 4
    outcome = world.run("prepare", release="cccc", drain_seconds=5)
    assert outcome.cut == 8, "four at each edge"
    assert world.clock.time == pytest.approx(5, abs=0.5)


def test_park_stops_the_idle_slot_only(world: World) -> None:
    world.run("park")
    assert world.slots["green"].replicas == 0
    assert not world.run("park").plan.changed
    with pytest.raises(Refused, match="active slot"):
        world.run("park", slot="blue")
    with pytest.raises(switch.TimedOut, match="parked cold"):
        world.run("rollback", release=NEW)


def test_without_room_for_both_requests_wait_and_the_slots_change_places(world: World) -> None:
    world.slots["green"] = dataclasses.replace(world.slots["green"], replicas=0, running=0, wanted=2)
    outcome = world.run("switch", release=NEW, hold=True)
    assert world.settled("green")
    assert (world.slots["blue"].replicas, world.slots["green"].replicas) == (0, 2)
    assert "held" in outcome.seconds


def test_without_room_and_a_slot_that_does_not_start_the_old_one_comes_back(world: World) -> None:
    world.slots["green"] = dataclasses.replace(world.slots["green"], replicas=0, running=0)
    world.starts = False
    with pytest.raises(switch.TimedOut, match=r"did not become ready.*Blue is active again"):
        world.run("switch", release=NEW, hold=True)
    assert world.settled("blue")
    assert (world.slots["blue"].running, world.slots["green"].replicas) == (1, 0)
    assert world.entries[0]["outcome"] == "compensated"


SCENARIOS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "at once": ([{"action": "switch", "release": NEW}], "green"),
    "prepared": (
        [{"action": "prepare", "release": NEW, "drain_seconds": 0}, {"action": "switch", "release": NEW}],
        "green",
    ),
    "by shares": (
        [{"action": "switch", "release": NEW, "share": 25}, {"action": "switch", "release": NEW}],
        "green",
    ),
    "without room": ([{"action": "switch", "release": NEW, "hold": True}], "green"),
}


def _deaths(name: str) -> list[tuple[int, str]]:
    world = World()
    for options in SCENARIOS[name][0]:
        world.run(**options)
    return [(number, side) for number in range(len(world.effects)) for side in ("before", "after")]


@pytest.mark.parametrize("next_run", ["same", "abort", "another"])
@pytest.mark.parametrize("name", list(SCENARIOS))
def test_killed_at_every_effect_the_next_run_finishes_or_undoes(name: str, next_run: str) -> None:
    deaths = _deaths(name)
    assert len(deaths) >= 12
    for death in deaths:
        world = World()
        world.die_at = death
        with pytest.raises(Killed):
            for options in SCENARIOS[name][0]:
                world.run(**options)
        world.revive()
        if next_run == "same":
            for options in SCENARIOS[name][0]:  # a rollout prepares nothing where its release is active already
                if options["action"] != "prepare" or world.slots[world.routing.active].release != NEW:
                    world.run(**options)
            assert world.settled(SCENARIOS[name][1]), death
        elif next_run == "abort":
            try:
                world.run("abort")
            except Refused as refusal:
                assert "has made green active" in str(refusal)
                world.run("switch", release=NEW)
            assert world.settled(world.routing.active), death
            assert world.slots[world.routing.active].running == 1, death
        else:  # another release comes for the idle slot, whichever that is now
            world.clock.time += switch.OPEN_SECONDS + 1
            operation = world.run("prepare", release="cccc", drain_seconds=0).operation
            assert operation.release == "cccc"
            assert world.operation and world.operation.target == world.routing.idle, death
            assert all(routing == Routing(world.routing.active) for routing in world.edges.values()), death
            assert world.slots[world.routing.active].running == 1, death
        ids = [entry["id"] for entry in world.entries]
        assert len(ids) == len(set(ids)), "an operation is in the journal once"


def test_a_live_holder_is_waited_for_and_then_named(world: World) -> None:
    run = switch._Run(world, Wish("switch"), world.clock)
    other = dataclasses.replace(
        run.me, life=f"{switch.process_life()}/{switch.process_start(1)}", pid=1, who="elsewhere"
    )
    world.operation = Operation("1", "switch", "cccc", "blue", "green", "bob", "switching", other)
    with pytest.raises(Refused, match=r"process 1 of elsewhere holds it.*Waited 3 s"):
        world.run("switch", release=NEW, wait_seconds=3)
    assert world.clock.time >= 3
    assert not world.effects


def test_a_holder_on_another_machine_lives_while_its_beat_rises(world: World) -> None:
    world.operation = Operation("1", "switch", NEW, "blue", "green", "bob", "switching", Holder("far", "x/y/1", 7))
    world.run("switch", release=NEW)
    assert world.settled("green")
    assert world.clock.time >= switch.WATCH_SECONDS

    class Beating(World):
        def state(self) -> State:
            if self.operation:
                self.operation = dataclasses.replace(self.operation, beat=self.operation.beat + 1)
            return super().state()

    living = Beating()
    living.operation = Operation("1", "switch", NEW, "blue", "green", "bob", "switching", Holder("far", "x/y/1", 7))
    with pytest.raises(Refused, match="process 7 of far"):
        living.run("switch", release=NEW, wait_seconds=1)


def test_an_operation_of_another_release_keeps_others_away_for_a_while(world: World) -> None:
    world.run("prepare", release=NEW, drain_seconds=0, asked_by="bob")
    with pytest.raises(Refused, match=f"rollout of release {NEW} .*asked by bob.*action=abort"):
        world.run("prepare", release="cccc", drain_seconds=0)
    world.clock.jump = -3600  # a clock that jumps back makes nobody stale
    with pytest.raises(Refused, match="is open"):
        world.run("prepare", release="cccc", drain_seconds=0)
    world.clock.jump = switch.OPEN_SECONDS + 1
    world.run("prepare", release="cccc", drain_seconds=0)
    assert world.operation and world.operation.release == "cccc"
    assert world.entries[0]["outcome"] == "abandoned"


def test_a_controller_with_an_old_view_changes_nothing(world: World) -> None:
    operation = world.run("prepare", release=NEW, drain_seconds=0).operation
    world.run("abort", asked_by="bob")
    before = everything(world)
    with pytest.raises(switch.Lost, match=f"{operation.id} is not open any more"):
        world.run("switch", release=NEW, operation=operation.id)
    assert everything(world) == before


def test_who_loses_the_lease_on_the_way_writes_nothing_more(world: World) -> None:
    stolen = Operation("9", "switch", NEW, "blue", "green", "eve", "switching", Holder("eve", "a/b/c", 3))
    reserve = world.reserve

    def steal(routing: Routing) -> None:
        reserve(routing)
        world.version += 1
        world.operation = stolen

    world.reserve = steal  # type: ignore[method-assign]
    with pytest.raises(switch.Lost, match="taken over"):
        world.run("switch", release=NEW)
    assert world.routing == Routing("blue")
    assert world.operation == stolen


def test_a_conflict_is_looked_at_again_and_many_are_an_error(world: World) -> None:
    world.conflicts = 3
    world.run("switch", release=NEW)
    assert world.settled("green")
    world.conflicts = 10_000
    with pytest.raises(Refused, match="changed by somebody else"):
        world.run("rollback", release=OLD)


def test_a_disk_that_is_full_is_met_before_anything_is_decided(world: World) -> None:
    world.edge_error = "disk full"
    world.routers = lambda: [Router(n, r, {"blue": 1, "green": 1}, {}) for n, r in world.edges.items()]  # type: ignore[method-assign]
    with pytest.raises(EdgeFailed, match="disk full"):
        world.run("switch", release=NEW)
    assert world.routing == Routing("blue")


def test_an_edge_that_hangs_meets_the_deadline_before_anything_is_decided(world: World) -> None:
    world.edge_error = "HAProxy did not answer"
    with pytest.raises(switch.TimedOut, match="HAProxy did not answer"):
        world.run("switch", release=NEW)
    assert world.routing == Routing("blue")
    assert world.entries[0]["outcome"] == "refused"


def test_an_edge_that_hangs_after_the_decision_leaves_what_the_next_run_finishes(world: World) -> None:
    apply = world.apply

    def hang(_routing: Routing) -> None:
        raise EdgeFailed("HAProxy did not answer")

    world.apply = hang  # type: ignore[method-assign]
    with pytest.raises(switch.TimedOut, match=r"the authority says green is active.*run the same again"):
        world.run("switch", release=NEW)
    world.apply = apply  # type: ignore[method-assign]
    world.run("switch", release=NEW)
    assert world.settled("green")


def test_an_edge_that_differs_is_told_again(world: World) -> None:
    world.edges["two"] = Routing("green")
    outcome = world.run("switch", release=OLD)
    assert outcome.plan.steps == ("set edges",)
    assert world.settled("blue")


def test_both_slots_may_hold_one_release(world: World) -> None:
    world.slots["green"] = dataclasses.replace(world.slots["green"], release=OLD, binding="b2")
    assert not world.run("switch", release=OLD).plan.changed
    world.run("switch", release=OLD, slot="green")
    assert world.settled("green")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"action": "switch", "release": "cccc"}, "does not hold release cccc; blue holds release aaaa"),
        ({"action": "switch"}, "no operation is open whose release could be meant, so name one; blue holds"),
        ({"action": "switch", "slot": "red"}, "slot: 'red' is no slot"),
        ({"action": "switch", "share": 0}, "share: 0"),
        ({"action": "switch", "share": 101}, "share: 101"),
        ({"action": "switch", "share": 50, "hold": True}, "hold: with share=50"),
        ({"action": "leap"}, "action: 'leap' is not known"),
        ({"action": "freeze"}, "reason: say why"),
        ({"action": "prepare", "slot": "blue", "release": "c"}, "slot: blue is the active slot"),
        ({"action": "switch", "timeout": -1}, "timeout: -1"),
    ],
)
def test_bad_input_names_option_value_and_way_out(world: World, options: dict[str, Any], message: str) -> None:
    before = everything(world)
    with pytest.raises(Refused, match=message):
        world.run(**options)
    assert everything(world) == before


def test_records_are_read_as_they_were_written() -> None:
    operation = Operation("1", "switch", NEW, "blue", "green", "bob", "weighted", Holder("h", "l", 3), 4, "why")
    operation = operation.with_step("opened", "2026-11-25T00:00:00.000000Z", more=1)
    assert operation_from(operation.text()) == operation
    assert operation_from("") is None
    routing = Routing("green", 30, True)
    assert routing_of_labels(routing.labels(), "here") == routing
    lines = [f"0x55 {line}" for line in routing.map_text().splitlines()]
    assert routing_of_map(lines, "here") == routing
    frozen = Frozen("bob", "why", "now")
    assert frozen_from(frozen.text()) == frozen


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"schema": 99}',
        '{"schema": 1, "id": "1"}',
        Operation("1", "x", "", "red", "blue", "", "prepared").text(),
    ],
)
def test_a_label_that_is_none_of_ours_is_named(text: str) -> None:
    with pytest.raises(BadRecord, match=r"io\.bitnet\.operation"):
        operation_from(text)


@pytest.mark.parametrize(
    "labels", [{}, {"io.bitnet.active-slot": "red"}, {"io.bitnet.active-slot": "blue", "io.bitnet.hold": "2"}]
)
def test_routing_that_is_none_is_named(labels: dict[str, str]) -> None:
    with pytest.raises(BadRecord, match="service here"):
        routing_of_labels(labels, "service here")


def test_steps_of_an_operation_stay_few() -> None:
    operation = Operation("1", "switch", NEW, "blue", "green", "bob", "weighted")
    for number in range(500):
        operation = operation.with_step(str(number), "now")
    assert operation.steps[0]["step"] == "0"
    assert operation.steps[-1]["step"] == "499"
    assert len(operation.text()) < 8000


def test_counts_of_show_stat() -> None:
    rows = [
        "# pxname,svname,qcur,scur,status,",
        "edge,FRONTEND,,9,OPEN,",
        "blue,replica1,0,1,UP,",
        "blue,replica2,0,1,UP 1/2,",
        "blue,replica3,0,0,MAINT,",
        "blue,BACKEND,0,2,UP,",
        "green,replica1,0,0,DOWN,",
        "green,BACKEND,0,,DOWN,",
    ]
    assert counts("\n".join(rows)) == ({"blue": 2, "green": 0}, {"blue": 2, "green": 0})


def live_holder(world: World) -> Holder:
    me = switch._Run(world, Wish("switch"), world.clock).me
    return dataclasses.replace(me, life=f"{switch.process_life()}/{switch.process_start(1)}", pid=1, who="other")


def ends_meanwhile(world: World, active: str) -> None:
    """Somebody's operation ends while the lease is waited for."""
    sleep, looks = world.clock.sleep, iter(range(10_000))

    def sleeping(seconds: float) -> None:
        sleep(seconds)
        if next(looks) == 3:
            world.routing, world.operation = Routing(active), None
            world.edges = dict.fromkeys(world.edges, Routing(active))
            world.version += 1

    world.clock.sleep = sleeping  # type: ignore[method-assign]


@pytest.mark.parametrize("options", [{"action": "park"}, {"action": "prepare", "release": "cccc"}])
def test_what_was_planned_before_a_wait_is_planned_again(world: World, options: dict[str, Any]) -> None:
    world.operation = Operation("1", "switch", NEW, "blue", "green", "bob", "switching", live_holder(world))
    ends_meanwhile(world, "green")
    with pytest.raises(Refused, match="slot: green is the active slot"):
        world.run(slot="green", drain_seconds=0, **options)
    assert world.slots["green"].replicas == 1


def test_a_switch_that_no_client_has_seen_stays_open_and_can_be_ended_or_rolled_back(world: World) -> None:
    sees = world.client_sees
    for ended_by in ("switch", "rollback"):
        world.client_sees = lambda: "(edge two: green answered 503)"  # type: ignore[method-assign]
        with pytest.raises(switch.TimedOut, match=r"edge two: green answered 503.*stays open.*action=rollback"):
            world.run("switch", release=NEW)
        assert world.operation and (world.operation.phase, world.operation.holder) == ("committed", None)
        assert not world.entries
        world.client_sees = sees  # type: ignore[method-assign]
        if ended_by == "switch":
            world.run("switch", release=NEW)
            assert world.settled("green")
            world.__init__()  # type: ignore[misc]
    world.run("rollback", release=OLD)
    assert world.settled("blue")
    assert [entry["outcome"] for entry in world.entries] == ["switched", "rolled back"]


def test_a_release_that_no_client_sees_keeps_no_cure_away(world: World) -> None:
    world.client_sees = lambda: "(green answered 503)"  # type: ignore[method-assign]
    with pytest.raises(switch.TimedOut):
        world.run("switch", release=NEW)
    operation = world.run("prepare", release="cccc", drain_seconds=0).operation
    assert operation and operation.release == "cccc"
    assert world.entries[0]["outcome"] == "switched, not seen by a client"


def test_an_edge_that_stays_behind_is_named_and_does_not_keep_a_rollback_away(world: World) -> None:
    apply = world.apply

    def stuck(routing: Routing) -> None:
        apply(routing)
        world.edges["two"] = Routing("blue")

    world.apply = stuck  # type: ignore[method-assign]
    with pytest.raises(switch.TimedOut, match=r"not every edge does: edge two: blue is active\. .*edge one: green"):
        world.run("switch", release=NEW)
    assert world.operation and world.operation.phase == "committed"
    world.run("rollback", release=OLD)
    assert world.settled("blue")
    assert [entry["outcome"] for entry in world.entries] == ["switched, not at every edge", "rolled back"]
    assert "edge two" in world.entries[0]["reason"]


def test_an_edge_on_a_node_that_is_down_is_named_and_not_waited_for(world: World) -> None:
    world.down = ["three"]
    outcome = world.run("switch", release=NEW)
    assert world.settled("green")
    assert outcome.result()["lost"] == ["three"]
    assert "the edges on three" in outcome.warnings[0]


def test_a_leader_that_is_elected_meanwhile_is_waited_for(world: World) -> None:
    routers, looks = world.routers, iter(range(10_000))

    def without_a_leader() -> list[Router]:
        if 2 < next(looks) < 20:
            raise DockerFailed("the swarm does not have a leader")
        return routers()

    world.routers = without_a_leader  # type: ignore[method-assign]
    world.run("switch", release=NEW)
    assert world.settled("green")


def test_a_share_is_not_left_without_an_operation(world: World) -> None:
    world.run("switch", release=NEW, share=30)
    world.slots["green"] = dataclasses.replace(world.slots["green"], running=0)
    with pytest.raises(switch.TimedOut):
        world.run("switch", release=NEW)
    with pytest.raises(Refused, match="is open"):
        world.run("prepare", release="cccc", drain_seconds=0)
    world.run("abort")
    assert world.settled("blue")


def test_edges_that_seem_to_differ_while_somebody_switches_are_left_to_him(world: World) -> None:
    routers, looks = world.routers, iter(range(10_000))

    def switched_in_between() -> list[Router]:
        if next(looks) == 0:
            world.routing, world.edges = Routing("green"), dict.fromkeys(world.edges, Routing("green"))
            world.version += 1
        return routers()

    world.routers = switched_in_between  # type: ignore[method-assign]
    world.run(
        "switch", release=OLD, slot="blue"
    )  # planned on what was: looked at again, it is a switch with all its steps
    assert world.entries[0]["action"] == "switch"
    assert world.settled("blue")


def test_a_write_whose_answer_was_lost_does_not_turn_the_clock_back(world: World) -> None:
    write = world.write
    lost = iter([True])

    def losing(state: State, routing: Routing, operation: Operation | None, frozen: Frozen | None) -> None:
        write(state, routing, operation, frozen)
        if operation and operation.phase == "committed" and next(lost, False):
            raise DockerFailed("the answer did not come")

    world.write = losing  # type: ignore[method-assign]
    with pytest.raises(DockerFailed):
        world.run("switch", release=NEW)
    assert world.operation and world.operation.phase == "committed"
    world.run("switch", release=NEW)
    assert world.settled("green")


def test_a_stalled_holder_that_was_overtaken_tells_no_edge(world: World) -> None:
    write = world.write

    def overtaken(state: State, routing: Routing, operation: Operation | None, frozen: Frozen | None) -> None:
        write(state, routing, operation, frozen)
        if operation and operation.phase == "committed":
            world.routing, world.operation = Routing("blue"), None
            world.version += 1

    world.write = overtaken  # type: ignore[method-assign]
    with pytest.raises(switch.Lost, match=r"taken over|it has ended"):
        world.run("switch", release=NEW)
    assert set(world.edges.values()) == {Routing("blue")}


def test_a_journal_that_takes_nothing_holds_nobody_up(world: World) -> None:
    def refuse(_entry: dict[str, Any]) -> None:
        raise DockerFailed("no room")

    world.record = refuse  # type: ignore[method-assign]
    outcome = world.run("switch", release=NEW)
    assert world.settled("green")
    assert "no room" in outcome.warnings[0]


def test_a_drain_that_cannot_see_does_not_end_early(world: World) -> None:
    world.connections["green"] = 50
    world.edge_error = "HAProxy did not answer"
    world.run("prepare", release="cccc", drain_seconds=7)
    assert world.clock.time >= 7


def test_full_capacity_is_what_the_release_wants(world: World) -> None:
    world.slots["green"] = dataclasses.replace(world.slots["green"], replicas=1, running=1, wanted=4)
    with pytest.raises(switch.TimedOut, match="1 of 4 tasks"):
        world.run("switch", release=NEW)


def test_a_rollback_prefers_the_other_slot_where_both_hold_the_release(world: World) -> None:
    world.slots["green"] = dataclasses.replace(world.slots["green"], release=OLD, binding="b2")
    world.run("switch", slot="green")
    world.run("rollback", release=OLD)
    assert world.settled("blue")


def test_a_prepare_waits_for_who_is_at_work_on_the_same_release(world: World) -> None:
    world.operation = Operation("1", "switch", NEW, "blue", "green", "bob", "switching", live_holder(world))
    ends_meanwhile(world, "blue")
    operation = world.run("prepare", release=NEW, drain_seconds=0).operation
    assert operation and operation.id != "1"


def test_a_prepare_leaves_the_share_of_a_dead_run(world: World) -> None:
    world.run("switch", release=NEW, share=40)
    assert world.operation
    world.operation = dataclasses.replace(world.operation, holder=Holder("here", f"{switch.process_life()}/0", 1))
    operation = world.run("prepare", release=NEW, drain_seconds=0).operation
    assert operation and (operation.phase, operation.holder) == ("weighted", None)
    assert world.routing == Routing("blue", 40)


def test_an_operation_is_not_taken_by_its_id_for_another_release(world: World) -> None:
    operation = world.run("prepare", release="cccc", drain_seconds=0).operation
    assert operation
    with pytest.raises(Refused, match=r"rollout of release cccc .* is open"):
        world.run("switch", release=NEW, operation=operation.id)
    assert world.routing == Routing("blue")
