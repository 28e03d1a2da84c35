# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver for HAProxy on Docker Swarm: the authority is the edge service; each edge says what it really routes.

A driver says what is routed (C(state)), sets it (C(write), C(apply)) and reports what the router really does
(C(routers), C(client_sees)). It knows no policy: `switch` decides.
"""

from __future__ import annotations

import copy
import dataclasses
import http.client
import json
import typing as t
from pathlib import Path

from .._swarm import convergence
from .._swarm.client import Conflict, DockerFailed, SwarmClient
from .._swarm.spec import OWNER, OWNER_LABEL, SCHEMA, SCHEMA_LABEL
from .edge import Edge
from .operation import Operation, operation_from
from .routing import FROZEN, OPERATION, REPLICAS, SLOTS, Frozen, Router, Routing, Slot, frozen_from, routing_of_labels

ENVIRONMENT_LABEL = "io.bitnet.environment"
KIND_LABEL = "io.bitnet.kind"
JOURNAL_KEPT = 50

Json = dict[str, t.Any]


class NoEdge(Exception):
    """The environment has no edge that we could work with; the text says the way out."""


@dataclasses.dataclass(frozen=True)
class State:
    """The authority at one moment. C(version) is what a write is compared with."""

    version: int
    routing: Routing
    operation: Operation | None
    frozen: Frozen | None
    slots: t.Mapping[str, Slot]
    service: Json = dataclasses.field(repr=False, default_factory=dict)


class SwarmDriver:
    """One environment on one Swarm, seen from a manager that runs an edge."""

    def __init__(self, client: SwarmClient, environment: str, state_dir: str) -> None:
        self.client = client
        self.environment = environment
        self.folder = Path(state_dir) / "environments" / environment
        self.name = f"bitnet-{environment}-edge"

    # -- the authority

    def state(self) -> State:
        service = self.client.service(self.name)
        if service is None:
            raise NoEdge(
                f"environment: there is no service {self.name} in this Swarm, so environment {self.environment!r} has "
                "no edge. "
                "Correct environment, or run bitnet.devops.rollout, which makes it"
            )
        labels = service["Spec"].get("Labels") or {}
        if labels.get(OWNER_LABEL) != OWNER or labels.get(ENVIRONMENT_LABEL) != self.environment:
            raise NoEdge(
                f"environment: the service {self.name} is labelled {OWNER_LABEL}={labels.get(OWNER_LABEL)!r} and "
                f"{ENVIRONMENT_LABEL}={labels.get(ENVIRONMENT_LABEL)!r}, so it is not the edge of "
                f"{self.environment!r}; nothing was changed"
            )
        where = f"service {self.name}"
        return State(
            version=int(service["Version"]["Index"]),
            routing=routing_of_labels(labels, where),
            operation=operation_from(labels.get(OPERATION, "")),
            frozen=frozen_from(labels.get(FROZEN, "")),
            slots={slot: self._slot(slot) for slot in SLOTS},
            service=service,
        )

    def write(self, state: State, routing: Routing, operation: Operation | None, frozen: Frozen | None) -> None:
        """One compare-and-set of all that the authority says; raises Conflict when it has changed since."""
        spec = copy.deepcopy(dict(state.service["Spec"]))
        labels = {**(spec.get("Labels") or {}), **routing.labels()}
        for label, text in (
            (OPERATION, operation.text() if operation else ""),
            (FROZEN, frozen.text() if frozen else ""),
        ):
            labels.pop(label, None)
            if text:
                labels[label] = text
        spec["Labels"] = labels
        self.client.update(state.service, spec)

    def _slot_service(self, slot: str) -> Json | None:
        return self.client.service(f"bitnet-{self.environment}-{slot}")

    def _slot(self, slot: str) -> Slot:
        name = f"bitnet-{self.environment}-{slot}"
        service = self._slot_service(slot)
        if service is None:
            return Slot(slot, name)
        spec = service["Spec"]
        labels = spec.get("Labels") or {}
        if labels.get(OWNER_LABEL) != OWNER:
            return Slot(slot, name)
        replicas = convergence.tasks_wanted(spec, [])
        tasks = self.client.tasks(service["ID"])
        return Slot(
            slot,
            name,
            exists=True,
            release=labels.get("io.bitnet.release", ""),
            binding=labels.get("io.bitnet.binding", ""),
            replicas=replicas,
            wanted=int(labels[REPLICAS]) if labels.get(REPLICAS, "").isdecimal() else replicas,
            running=sum(convergence.is_running(task, spec) for task in tasks),
        )

    # -- what carries it out

    def edges(self) -> list[Edge]:
        """One for each running task of the edge service; all have to be on this machine."""
        service = self.client.service(self.name)
        tasks = self.client.tasks(service["ID"]) if service else []
        here = self.client.node_id()
        found = []
        for task in tasks:
            if task["DesiredState"] != "running":
                continue
            node = str(task.get("NodeID") or "")
            if node != here:
                raise NoEdge(
                    f"{self.name} has a task on node {node or 'not chosen yet'}, and this module reaches only the edge "
                    "of the machine on "
                    f"which it runs (node {here}): keep the edge on one node (traffic_constraints) and run this there"
                )
            found.append(Edge(node, self.folder / "edge"))
        return found

    def routers(self) -> list[Router]:
        return [edge.view() for edge in self.edges()]

    def reserve(self, routing: Routing) -> None:
        for edge in self.edges():
            edge.reserve(routing)

    def apply(self, routing: Routing) -> None:
        for edge in self.edges():
            edge.set(routing)

    def port(self) -> int:
        """The published port, 0 when there is none."""
        service = self.client.service(self.name)
        ports = (service or {}).get("Spec", {}).get("EndpointSpec", {}).get("Ports") or []
        return next((int(port["PublishedPort"]) for port in ports if port.get("PublishedPort")), 0)

    def client_sees(self) -> str:
        """The slot that answers a client at the published port, or why there is none (in brackets)."""
        port = self.port()
        try:
            token = (self.folder / "tokens" / "probe").read_text(encoding="ascii").strip()
        except OSError as error:
            return f"({self.folder}/tokens/probe cannot be read: {error.strerror})"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
        try:
            connection.request("GET", "/health", headers={"Authorization": f"Bearer {token}", "Connection": "close"})
            response = connection.getresponse()
            response.read()
            slot = response.getheader("X-Bitnet-Slot") or "(no X-Bitnet-Slot)"
            return slot if response.status == 200 else f"({slot} answered {response.status})"
        except (OSError, http.client.HTTPException) as error:
            return f"({type(error).__name__} on port {port})"
        finally:
            connection.close()

    def scale(self, slot: str, replicas: int) -> None:
        """Tell a slot to have so many tasks; raises Conflict when somebody writes it at the same moment."""
        service = self._slot_service(slot)
        if service is None:
            raise DockerFailed(f"service bitnet-{self.environment}-{slot} is gone")
        spec = copy.deepcopy(dict(service["Spec"]))
        if spec["Mode"]["Replicated"].get("Replicas", 0) == replicas:
            return
        spec["Mode"] = {"Replicated": {"Replicas": replicas}}
        self.client.update(service, spec)

    def living(self, slot: str) -> int:
        """Tasks of a slot that have not ended."""
        service = self._slot_service(slot)
        tasks = self.client.tasks(service["ID"]) if service else []
        return sum(not convergence.has_ended(task) for task in tasks)

    # -- history

    def _journal_base(self) -> str:
        return f"bitnet-{self.environment}-j-"  # a name has 64 characters at most, and the id 22

    def record(self, entry: Json) -> None:
        """Append to the journal (once for each operation), and let the oldest entries go."""
        entries = self._entries()
        name = self._journal_base() + entry["id"]
        if not any(found["Spec"]["Name"] == name for found in entries):
            labels = {
                OWNER_LABEL: OWNER,
                SCHEMA_LABEL: SCHEMA,
                ENVIRONMENT_LABEL: self.environment,
                KIND_LABEL: "journal",
            }
            self.client.create_content("config", name, json.dumps(entry, sort_keys=True, indent=1).encode(), labels)
        for old in entries[JOURNAL_KEPT - 1 :]:
            self.client.remove_content("config", old["ID"])

    def _entries(self) -> list[Json]:
        """The newest first."""
        found = [
            config
            for config in self.client.contents("config")
            if (config["Spec"].get("Labels") or {}).get(KIND_LABEL) == "journal"
            and (config["Spec"].get("Labels") or {}).get(ENVIRONMENT_LABEL) == self.environment
        ]
        return sorted(found, key=lambda config: str(config["CreatedAt"]), reverse=True)

    def journal(self, most: int) -> list[Json]:
        from .._swarm.content import text

        entries = []
        for config in self._entries()[:most]:
            try:
                entries.append(json.loads(text(config)))
            except ValueError:
                entries.append({"id": config["Spec"]["Name"], "outcome": "unreadable"})
        return entries


def process_life() -> str:
    """This machine's boot and process namespace: where a process id means something."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"


def process_start(pid: int) -> str:
    """When a process began, in clock ticks since boot (field 22 of /proc/PID/stat); empty when none lives."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        return "" if fields[0] in ("Z", "X") else fields[19]
    except (OSError, IndexError):
        return ""


__all__ = ["Conflict", "NoEdge", "State", "SwarmDriver", "process_life", "process_start"]
