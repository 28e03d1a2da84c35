#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module traffic_switch: which slot of an environment new requests go to."""

from __future__ import annotations

DOCUMENTATION = """
module: traffic_switch
short_description: Moves the traffic of an environment between its slots
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - An environment has two slots, blue and green. One is active, the other idle. This module moves new requests and new
    streams from one to the other, at once or by shares. What runs already finishes where it is.
  - What is decided is kept in labels of the edge service (the authority, in Swarm's own raft), written by
    compare-and-set. An operation is open from O(action=prepare) to the end of the switch. It carries a lease, so that
    there is one writer at a time; whoever comes next waits, or is refused with the holder's name, and takes over what a
    dead run left.
  - A switch ends when each edge says that it routes as decided and a client at the port of each has seen it. The
    ended operation becomes an entry of the journal, a config of the Swarm. Until then it stays open, the error names
    the edges that lack, and the next run ends it, or a V(rollback) goes back. An edge whose node is down is not waited
    for.
  - Run it on a manager. Edges on other nodes are asked at their published port with the probe token, and told by a
    short job of the Swarm on these nodes.
extends_documentation_fragment:
  - bitnet.devops.traffic
attributes:
  check_mode:
    support: full
    description: Plans on what is there, and touches nothing.
  diff_mode:
    support: full
    description: Shows the routing, the slots, the open operation and the freeze, before and after.
  idempotent:
    support: full
    description: What is routed as asked already is left alone.
options:
  action:
    description:
      - V(prepare) opens the operation for O(release) on the idle slot and drains it, so that it can be replaced.
      - V(switch) sends O(share) percent of new requests to the slot that holds O(release). With 100 that slot becomes
        active and the operation ends.
      - V(rollback) makes the idle slot active again. It is refused unless that slot holds O(release), ready at full
        capacity, and unless the schema of the release's database still lets it work.
      - V(park) drains the idle slot and stops its tasks (parked cold), where memory is short.
      - V(pause) stops a stepwise switch before its next step, V(resume) lets it go on.
      - V(abort) takes everything back to the active slot and ends the operation. What is active already stays so.
      - V(freeze) forbids V(prepare), V(switch) and V(park) until V(thaw). V(rollback) and V(abort) stay possible.
    type: str
    required: true
    choices: [prepare, switch, rollback, park, pause, resume, abort, freeze, thaw]
  release:
    description:
      - Id of the release. Required for V(rollback) and V(prepare).
      - Left out of V(switch), it is that of the open operation; without one, O(slot) or O(release) has to be named.
    type: str
    default: ""
  slot:
    description: The slot that is meant, where both hold the same release. Left out, it is found by O(release).
    type: str
    choices: [blue, green]
  operation:
    description: Id of the operation that V(prepare) returned. When another one is open, nothing is changed.
    type: str
    default: ""
  share:
    description: Percentage of new requests that the slot gets, 1 to 100. A client keeps its slot by a cookie meanwhile.
    type: int
    default: 100
  hold:
    description:
      - For a machine without room for both slots. New requests wait in the edge, bounded, while the active slot stops
        and the other one starts. When that fails, the old slot is started again.
    type: bool
    default: false
  drain_seconds:
    description:
      - So long the connections of a slot that is about to be replaced may go on. What is left then is announced its end
        and counted.
    type: float
    default: 60
  timeout:
    description: Longest wait for capacity, for an edge, and for tasks to end, in seconds each.
    type: float
    default: 120
  wait_seconds:
    description: Longest wait for somebody else's work on the operation, or for a paused one to be resumed, in seconds.
    type: float
    default: 30
  asked_by:
    description: Who asks, for the journal.
    type: str
    default: unknown
  reason:
    description: Why. Required for V(freeze) and V(pause).
    type: str
    default: ""
  check_schema:
    description:
      - A release that uses a database says in the label C(io.bitnet.schemas) of its slot which schemas it knows. A
        switch or rollback to it is refused where the slots say that the database has one that it cannot work with.
      - With V(true), V(rollback) is also refused where no slot can say which schema the database has.
    type: bool
    default: true
    version_added: 0.2.0
seealso:
  - module: bitnet.devops.traffic_info
  - module: bitnet.devops.traffic_gate
"""

EXAMPLES = """
- name: Show what a switch would do
  bitnet.devops.traffic_switch:
    action: switch
    release: 1f0c2d3e4a5b
  check_mode: true
  diff: true

- name: Send a tenth of the new requests to the new release
  bitnet.devops.traffic_switch:
    action: switch
    release: 1f0c2d3e4a5b
    share: 10
    asked_by: alice

- name: Go back
  bitnet.devops.traffic_switch:
    action: rollback
    release: 0a1b2c3d4e5f
    asked_by: alice
    reason: p95 doubled

- name: Keep switches away over the weekend
  bitnet.devops.traffic_switch:
    action: freeze
    reason: year-end closing
    asked_by: alice
"""

RETURN = """
plan:
  description: The steps that were taken (or would be, in check mode), and the slot they are about.
  returned: success
  type: dict
  sample: {steps: [take the lease, make green active, set edges, close the operation], target: green}
operation:
  description: The operation that is open afterwards, empty when there is none.
  returned: success
  type: dict
routing:
  description: The active slot, the percentage of new requests that the idle slot gets, and whether new requests wait.
  returned: success
  type: dict
  sample: {active: green, share: 0, hold: false}
slots:
  description: Release, binding and tasks of each slot.
  returned: success
  type: dict
edges:
  description:
    - What each edge really does, by node. Its routing, the servers that are up and the connections of each slot.
  returned: success
  type: dict
lost:
  description: Nodes that are down, with an edge that was not asked. When they come back Swarm replaces it.
  returned: success
  type: list
  elements: str
cut:
  description: Connections that a drain left at its deadline.
  returned: success
  type: int
seconds:
  description:
    - How long it took. C(total) is the module's own time, C(to_client) from the decision (the gates had passed) to the
      first of five clients in a row that saw the new slot, C(drain) and C(held) where there was one.
  returned: success
  type: dict
  sample: {total: 0.412, to_client: 0.093}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm.client import HAS_DOCKER, Conflict, DockerFailed, SwarmClient
from ..module_utils._traffic.edge import EdgeFailed
from ..module_utils._traffic.plan import ACTIONS, Refused, Wish
from ..module_utils._traffic.routing import SLOTS, BadRecord
from ..module_utils._traffic.swarm import NoEdge, SwarmDriver
from ..module_utils._traffic.switch import TimedOut, run


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "str", "default": "local"},
            "action": {"type": "str", "required": True, "choices": list(ACTIONS)},
            "release": {"type": "str", "default": ""},
            "slot": {"type": "str", "choices": list(SLOTS)},
            "operation": {"type": "str", "default": ""},
            "share": {"type": "int", "default": 100},
            "hold": {"type": "bool", "default": False},
            "drain_seconds": {"type": "float", "default": 60},
            "timeout": {"type": "float", "default": 120},
            "wait_seconds": {"type": "float", "default": 30},
            "asked_by": {"type": "str", "default": "unknown"},
            "reason": {"type": "str", "default": ""},
            "check_schema": {"type": "bool", "default": True},
            "state_dir": {"type": "path", "default": "/var/lib/bitnet"},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        required_if=[("action", "prepare", ["release"])],
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options = module.params
    wish = Wish(
        action=options["action"],
        release=options["release"],
        slot=options["slot"] or "",
        operation=options["operation"],
        share=options["share"],
        hold=options["hold"],
        drain_seconds=options["drain_seconds"],
        timeout=options["timeout"],
        wait_seconds=options["wait_seconds"],
        asked_by=options["asked_by"],
        reason=options["reason"],
        check_schema=options["check_schema"],
    )
    try:
        client = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock")
        driver = SwarmDriver(client, options["environment"], options["state_dir"])
        outcome = run(driver, wish, act=not module.check_mode)
    except (Refused, NoEdge, BadRecord, DockerFailed, EdgeFailed, TimedOut) as error:
        module.fail_json(msg=str(error))
    except Conflict as error:
        module.fail_json(msg=f"somebody else changed the environment at the same moment; run again ({error})")
    for warning in outcome.warnings:
        module.warn(warning)
    module.exit_json(**outcome.result())


if __name__ == "__main__":
    main()
