#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module swarm_absence: whether a Swarm can do without a node, and when it is whole again."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_absence
short_description: Says whether a Docker Swarm can do without a node for a while, and waits until it is whole again
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - For work on one node after the other. M(bitnet.devops.swarm_nodes) drains a node and takes it back; this module says
    in which turn nodes go, whether one may go now, and waits for what has to be there before the work and after it.
  - It looks at the managers' quorum, at all nodes, and at the services with the label C(io.bitnet.owner=bitnet.devops).
  - A node with the label C(io.bitnet.upgrade) was drained for an upgrade; the value is the availability to return to.
  - Run it on a manager, on another one than the node itself if there is one.
extends_documentation_fragment:
  - bitnet.devops.docker
attributes:
  check_mode:
    support: full
    description: Looks in the same way, waits for nothing and moves no task.
  diff_mode:
    support: none
    description: Has nothing to show.
  idempotent:
    support: full
    description: Only looks and waits, and with O(action=back) moves tasks where one node has all of them.
options:
  action:
    description:
      - V(look) lists the nodes in their turn. What was left drained is first, then workers, managers, the leader.
      - V(check) fails if the node must not go now.
      - V(away) waits until the tasks of a drained node have ended, and our services run in full on the other nodes.
      - V(ready) waits until the node is ready and, as a manager, reachable.
      - V(back) waits until our services run in full, and has Swarm spread those anew whose tasks are all on one node.
    type: str
    choices: [look, check, away, ready, back]
    required: true
  node:
    description: Id of the node, for all but O(action=look).
    type: str
  gap:
    description:
      - Whether it is accepted that the Swarm takes no orders, or a service does not answer, while the node is away.
      - With O(action=away), whether the services may run in part.
    type: bool
    default: false
  timeout:
    description: Seconds to wait.
    type: float
    default: 300
seealso:
  - module: bitnet.devops.swarm_nodes
"""

EXAMPLES = r"""
- name: Refuse to go on where the Swarm needs the node
  bitnet.devops.swarm_absence:
    action: check
    node: 5ibqiup0f6bjbcrysiapr8eaq

- name: Wait until the next node may go
  bitnet.devops.swarm_absence:
    action: back
    node: 5ibqiup0f6bjbcrysiapr8eaq
    timeout: 600
"""

RETURN = r"""
nodes:
  description: The nodes in the turn in which they would go.
  returned: with O(action=look)
  type: list
  elements: dict
  contains:
    id:
      description: Id in the Swarm.
      type: str
    name:
      description: The label C(io.bitnet.node), or the host name.
      type: str
    turn:
      description: V(0) for a node that was left drained, V(1) for a worker, V(2) for a manager, V(3) for the leader.
      type: int
    availability:
      description: As it is.
      type: str
    away:
      description: The availability to which it is to return; empty where it is not away for an upgrade.
      type: str
    upgraded:
      description: The word of the last tasks that it has had.
      type: str
gaps:
  description: What does not work while the node is away, as sentences.
  returned: with O(action=check)
  type: list
  elements: str
spread:
  description: The services whose tasks are spread anew.
  returned: with O(action=back)
  type: list
  elements: str
waited:
  description: Seconds that were waited.
  returned: with O(action=away), O(action=ready) and O(action=back)
  type: float
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm import spare
from ..module_utils._swarm.client import HAS_DOCKER, DockerFailed, SwarmClient
from ..module_utils._swarm.membership import NotThere
from ..module_utils._swarm.plan import Refused


def main() -> None:
    """Entry point."""
    waits = ("away", "ready", "back")
    module = AnsibleModule(
        argument_spec={
            "action": {"type": "str", "choices": ["look", "check", *waits], "required": True},
            "node": {"type": "str"},
            "gap": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 300},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        required_if=[("action", action, ["node"]) for action in ("check", *waits)],
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options = module.params
    result: dict[str, t.Any] = {"changed": False}
    try:
        client = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock")
        if options["action"] == "look":
            result["nodes"] = spare.described(client)
        elif options["action"] == "check":
            result["gaps"] = spare.check(client, options["node"], gap=options["gap"])
        elif not module.check_mode:
            how = {"gap": options["gap"], "timeout": options["timeout"]}
            result.update(spare.wait(client, options["action"], options["node"], **how))
    except (Refused, NotThere, DockerFailed) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
