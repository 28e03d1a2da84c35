#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module traffic_testers: whose requests may name their slot."""

from __future__ import annotations

DOCUMENTATION = """
module: traffic_testers
short_description: Tells the edge of this machine who may name a slot
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - A tester is who sends a token whose SHA-256 is listed. The edge follows a tester's C(X-Bitnet-Slot) and says which
    slot answered.
  - Writes the list, which an edge reads when it begins, and gives it to the one that runs, through its socket and in
    one step. Nothing is reloaded, so no connection is touched, and a switch may be under way.
requirements:
  - "HAProxy 2.4 or newer in the edge (role bitnet.devops.traffic)"
attributes:
  check_mode:
    support: full
    description: Says whether the list, or what the edge has in memory, would change.
  diff_mode:
    support: full
    description: Shows how many testers there are. Hashes of tokens are not shown.
  idempotent:
    support: full
    description: A list that is there and known to the edge is not written again.
options:
  environment:
    description: Name of the environment.
    type: str
    default: local
  sha256:
    description: The SHA-256 of each tester's token, 64 hexadecimal digits. All others are no testers.
    type: list
    elements: str
    required: true
  timeout:
    description: Seconds to wait for an answer of the edge. One that does not run is not waited for.
    type: float
    default: 10
  state_dir:
    description: Where the roles keep their state on the target.
    type: path
    default: /var/lib/bitnet
seealso:
  - module: bitnet.devops.traffic_gate
"""

EXAMPLES = """
- name: Let who has this token name a slot
  bitnet.devops.traffic_testers:
    environment: local
    sha256:
      - "{{ probe_token | ansible.builtin.hash('sha256') }}"
"""

RETURN = """
told:
  description: Whether an edge runs here and was told, or knew it. One that begins later reads the list.
  returned: success
  type: bool
"""

import re
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._traffic.edge import Edge, EdgeFailed, NotRunning


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "str", "default": "local"},
            "sha256": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "timeout": {"type": "float", "default": 10},
            "state_dir": {"type": "path", "default": "/var/lib/bitnet"},
        },
        supports_check_mode=True,
    )
    options = module.params
    wrong = [number for number, text in enumerate(options["sha256"], 1) if not re.fullmatch("[0-9a-fA-F]{64}", text)]
    if wrong:
        module.fail_json(
            msg=f"sha256: entry {wrong[0]} of {len(options['sha256'])} has not 64 hexadecimal digits; give the SHA-256 "
            "of the token, as the filter ansible.builtin.hash('sha256') makes it. Nothing was changed"
        )
    if not re.fullmatch("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?", options["environment"]):
        module.fail_json(
            msg=f"environment: {options['environment']!r} is no name of up to 32 small letters, digits and dashes"
        )
    folder = Path(options["state_dir"]) / "environments" / options["environment"] / "edge"
    edge = Edge("here", folder, timeout=options["timeout"])
    wanted = sorted({text.lower() for text in options["sha256"]})
    try:
        listed = edge.testers_listed()
        try:
            known: list[str] | None = edge.testers_known()
        except NotRunning:
            known = None
        changed = listed != wanted or known not in (None, wanted)
        if changed and not module.check_mode:
            edge.set_testers(wanted, running=known is not None)
    except EdgeFailed as error:
        module.fail_json(msg=str(error))
    before = {"listed": len(listed or []), "known to the edge": None if known is None else len(known)}
    after = {"listed": len(wanted), "known to the edge": None if known is None else len(wanted)}
    module.exit_json(changed=changed, told=known is not None, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
