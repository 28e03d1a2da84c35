# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The open operation on an environment's traffic: its holder, how far it is, its end in the journal."""

from __future__ import annotations

import dataclasses
import json
import typing as t

from .routing import OPERATION, SCHEMA, SLOTS, BadRecord

PHASES = ("preparing", "prepared", "switching", "weighted", "holding", "committed", "parking")
_MOST_STEPS = 60  # a label is a small thing: the oldest steps but the first give way


@dataclasses.dataclass(frozen=True)
class Holder:
    """The process that works on it. C(life) says on which machine and since when, so that a dead one can be told."""

    who: str
    life: str
    pid: int


@dataclasses.dataclass(frozen=True)
class Operation:
    """C(id) is its name for ever; C(target) is the slot that gets C(release); C(beat) rises while its holder lives."""

    id: str
    action: str
    release: str
    source: str
    target: str
    asked_by: str
    phase: str
    holder: Holder | None = None
    beat: int = 0
    paused: str = ""
    steps: tuple[t.Mapping[str, t.Any], ...] = ()

    def at(self, phase: str) -> Operation:
        return dataclasses.replace(self, phase=phase)

    def with_step(self, step: str, at: str, **more: t.Any) -> Operation:
        steps = (*self.steps, {"step": step, "at": at, **more})
        if len(steps) > _MOST_STEPS:
            steps = (steps[0], *steps[-_MOST_STEPS + 1 :])
        return dataclasses.replace(self, steps=steps)

    def with_what_others_wrote(self, found: Operation | None) -> Operation:
        """A pause or its end, which somebody may write while another holds the operation."""
        if found is None:
            return dataclasses.replace(self, paused="")
        others = [step for step in found.steps if step["step"] in ("pause", "resume") and step not in self.steps]
        steps = tuple(sorted((*others, *self.steps), key=lambda step: str(step["at"]))) if others else self.steps
        return dataclasses.replace(self, paused=found.paused, steps=steps)

    def document(self) -> dict[str, t.Any]:
        document = {"schema": SCHEMA, **dataclasses.asdict(self)}
        document["steps"] = [dict(step) for step in self.steps]
        return document

    def text(self) -> str:
        return json.dumps(self.document(), sort_keys=True, separators=(",", ":"))

    def summary(self) -> str:
        return f"{self.action} {self.release}, {self.phase}{', paused' if self.paused else ''}"

    def sentence(self) -> str:
        """For a person: what is open, and whose it is."""
        holder = (
            f", process {self.holder.pid} of {self.holder.who} holds it" if self.holder else ", no process holds it"
        )
        paused = f", paused: {self.paused}" if self.paused else ""
        since = f" since {self.steps[0]['at']}" if self.steps else ""
        return (
            f"operation {self.id} ({self.action} of release {self.release or 'unknown'} from {self.source} to "
            f"{self.target}, "
            f"asked by {self.asked_by}, {self.phase}{since}, {holder}{paused})"
        )


def operation_from(text: str) -> Operation | None:
    """Raises BadRecord for what is none of ours, and for a record of a newer schema."""
    if not text:
        return None
    try:
        document = json.loads(text)
        if document["schema"] > SCHEMA:
            raise BadRecord(
                f"label {OPERATION} has schema {document['schema']}, this collection knows {SCHEMA}: use the newer "
                "collection"
            )
        holder = document.get("holder")
        found = Operation(
            id=str(document["id"]),
            action=str(document["action"]),
            release=str(document["release"]),
            source=str(document["source"]),
            target=str(document["target"]),
            asked_by=str(document["asked_by"]),
            phase=str(document["phase"]),
            holder=Holder(str(holder["who"]), str(holder["life"]), int(holder["pid"])) if holder else None,
            beat=int(document.get("beat", 0)),
            paused=str(document.get("paused") or ""),
            steps=tuple(document.get("steps") or ()),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadRecord(
            f"label {OPERATION} cannot be read ({error}; it begins {text[:80]!r}): see what runs (traffic_info), then "
            f"remove it (docker service update --label-rm {OPERATION})"
        ) from None
    if found.phase not in PHASES or found.source not in SLOTS or found.target not in SLOTS:
        raise BadRecord(f"label {OPERATION} names phase {found.phase!r} or slots that this collection does not know")
    return found


def journal_entry(operation: Operation, outcome: str, at: str, reason: str = "") -> dict[str, t.Any]:
    """What the journal keeps of an ended operation."""
    document = operation.document()
    for transient in ("holder", "beat", "paused", "phase"):
        document.pop(transient)
    return {**document, "outcome": outcome, "ended": at, "reason": reason}


def never_took_over(release: str, operation: Operation | None, entries: t.Iterable[t.Mapping[str, t.Any]]) -> bool:
    """Whether all that is known of a release is that it was prepared, weighted or taken back."""
    known = [str(entry.get("outcome")) for entry in entries if entry.get("release") == release]
    if operation and operation.release == release:
        known.append("switched" if operation.phase == "committed" else "open")
    return bool(known) and not {"switched", "rolled back"} & set(known)
