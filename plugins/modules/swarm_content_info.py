#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_content_info
short_description: The configs that a Docker Swarm keeps under one base
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Gives back what M(bitnet.devops.swarm_content) has kept as configs with one O(base), the newest first.
  - Configs that are not ours are passed over, and secrets are never read.
extends_documentation_fragment:
  - bitnet.devops.docker
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
  base:
    description: Beginning of the names, as it was given to M(bitnet.devops.swarm_content).
    type: str
    required: true
  labels:
    description: Only those with these labels.
    type: dict
    default: {}
seealso:
  - module: bitnet.devops.swarm_content
"""

EXAMPLES = r"""
- name: Read what was decided
  bitnet.devops.swarm_content_info:
    base: bitnet-staging-decision
    labels: {io.bitnet.release: 1c7ff3ec1f0c}
  register: decisions
"""

RETURN = r"""
contents:
  description: The configs, the newest first.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the config.
      type: str
    content:
      description: Its text.
      type: str
    document:
      description: The text read as JSON. None, if it is no JSON.
      type: raw
    labels:
      description: Its labels.
      type: dict
    created_at:
      description: When the Swarm took it.
      type: str
"""

import json
import typing as t

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm import content
from ..module_utils._swarm.client import HAS_DOCKER, DockerFailed, SwarmClient


def _no_number(text: str) -> t.NoReturn:
    raise ValueError(f"{text} is no JSON")


def document(text: str) -> t.Any:
    """Somebody else's text: whatever is in it is no error here."""
    try:
        found = json.loads(text, parse_constant=_no_number)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair would break whoever prints it
        return found
    except (ValueError, RecursionError):
        return None


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "base": {"type": "str", "required": True},
            "labels": {"type": "dict", "default": {}},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    wanted = {(name, str(value)) for name, value in module.params["labels"].items()}
    try:
        client = SwarmClient(module.params["docker_host"] or "unix:///var/run/docker.sock")
        found = content.versions(module.params["base"], client.contents("config"))
    except DockerFailed as error:
        module.fail_json(msg=str(error))
    contents = [
        {
            "name": config["Spec"]["Name"],
            "content": content.text(config),
            "document": document(content.text(config)),
            "labels": config["Spec"].get("Labels") or {},
            "created_at": config["CreatedAt"],
        }
        for config in found
        if wanted <= set((config["Spec"].get("Labels") or {}).items())
    ]
    module.exit_json(changed=False, contents=contents)


if __name__ == "__main__":
    main()
