# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Carries an action out: look, plan, take the lease, act, prove. The same for every driver.

The order of a switch: full capacity of the target at every edge, room on every edge, compare-and-set of the authority,
every edge told, proof at every edge and from a client, journal. Killed in between, the authority says what was decided
and the open operation who was at it: the next run finishes or undoes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import os
import secrets
import socket
import time
import typing as t

from .._swarm.client import Conflict, DockerFailed
from .edge import EdgeFailed
from .operation import Holder, Operation, journal_entry, never_took_over
from .plan import Plan, Refused, Seen, Wish, check, plan
from .routing import Frozen, Router, Routing
from .schema import Schema
from .swarm import State, process_life, process_start

OPEN_SECONDS = 900
"""So long an open operation that no process holds keeps others away; then another release may take its place."""
WATCH_SECONDS = 15.0
"""So long a holder on another machine is watched: its beat rises every BEAT_SECONDS while it lives."""
BEAT_SECONDS = 2.0
_POLL = 0.1
_ATTEMPTS = 8
_CLIENT_SECONDS = 10.0
_CLIENT_TIMES = 5
_HISTORY = 100
"""So many entries of the journal are looked through for what a release has done."""


class Lost(Refused):
    """The lease is somebody else's now; nothing more was changed."""


class TimedOut(Exception):
    """A wait met its deadline; the text says what was awaited, what was seen, where traffic goes, and what to do."""


class Driver(t.Protocol):
    environment: str

    def state(self) -> State: ...
    def write(self, state: State, routing: Routing, operation: Operation | None, frozen: t.Any) -> None: ...
    def routers(self) -> list[Router]: ...
    def reserve(self, routing: Routing) -> None: ...
    def apply(self, routing: Routing) -> None: ...
    def tidy(self) -> None: ...
    def lost(self) -> list[str]: ...
    def client_sees(self) -> str: ...
    def schema(self) -> Schema | None: ...
    def scale(self, slot: str, replicas: int) -> None: ...
    def living(self, slot: str) -> int: ...
    def record(self, entry: dict[str, t.Any]) -> None: ...
    def journal(self, most: int) -> list[dict[str, t.Any]]: ...


class Clock:
    """The time, of which tests have one of their own. Waits use the monotonic one: the other may jump."""

    def now(self) -> str:
        return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


@dataclasses.dataclass
class Outcome:
    plan: Plan
    state: State
    routers: list[Router]
    operation: Operation | None = None
    cut: int = 0
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    warnings: list[str] = dataclasses.field(default_factory=list)
    lost: list[str] = dataclasses.field(default_factory=list)

    def result(self) -> dict[str, t.Any]:
        return {
            "changed": self.plan.changed,
            "plan": {"steps": list(self.plan.steps), "target": self.plan.target},
            "operation": self.operation.document() if self.operation else {},
            "routing": self.state.routing.document(),
            "slots": {name: slot.document() for name, slot in self.state.slots.items()},
            "edges": {router.name: router.document() for router in self.routers},
            "lost": self.lost,
            "cut": self.cut,
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
            "diff": {"before": self.plan.before, "after": self.plan.after},
        }


def run(driver: Driver, wish: Wish, *, act: bool, clock: Clock | None = None) -> Outcome:
    """Do what the wish says, or with act=False only plan it.

    Raises Refused (Lost among them), TimedOut, EdgeFailed, DockerFailed, BadRecord and NoEdge.
    """
    check(wish)
    return _Run(driver, wish, clock or Clock()).run(act)


class _Run:
    def __init__(self, driver: Driver, wish: Wish, clock: Clock) -> None:
        self.driver = driver
        self.wish = wish
        self.clock = clock
        pid = os.getpid()
        self.me = Holder(socket.gethostname(), f"{process_life()}/{process_start(pid)}", pid)
        self.operation: Operation | None = None
        self.began = clock.monotonic()
        self.written = self.began
        self.seconds: dict[str, float] = {}
        self.cut = 0
        self.warnings: list[str] = []

    # ------------------------------------------------------------------ look and plan

    def _look(self) -> tuple[State, list[Router], Plan]:
        state = self.driver.state()
        routers = self.driver.routers()
        agree = bool(routers) and all(router.routing == state.routing for router in routers)
        wish = self.wish
        idle = wish.slot or state.routing.idle
        draining = sum(router.connections.get(idle, 0) for router in routers)
        untried = (
            wish.action == "rollback"
            and state.frozen is not None
            and never_took_over(wish.release, state.operation, self.driver.journal(_HISTORY))
        )
        # Only where it decides something: it is a question to both slots.
        asks = wish.action in ("switch", "rollback") and any(slot.schemas for slot in state.slots.values())
        schema = self.driver.schema() if asks else None
        seen = Seen(state.routing, state.slots, state.operation, state.frozen, agree, draining, untried, schema)
        return state, routers, plan(wish, seen)

    def run(self, act: bool) -> Outcome:
        state, routers, planned = self._look()
        self._require_same_operation(state)
        if act and planned.changed:
            if self.wish.action in ("pause", "resume", "freeze", "thaw"):
                self._note(state)
            else:
                planned = self._with_lease()
            state, routers = self.driver.state(), self.driver.routers()
        lost = self.driver.lost()
        if act and planned.changed and lost:
            self.warnings.append(
                f"not asked, since their nodes are down: the edges on {', '.join(lost)}. Where such a node comes back, "
                "Swarm replaces its edge by one that begins with what is decided"
            )
        self.seconds["total"] = self.clock.monotonic() - self.began
        return Outcome(planned, state, routers, state.operation, self.cut, self.seconds, self.warnings, lost)

    def _require_same_operation(self, state: State) -> None:
        wanted, found = self.wish.operation, state.operation
        if not wanted or (found and found.id == wanted):
            return
        now = f"{found.sentence()} is" if found else "none is"
        raise Lost(
            f"operation: {wanted} is not open any more, {now}: somebody else has ended it (traffic_info shows the "
            "journal). "
            "Nothing was changed; run the rollout again from its beginning"
        )

    # ------------------------------------------------------------------ what needs no lease

    def _note(self, state: State) -> None:
        """pause, resume, freeze and thaw change what is said, never what is routed."""
        wish = self.wish
        for _attempt in range(_ATTEMPTS):
            operation, frozen = state.operation, state.frozen
            at = self.clock.now()
            if wish.action == "freeze":
                frozen = Frozen(wish.asked_by, wish.reason, at)
            elif wish.action == "thaw":
                frozen = None
            elif operation is None:
                return
            else:
                paused = f"{wish.reason} ({wish.asked_by})" if wish.action == "pause" else ""
                operation = dataclasses.replace(operation, paused=paused).with_step(wish.action, at, by=wish.asked_by)
            try:
                self.driver.write(state, state.routing, operation, frozen)
            except Conflict:
                state = self.driver.state()
                continue
            if wish.action in ("freeze", "thaw"):
                entry = Operation(
                    _new_id(at), wish.action, "", state.routing.active, state.routing.active, wish.asked_by, "prepared"
                )
                self.driver.record(journal_entry(entry.with_step(wish.action, at), wish.action, at, wish.reason))
            return
        raise Refused(_contended(wish.action))

    # ------------------------------------------------------------------ with the lease

    def _with_lease(self) -> Plan:
        """Take the lease and carry out what is planned then: while one waits for it, the world goes on."""
        planned = self._claim()
        if self.operation is None:
            return planned
        do = {
            "prepare": self._prepare,
            "switch": self._switch,
            "rollback": self._switch,
            "park": self._park,
            "abort": self._abort,
        }[self.wish.action]
        try:
            if planned.steps == ("set edges",):
                self._repair(planned)
            else:
                do(planned)
        except BaseException:
            self._let_go()
            raise
        return planned

    def _claim(self) -> Plan:
        """Become the holder of the open operation, or open one. What somebody left is taken over or undone.

        Without an operation afterwards there is nothing left to do.
        """
        until = self.clock.monotonic() + self.wish.wait_seconds
        watched: dict[tuple[str, Holder], bool] = {}
        for _attempt in range(_ATTEMPTS * 100):
            state, _routers, planned = self._look()
            self._require_same_operation(state)
            if not planned.changed:
                return planned
            found = state.operation
            at = self.clock.now()
            phase = {"prepare": "preparing", "park": "parking"}.get(self.wish.action, "switching")
            if found is None:
                mine = self._new_operation(state, planned, phase, at)
            elif found.holder and found.holder != self.me and self._lives(found, watched):
                self._wait_for_holder(found, until, "is at work on it")
                continue
            elif found.paused and self.wish.action == "switch":
                self._wait_for_holder(found, until, "it is paused; action=resume lets it go on, action=abort undoes it")
                continue
            elif self._is_ours(found, planned):
                how = "taken over" if found.holder else "continued"
                mine = dataclasses.replace(found, holder=self.me).with_step(how, at)
                if found.phase in ("preparing", "prepared") and phase == "switching":
                    mine = mine.at("switching")
            elif found.holder or found.phase == "committed" or self._is_stale(found):
                self._undo_foreign(state, found, at)
                continue
            else:
                raise Refused(
                    f"action: {found.sentence()} is open, so there is no {self.wish.action} of "
                    f"{self.wish.release or 'another release'} now. Let it end, or undo it (action=abort); left alone "
                    "it "
                    f"gives way {OPEN_SECONDS} s after its last step"
                )
            try:
                self.driver.write(state, state.routing, mine, state.frozen)
            except Conflict:
                continue
            self.operation, self.written = mine, self.clock.monotonic()
            return planned
        raise Refused(_contended(self.wish.action))

    def _new_operation(self, state: State, planned: Plan, phase: str, at: str) -> Operation:
        wish, source, target = self.wish, state.routing.active, planned.target
        name = {"prepare": "rollout"}.get(wish.action, wish.action)
        if planned.steps == ("set edges",):
            name, phase, target = "repair", "committed", source
        release = state.slots[target].release if name == "repair" else wish.release or state.slots[target].release
        return Operation(_new_id(at), name, release, source, target, wish.asked_by, phase, self.me).with_step(
            "opened", at
        )

    def _repair(self, planned: Plan) -> None:
        """The edges do not do what the authority says, and no operation was open: tell them again."""
        if self.driver.state().routing != planned.routing:
            self._step("routing set right", routing=planned.routing)
        self._set_edges(planned.routing)
        self._close("repaired")

    def _is_ours(self, found: Operation, planned: Plan) -> bool:
        wish = self.wish
        if wish.action == "abort":
            return True
        if wish.operation == found.id:  # the id alone is not enough: it may be what is open, for another release
            return found.phase != "preparing" and wish.release in ("", found.release)
        if found.phase == "committed":
            return found.target == planned.target
        release = wish.release or found.release
        same_kind = (found.action == "park") == (wish.action == "park")
        return same_kind and found.release == release and found.target == planned.target

    def _lives(self, found: Operation, watched: dict[tuple[str, Holder], bool]) -> bool:
        """Does the process that holds it still run? On this machine that is known, elsewhere its beat is watched."""
        holder = found.holder
        if holder is None:
            return False
        here, _slash, start = holder.life.rpartition("/")
        if here == process_life():
            return bool(start) and process_start(holder.pid) == start
        key = (found.id, holder)
        if key not in watched:
            end = self.clock.monotonic() + WATCH_SECONDS
            watched[key] = False
            while self.clock.monotonic() < end:
                self.clock.sleep(_POLL * 5)
                now = self.driver.state().operation
                if now is None or now.id != found.id or now.beat != found.beat:
                    watched[key] = True
                    break
        return watched[key]

    def _wait_for_holder(self, found: Operation, until: float, why: str) -> None:
        if self.clock.monotonic() > until:
            raise Refused(
                f"action: {found.sentence()}: {why}. Waited {self.wish.wait_seconds:g} s (wait_seconds); nothing was "
                "changed"
            )
        self.clock.sleep(_POLL * 3)

    def _is_stale(self, found: Operation) -> bool:
        try:
            last = datetime.datetime.strptime(str(found.steps[-1]["at"]), "%Y-%m-%dT%H:%M:%S.%fZ")
            now = datetime.datetime.strptime(self.clock.now(), "%Y-%m-%dT%H:%M:%S.%fZ")
        except (IndexError, KeyError, ValueError):
            return False
        return (now - last).total_seconds() > OPEN_SECONDS

    def _undo_foreign(self, state: State, found: Operation, at: str) -> None:
        """What a dead run left open for another release ends first: finished where it was decided, undone where not."""
        mine = dataclasses.replace(found, holder=self.me).with_step("taken over to end it", at, by=self.wish.asked_by)
        try:
            self.driver.write(state, state.routing, mine, state.frozen)
        except Conflict:
            return
        self.operation, self.written = mine, self.clock.monotonic()
        try:
            if found.phase == "committed":
                self._end_decided(state.routing)
            else:
                self._undo("abandoned", f"its run had ended; {self.wish.action} by {self.wish.asked_by} came next")
        except BaseException:
            self._let_go()
            raise
        self.operation = None

    def _open(self) -> Operation:
        if self.operation is None:
            raise AssertionError("no operation is held")
        return self.operation

    def _write(self, routing: Routing | None = None, operation: Operation | None = None, *, end: bool = False) -> None:
        """Compare-and-set under the lease: whoever has lost it changes nothing."""
        for _attempt in range(_ATTEMPTS):
            state = self._require_lease()
            mine = (operation or self._open()).with_what_others_wrote(state.operation)
            try:
                self.driver.write(state, routing or state.routing, None if end else mine, state.frozen)
            except Conflict:
                continue
            self.operation, self.written = mine, self.clock.monotonic()
            return
        raise Refused(_contended(self.wish.action))

    def _step(self, step: str, phase: str = "", routing: Routing | None = None, **more: t.Any) -> None:
        operation = self._open().with_step(step, self.clock.now(), **more)
        self._write(routing, operation.at(phase) if phase else operation)

    def _remember(self, step: str, **more: t.Any) -> None:
        """A step that is only written with the next one."""
        self.operation = self._open().with_step(step, self.clock.now(), **more)

    def _let_go(self) -> None:
        """Something went wrong: the operation stays open as it is found, and no process holds it."""
        if self.operation is None:
            return
        with contextlib.suppress(Refused, DockerFailed, Conflict, EdgeFailed):
            for _attempt in range(_ATTEMPTS):
                state = self.driver.state()
                found = state.operation
                if found is None or found.id != self.operation.id or found.holder != self.me:
                    return
                try:
                    self.driver.write(state, state.routing, dataclasses.replace(found, holder=None), state.frozen)
                except Conflict:
                    continue
                return

    def _require_lease(self, routing: Routing | None = None) -> State:
        """Before an act that no compare-and-set guards: whoever has lost the lease does nothing more."""
        state = self.driver.state()
        found = state.operation
        if found is None or found.id != self._open().id or found.holder != self.me:
            raise Lost(
                f"operation: {self._open().id} was taken over by somebody else "
                f"({found.sentence() if found else 'it has ended'}); this run changed nothing more"
            )
        if routing is not None and state.routing != routing:
            raise Lost(
                f"operation: the authority says {state.routing.sentence()} now, so no edge was told "
                f"{routing.sentence()}"
            )
        return state

    def _close(self, outcome: str, reason: str = "") -> None:
        """The journal is history: an entry that cannot be kept is said, and holds nobody up."""
        operation = self._open()
        try:
            self.driver.record(journal_entry(operation, outcome, self.clock.now(), reason))
        except DockerFailed as error:
            self.warnings.append(f"the journal has no entry of operation {operation.id} ({outcome}): {error}")
        self._write(end=True)

    def _await(self, seconds: float, condition: t.Callable[[], str]) -> str:
        """Until the condition is empty; what it said last, when the time is up. The lease is kept alive meanwhile."""
        end = self.clock.monotonic() + seconds
        while True:
            try:
                missing = condition()
                if missing and self.operation is not None and self.clock.monotonic() - self.written > BEAT_SECONDS:
                    self._write(operation=dataclasses.replace(self._open(), beat=self._open().beat + 1))
            except DockerFailed as error:  # while the managers elect a leader, for example
                missing = str(error)
            if not missing or self.clock.monotonic() >= end:
                return missing
            self.clock.sleep(_POLL)

    # ------------------------------------------------------------------ the actions

    def _prepare(self, planned: Plan) -> None:
        if self._open().phase not in ("preparing", "prepared"):
            self._write(operation=dataclasses.replace(self._open(), holder=None))
            return
        self._drain(planned.target)
        self._write(operation=dataclasses.replace(
            self._open().at("prepared").with_step("prepared", self.clock.now(), cut=self.cut), holder=None
        ))  # fmt: skip

    def _drain(self, slot: str) -> None:
        """Wait for a slot's connections to end by themselves; what is left is told so when its tasks end."""

        def connections() -> str:
            routers = self.driver.routers()
            unknown = [router.error for router in routers if router.error] or ([] if routers else ["no edge runs"])
            self.cut = sum(router.connections.get(slot, 0) for router in routers)
            return "; ".join(unknown) or (f"{self.cut} connections" if self.cut else "")

        began = self.clock.monotonic()
        self._await(self.wish.drain_seconds, connections)
        self.seconds["drain"] = self.clock.monotonic() - began
        self._remember("drained", slot=slot, left=self.cut)

    def _capacity(self, slot: str) -> str:
        """Empty when every edge sees all tasks of the slot; otherwise what is missing."""
        held = self.driver.state().slots[slot]
        if not held.replicas:
            return f"slot {slot} is told to have no tasks (parked cold)"
        wanted = max(held.replicas, held.wanted)
        if held.running < wanted:
            return f"{held.running} of {wanted} tasks of slot {slot} run"
        routers = self.driver.routers()
        problems = [
            router.error or f"edge {router.name} sees {router.up.get(slot, 0)} of {wanted} replicas of {slot} up"
            for router in routers
            if router.error or router.up.get(slot, 0) < wanted
        ]
        return "; ".join(problems) if routers else "no edge runs"

    def _switch(self, planned: Plan) -> None:
        operation, target = self._open(), planned.target
        if operation.phase == "committed":
            self._finish(planned.routing, "switched")
            return
        if self.wish.hold or operation.phase == "holding":
            self._switch_without_overlap(target)
            return
        patience = min(self.wish.timeout, 5.0) if self.wish.action == "rollback" else self.wish.timeout
        missing = self._await(patience, lambda: self._capacity(target))
        if missing:
            self._give_up(
                f"slot {target} is not ready to take traffic: {missing} (waited {patience:g} s). Nothing was switched, "
                f"{self._where()}. More: docker service ps --no-trunc bitnet-{self.driver.environment}-{target}"
            )
        self._commit(planned.routing)

    def _give_up(self, text: str) -> None:
        """Before anything was routed: an operation of this run alone ends, one of a rollout stays open to go on."""
        state = self.driver.state()
        if self._open().action == "rollout" or state.routing != Routing(state.routing.active):
            self._let_go()
        else:
            self._close("refused", text)
        self.operation = None
        raise TimedOut(text)

    def _commit(self, routing: Routing) -> None:
        decided = self.clock.monotonic()
        self.driver.reserve(routing)
        done = not routing.share
        self._step(
            f"{routing.active} active" if done else f"{routing.share} % to {routing.idle}",
            "committed" if done else "weighted",
            routing,
        )
        self._set_edges(routing)
        if done:
            self._finish(routing, "switched", decided)
        else:
            self._write(operation=dataclasses.replace(self._open(), holder=None))

    def _set_edges(self, routing: Routing, patience: float | None = None) -> None:
        """Every edge that is wanted on a node that is not down: told until it does, or the time is up."""
        patience = self.wish.timeout if patience is None else patience

        def differs() -> str:
            routers = self.driver.routers()
            wrong = [router.sentence() for router in routers if router.routing != routing]
            if routers and not wrong:
                return ""
            self._require_lease(routing)
            try:
                self.driver.apply(routing)
            except EdgeFailed as error:
                return str(error)
            except Conflict as error:  # somebody else's job: looked at again
                return f"the edges could not be told ({error})"
            return "; ".join(wrong) or "no edge runs"

        try:
            missing = self._await(patience, differs)
        finally:
            with contextlib.suppress(DockerFailed, Conflict):  # then the next run does
                self.driver.tidy()
        if missing:
            raise TimedOut(
                f"the authority says {routing.sentence()}, and after {patience:g} s (timeout) not every edge does: "
                f"{missing}. {self._where().capitalize()}. The operation stays open: run the same again to end it, or "
                "go back with action=rollback. An edge that is replaced begins with what the authority says"
            )

    def _client_proof(self, routing: Routing) -> tuple[str, float]:
        """What a client at some edge saw otherwise when the time was up, or nothing; when it was first seen right."""
        times = 0
        first_right = self.clock.monotonic()

        def client() -> str:
            nonlocal times, first_right
            seen = self.driver.client_sees()
            if seen != routing.active:
                times = 0
                return f"a client at the edge's port saw {seen}"
            if not times:
                first_right = self.clock.monotonic()
            times += 1
            return "" if times >= _CLIENT_TIMES else f"a client saw {seen} {times} times"

        return self._await(min(_CLIENT_SECONDS, self.wish.timeout), client), first_right

    def _finish(self, routing: Routing, outcome: str, decided: float | None = None) -> None:
        """Decided and written: every edge, then the proof from a client at each, then the journal."""
        self._set_edges(routing)
        missing, first_right = self._client_proof(routing)
        if missing:
            raise TimedOut(
                f"every edge says {routing.sentence()}, but {missing} "
                f"(waited {min(_CLIENT_SECONDS, self.wish.timeout):g} s). The operation stays open: run the same again "
                "to end it, or go back with action=rollback. "
                f"More: docker service logs --tail 50 bitnet-{self.driver.environment}-edge"
            )
        if decided is not None:
            self.seconds["to_client"] = first_right - decided
            self._remember("seen by a client", seconds=round(first_right - decided, 3))
        self._close(outcome if self._open().action != "rollback" else "rolled back")

    def _end_decided(self, routing: Routing) -> None:
        """What was decided and not proven ends, so that it keeps no cure away; the journal says how far it was.
        Before a rollback not every edge has to do it.
        """
        try:
            self._set_edges(routing, min(self.wish.timeout, 5.0) if self.wish.action == "rollback" else None)
        except TimedOut as error:
            if self.wish.action != "rollback":
                raise
            self._close("switched, not at every edge", str(error))
            return
        missing, _first_right = self._client_proof(routing)
        self._close("switched, not seen by a client" if missing else "switched", missing)

    def _switch_without_overlap(self, target: str) -> None:
        """The machine has no room for both: requests wait in the edge while one slot stops and the other starts."""
        operation = self._open()
        source = operation.source
        self.driver.reserve(Routing(source, hold=True))
        self._step("new requests wait", "holding", Routing(source, hold=True))
        self._set_edges(Routing(source, hold=True))
        held = self.clock.monotonic()
        missing = self._exchange(source, target)
        if missing:
            self._undo("compensated", missing)
            raise TimedOut(
                f"slot {target} did not become ready: {missing}. {source.capitalize()} is active again, {self._where()}"
            )
        self.seconds["held"] = self.clock.monotonic() - held
        self._commit(Routing(target))

    def _exchange(self, stop: str, start: str) -> str:
        """Stop one slot, then start the other; what was missing when the time was up, or nothing."""
        self._scale(stop, 0)
        missing = self._await(
            self.wish.timeout, lambda: f"slot {stop} still has tasks" if self.driver.living(stop) else ""
        )
        if missing:
            return missing
        self._remember(f"{stop} stopped")
        self._scale(start, max(self.driver.state().slots[start].wanted, 1))
        missing = self._await(self.wish.timeout, lambda: self._capacity(start))
        if not missing:
            self._remember(f"{start} ready")
        return missing

    def _still_runs(self, slot: str) -> str:
        return f"slot {slot} still has tasks" if self.driver.living(slot) else ""

    def _scale(self, slot: str, replicas: int) -> None:
        for _attempt in range(_ATTEMPTS):
            state = self._require_lease()
            if not replicas and slot == state.routing.active and not state.routing.hold:
                raise Refused(f"slot: {slot} is active, and an active slot is not stopped")
            try:
                self.driver.scale(slot, replicas)
            except Conflict:
                continue
            return
        raise Refused(_contended(f"scale of slot {slot}"))

    def _park(self, planned: Plan) -> None:
        self._drain(planned.target)
        self._scale(planned.target, 0)
        missing = self._await(
            self.wish.timeout, lambda: "tasks still end" if self.driver.living(planned.target) else ""
        )
        if missing:
            raise TimedOut(
                f"slot {planned.target} is told to stop, but its tasks have not ended after {self.wish.timeout:g} s "
                "(timeout). "
                f"{self._where().capitalize()}. Run the same again"
            )
        self._close("parked cold")

    def _abort(self, _planned: Plan) -> None:
        self._undo("aborted", self.wish.reason)

    def _undo(self, outcome: str, reason: str) -> None:
        """Everything back to the slot that is active, the operation closed."""
        state = self.driver.state()
        operation = self._open()
        back = Routing(state.routing.active)
        if state.routing.hold or operation.phase == "holding":
            missing = self._exchange(operation.target, operation.source)
            if missing:
                raise TimedOut(
                    f"{operation.sentence()} could not be undone: {missing}. New requests still wait in the edge, "
                    "bounded; run action=abort again"
                )
        if state.routing != back:
            self._step(f"everything to {back.active}", routing=back)
        self._set_edges(back)
        self._close(outcome, reason)

    def _where(self) -> str:
        try:
            routers = self.driver.routers()
        except Exception as error:
            return f"where traffic goes is not known ({error})"
        seen = "; ".join(router.sentence() for router in routers)
        return f"traffic goes where it went ({seen or 'no edge runs'})"


def _contended(what: str) -> str:
    return (
        f"the environment was changed by somebody else during each attempt to {what}; nothing more was changed. "
        "Find the other writer (docker service inspect shows the version rising) and run again"
    )


def _new_id(at: str) -> str:
    """Sorts by time: 20261125T163000-1f2e3d."""
    return at[:19].replace("-", "").replace(":", "") + "-" + secrets.token_hex(3)
