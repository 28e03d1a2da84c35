# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Mode hive_mind: where the environments of a run are, what must happen next, how it ended. Looks at nothing itself.

An environment of which nothing is known has been lost: silence is neither prepared nor committed, and never new or old.
"""

from __future__ import annotations

import dataclasses
import typing as t

PREPARED, COMMITTING, COMMITTED, FAILED = "prepared", "committing", "committed", "failed"
NEW, OLD, BETWEEN, UNREACHABLE = "new", "old", "between", "unreachable"
ALL_NEW, ALL_OLD, MIXED = "ALL NEW", "ALL OLD", "MIXED"
ABORT, ROLL_BACK, REMOVE = "abort", "roll back", "remove"

Json = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Row:
    """What one host of the play has told. Only the host that speaks for its environment tells more than where it is."""

    host: str
    environment: str
    cluster: str = ""
    stage: str = ""
    failure: str = ""
    release: str = ""
    look: Json = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Part:
    """One environment in one cluster: it has one edge, so it commits by itself."""

    name: str
    stage: str
    failure: str
    release: str
    look: Json
    speaker: str

    def state(self, common: str) -> str:
        """C(between) is neither: a share of the requests goes elsewhere, or an edge does not do what it is told."""
        look = self.look
        if not look:
            return UNREACHABLE
        if not look["present"]:
            return OLD
        if look["share"] or look["hold"] or (look["edges"] and not look["agree"]):
            return BETWEEN
        release = self.release or common
        record = open_record(look, release)
        if record:
            return NEW if look["active"] == record["slot"] else OLD
        # What had to be moved and has no record was not moved. A binding may change under the same release.
        if look.get("moves") is not None:
            return OLD if look["moves"] else NEW
        return NEW if look["release"] == release else OLD

    def action(self, common: str) -> str:
        """What takes this environment back: only what this hive has moved, or was about to."""
        look = self.look
        if not look:
            return ""
        release = self.release or common
        operation, record = look["operation"], open_record(look, release)
        if record and look["present"] and look["active"] == record["slot"]:
            return REMOVE if record["first"] else ROLL_BACK
        ours = operation.get("release") == release and operation.get("action") == "rollout"
        return ABORT if ours and not operation.get("paused") else ""


def open_record(look: Json, release: str) -> Json:
    """What an environment keeps of a commit whose end is not decided, of this release."""
    record: Json = look.get("record") or {}
    return record if record.get("release") == release and not record.get("ended") else {}


def parts(rows: t.Iterable[Row]) -> list[Part]:
    """The environments that the run was meant for, those that were lost among them."""
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row.environment, row.cluster), []).append(row)
    names = [environment for environment, _cluster in groups]
    found = []
    for (environment, cluster), group in groups.items():
        told = next((row for row in group if row.stage), group[0])
        looked = next((row for row in group if row.look), None)
        found.append(
            Part(
                name=environment if names.count(environment) == 1 else f"{environment}/{cluster}",
                stage=told.stage,
                failure=told.failure,
                release=told.release,
                look=looked.look if looked else {},
                speaker=looked.host if looked else "",
            )
        )
    return found


def _why_not(part: Part) -> str:
    if part.stage == FAILED:
        return f"{part.name} failed: {part.failure or 'see above'}"
    return f"{part.name} was lost while it {'committed' if part.stage == COMMITTING else 'was prepared'}"


def not_prepared(found: t.Sequence[Part]) -> list[str]:
    """Why no environment may commit; empty when all may."""
    problems = [_why_not(part) for part in found if part.stage != PREPARED]
    releases = {part.release: part.name for part in found if part.stage == PREPARED}
    if len(releases) > 1:
        said = " and ".join(f"{release} in {name}" for release, name in sorted(releases.items()))
        problems.append(
            f"the environments are about different releases ({said}): give all of them the same bitnet_image, "
            "bitnet_model and swarm_rollout_configuration"
        )
    return problems


def not_committed(found: t.Sequence[Part]) -> list[str]:
    """Why what was committed is taken back; empty when all have committed. Who is prepared has only waited."""
    reasons = [_why_not(part) for part in found if part.stage not in (PREPARED, COMMITTED)]
    waited = any(part.stage == PREPARED for part in found)
    return reasons or (not_prepared(found) or ["no environment has committed"] if waited else [])


def release_of(found: t.Sequence[Part]) -> str:
    return next((part.release for part in found if part.release), "")


def outcome(states: t.Collection[str]) -> str:
    if set(states) == {NEW}:
        return ALL_NEW
    return ALL_OLD if set(states) == {OLD} else MIXED


def settle(found: t.Sequence[Part]) -> dict[str, t.Any]:
    """Where all are, what takes them to one end, and the lines that say so."""
    release, reasons = release_of(found), not_committed(found)
    states = {part.name: part.state(release) for part in found}
    actions = {part.speaker: part.action(release) for part in found if part.speaker} if reasons else {}
    end = outcome(states.values())
    return {
        "release": release,
        "reasons": reasons,
        "states": states,
        "actions": {host: action for host, action in actions.items() if action},
        # A record is needed as long as what it is about may still have to be taken back.
        "closes": [
            part.speaker
            for part in found
            if open_record(part.look, part.release or release) and (end == ALL_NEW or states[part.name] == OLD)
        ],
        "outcome": end,
        "report": [f"{end}: release {release or 'unknown'}", *(_line(part, states[part.name]) for part in found)],
    }


def _line(part: Part, state: str) -> str:
    if state == UNREACHABLE:
        return f"{part.name}: unreachable, and where it is is not known"
    runs = (
        f"slot {part.look['active']}, release {part.look['release'] or 'none'}" if part.look["present"] else "no edge"
    )
    return f"{part.name}: {state} ({runs})"
