# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What has to be done for an action, decided from what is there: pure, and the same for every driver."""

from __future__ import annotations

import dataclasses
import typing as t

from .operation import Operation
from .routing import SLOTS, Frozen, Routing, Slot
from .schema import Schema, refusal

_Steps = tuple[list[str], Routing]

ACTIONS = ("prepare", "switch", "rollback", "park", "pause", "resume", "abort", "freeze", "thaw")


class Refused(Exception):
    """What was asked must not be done to what is there; the text says why and the way out. Nothing was changed."""


@dataclasses.dataclass(frozen=True)
class Wish:
    """What the user asked for, checked. C(release), C(slot) and C(operation) are empty where not given."""

    action: str
    release: str = ""
    slot: str = ""
    operation: str = ""
    share: int = 100
    hold: bool = False
    drain_seconds: float = 60
    timeout: float = 120
    wait_seconds: float = 30
    asked_by: str = "unknown"
    reason: str = ""
    check_schema: bool = True


@dataclasses.dataclass(frozen=True)
class Seen:
    """What is there. C(draining) counts connections of the slot that would be drained; C(untried) says that the wished
    release has never taken over; C(schema) is the database's, where a slot could tell."""

    routing: Routing
    slots: t.Mapping[str, Slot]
    operation: Operation | None = None
    frozen: Frozen | None = None
    routers_agree: bool = True
    draining: int = 0
    untried: bool = False
    schema: Schema | None = None


@dataclasses.dataclass(frozen=True)
class Plan:
    """C(steps) in their order; none means that there is nothing to do."""

    steps: tuple[str, ...]
    target: str
    routing: Routing
    before: t.Mapping[str, t.Any]
    after: t.Mapping[str, t.Any]

    @property
    def changed(self) -> bool:
        return bool(self.steps)


def check(wish: Wish) -> None:
    """Refuse what no state of the world would make right."""
    if wish.action not in ACTIONS:
        raise Refused(f"action: {wish.action!r} is not known; there are {', '.join(ACTIONS)}")
    if wish.slot and wish.slot not in SLOTS:
        raise Refused(f"slot: {wish.slot!r} is no slot; there are {', '.join(SLOTS)}")
    if not 1 <= wish.share <= 100:
        raise Refused(f"share: {wish.share} is no percentage of requests; give 1 to 100, 100 completes the switch")
    if wish.hold and wish.share != 100:
        raise Refused(f"hold: with share={wish.share} both slots answer, so nothing has to wait; leave one of them out")
    if wish.action == "rollback" and not wish.release:
        raise Refused(
            "release: a rollback names the release that it goes back to; traffic_info shows what the slots hold"
        )
    if wish.action in ("freeze", "pause") and not wish.reason:
        raise Refused(f"reason: say why, for whoever meets the {wish.action}")
    for name in ("drain_seconds", "timeout", "wait_seconds"):
        if getattr(wish, name) < 0:
            raise Refused(f"{name}: {getattr(wish, name):g} is no time to wait; give 0 or more seconds")


def held(slots: t.Mapping[str, Slot]) -> str:
    """What the slots hold, for an error."""
    return ", ".join(
        f"{name} holds "
        f"{f'release {slot.release} ({slot.running} of {slot.wanted} tasks run)' if slot.exists else 'nothing'}"
        for name, slot in slots.items()
    )


def refuse_frozen(action: str, frozen: Frozen | None) -> None:
    """A freeze forbids what brings something new; ways back stay open."""
    if frozen and action in ("prepare", "switch", "park"):
        raise Refused(
            f"action: the environment is frozen by {frozen.by} since {frozen.since} ({frozen.reason}), so there is no "
            f"{action}; "
            "thaw it first (action=thaw). rollback and abort remain possible"
        )


def target_of(wish: Wish, seen: Seen) -> str:
    """The slot that an action is about."""
    routing, slots, operation = seen.routing, seen.slots, seen.operation
    if wish.action in ("abort", "pause", "resume"):
        return operation.target if operation else routing.idle
    if wish.action in ("freeze", "thaw"):
        return routing.active
    if wish.action in ("prepare", "park"):
        if wish.slot == routing.active:
            raise Refused(f"slot: {wish.slot} is the active slot, {wish.action} is for the idle one, {routing.idle}")
        return wish.slot or routing.idle
    if wish.slot:
        target = wish.slot
    elif not (wish.release or wish.operation or operation):
        raise Refused(
            f"release: no operation is open whose release could be meant, so name one; {held(slots)}. "
            "Without a name each run would go back on the one before"
        )
    elif operation and wish.release in ("", operation.release):
        target = operation.target
    elif wish.action == "rollback" and slots[routing.idle].release == wish.release:
        target = routing.idle
    elif slots[routing.active].release == wish.release:
        target = routing.active
    else:
        target = routing.idle
    slot = slots[target]
    if not slot.exists or (wish.release and slot.release != wish.release):
        wanted = f"release {wish.release}" if wish.release else "a release"
        raise Refused(
            f"release: slot {target} does not hold {wanted}; {held(slots)}. Name one that is held, or bring it with "
            "bitnet.devops.rollout"
        )
    return target


def refuse_schema(wish: Wish, target: str, seen: Seen) -> None:
    """No traffic for a release that its database does not let work any more. For a way back no data is not enough."""
    slot = seen.slots[target]
    if wish.action not in ("switch", "rollback") or target == seen.routing.active or not slot.schemas:
        return
    why = refusal(slot.schemas, seen.schema)
    # A slot that is yet to start brings the schema that it needs.
    if why and not (wish.hold and seen.schema and seen.schema.revision < slot.schemas[:4]):
        raise Refused(
            f"release: {slot.release} in {target} cannot take over, since {why}. Keep what is active, or bring a "
            "release that knows this schema (bitnet.devops.rollout); going back to this one takes a restore of the "
            "database to before that migration"
        )
    if wish.action == "rollback" and wish.check_schema and seen.schema is None:
        raise Refused(
            f"release: {slot.release} in {target} uses a database, and no slot can say which schema that has now, so "
            "it cannot be told whether the release still works with it. Bring the database back, or say "
            "check_schema=false (bitnet_check_schema=false for the playbook) if nobody has migrated it"
        )


def plan(wish: Wish, seen: Seen) -> Plan:
    """The steps of an action on what is there."""
    check(wish)
    refuse_frozen(wish.action, seen.frozen)
    if wish.action == "rollback" and seen.frozen and seen.untried:
        raise Refused(
            f"release: {wish.release} has never taken over, and the environment is frozen by {seen.frozen.by} since "
            f"{seen.frozen.since} ({seen.frozen.reason}): under a freeze a rollback goes back to what has been active "
            "only; thaw it first (action=thaw), and bring the release with action=switch"
        )
    target = target_of(wish, seen)
    refuse_schema(wish, target, seen)
    steps, after = _BUILD[wish.action](wish, target, seen)
    if not (steps or seen.routers_agree or seen.operation) and wish.action in ("switch", "rollback"):
        steps = ["set edges"]
    before = _view(seen)
    return Plan(tuple(steps), target, after, before, {**before, **_changes(wish, target, after, steps, before)})


def _prepare(wish: Wish, target: str, seen: Seen) -> _Steps:
    operation = seen.operation
    same = operation and (operation.release, operation.target) == (wish.release, target)
    if operation and same and operation.phase != "preparing":
        # Somebody may be at work on it: then his end is waited for, and looked at.
        return (["take the lease"] if operation.holder else []), seen.routing
    return ["take the lease", *_drain(wish, target, seen), f"reserve {target} for release {wish.release}"], seen.routing


def _drain(wish: Wish, target: str, seen: Seen) -> list[str]:
    if not seen.draining or not wish.drain_seconds:
        return []
    return [f"drain {seen.draining} connections of {target} (at most {wish.drain_seconds:g} s)"]


def _switch(wish: Wish, target: str, seen: Seen) -> _Steps:
    routing, operation = seen.routing, seen.operation
    if target == routing.active:
        return _already_active(target, seen)
    if wish.share < routing.share:
        raise Refused(
            f"share: {routing.share} % of requests go to {target} already, {wish.share} would take some back; "
            "action=abort takes all of them back"
        )
    after = Routing(target) if wish.share == 100 else dataclasses.replace(routing, share=wish.share)
    if after == routing:
        return [], after
    if wish.hold or (operation and operation.phase == "holding"):
        ready = ["hold new requests", f"stop {routing.active}", f"start {target}"]
    else:
        ready = [f"see full capacity of {target} at every edge"]
    if wish.share < 100:
        return ["take the lease", *ready, f"send {wish.share} % to {target}", "set edges"], after
    return ["take the lease", *ready, f"make {target} active", "set edges", "close the operation"], after


def _already_active(target: str, seen: Seen) -> _Steps:
    routing, operation = seen.routing, seen.operation
    if operation and operation.phase == "committed":
        return ["take the lease", "set edges", "close the operation"], Routing(target)
    if operation and (routing.share or routing.hold):
        raise Refused(
            f"slot: {target} is active, and {operation.sentence()} is moving traffic away from it; action=abort undoes "
            "that"
        )
    return ([], routing) if operation or routing == Routing(target) else (["set edges"], Routing(target))


def _park(wish: Wish, target: str, seen: Seen) -> _Steps:
    slot = seen.slots[target]
    if not slot.exists or slot.parked_cold:
        return [], seen.routing
    steps = ["take the lease", *_drain(wish, target, seen), f"stop {target}", "close the operation"]
    return steps, seen.routing


def _pause(wish: Wish, _target: str, seen: Seen) -> _Steps:
    operation = seen.operation
    if operation is None:
        if wish.action == "resume":
            return [], seen.routing
        raise Refused("action: there is nothing to pause, no operation is open (action=freeze keeps new ones away)")
    wanted = bool(operation.paused) != (wish.action == "pause")
    return ([f"{wish.action} operation {operation.id}"] if wanted else []), seen.routing


def _abort(_wish: Wish, _target: str, seen: Seen) -> _Steps:
    routing, operation = seen.routing, seen.operation
    if operation is None:
        return [], routing
    if operation.phase == "committed":
        raise Refused(
            f"action: {operation.sentence()} has made {routing.active} active, so it cannot be aborted. "
            f"Run action=switch to finish it, or go back with action=rollback and "
            f"release={seen.slots[operation.source].release}"
        )
    after = Routing(routing.active)
    steps = ["take the lease"]
    if routing.hold:
        steps += [f"stop {operation.target}", f"start {operation.source}"]
    if after != routing:
        steps += [f"send everything to {routing.active}", "set edges"]
    return [*steps, "close the operation"], after


def _freeze(wish: Wish, _target: str, seen: Seen) -> _Steps:
    frozen = seen.frozen
    if wish.action == "thaw":
        return (["thaw the environment"] if frozen else []), seen.routing
    same = frozen is not None and (frozen.by, frozen.reason) == (wish.asked_by, wish.reason)
    return ([] if same else ["freeze the environment"]), seen.routing


_BUILD: t.Mapping[str, t.Callable[[Wish, str, Seen], _Steps]] = {
    "prepare": _prepare,
    "switch": _switch,
    "rollback": _switch,
    "park": _park,
    "pause": _pause,
    "resume": _pause,
    "abort": _abort,
    "freeze": _freeze,
    "thaw": _freeze,
}


def _view(seen: Seen) -> dict[str, t.Any]:
    operation = seen.operation
    return {
        "routing": seen.routing.document(),
        "slots": {name: {"release": slot.release, "replicas": slot.replicas} for name, slot in seen.slots.items()},
        "operation": operation.summary() if operation else "none",
        "frozen": seen.frozen.reason if seen.frozen else "no",
    }


def _changes(
    wish: Wish, target: str, after: Routing, steps: t.Sequence[str], before: t.Mapping[str, t.Any]
) -> dict[str, t.Any]:
    changes: dict[str, t.Any] = {"routing": after.document()}
    if wish.action == "prepare" and steps:
        changes["operation"] = f"rollout {wish.release}, prepared"
    elif wish.action == "freeze" and steps:
        changes["frozen"] = wish.reason
    elif wish.action == "thaw":
        changes["frozen"] = "no"
    elif "close the operation" in steps:
        changes["operation"] = "none"
        if wish.action == "park":
            changes["slots"] = {**before["slots"], target: {**before["slots"][target], "replicas": 0}}
    elif after.share:
        changes["operation"] = f"{wish.action} to {target}, weighted"
    return changes
