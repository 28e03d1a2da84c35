# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin docker_swarm: what Swarms have, and what of it is not as declared."""

from __future__ import annotations

DOCUMENTATION = r"""
name: docker_swarm
short_description: The live nodes of Docker Swarms
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Asks one manager of each Swarm for its nodes, services and tasks, one call for each kind however many there are,
    all Swarms at the same time.
  - The file is named V(docker_swarm.yml) or ends in V(.docker_swarm.yml); V(yaml) is as good as V(yml). The name
    V(inventory), which AWX offers in its menu, is read where the file has the line V(plugin:) of this plugin and the
    plugin is enabled.
  - With O(fleet), a node has the name and variables that are declared for it. It is known by its address, or by its
    host name. What differs from the declaration is in the group C(drifted), with the reasons in C(bitnet_drift) - a
    role, an architecture, a label, a node that is down, is not in the Swarm or is not declared.
  - A node of which nothing is declared has its host name as name, or the cluster's name and its id where the host
    name is not there once in all Swarms, is declared for another node, or is none that a host can have here.
  - Every node has C(bitnet_node), what the Swarm says of it, and C(bitnet_tasks), what should run on it. The group
    C(cluster_NAME) has C(bitnet_services), and C(bitnet_slots) with the active slot and what each holds, by
    environment.
  - Groups are those of P(bitnet.devops.fleet#inventory), C(service_NAME) of the nodes that run tasks of a service,
    C(slot_ENVIRONMENT_SLOT) likewise, C(drifted) and C(unreachable).
  - A Swarm that does not answer does not keep the others away. Its declared nodes, or one host of its name where none
    are declared, are in the group C(unreachable) and have the reason in C(bitnet_swarm_error). With O(strict) it is
    an error.
  - What the Swarms say is never rendered as a template.
notes:
  - The inventory of a run in which a Swarm did not answer is not cached, nor one of a file that a vault encrypts.
requirements:
  - "Docker SDK for Python 5.0.3 or newer on the controller; for ssh:// addresses its extra C(ssh) and the program ssh"
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Names this plugin.
    type: str
    required: true
    choices: [bitnet.devops.docker_swarm]
  swarms:
    description: The Swarms that are asked.
    type: list
    elements: dict
    required: true
    suboptions:
      cluster:
        description: The cluster's name; with O(fleet), as it is declared there.
        type: str
        required: true
      docker_host:
        description:
          - Docker's API of a manager, V(unix:///var/run/docker.sock), V(tcp://HOST:PORT) or V(ssh://USER@HOST:PORT).
          - User and port of an V(ssh) address are also those of nodes of which nothing is declared. Behind a V(unix)
            socket is the node that Ansible reaches without a connection.
        type: str
        required: true
      tls:
        description: TLS for a V(tcp) address. The manager's certificate is always verified. Paths are from this file.
        type: dict
        suboptions:
          ca_path:
            description: File with the authorities; left out, those of Python's package certifi.
            type: str
          client_cert:
            description: File with the client's certificate.
            type: str
          client_key:
            description: File with the key of that certificate.
            type: str
  fleet:
    description:
      - A file of the plugin P(bitnet.devops.fleet#inventory) that declares the clusters, its path from this file.
    type: str
  timeout:
    description: Seconds within which all Swarms must have answered, 1 to 3600.
    type: int
    default: 15
seealso:
  - plugin: bitnet.devops.fleet
    plugin_type: inventory
"""

EXAMPLES = r"""
# The Swarm of this machine: local.docker_swarm.yml
plugin: bitnet.devops.docker_swarm
swarms:
  - cluster: local
    docker_host: unix:///var/run/docker.sock

---
# Swarms that a fleet file declares: production.docker_swarm.yml
plugin: bitnet.devops.docker_swarm
fleet: production.fleet.yml
swarms:
  - cluster: use1-a
    docker_host: ssh://admin@10.2.0.1
  - cluster: euw1-a
    docker_host: tcp://10.3.0.1:2376
    tls:
      ca_path: /etc/docker/ca.pem
      client_cert: /etc/docker/cert.pem
      client_key: /etc/docker/key.pem
keyed_groups:
  - key: bitnet_node.availability
    prefix: availability
"""

import threading
import time
import typing as t
from pathlib import Path

from ansible.errors import AnsibleError
from ansible_collections.bitnet.devops.plugins.module_utils._fleet import declared, live, schema
from ansible_collections.bitnet.devops.plugins.module_utils._fleet.listing import Json, Listing
from ansible_collections.bitnet.devops.plugins.module_utils._swarm.client import HAS_DOCKER, SwarmClient
from ansible_collections.bitnet.devops.plugins.plugin_utils import _document
from ansible_collections.bitnet.devops.plugins.plugin_utils._inventory import Inventory, Make


class InventoryModule(Inventory):
    """What Ansible looks for in this file."""

    NAME = "bitnet.devops.docker_swarm"
    FILE = "docker_swarm"

    def prepare(self, document: Json, path: str, text: str) -> tuple[str, Make]:
        if not HAS_DOCKER:
            raise AnsibleError("the plugin docker_swarm needs the Docker SDK for Python; install the package 'docker'")
        fleet, fleet_text = None, ""
        if self.get_option("fleet"):
            place = str(Path(path).parent / self.get_option("fleet"))
            fleet_text = str(self.text_of(place))
            fleet = self.read(place, fleet_text, "fleet")
            problems = list(declared.problems_of(fleet))
            if problems:
                raise _document.refusal(fleet_text, place, problems)
        swarms = document["swarms"]
        problems = list(_problems_of(swarms, fleet))
        if problems:
            raise _document.refusal(text, path, problems)
        return fleet_text, lambda: self.look(_resolved(swarms, Path(path).parent), fleet)

    def look(self, swarms: list[Json], fleet: Json | None) -> tuple[Listing, bool]:
        seen = look_at(swarms, self.get_option("timeout"))
        failed = [f"{swarm.cluster}: {swarm.error}" for swarm in seen if swarm.error]
        if failed and self.get_option("strict"):
            raise AnsibleError("\n".join(failed))
        for text in failed:
            self.display.warning(f"bitnet.devops.docker_swarm: {text}")
        return live.listing_of(seen, fleet), not failed


def _problems_of(swarms: list[Json], fleet: Json | None) -> t.Iterator[schema.Problem]:
    known = [cluster.name for cluster in declared.clusters_of(fleet) if cluster.platform == "swarm"] if fleet else []
    for index, swarm in enumerate(swarms):
        name = swarm["cluster"]
        if any(name == other["cluster"] for other in swarms[:index]):
            yield schema.Problem(["swarms", index, "cluster"], f"{name!r} is there twice")
        if not fleet and name in declared.RESERVED:
            yield schema.Problem(["swarms", index, "cluster"], f"{name!r} is the name of a group; choose another")
        if fleet and name not in known:
            text = f"the fleet declares no Swarm {name!r}; {schema.meant(name, known)}"
            yield schema.Problem(["swarms", index, "cluster"], text)
        if "tls" in swarm and not swarm["docker_host"].startswith("tcp://"):
            yield schema.Problem(["swarms", index, "tls"], "is for a tcp:// address")
        if len({"client_cert", "client_key"} & swarm.get("tls", {}).keys()) == 1:
            yield schema.Problem(["swarms", index, "tls"], "client_cert and client_key are given together")


def _resolved(swarms: list[Json], folder: Path) -> list[Json]:
    """Where the files of TLS are, whatever the current folder is."""
    return [
        {**swarm, "tls": {key: str(folder / Path(file).expanduser()) for key, file in swarm["tls"].items()}}
        if "tls" in swarm
        else swarm
        for swarm in swarms
    ]


def look_at(swarms: list[Json], timeout: int) -> list[live.Swarm]:
    """Ask all at the same time. Threads that nobody waits for: the ssh of Docker's SDK knows no timeout."""
    seen: dict[str, live.Swarm] = {}
    threads = [threading.Thread(target=_look_at, args=(swarm, timeout, seen), daemon=True) for swarm in swarms]
    until = time.monotonic() + timeout
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    return [
        seen.get(swarm["cluster"])
        or live.Swarm(
            swarm["cluster"],
            swarm["docker_host"],
            f"docker_host: {swarm['docker_host']} did not answer within {timeout} s (timeout)",
        )
        for swarm in swarms
    ]


def _look_at(swarm: Json, timeout: int, seen: dict[str, live.Swarm]) -> None:
    cluster, docker_host = swarm["cluster"], swarm["docker_host"]
    try:
        client = SwarmClient(docker_host, timeout, swarm.get("tls"))
        nodes, services, tasks = client.nodes(), client.services(), client.all_tasks()
        seen[cluster] = live.Swarm(cluster, docker_host, "", client.node_id(), nodes, services, tasks)
    except Exception as error:  # the SDK's ssh raises what it likes, and one Swarm must not keep the others away
        seen[cluster] = live.Swarm(cluster, docker_host, str(error) or type(error).__name__)
