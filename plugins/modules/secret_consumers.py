#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_consumers
short_description: Moves services of a Docker Swarm to the current version of a secret, one after the other
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Each service that refers to another version of the secret is updated as its own update settings say, and the next
    one is touched only when its tasks run (and are healthy, where they have a health check).
  - Nothing else of a service is changed. One that refers to no version is an error, since nothing tells where the
    secret would go. So is another service that refers to another version, which would stay with that.
  - A run that was killed is repeated. Services that have the version are waited for, and not updated again.
extends_documentation_fragment:
  - bitnet.devops.docker
attributes:
  check_mode:
    support: full
    description: Says which services would be moved.
  diff_mode:
    support: full
    description: Shows the version that each service has and would have.
  idempotent:
    support: full
    description: A service with the version is left alone.
options:
  base:
    description: Beginning of the secret's names, as it was given to M(bitnet.devops.swarm_content).
    type: str
    required: true
  version:
    description: Name of the version to which they move.
    type: str
    required: true
  services:
    description: Names of the services, in the order in which they move.
    type: list
    elements: str
    required: true
  wait_timeout:
    description: So many seconds each service has until its tasks run.
    type: int
    default: 300
seealso:
  - module: bitnet.devops.secret_store
  - module: bitnet.devops.swarm_content
"""

EXAMPLES = r"""
- name: Move the mailer to the new password
  bitnet.devops.secret_consumers:
    base: bitnet-staging-smtp
    version: bitnet-staging-smtp-6b3a5e0d9f4c
    services: [mailer]
"""

RETURN = r"""
moved:
  description: Services that were moved, or in check mode would be.
  returned: success
  type: list
  elements: str
verified:
  description: Services whose tasks were seen running with the version.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._secrets import consumers
from ..module_utils._swarm import content, service
from ..module_utils._swarm.client import HAS_DOCKER, Conflict, DockerFailed, SwarmClient
from ..module_utils._swarm.plan import Plan, Refused


class Move:
    """From whatever version to one."""

    def __init__(self, client: SwarmClient, base: str, version: str, act: bool) -> None:
        self.client, self.base, self.version, self.act = client, base, version, act
        found = {one["Spec"]["Name"]: one["ID"] for one in content.versions(base, client.contents("secret"))}
        if version not in found:
            raise Refused(
                f"version: the Swarm has no secret {version} of {base}; bitnet.devops.secrets makes it. Nothing was "
                "changed"
            )
        self.names, self.identity = set(found), found[version]
        self.before: dict[str, list[str]] = {}
        self.moved: list[str] = []

    def look(self, name: str) -> dict[str, t.Any]:
        """The service, which refers to the secret."""
        seen = self.client.service(name)
        if seen is None:
            raise Refused(
                f"services: the Swarm has no service {name}; take it out of the secret's consumers, or make it"
            )
        self.before[name] = consumers.versions_of(seen["Spec"], self.names)
        if not self.before[name]:
            raise Refused(
                f"services: {name} refers to no version of {self.base}; give it one (docker service update "
                "--secret-add), or take it out of the secret's consumers"
            )
        return seen

    def refuse_others(self, services: t.Collection[str]) -> None:
        """Whoever has another version and does not move would stay with it, and it would be said that nobody has."""
        left = sorted(
            seen["Spec"]["Name"]
            for seen in self.client.services()
            if set(consumers.versions_of(seen["Spec"], self.names)) - {self.version}
            and seen["Spec"]["Name"] not in services
        )
        if left:
            raise Refused(
                f"services: {', '.join(left)} also refers to a version of {self.base} that is not {self.version}; name "
                "it among the secret's consumers, or take the secret from it (docker service update --secret-rm). Both "
                "values hold"
            )

    def move(self, name: str, timeout: float) -> None:
        seen = self.look(name)
        failed = {
            task["ID"] for task in self.client.tasks(seen["ID"]) if task["Status"]["State"] in ("failed", "rejected")
        }
        if self.before[name] != [self.version]:
            self.moved.append(name)
            if self.act:
                spec = consumers.moved(seen["Spec"], self.names, self.version, self.identity)
                self.client.update(seen, {**spec, "Labels": spec.get("Labels") or {}})
        if self.act:
            outcome = service.Outcome(Plan("update"), seen)
            service.wait_running(self.client, name, outcome, failed, timeout)


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "base": {"type": "str", "required": True},
            "version": {"type": "str", "required": True},
            "services": {"type": "list", "elements": "str", "required": True},
            "wait_timeout": {"type": "int", "default": 300},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options = module.params
    try:
        client = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock")
        move = Move(client, options["base"], options["version"], not module.check_mode)
        # All are looked at before the first is touched.
        for name in options["services"]:
            move.look(name)
        move.refuse_others(options["services"])
        before = dict(move.before)
        for name in options["services"]:
            move.move(name, options["wait_timeout"])
        # Somebody may have made one meanwhile.
        move.refuse_others([] if not module.check_mode else options["services"])
    except Conflict as error:
        module.fail_json(msg=f"a service was changed by somebody else at the same time; run again ({error})")
    except (Refused, DockerFailed, service.NotConverged) as error:
        module.fail_json(msg=str(error))
    after = {name: [options["version"]] for name in before}
    module.exit_json(
        changed=bool(move.moved),
        moved=move.moved,
        verified=[] if module.check_mode else list(options["services"]),
        diff={"before": before, "after": after},
    )


if __name__ == "__main__":
    main()
