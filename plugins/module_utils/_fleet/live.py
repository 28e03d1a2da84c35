# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory of live Swarms, from what one call per kind of object returned, beside what is declared. Pure."""

from __future__ import annotations

import collections
import dataclasses
import ipaddress
import re
import typing as t
import urllib.parse

from .._swarm import convergence
from .._swarm.spec import OWNER, OWNER_LABEL
from .._traffic.routing import ACTIVE, REPLICAS, SLOTS
from . import declared
from .declared import DRIFTED, UNREACHABLE
from .listing import Json, Listing, group_name

_DEFAULT_SOCKET = "unix:///var/run/docker.sock"
# A node says its own name: it must not be taken for the controller or a group, or lead out of a folder.
_HOST = re.compile(r"(?!localhost|127\.)[A-Za-z0-9][A-Za-z0-9.-]*")


@dataclasses.dataclass(frozen=True)
class Swarm:
    """What a manager said, or C(error), why it said nothing."""

    cluster: str
    docker_host: str
    error: str = ""
    node_id: str = ""
    nodes: t.Sequence[Json] = ()
    services: t.Sequence[Json] = ()
    tasks: t.Sequence[Json] = ()


def listing_of(swarms: t.Sequence[Swarm], fleet: Json | None) -> Listing:
    """All live nodes; with a fleet, the nodes that it declares for these clusters as well."""
    names = {swarm.cluster for swarm in swarms}
    listing = declared.listing_of(fleet, names) if fleet else declared.skeleton()
    listing.group(DRIFTED)
    listing.group(UNREACHABLE)
    clusters = {cluster.name: cluster.nodes for cluster in declared.clusters_of(fleet)} if fleet else {}
    # How often each name is there: a host's variables are one node's, whichever Swarms answer today.
    alike = collections.Counter(_hostname(node) for swarm in swarms for node in swarm.nodes)
    for names_of in (*clusters.values(), names, declared.RESERVED):
        alike.update({name: 2 for name in names_of})
    for swarm in swarms:
        group = listing.group(
            group_name("cluster", swarm.cluster), {"bitnet_cluster": swarm.cluster}, [group_name("platform", "swarm")]
        )
        nodes = clusters.get(swarm.cluster, {})
        if swarm.error:
            for name in nodes or [swarm.cluster]:
                listing.host(name, {"bitnet_swarm_error": swarm.error}, [group, UNREACHABLE])
        else:
            _add(listing, swarm, nodes, alike, fleet is not None)
    return listing


def _add(listing: Listing, swarm: Swarm, nodes: dict[str, Json], alike: t.Mapping[str, int], compare: bool) -> None:
    group = group_name("cluster", swarm.cluster)
    running = _tasks_by_node(swarm)
    declared_names = _declared_names(swarm.nodes, nodes)
    for node in swarm.nodes:
        declared_name = declared_names.get(node["ID"])
        name = declared_name or _own_name(node, swarm, alike)
        role, labels = node["Spec"]["Role"], node["Spec"].get("Labels") or {}
        arch = _platform(node).get("Architecture", "")
        groups = [group]
        variables: Json = {"bitnet_node": _document(node), "bitnet_tasks": running.get(node["ID"], [])}
        if declared_name is None:
            groups += declared.groups_of("swarm", [role], arch, labels.get(declared.VARIANT_LABEL, ""))
            variables.update(_connection(node, swarm))
        if compare:
            drift = _drift(node, nodes[declared_name]) if declared_name else ["is not declared"]
            if drift:
                variables["bitnet_drift"] = drift
                groups.append(DRIFTED)
        groups += [group_name("service", task["service"]) for task in variables["bitnet_tasks"] if task["service"]]
        listing.host(name, variables, groups)
    there = set(declared_names.values())
    for name, wanted in nodes.items():
        if name not in there and wanted["roles"] != ["builder"]:  # a builder alone is beside the Swarm
            listing.host(name, {"bitnet_drift": ["is not in the Swarm"]}, [DRIFTED])
    services = _services(swarm)
    listing.group(group, {"bitnet_services": services, "bitnet_slots": _slots(swarm.services, services)})
    for name, service in services.items():
        child = group_name("service", name)
        if service["slot"] and child in listing.groups:
            listing.group(child, parents=[group_name("slot", f"{service['environment']}_{service['slot']}")])


# ---------------------------------------------------------------------------- nodes


def _platform(node: Json) -> Json:
    return t.cast(Json, node.get("Description", {}).get("Platform", {}))


def _address(node: Json) -> str:
    """Empty where it says none at which another machine reaches it, as a leader may of itself (moby/moby#35437)."""
    as_manager = str((node.get("ManagerStatus") or {}).get("Addr", "")).rpartition(":")[0].strip("[]")
    for text in (str(node["Status"].get("Addr", "")), as_manager):
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if not address.is_loopback and not address.is_unspecified:
            return text
    return ""


def _document(node: Json) -> Json:
    manager = node.get("ManagerStatus") or {}
    return {
        "id": node["ID"],
        "hostname": node.get("Description", {}).get("Hostname", ""),
        "address": _address(node),
        "role": node["Spec"]["Role"],
        "leader": bool(manager.get("Leader")),
        "reachability": manager.get("Reachability", ""),
        "availability": node["Spec"]["Availability"],
        "state": node["Status"]["State"],
        "architecture": _platform(node).get("Architecture", ""),
        "engine": node.get("Description", {}).get("Engine", {}).get("EngineVersion", ""),
        "labels": node["Spec"].get("Labels") or {},
    }


def _declared_names(live: t.Sequence[Json], nodes: dict[str, Json]) -> dict[str, str]:
    """The declared name of each live node: by its address, which is one node's, or else by its host name."""
    by_address = {node.get("address", name): name for name, node in nodes.items()}
    by_address.update({node["advertise_address"]: name for name, node in nodes.items() if "advertise_address" in node})
    first = collections.Counter(name.partition(".")[0] for name in nodes)
    by_hostname = {short: name for name in nodes if first[short := name.partition(".")[0]] == 1}
    by_hostname.update({name: name for name in nodes})
    # A node that left and joined anew is there twice, and its old entry is down for ever.
    live = sorted(live, key=lambda node: node["Status"]["State"] != "ready")
    found: dict[str, str] = {}
    taken: set[str] = set()
    for key_of, names in ((_address, by_address), (_hostname, by_hostname)):
        for node in live:
            name = names.get(key_of(node))
            if name and node["ID"] not in found and name not in taken:
                found[node["ID"]] = name
                taken.add(name)
    return found


def _hostname(node: Json) -> str:
    return str(node.get("Description", {}).get("Hostname", ""))


def _own_name(node: Json, swarm: Swarm, alike: t.Mapping[str, int]) -> str:
    """Its host name, unless that is another's, too, or none that a host could have here."""
    name = _hostname(node)
    if alike[name] == 1 and _HOST.fullmatch(name):
        return name
    return f"{swarm.cluster}-{node['ID'][:12]}"


def _connection(node: Json, swarm: Swarm) -> Json:
    """How Ansible reaches a node of which nothing is declared."""
    where = urllib.parse.urlsplit(swarm.docker_host)
    if where.scheme == "unix" and node["ID"] == swarm.node_id:
        local = {"ansible_connection": "local"}
        return local if swarm.docker_host == _DEFAULT_SOCKET else {**local, "bitnet_docker_host": swarm.docker_host}
    asked = where.hostname if node["ID"] == swarm.node_id else None
    address = _address(node) or asked
    variables: Json = {"ansible_host": address} if address else {}
    if where.scheme == "ssh" and where.username:
        variables["ansible_user"] = where.username
    if where.scheme == "ssh" and where.port:
        variables["ansible_port"] = where.port
    return variables


def _drift(node: Json, wanted: Json) -> list[str]:
    """Sentences that begin with the node; none when it is as declared."""
    drift = []
    role = node["Spec"]["Role"]
    if role in ("manager", "worker") and role not in wanted["roles"]:
        drift.append(f"is a {role}, which is not among its roles")
    arch, found = declared.arch_of(wanted), _platform(node).get("Architecture", "")
    if arch and found and found != arch:
        drift.append(f"is of the architecture {found!r}, declared is {arch!r}")
    labels = node["Spec"].get("Labels") or {}
    for label, value in declared.labels_of(wanted).items():
        if labels.get(label) != value:
            drift.append(f"has {labels.get(label, '')!r} as label {label}, declared is {value!r}")
    if node["Status"]["State"] != "ready":
        drift.append(f"is {node['Status']['State']}")
    return drift


# ---------------------------------------------------------------------------- services


def _labels(service: Json) -> Json:
    return t.cast(Json, service["Spec"].get("Labels") or {})


def _place(service: Json | None) -> Json:
    """What a service is of ours; empty texts for somebody else's."""
    labels = _labels(service) if service else {}
    ours = labels.get(OWNER_LABEL) == OWNER
    keys = ("environment", "slot", "release", "binding")
    return {key: labels.get(f"io.bitnet.{key}", "") if ours else "" for key in keys}


def _tasks_by_node(swarm: Swarm) -> dict[str, list[Json]]:
    services = {service["ID"]: service for service in swarm.services}
    found: dict[str, list[Json]] = {}
    for task in swarm.tasks:
        if task["DesiredState"] not in ("running", "ready") or not task.get("NodeID"):
            continue
        service = services.get(task.get("ServiceID", ""))
        place = _place(service)
        found.setdefault(task["NodeID"], []).append(
            {
                "id": task["ID"],
                "service": service["Spec"]["Name"] if service else "",
                "environment": place["environment"],
                "slot": place["slot"],
                "release": place["release"],
                "state": task["Status"]["State"],
                "error": task["Status"].get("Err", ""),
            }
        )
    return found


def _services(swarm: Swarm) -> dict[str, Json]:
    tasks: dict[str, list[Json]] = {}
    for task in swarm.tasks:
        tasks.setdefault(task.get("ServiceID", ""), []).append(task)
    found = {}
    for service in swarm.services:
        spec = service["Spec"]
        replicas = convergence.tasks_wanted(spec, swarm.nodes)
        full = str(_labels(service).get(REPLICAS, ""))
        found[spec["Name"]] = {
            **_place(service),
            "image": spec["TaskTemplate"].get("ContainerSpec", {}).get("Image", ""),
            "replicas": replicas,
            "wanted": int(full) if full.isdecimal() else replicas,
            "running": sum(convergence.is_running(task, spec) for task in tasks.get(service["ID"], [])),
        }
    return found


def _slots(services: t.Sequence[Json], documents: dict[str, Json]) -> Json:
    """By environment: which slot is active, and what each holds."""
    found: Json = {}
    for service in services:
        name = service["Spec"]["Name"]
        document = documents[name]
        if document["slot"] in SLOTS:
            shown = {key: document[key] for key in ("release", "binding", "replicas", "wanted", "running")}
            found.setdefault(document["environment"], {})[document["slot"]] = {"service": name, **shown}
        elif document["environment"] and ACTIVE in _labels(service):
            found.setdefault(document["environment"], {})["active"] = _labels(service)[ACTIVE]
    return found
