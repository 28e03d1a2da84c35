#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module swarm_settings: the lock and the join tokens of a Swarm."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_settings
short_description: Locks and unlocks the managers of a Docker Swarm and rotates its join tokens
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Turns the lock of a Swarm's managers on or off, and gives it new join tokens. All other settings and labels of the
    Swarm stay, which M(community.docker.docker_swarm) would reset as far as it is not told them.
  - With O(unlock_key) it unlocks the manager on which it runs, and waits until that is back in its Swarm.
  - Neither keys nor tokens are in its result.
extends_documentation_fragment:
  - bitnet.devops.docker
attributes:
  check_mode:
    support: full
    description: Says what would change.
  diff_mode:
    support: full
    description: Shows the settings, neither keys nor tokens.
  idempotent:
    support: full
    description: A manager that is not locked is not unlocked; the same word rotates once.
options:
  autolock:
    description:
      - Whether a manager whose daemon was restarted stays locked until it is given the key.
      - Left out, it stays as it is.
    type: bool
  join_tokens:
    description:
      - A word of your own, as the date of the last rotation, kept as a label of the Swarm. Another word than the one
        that is there rotates the tokens for managers and workers; nodes that have joined do not notice.
      - Left out, the tokens stay.
    type: str
  unlock_key:
    description: Unlocks this manager, where it is locked; nothing else is done then.
    type: str
  timeout:
    description: Seconds that the manager has to be back after it was unlocked.
    type: float
    default: 60
seealso:
  - module: community.docker.docker_swarm
    description: Makes a Swarm.
"""

EXAMPLES = r"""
- name: Lock the managers, and rotate the tokens once a quarter
  bitnet.devops.swarm_settings:
    autolock: true
    join_tokens: "2027-Q1"

- name: Unlock this manager after a restart
  bitnet.devops.swarm_settings:
    unlock_key: "{{ key_from_the_vault }}"
"""

RETURN = r"""
settings:
  description: What holds now, or in check mode would. Not returned with O(unlock_key).
  returned: success
  type: dict
  sample: {"autolock": true, "join_tokens": "2027-Q1"}
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm import settings
from ..module_utils._swarm.client import HAS_DOCKER, Conflict, DockerFailed, SwarmClient
from ..module_utils._swarm.plan import Refused

LOCKED = "locked"


def unlock(client: SwarmClient, key: str, act: bool, timeout: float) -> dict[str, t.Any]:
    state = client.local_state()
    if state != LOCKED:
        return {"changed": False, "diff": {"before": {"state": state}, "after": {"state": state}}}
    if act:
        end = time.monotonic() + timeout
        try:
            client.unlock(key)
        except DockerFailed as error:
            # Where the key fits Docker answers only when there is a leader, which takes the other managers.
            if client.local_state() == LOCKED:
                raise Refused(f"unlock_key: {error}. Give the one that 'docker swarm unlock-key' showed") from error
        while (now := client.local_state()) != "active":
            if time.monotonic() > end:
                raise Refused(
                    f"unlock_key: it fitted, and the manager was not back within {timeout:.0f} s (timeout); last seen: "
                    f"{now}. 'docker info' and Docker's log show more"
                )
            time.sleep(0.5)
    return {"changed": True, "diff": {"before": {"state": LOCKED}, "after": {"state": "active"}}}


def configure(client: SwarmClient, options: dict[str, t.Any], act: bool) -> dict[str, t.Any]:
    swarm = client.swarm()
    plan = settings.plan(swarm, options["autolock"], options["join_tokens"])
    if plan.changed and act:
        client.update_swarm(swarm, plan.spec, plan.rotates)
    return {"changed": plan.changed, "settings": plan.after, "diff": {"before": plan.before, "after": plan.after}}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "autolock": {"type": "bool"},
            "join_tokens": {"type": "str", "no_log": False},
            "unlock_key": {"type": "str", "no_log": True},
            "timeout": {"type": "float", "default": 60},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        mutually_exclusive=[("unlock_key", "autolock"), ("unlock_key", "join_tokens")],
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options, act = module.params, not module.check_mode
    try:
        client = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock")
        if options["unlock_key"]:
            result = unlock(client, options["unlock_key"], act, options["timeout"])
        else:
            result = configure(client, options, act)
    except Conflict as error:
        module.fail_json(msg=f"the Swarm was changed by somebody else at the same time; run again ({error})")
    except (Refused, DockerFailed) as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
