# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What traffic is told to do and what the slots hold: plain data, read from labels and written to them."""

from __future__ import annotations

import dataclasses
import json
import typing as t

SLOTS = ("blue", "green")
SCHEMA = 1

ACTIVE = "io.bitnet.active-slot"
SHARE = "io.bitnet.idle-share"
HOLD = "io.bitnet.hold"
OPERATION = "io.bitnet.operation"
FROZEN = "io.bitnet.frozen"
REPLICAS = "io.bitnet.replicas"
ROUTING_LABELS = (ACTIVE, SHARE, HOLD, OPERATION, FROZEN)

Json = t.Mapping[str, t.Any]


class BadRecord(Exception):
    """A label or a map that says what none of ours says; the text names it and the way out."""


def other(slot: str) -> str:
    return SLOTS[1 - SLOTS.index(slot)]


@dataclasses.dataclass(frozen=True)
class Routing:
    """Where new requests go: to C(active), C(share) percent of them to the other slot; with C(hold) they wait."""

    active: str
    share: int = 0
    hold: bool = False

    @property
    def idle(self) -> str:
        return other(self.active)

    def labels(self) -> dict[str, str]:
        return {ACTIVE: self.active, SHARE: str(self.share), HOLD: str(int(self.hold))}

    def entries(self) -> dict[str, str]:
        """Keys and values of the edge's map."""
        return {"active": self.active, "share": str(self.share), "hold": str(int(self.hold))}

    def map_text(self) -> str:
        return "".join(f"{key} {value}\n" for key, value in self.entries().items())

    def sentence(self) -> str:
        share = f", {self.share} % to {self.idle}" if self.share else ""
        return f"{self.active} is active{share}{', new requests wait' if self.hold else ''}"

    def document(self) -> dict[str, t.Any]:
        return {"active": self.active, "share": self.share, "hold": self.hold}


def routing_from(active: str, share: str, hold: str, where: str) -> Routing:
    """Raises BadRecord when a value is none of ours; empty share and hold count as 0."""
    share, hold = share or "0", hold or "0"
    if active not in SLOTS or not share.isdecimal() or int(share) > 99 or hold not in ("0", "1"):
        raise BadRecord(
            f"{where} says active slot {active!r}, idle share {share!r}, hold {hold!r}: a slot is blue or green, a "
            "share is "
            "0 to 99, hold is 0 or 1. Set it right by hand (docker service update --label-add) and run again"
        )
    return Routing(active, int(share), hold == "1")


def routing_of_labels(labels: t.Mapping[str, str], where: str) -> Routing:
    return routing_from(labels.get(ACTIVE, ""), labels.get(SHARE, ""), labels.get(HOLD, ""), where)


def routing_of_map(lines: t.Iterable[str], where: str) -> Routing:
    """From `show map`: lines of an address, a key and a value."""
    found: dict[str, str] = {}
    for line in lines:
        words = line.split()
        if len(words) == 3:
            found[words[1]] = words[2]
    return routing_from(found.get("active", ""), found.get("share", ""), found.get("hold", ""), where)


@dataclasses.dataclass(frozen=True)
class Slot:
    """What one slot holds. C(wanted) tasks make its full capacity, C(replicas) it is told to have, C(running) run."""

    name: str
    service: str
    exists: bool = False
    release: str = ""
    binding: str = ""
    replicas: int = 0
    wanted: int = 0
    running: int = 0
    schemas: str = ""
    """The database's schemas that its release knows; empty when it uses none."""

    @property
    def parked_cold(self) -> bool:
        return self.exists and self.replicas == 0

    def document(self) -> dict[str, t.Any]:
        return {
            "service": self.service,
            "release": self.release,
            "binding": self.binding,
            "replicas": self.replicas,
            "wanted": self.wanted,
            "running": self.running,
        }


@dataclasses.dataclass(frozen=True)
class Router:
    """What one edge really does: its routing, and for each slot the servers that are up and the connections."""

    name: str
    routing: Routing | None = None
    up: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    connections: t.Mapping[str, int] = dataclasses.field(default_factory=dict)
    error: str = ""
    node: str = ""

    def sentence(self) -> str:
        """For a person: what it does, or why that is not known."""
        if self.routing:
            return f"edge {self.name}: {self.routing.sentence()}"
        return self.error or f"edge {self.name}: its map file says otherwise"

    def document(self) -> dict[str, t.Any]:
        return {
            "routing": self.routing.document() if self.routing else None,
            "up": dict(self.up),
            "connections": dict(self.connections),
            "error": self.error,
            "node": self.node,
        }


@dataclasses.dataclass(frozen=True)
class Frozen:
    by: str
    reason: str
    since: str

    def text(self) -> str:
        return json.dumps({"schema": SCHEMA, **dataclasses.asdict(self)}, sort_keys=True)


def frozen_from(text: str) -> Frozen | None:
    if not text:
        return None
    try:
        document = json.loads(text)
        return Frozen(str(document["by"]), str(document["reason"]), str(document["since"]))
    except (ValueError, KeyError, TypeError):
        raise BadRecord(
            f"label {FROZEN} cannot be read ({text[:80]!r}): remove it (docker service update --label-rm {FROZEN})"
        ) from None
