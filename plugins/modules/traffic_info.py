#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module traffic_info: what an environment's traffic is told to do, and what it does."""

from __future__ import annotations

DOCUMENTATION = """
module: traffic_info
short_description: Reads the traffic of an environment
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Says which slot is active, what the slots hold, what each edge really does, which operation is open, and what the
    journal has.
  - Run it on a manager. Edges on other nodes are asked at their published port with the probe token.
extends_documentation_fragment:
  - bitnet.devops.traffic
attributes:
  check_mode:
    support: full
    description: Only looks.
  diff_mode:
    support: none
    description: Changes nothing.
  idempotent:
    support: full
    description: Only looks.
options:
  journal:
    description: How many entries of the journal are wanted, the newest first.
    type: int
    default: 10
seealso:
  - module: bitnet.devops.traffic_switch
"""

EXAMPLES = """
- name: See where requests go
  bitnet.devops.traffic_info:
    environment: local
  register: traffic

- name: Say it
  ansible.builtin.debug:
    msg: "{{ traffic.routing.active }} is active and holds {{ traffic.slots[traffic.routing.active].release }}"
"""

RETURN = """
present:
  description: Whether the environment has an edge. Without one the other values are empty.
  returned: success
  type: bool
routing:
  description: The active slot, the percentage of new requests that the idle slot gets, and whether new requests wait.
  returned: success
  type: dict
  sample: {active: blue, share: 0, hold: false}
slots:
  description: Release, binding and tasks of each slot.
  returned: success
  type: dict
edges:
  description: What each edge that Swarm wants running really does, by node.
  returned: success
  type: dict
lost:
  description: Nodes that are down, with an edge that nobody asks. When they come back Swarm replaces it.
  returned: success
  type: list
  elements: str
port:
  description: The port of the nodes at which clients reach the edge.
  returned: when there is an edge
  type: int
agree:
  description: Whether every edge routes as it is told.
  returned: success
  type: bool
operation:
  description: The open operation, empty when there is none.
  returned: success
  type: dict
frozen:
  description: Who froze the environment, since when and why; empty when it is not frozen.
  returned: success
  type: dict
journal:
  description: Ended operations, the newest first.
  returned: success
  type: list
  elements: dict
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm.client import HAS_DOCKER, DockerFailed, SwarmClient
from ..module_utils._traffic.routing import BadRecord
from ..module_utils._traffic.swarm import NoEdge, SwarmDriver


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "str", "default": "local"},
            "journal": {"type": "int", "default": 10},
            "state_dir": {"type": "path", "default": "/var/lib/bitnet"},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options = module.params
    try:
        client = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock")
        driver = SwarmDriver(client, options["environment"], options["state_dir"])
        journal = driver.journal(options["journal"])
        if client.service(driver.name) is None:
            empty: dict = {"routing": {}, "slots": {}, "edges": {}, "lost": [], "operation": {}, "frozen": {}}
            module.exit_json(changed=False, present=False, agree=False, journal=journal, **empty)
        state, routers, lost = driver.state(), driver.routers(), driver.lost()
    except (NoEdge, BadRecord, DockerFailed) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        present=True,
        routing=state.routing.document(),
        slots={name: slot.document() for name, slot in state.slots.items()},
        edges={router.name: router.document() for router in routers},
        lost=lost,
        port=driver.port(),
        agree=bool(routers) and all(router.routing == state.routing for router in routers),
        operation=state.operation.document() if state.operation else {},
        frozen=dataclasses.asdict(state.frozen) if state.frozen else {},
        journal=journal,
    )


if __name__ == "__main__":
    main()
