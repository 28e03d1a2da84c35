# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fleet that a file declares: what the schema cannot judge, and the inventory that it makes. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

from .._kernels.catalogue import VARIANTS, choose
from .listing import Json, Listing, group_name
from .schema import Problem

VARIANT_LABEL = "io.bitnet.variant"
FAILURE_DOMAIN_LABEL = "io.bitnet.failure-domain"

# Groups that the playbooks ask for. A host of such a name would get the group's variables.
SWARM = "swarm"
_BY_ROLE = {"manager": "swarm_managers", "worker": "swarm_workers"}
_BUILDERS = "builders"
DRIFTED = "drifted"
UNREACHABLE = "unreachable"
RESERVED = {"all", "ungrouped", SWARM, _BUILDERS, DRIFTED, UNREACHABLE}
_ROLES = {"swarm": {"manager", "worker", "builder"}, "kubernetes": {"control_plane", "worker", "builder"}}
_CONNECTION = {
    "ansible_host": "address",
    "ansible_user": "user",
    "ansible_port": "port",
    "ansible_connection": "connection",
    "swarm_cluster_advertise_address": "advertise_address",
}


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One cluster with its place in the fleet."""

    name: str
    environment: str
    region: str
    platform: str
    variables: Json
    nodes: dict[str, Json]

    @property
    def path(self) -> list[str | int]:
        return ["environments", self.environment, "regions", self.region, "clusters", self.name]

    @property
    def group(self) -> str:
        return group_name("cluster", self.name)


def clusters_of(fleet: Json) -> list[Cluster]:
    return [
        Cluster(name, environment, region, cluster["platform"], cluster.get("vars", {}), cluster["nodes"])
        for environment, in_environment in fleet["environments"].items()
        for region, in_region in in_environment["regions"].items()
        for name, cluster in in_region["clusters"].items()
    ]


def problems_of(fleet: Json) -> t.Iterator[Problem]:
    """What is wrong with a fleet that its schema allows."""
    names: dict[str, list[str | int]] = {}
    clusters: dict[str, Cluster] = {}
    for cluster in clusters_of(fleet):
        if cluster.name in clusters:
            there = clusters[cluster.name]
            where = f"region {there.region!r} of environment {there.environment!r}"
            yield Problem(cluster.path, f"there is a cluster {cluster.name!r} already, in {where}")
        clusters[cluster.name] = cluster
        if cluster.platform == "swarm" and not any("manager" in node["roles"] for node in cluster.nodes.values()):
            yield Problem(cluster.path, "no node has the role 'manager', and a Swarm needs one")
        for name, node in cluster.nodes.items():
            path: list[str | int] = [*cluster.path, "nodes", name]
            if name in RESERVED:
                yield Problem(path, f"{name!r} is the name of a group; choose another")
            if name in names:
                yield Problem(path, f"there is a node {name!r} already, in the cluster {names[name][5]!r}")
            names[name] = path
            for text in _node_problems(node, cluster.platform):
                yield Problem(path, text)


def _node_problems(node: Json, platform: str) -> t.Iterator[str]:
    foreign = [role for role in node["roles"] if role not in _ROLES[platform]]
    if foreign:
        yield f"the role {foreign[0]!r} is not one of the platform {platform}"
    if "worker" in node["roles"] and len(set(node["roles"]) & {"manager", "control_plane"}):
        yield "it cannot have the role 'worker' beside the one that manages"
    if "arch" in node and arch_of(node) != node["arch"]:
        yield f"arch is {node['arch']!r}, but the variant {node['variant']!r} is for {arch_of(node)}"


def arch_of(node: Json) -> str:
    """The architecture that a node declares, by itself or by its variant; empty when neither says it."""
    variant = node.get("variant")
    return VARIANTS[variant].architecture if variant else node.get("arch", "")


def labels_of(node: Json) -> dict[str, str]:
    """The labels that the node has to carry in its cluster."""
    declared = {VARIANT_LABEL: node.get("variant"), FAILURE_DOMAIN_LABEL: node.get("failure_domain")}
    return {**{label: value for label, value in declared.items() if value}, **node.get("labels", {})}


def groups_of(platform: str, roles: t.Iterable[str], arch: str, variant: str) -> list[str]:
    """The groups of a node, but for its cluster's."""
    groups = []
    for role in roles:
        groups.append(f"role_{role}")
        if role == "builder":
            groups.append(_BUILDERS)
        elif platform == "swarm":
            groups.append(_BY_ROLE[role])
    if arch:
        groups.append(group_name("arch", arch))
    if variant:
        groups.append(group_name("variant", variant))
    return groups


def skeleton() -> Listing:
    """The groups that the playbooks name are there even when they are empty."""
    listing = Listing()
    listing.group(_BUILDERS)
    for group in _BY_ROLE.values():
        listing.group(group, parents=[SWARM])
    return listing


def listing_of(fleet: Json, only: t.Container[str] | None = None) -> Listing:
    """The inventory of a fleet without problems, or of some of its clusters."""
    listing = skeleton()
    variants: set[str] = set()
    for cluster in clusters_of(fleet):
        variants.update(node["variant"] for node in cluster.nodes.values() if "variant" in node)
        if only is not None and cluster.name not in only:
            continue
        environment = listing.group(
            group_name("env", cluster.environment),
            {"bitnet_environment": cluster.environment, **fleet["environments"][cluster.environment].get("vars", {})},
        )
        parents = [environment, group_name("region", cluster.region), group_name("platform", cluster.platform)]
        place = {
            "bitnet_cluster": cluster.name,
            "bitnet_region": cluster.region,
            "bitnet_platform": cluster.platform,
        }
        listing.group(cluster.group, {**place, **cluster.variables}, parents)
        for name, node in cluster.nodes.items():
            groups = groups_of(cluster.platform, node["roles"], arch_of(node), node.get("variant", ""))
            listing.host(name, variables_of(node), [cluster.group, *groups])
    if variants:
        listing.group(_BUILDERS, {"bitnet_variants": [variant.name for variant in choose(sorted(variants))]})
    return listing


def variables_of(node: Json) -> Json:
    variables = {name: node[key] for name, key in _CONNECTION.items() if key in node}
    labels = labels_of(node)
    if labels:
        variables["swarm_cluster_node_labels"] = labels
    variables.update(node.get("vars", {}))
    return variables
