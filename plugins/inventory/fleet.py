# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin fleet: what one file declares."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet
short_description: The fleet that one file declares
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Reads environments, their regions, the clusters in them and their nodes from one file.
  - The file is named V(fleet.yml) or ends in V(.fleet.yml); V(yaml) is as good as V(yml). The name V(inventory),
    which AWX offers in its menu, is read where the file has the line V(plugin:) of this plugin and the plugin is
    enabled.
  - Groups are C(env_NAME), C(region_NAME), C(platform_NAME), each with the groups C(cluster_NAME) in it, and
    C(role_NAME), C(arch_NAME), C(variant_NAME) with the nodes. Characters that no group name may have become
    underscores. C(swarm), C(swarm_managers), C(swarm_workers) and C(builders), which the playbooks name, are there as
    well.
  - Variables are C(bitnet_environment) of an environment; C(bitnet_cluster), C(bitnet_region) and C(bitnet_platform)
    of a cluster; C(ansible_host), C(ansible_user), C(ansible_port), C(ansible_connection),
    C(swarm_cluster_advertise_address) and C(swarm_cluster_node_labels) of a node; and C(bitnet_variants), the kernel
    variants of the whole fleet, of C(builders). The more special one wins, node before cluster before environment.
  - Values are data. A template in them is never rendered; O(compose) takes expressions, and so do group_vars.
  - An error names file, line and key, and suggests what was meant. Editors read the schema in
    C(files/schemas/fleet.schema.json) of the collection.
notes:
  - Ansible's plugin C(auto) reads a file a second time, to find out whose it is, and takes twenty times as long as
    this plugin does. With thousands of nodes, name the plugin in C(enable_plugins) of the section C([inventory]) of
    ansible.cfg, before C(auto).
  - The inventory of a file that a vault encrypts is not cached.
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
options:
  plugin:
    description: Names this plugin.
    type: str
    required: true
    choices: [bitnet.devops.fleet]
  environments:
    description:
      - Environments by name, with O(environments.regions) and, for all of their nodes, C(vars).
    type: dict
    required: true
    suboptions:
      vars:
        description: Variables of the environment.
        type: dict
      regions:
        description: Regions by name.
        type: dict
        required: true
        suboptions:
          clusters:
            description: Clusters by name. A name is there once in the whole fleet.
            type: dict
            required: true
            suboptions:
              platform:
                description: What the cluster is.
                type: str
                choices: [swarm, kubernetes]
                required: true
              vars:
                description: Variables of the cluster.
                type: dict
              nodes:
                description: Nodes by their inventory name. A name is there once in the whole fleet.
                type: dict
                required: true
                suboptions:
                  roles:
                    description:
                      - V(manager) or V(worker) of a Swarm, V(control_plane) or V(worker) of Kubernetes.
                      - V(builder) of either compiles kernels and builds images.
                    type: list
                    elements: str
                    choices: [manager, worker, control_plane, builder]
                    required: true
                  address:
                    description: Where Ansible reaches the node; left out, its name.
                    type: str
                  advertise_address:
                    description: Where the other nodes reach it, if that is not what its default route says.
                    type: str
                  user:
                    description: The user that Ansible logs in as.
                    type: str
                  port:
                    description: The port that Ansible connects to, 1 to 65535.
                    type: int
                  connection:
                    description: The connection plugin, as in V(local).
                    type: str
                  arch:
                    description: The architecture; left out, that of the variant.
                    type: str
                    choices: [x86_64, aarch64]
                  variant:
                    description: The kernel variant that suits the node best. M(bitnet.devops.cpu_info) finds it out.
                    type: str
                  failure_domain:
                    description: What fails together, as a rack does.
                    type: str
                  labels:
                    description: More labels that the node has in its cluster.
                    type: dict
                  vars:
                    description: Variables of the node.
                    type: dict
seealso:
  - plugin: bitnet.devops.docker_swarm
    plugin_type: inventory
  - module: bitnet.devops.cpu_info
"""

EXAMPLES = r"""
# yaml-language-server: $schema=../../files/schemas/fleet.schema.json
# production.fleet.yml
plugin: bitnet.devops.fleet
environments:
  staging:
    regions:
      us-east-1:
        clusters:
          staging-a:
            platform: swarm
            nodes:
              staging-1: {roles: [manager, builder], address: 10.1.0.1, variant: x86-64-v3}
  production:
    vars:
      bitnet_registry: registry.example.com:5000
    regions:
      us-east-1:
        clusters:
          use1-a:
            platform: swarm
            nodes:
              use1-a1: {roles: [manager], address: 10.2.0.1, variant: x86-64-v4-vnni, failure_domain: rack-1}
              use1-a2: {roles: [worker], address: 10.2.0.2, variant: x86-64-v4-vnni, failure_domain: rack-2}
      eu-west-1:
        clusters:
          euw1-a:
            platform: swarm
            vars:
              swarm_rollout_replicas: 2
            nodes:
              euw1-a1:
                roles: [manager]
                address: 10.3.0.1
                advertise_address: 192.168.3.1
                user: admin
                variant: armv8.2-a-dotprod
                labels:
                  disk: nvme
keyed_groups:
  - key: swarm_cluster_node_labels['io.bitnet.failure-domain']
    prefix: rack
"""

from ansible_collections.bitnet.devops.plugins.module_utils._fleet import declared
from ansible_collections.bitnet.devops.plugins.module_utils._fleet.listing import Json
from ansible_collections.bitnet.devops.plugins.plugin_utils import _document
from ansible_collections.bitnet.devops.plugins.plugin_utils._inventory import Inventory, Make


class InventoryModule(Inventory):
    """What Ansible looks for in this file."""

    NAME = "bitnet.devops.fleet"
    FILE = "fleet"
    OWN = True

    def prepare(self, document: Json, path: str, text: str) -> tuple[str, Make]:
        problems = list(declared.problems_of(document))
        if problems:
            raise _document.refusal(text, path, problems)
        return "", lambda: (declared.listing_of(document), True)
