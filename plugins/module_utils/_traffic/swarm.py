# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The driver for HAProxy on Docker Swarm: the authority is the edge service; each edge says what it really routes.

A driver says what is routed (C(state)), sets it (C(write), C(apply)) and reports what the router really does
(C(routers), C(client_sees)). It knows no policy: `switch` decides.
"""

from __future__ import annotations

import concurrent.futures
import copy
import dataclasses
import http.client
import json
import typing as t
from pathlib import Path

from .._swarm import convergence
from .._swarm.client import Conflict, DockerFailed, SwarmClient
from .._swarm.nodes import NODE_LABEL, labels_of
from .._swarm.spec import OWNER, OWNER_LABEL, SCHEMA, SCHEMA_LABEL
from .edge import FOLDER, DistantEdge, Edge, EdgeFailed, get
from .operation import Operation, operation_from
from .routing import FROZEN, OPERATION, REPLICAS, SLOTS, Frozen, Router, Routing, Slot, frozen_from, routing_of_labels
from .schema import SCHEMAS, Schema, newest, schema_of

ENVIRONMENT_LABEL = "io.bitnet.environment"
KIND_LABEL = "io.bitnet.kind"
WORD_LABEL = "io.bitnet.routing"
ROUTE = "route"
JOURNAL_KEPT = 50
_ASKED_AT_ONCE = 32

Json = dict[str, t.Any]
_Asked = t.TypeVar("_Asked")


class NoEdge(Exception):
    """The environment has no edge that we could work with; the text says the way out."""


class NoToken(Exception):
    """The token with which edges are asked cannot be read."""


@dataclasses.dataclass(frozen=True)
class _Place:
    """A node with an edge. C(name) is for people, C(address) where other nodes reach it."""

    node: str
    name: str
    address: str
    here: bool
    down: bool


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
    """One environment on one Swarm, seen from a manager."""

    def __init__(self, client: SwarmClient, environment: str, state_dir: str) -> None:
        self.client = client
        self.environment = environment
        self.folder = Path(state_dir) / "environments" / environment
        self.name = f"bitnet-{environment}-edge"
        self.job = f"bitnet-{environment}-{ROUTE}"
        self._here = ""

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
            schemas=labels.get(SCHEMAS, ""),
        )

    # -- what carries it out

    def _places(self) -> list[_Place]:
        """The nodes whose edge Swarm wants running, and those that are Down with the edge that ran there."""
        service = self.client.service(self.name)
        if service is None:
            return []
        nodes = {node["ID"]: node for node in self.client.nodes()}
        if not self._here:
            self._here = self.client.node_id()
        found: dict[str, _Place] = {}
        for task in self.client.tasks(service["ID"]):
            id = str(task.get("NodeID") or "")
            node = nodes.get(id)
            down = node is not None and node["Status"]["State"] == "down"
            if not convergence.has_ended(task) if down else task["DesiredState"] == "running":
                found[id] = _Place(id, _name_of(id, nodes), _address_of(node), id == self._here, down)
        return sorted(found.values(), key=lambda place: place.name)

    def _reached(self) -> list[_Place]:
        return [place for place in self._places() if not place.down]

    def lost(self) -> list[str]:
        """Nodes that are Down and had an edge: when they come back Swarm makes it anew, with what holds then."""
        return [place.name for place in self._places() if place.down]

    def _edge(self, place: _Place) -> Edge:
        return Edge(place.name, self.folder / "edge")

    def routers(self) -> list[Router]:
        """One for each edge that Swarm wants running, all asked at the same time."""
        port = self.port()

        def view(place: _Place) -> Router:
            if place.here:
                return self._edge(place).view()
            if not place.address:
                return Router(place.name, error=f"edge {place.name}: Swarm knows no address of its node")
            try:
                return DistantEdge(place.name, place.address, port, self._token()).view()
            except NoToken as error:
                return Router(place.name, error=f"edge {place.name} cannot be asked: {error}")

        places = self._reached()
        views = _at_once(view, places)
        return [dataclasses.replace(router, node=place.node) for place, router in zip(places, views)]

    def reserve(self, routing: Routing) -> None:
        """Room here; an edge elsewhere that has none shows when it is told."""
        for place in self._reached():
            if place.here:
                self._edge(place).reserve(routing)

    def apply(self, routing: Routing) -> None:
        """Tell every edge: the one here at its socket, others by a job. It is not waited for: look, and call again."""
        places = self._reached()
        otherwise = {router.name for router in self.routers() if router.routing != routing}
        for place in places:
            if place.here and place.name in otherwise:
                self._edge(place).set(routing)
        if any(place.name in otherwise and not place.here for place in places):
            self._send(routing)

    def _send(self, routing: Routing) -> None:
        """See that a job of the Swarm brings it to every edge. At most one is at work, and none of an earlier word."""
        job = self.client.service(self.job)
        orders = self._orders()
        if job is None:
            edge = self.client.service(self.name)
            if edge and all(map(convergence.has_ended, orders)):  # an earlier word might be written after ours
                self.client.create(_job(self.job, self.environment, edge["Spec"], routing))
            return
        made = [task for task in orders if task["ServiceID"] == job["ID"]]
        same = (job["Spec"].get("Labels") or {}).get(WORD_LABEL) == _word(routing)
        if same and not (made and all(map(convergence.has_ended, made))):
            return
        self.client.remove(job)
        failed = [task for task in made if task["Status"]["State"] in ("failed", "rejected")]
        if same and failed:
            raise EdgeFailed("; ".join(self._failure(task) for task in failed))

    def _orders(self) -> list[Json]:
        """Tasks of such jobs, also of jobs that are gone. What a node that is Down has of them is not known."""
        down = {node["ID"] for node in self.client.nodes() if node["Status"]["State"] == "down"}
        mine = {KIND_LABEL: ROUTE, ENVIRONMENT_LABEL: self.environment}.items()
        return [
            task
            for task in self.client.all_tasks()
            if mine <= (task["Spec"].get("ContainerSpec", {}).get("Labels") or {}).items()
            and task.get("NodeID") not in down
        ]

    def _failure(self, task: Json) -> str:
        id, status = str(task.get("NodeID") or ""), task["Status"]
        name = _name_of(id, {node["ID"]: node for node in self.client.nodes()})
        why = {
            3: f"its map file cannot be written ('df {self.folder}/edge' there shows more)",
            4: f"HAProxy there did not take the map ('docker service logs {self.name}' shows more)",
        }.get((status.get("ContainerStatus") or {}).get("ExitCode", 0), status.get("Err") or status["State"])
        return f"edge {name}: {why}"

    def tidy(self) -> None:
        """Remove the job that told the edges, whoever made it."""
        job = self.client.service(self.job)
        if job and (job["Spec"].get("Labels") or {}).get(OWNER_LABEL) == OWNER:
            self.client.remove(job)

    def port(self) -> int:
        """The published port, 0 when there is none."""
        service = self.client.service(self.name)
        ports = (service or {}).get("Spec", {}).get("EndpointSpec", {}).get("Ports") or []
        return next((int(port["PublishedPort"]) for port in ports if port.get("PublishedPort")), 0)

    def _token(self) -> str:
        try:
            return (self.folder / "tokens" / "probe").read_text(encoding="ascii").strip()
        except OSError as error:
            raise NoToken(f"{self.folder}/tokens/probe cannot be read: {error.strerror}") from error

    def client_sees(self) -> str:
        """The slot that answers a client at the port of every edge, or why there is none (in brackets)."""
        port = self.port()
        try:
            token = self._token()
        except NoToken as error:
            return f"({error})"

        def slot(place: _Place) -> str:
            try:
                host = "127.0.0.1" if place.here else place.address
                status, slot, _body = get(host, port, "/health", token, 3)
                slot = slot or "(no X-Bitnet-Slot)"
                return slot if status == 200 else f"({slot} answered {status})"
            except (OSError, http.client.HTTPException) as error:
                return f"({type(error).__name__} on port {port})"

        places = self._reached()
        seen = _at_once(slot, places)
        if len(set(seen)) == 1:
            return seen[0]
        each = (f"edge {place.name}: {slot}" for place, slot in zip(places, seen))
        return f"({'; '.join(each) or 'no edge runs'})"

    def schema(self) -> Schema | None:
        """What the slots have read in their database, the latest; asked through the first edge that answers."""
        port = self.port()
        try:
            token = self._token()
        except NoToken:
            return None

        def ask(place: _Place) -> Schema | None:
            said = []
            for slot in SLOTS:
                host = "127.0.0.1" if place.here else place.address
                try:
                    status, name, body = get(host, port, "/api", token, 3, asked=slot)
                except (OSError, http.client.HTTPException):
                    continue
                if status == 200 and name == slot:
                    said.append(schema_of(body))
            return newest(said)

        places = sorted(self._reached(), key=lambda place: not place.here)
        return next((found for found in map(ask, places) if found), None)

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


def _name_of(id: str, nodes: t.Mapping[str, Json]) -> str:
    """How people call a node: by its label, by a host name that only it has, by its id."""
    node = nodes.get(id)
    if node is None:
        return id or "(no node yet)"
    host = node.get("Description", {}).get("Hostname", "")
    alone = sum(other.get("Description", {}).get("Hostname", "") == host for other in nodes.values()) == 1
    return labels_of(node).get(NODE_LABEL) or (host if host and alone else id)


def _address_of(node: Json | None) -> str:
    """Where other nodes reach it, as the Swarm knows it; a manager's own word goes first."""
    if node is None:
        return ""
    manager = str((node.get("ManagerStatus") or {}).get("Addr", "")).rpartition(":")[0].strip("[]")
    for address in (manager, str(node["Status"].get("Addr", ""))):
        if address and not address.startswith(("0.", "127.")):
            return address
    return ""


def _at_once(ask: t.Callable[[_Place], _Asked], places: t.Sequence[_Place]) -> list[_Asked]:
    """One that does not answer holds up no other."""
    if len(places) < 2:
        return [ask(place) for place in places]
    with concurrent.futures.ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return list(pool.map(ask, places))


def _word(routing: Routing) -> str:
    return " ".join(routing.entries().values())


def _job(name: str, environment: str, edge: Json, routing: Routing) -> Json:
    """Once on each node with an edge: the edge's own image, with its folder and nothing else, tells HAProxy there."""
    template = edge["TaskTemplate"]
    labels = {
        OWNER_LABEL: OWNER,
        SCHEMA_LABEL: SCHEMA,
        ENVIRONMENT_LABEL: environment,
        KIND_LABEL: ROUTE,
        WORD_LABEL: _word(routing),
    }
    mounts = [mount for mount in template["ContainerSpec"]["Mounts"] if mount["Target"] == FOLDER]
    task: Json = {
        "ContainerSpec": {
            "Image": template["ContainerSpec"]["Image"],
            "Args": [ROUTE, *routing.entries().values()],
            "Labels": labels,
            "Mounts": mounts,
            "ReadOnly": True,
            "CapabilityDrop": ["ALL"],
            "Healthcheck": {"Test": ["NONE"]},
        },
        "RestartPolicy": {"Condition": "none"},
        "Placement": template.get("Placement") or {},
        "Resources": {"Limits": {"MemoryBytes": 64 << 20}},
    }
    return {"Name": name, "Labels": labels, "TaskTemplate": task, "Mode": {"GlobalJob": {}}}


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
