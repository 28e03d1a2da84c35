#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: verdict
short_description: Signs what an environment says of a release
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Makes the verdict of one environment from what its gates have measured, and signs it with the environment's key.
  - The decision is derived and not asked for. It is V(promote) if at least one gate is required, each required gate
    says V(pass), and O(failure) is empty. Otherwise it is V(refuse). No data is no pass.
  - The verdict is bound to the release, the model, the environment, the run and the time, so that
    M(bitnet.devops.consensus) recognises one of another release or of an earlier run.
  - Runs where the key is, which is a host of that environment. What it returns is for everybody to read.
requirements:
  - "cryptography 38 or newer on the target (Debian and Ubuntu: python3-cryptography; Ansible brings it to controllers)"
attributes:
  check_mode:
    support: full
    description: Says what the verdict would be and signs nothing, since nothing was tried.
  diff_mode:
    support: N/A
    description: A verdict changes nothing.
  idempotent:
    support: full
    description:
      - A verdict changes nothing, and RV(ignore:changed) is always false.
      - Each one carries its time. Two of one environment in one run contradict each other, so sign once and judge
        again in a new run.
options:
  environment:
    description: The environment that speaks.
    type: str
    required: true
  cluster:
    description: Which of its clusters, where it has several. Each of them gives a verdict.
    type: str
    default: ""
  release:
    description: Id of the release that was judged.
    type: str
    required: true
  model:
    description: SHA-256 of the release's model.
    type: str
    required: true
  run:
    description: Id of the run, the same for all of its environments and new for each run.
    type: str
    required: true
  binding:
    description:
      - How the environment runs the release, as M(bitnet.devops.consensus) compares it, such as replicas, threads,
        limits and placement. Everybody may read it, so it names secrets and does not hold them.
    type: dict
    required: true
  gates:
    description:
      - Results of M(bitnet.devops.traffic_gate), as registered. One with C(required=false) beside them is reported and
        decides nothing.
      - A gate that was skipped in check mode has passed nothing.
    type: list
    elements: dict
    default: []
  figures:
    description: What else was measured. Numbers are compared between the environments.
    type: dict
    default: {}
  failure:
    description: Why the release did not get as far as its gates. If it is given, the decision is V(refuse).
    type: str
    default: ""
  key_file:
    description: File with the environment's private key, which nobody but its owner may read (mode 0600).
    type: path
    required: true
seealso:
  - module: bitnet.devops.signing_key
  - module: bitnet.devops.consensus
"""

EXAMPLES = r"""
- name: Sign what staging says
  bitnet.devops.verdict:
    environment: staging
    release: 1c7ff3ec1f0c
    model: 2f0e1ad5a3ac8a7dbaba2ecb4e2b7ab3f1a3b8e5f0e7c1d2a3b4c5d6e7f80912
    run: 7a52d9a6-9f0e-4f6c-8a35-0d1c33a2b0c4
    binding: {replicas: 2, threads: 4}
    gates:
      - {name: token, verdict: pass, reason: one token was generated}
      - {name: compare, verdict: pass, reason: as good as the other, figures: {slot: {p95_ms: 97.0}}}
    key_file: /var/lib/bitnet/environments/staging/signing/key
  register: said
"""

RETURN = r"""
decision:
  description: V(promote) or V(refuse).
  returned: success
  type: str
reasons:
  description: What speaks against promotion.
  returned: success
  type: list
  elements: str
  sample: ["gate compare: inconclusive (4 answers of green say nothing about a percentile)"]
statement:
  description: What the verdict says.
  returned: success
  type: dict
verdict:
  description: The signed verdict, an envelope as DSSE describes it, for O(bitnet.devops.consensus#module:verdicts).
  returned: success, and not in check mode
  type: dict
  sample:
    payloadType: application/vnd.bitnet.devops.verdict+json
    payload: eyJiaW5kaW5nIjp7InJlcGxpY2FzIjoy...
    signatures: [{keyid: "SHA256:kBGVbMYzKMTmHtSqBGf9r6m8zI3VxbbMIHLjMyDPzFw", sig: "2P0lC3Qf..."}]
"""

import datetime

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils._consensus.signing import HAS_CRYPTOGRAPHY, BadInput, read_key, seal
from ..module_utils._consensus.statements import verdict_of


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "environment": {"type": "str", "required": True},
            "cluster": {"type": "str", "default": ""},
            "release": {"type": "str", "required": True},
            "model": {"type": "str", "required": True},
            "run": {"type": "str", "required": True},
            "binding": {"type": "dict", "required": True},
            "gates": {"type": "list", "elements": "dict", "default": []},
            "figures": {"type": "dict", "default": {}},
            "failure": {"type": "str", "default": ""},
            # A path, no value: nothing here has to be hidden.
            "key_file": {"type": "path", "required": True, "no_log": False},
        },
        supports_check_mode=True,
    )
    if not HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    try:
        verdict = verdict_of(module.params, datetime.datetime.now(datetime.timezone.utc))
        statement = verdict.document()
        signed = {}
        if not module.check_mode:
            signed["verdict"] = seal("verdict", statement, read_key("key_file", module.params["key_file"]))
    except BadInput as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, decision=verdict.decision, reasons=verdict.reasons(), statement=statement, **signed)


if __name__ == "__main__":
    main()
