#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: signing_key
short_description: Makes the key with which an environment signs its verdicts, or a person their approvals
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Makes an Ed25519 key where there is none, for its owner alone (mode 0600), and gives its public key back.
  - The private key stays in the file. It is in no option, result, difference or log, and nothing here replaces or
    removes it.
  - The file has OpenSSH's form, so C(ssh-keygen -l -f) shows what it is, and a key that C(ssh-keygen -t ed25519 -N '')
    has made is used as it is.
requirements:
  - "cryptography 38 or newer on the target (Debian and Ubuntu: python3-cryptography; Ansible brings it to controllers)"
attributes:
  check_mode:
    support: full
    description: Says whether a key would be made. Its public key is known after it is made.
  diff_mode:
    support: full
    description: Shows the public key.
  idempotent:
    support: full
    description: A key that is there is left alone.
options:
  path:
    description: Where the private key is, or will be. Its folder exists and is its owner's alone.
    type: path
    required: true
notes:
  - To have a new key, list the new public key beside the old one in O(bitnet.devops.consensus#module:environments),
    then move the old file away. The old key is believed until it is taken out of the list.
seealso:
  - module: bitnet.devops.verdict
  - module: bitnet.devops.approval
"""

EXAMPLES = r"""
- name: Make the folder of the environment's key
  ansible.builtin.file:
    path: /var/lib/bitnet/environments/staging/signing
    state: directory
    mode: "0700"

- name: Make the key of the environment
  bitnet.devops.signing_key:
    path: /var/lib/bitnet/environments/staging/signing/key
  register: signing

- name: Show what to list in the inventory
  ansible.builtin.debug:
    var: signing.public_key
"""

RETURN = r"""
public_key:
  description:
    - The public key as one line, which others may know.
    - In check mode V(known after the key is made), where there is none.
  returned: success
  type: str
  sample: ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHUd4JNwm0MN51gXyzIpbT9VTVvj0dnMdQ1cXWyqfTcD
"""

import os

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils._consensus.signing import HAS_CRYPTOGRAPHY, BadInput, make_key, public_line, read_key

UNKNOWN_YET = "known after the key is made"


def main() -> None:
    """Entry point."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    if not HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    path = module.params["path"]
    try:
        changed = not os.path.lexists(path)
        if changed and not module.check_mode:
            changed = make_key(path)
        line = UNKNOWN_YET if module.check_mode and changed else public_line(read_key("path", path))
    except BadInput as error:
        module.fail_json(msg=str(error))
    before = {} if changed else {"public_key": line}
    module.exit_json(changed=changed, public_key=line, diff={"before": before, "after": {"public_key": line}})


if __name__ == "__main__":
    main()
