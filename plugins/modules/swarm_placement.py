#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module swarm_placement: on which nodes of a Swarm an image of the service runs, and why not on the others."""

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_placement
short_description: Says on which nodes of a Docker Swarm an image runs, as options of swarm_service
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Makes platforms, constraints and preferences out of the kernel variants in an image. A node takes tasks if the image
    is for its architecture and has a variant that its CPU runs, be it the best for it or not.
  - The architecture is what the node's Docker says. The CPU is known by the labels that the role
    P(bitnet.devops.swarm_cluster#role) gives to nodes, C(io.bitnet.variant) and C(io.bitnet.slots). A node without
    these, or with C(io.bitnet.slots=false), takes no tasks.
  - Tasks are spread over the values of the label C(io.bitnet.failure-domain) first.
  - Fails if no node that is ready and active fits, with every node and why it does not.
  - Run it on a manager.
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
  image:
    description: Name of the image, for messages.
    type: str
    required: true
  built:
    description: The variants in it, which C(image_build) writes into its label C(io.bitnet.variants).
    type: list
    elements: str
    required: true
  variants:
    description:
      - Only nodes for whose CPU one of these is the best variant. Left out, all that the image runs on.
      - Names are those of the catalogue of M(bitnet.devops.kernel_build).
    type: list
    elements: str
    default: []
  architectures:
    description: Only nodes of these architectures, V(amd64) or V(arm64). Left out, all that the image is for.
    type: list
    elements: str
    default: []
  constraints:
    description: More constraints, which have to hold as well.
    type: list
    elements: str
    default: []
  preferences:
    description: More node labels over whose values tasks are spread, after the failure domain.
    type: list
    elements: str
    default: []
seealso:
  - module: bitnet.devops.swarm_service
  - module: bitnet.devops.cpu_info
"""

EXAMPLES = r"""
- name: Find the nodes for an image with kernels for x86-64 and ARM
  bitnet.devops.swarm_placement:
    image: registry.example.org/bitnet/swarm-intelligence
    built: [x86-64-v3, x86-64-v4-vnni, armv8.2-a-dotprod]
    architectures: [amd64]
  register: placement

- name: Say who takes tasks, and why others do not
  ansible.builtin.debug:
    msg: "{{ placement.fitting | join(', ') }}; not {{ placement.excluded | combine(placement.unavailable) }}"
"""

RETURN = r"""
platforms:
  description: For the option of that name of M(bitnet.devops.swarm_service).
  returned: success
  type: list
  elements: str
  sample: [linux/amd64]
constraints:
  description: For the option of that name, those that were given among them.
  returned: success
  type: list
  elements: str
  sample: [node.labels.io.bitnet.slots==true]
preferences:
  description: For the option of that name, those that were given among them.
  returned: success
  type: list
  elements: str
  sample: [node.labels.io.bitnet.failure-domain]
fitting:
  description: Names of the nodes that take tasks.
  returned: success
  type: list
  elements: str
excluded:
  description: The nodes that the placement keeps out, and why.
  returned: success
  type: dict
  sample: {"north-3": "is linux/aarch64, and not linux/amd64"}
unavailable:
  description: The nodes that would take tasks and are down or drained.
  returned: success
  type: dict
  sample: {"north-2": "is drained"}
"""

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm.client import HAS_DOCKER, DockerFailed, SwarmClient
from ..module_utils._swarm.placement import judge, place, require_one
from ..module_utils._swarm.plan import Refused


def main() -> None:
    """Entry point."""
    names: dict = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "image": {"type": "str", "required": True},
            "built": {"type": "list", "elements": "str", "required": True},
            "variants": names,
            "architectures": names,
            "constraints": names,
            "preferences": names,
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options = module.params
    given = [options[name] for name in ("built", "variants", "architectures", "constraints", "preferences")]
    try:
        placement = place(*given)
        nodes = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock").nodes()
        verdict = judge(nodes, placement)
        require_one(verdict, options["image"])
    except (Refused, DockerFailed) as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        platforms=placement.platforms,
        constraints=placement.constraints,
        preferences=placement.preferences,
        fitting=verdict.fitting,
        excluded=verdict.excluded,
        unavailable=verdict.unavailable,
    )


if __name__ == "__main__":
    main()
