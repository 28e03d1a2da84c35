#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module swarm_nodes: roles, availability and labels of a Swarm's nodes, and which of them leave it."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_nodes
short_description: Promotes, demotes, drains, labels and removes nodes of a Docker Swarm, and never breaks its quorum
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Runs on one manager and decides for all nodes at once. A dead manager is demoted before a new one comes, a live one
    after; after each step the next waits until the node is there.
  - A plan after one of whose steps fewer managers would live than must is refused before anything is done.
  - A node carries its inventory name as the label C(io.bitnet.node). Another node with the name of one that was given
    is what is left of a machine that came back as a new node; it is removed, unless it is ready.
extends_documentation_fragment:
  - bitnet.devops.docker
attributes:
  check_mode:
    support: full
    description: Returns the same plan and does nothing.
  diff_mode:
    support: full
    description: Shows the fields that change, by node.
  idempotent:
    support: full
    description: What is there is not written again.
options:
  nodes:
    description: Nodes as they should be. Others stay as they are.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the node, kept as its label C(io.bitnet.node).
        type: str
        required: true
      id:
        description: Its id in the Swarm.
        type: str
        required: true
      role:
        description: Left out, it stays as it is.
        type: str
        choices: [manager, worker]
      availability:
        description: Left out, it stays as it is. With V(drain) the module waits until the tasks have ended.
        type: str
        choices: [active, pause, drain]
      labels:
        description: Labels; one with the value null is taken away, others stay.
        type: dict
        default: {}
  absent:
    description:
      - Nodes that leave, by name, id or host name. They are drained, demoted and removed.
      - One that is not there is no error.
    type: list
    elements: str
    default: []
  timeout:
    description: Seconds that a node has for each step.
    type: float
    default: 60
seealso:
  - module: community.docker.docker_node
    description: One node, without a look at the others.
"""

EXAMPLES = r"""
- name: Make a worker a manager, and take what replaced it out of use
  bitnet.devops.swarm_nodes:
    nodes:
      - name: north-1
        id: 5ibqiup0f6bjbcrysiapr8eaq
        role: manager
        labels:
          io.bitnet.failure-domain: north
      - name: north-2
        id: fm8rzxi0c229zre6rq88ait5r
        role: worker
        availability: drain

- name: Remove a node, whether it lives or not
  bitnet.devops.swarm_nodes:
    absent: [south-1]
"""

RETURN = r"""
plan:
  description: The steps in their order.
  returned: success
  type: list
  elements: dict
  contains:
    action:
      description: V(set) (labels, availability), V(drain), V(promote), V(demote) or V(remove).
      type: str
    node:
      description: Name of the node.
      type: str
    id:
      description: Its id.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm import membership, nodes
from ..module_utils._swarm.client import HAS_DOCKER, DockerFailed, SwarmClient
from ..module_utils._swarm.plan import Refused


def main() -> None:
    """Entry point."""
    node = {
        "name": {"type": "str", "required": True},
        "id": {"type": "str", "required": True},
        "role": {"type": "str", "choices": ["manager", "worker"]},
        "availability": {"type": "str", "choices": ["active", "pause", "drain"]},
        "labels": {"type": "dict", "default": {}},
    }
    module = AnsibleModule(
        argument_spec={
            "nodes": {"type": "list", "elements": "dict", "default": [], "options": node},
            "absent": {"type": "list", "elements": "str", "default": []},
            "timeout": {"type": "float", "default": 60},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options = module.params
    wanted = []
    for given in options["nodes"]:
        labels = {label: None if value is None else str(value) for label, value in given["labels"].items()}
        labels[nodes.NODE_LABEL] = given["name"]
        wanted.append(
            nodes.Wanted(given["name"], given["id"], given["role"] or "", given["availability"] or "", labels)
        )
    try:
        client = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock")
        steps = membership.bring(
            client, wanted, options["absent"], act=not module.check_mode, timeout=options["timeout"]
        )
    except (Refused, DockerFailed, membership.NotThere) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**membership.result(steps))


if __name__ == "__main__":
    main()
