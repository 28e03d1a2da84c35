#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: approval
short_description: Signs that a person lets a release into an environment
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Makes an approval for M(bitnet.devops.consensus), bound to one release and one environment, and signs it with the
    key of the person who approves.
  - Runs where that key is, such as on the person's own machine. What it returns is for everybody to read.
requirements:
  - "cryptography 38 or newer on the target (Debian and Ubuntu: python3-cryptography; Ansible brings it to controllers)"
attributes:
  check_mode:
    support: full
    description: Says what would be approved and signs nothing.
  diff_mode:
    support: N/A
    description: An approval changes nothing.
  idempotent:
    support: full
    description: An approval changes nothing, and RV(ignore:changed) is always false.
options:
  approver:
    description: Who approves, as in O(bitnet.devops.consensus#module:approvers).
    type: str
    required: true
  release:
    description: Id of the release that may go on.
    type: str
    required: true
  environment:
    description: The environment that it may be promoted to.
    type: str
    required: true
  valid_hours:
    description: Hours until the approval ends, at most a year.
    type: float
    default: 72
  reason:
    description: Why, or the number of the change in another system.
    type: str
    default: ""
  key_file:
    description: File with the person's private key, which nobody but its owner may read (mode 0600).
    type: path
    required: true
seealso:
  - module: bitnet.devops.signing_key
  - module: bitnet.devops.consensus
"""

EXAMPLES = r"""
- name: Let the release into production
  bitnet.devops.approval:
    approver: alice
    release: 1c7ff3ec1f0c
    environment: production
    reason: CHG-1042
    key_file: ~/.config/bitnet/approval-key
  register: approved
"""

RETURN = r"""
statement:
  description: What the approval says.
  returned: success
  type: dict
approval:
  description: The signed approval, an envelope as DSSE describes it, for O(bitnet.devops.consensus#module:approvals).
  returned: success, and not in check mode
  type: dict
"""

import datetime

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils._consensus.signing import HAS_CRYPTOGRAPHY, BadInput, read_key, seal
from ..module_utils._consensus.statements import approval_of


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "approver": {"type": "str", "required": True},
            "release": {"type": "str", "required": True},
            "environment": {"type": "str", "required": True},
            "valid_hours": {"type": "float", "default": 72},
            "reason": {"type": "str", "default": ""},
            # A path, no value: nothing here has to be hidden.
            "key_file": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    if not HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    try:
        statement = approval_of(module.params, datetime.datetime.now(datetime.timezone.utc)).document()
        signed = {}
        if not module.check_mode:
            signed["approval"] = seal("approval", statement, read_key("key_file", module.params["key_file"]))
    except BadInput as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, statement=statement, **signed)


if __name__ == "__main__":
    main()
