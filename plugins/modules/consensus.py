#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: consensus
short_description: Decides over a release by the signed verdicts of its environments
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Decides by O(quorum) of n verdicts with vetoes and a deadline, and by approvals and freeze windows. It only
    decides, and nothing is promoted or rolled back here.
  - A verdict counts if a listed key of its environment has signed it as it is, and it is of this release, model and
    run, not older than the run, not from the future, and not later than the deadline. All others are named in
    RV(ignored), and the decision is the one without them.
  - V(rollback) follows from the refusal of an environment with a veto, from so many refusals that O(quorum) is out of
    reach, and from the end of the deadline without O(quorum) or without the verdict of an environment with a veto.
    Silence is no consent, since whoever cuts a line must not promote by it.
  - An environment that has signed different verdicts of one cluster in one run, or promotes against its own gates, is
    V(contradictory), which weighs as a refusal.
  - V(promote) needs O(quorum) verdicts that promote and one of every environment with a veto, O(approvals_required)
    approvals and no open freeze window. Lacking the last two, a release waits and is not rolled back.
  - The decision depends on the options and the time only, and not on the order of verdicts. This module does not wait,
    and V(undecided) says what for.
  - Needs no target. It runs where the verdicts come together, such as on the controller.
requirements:
  - "cryptography 38 or newer (Debian and Ubuntu: python3-cryptography; Ansible brings it to controllers)"
  - "Python 3.9 or newer, with time zones (tzdata) if there are freeze windows"
attributes:
  check_mode:
    support: full
    description: A decision changes nothing, and is the same in check mode.
  diff_mode:
    support: N/A
    description: A decision changes nothing.
  idempotent:
    support: full
    description: A decision changes nothing, and RV(ignore:changed) is always false.
options:
  release:
    description: Id of the release.
    type: str
    required: true
  model:
    description: SHA-256 of the release's model.
    type: str
    required: true
  run:
    description: Id of the run, as in the verdicts. New for each run, so that an earlier verdict does not count again.
    type: str
    required: true
  began_at:
    description: When the run began, with its offset from UTC or C(Z). Not in the future.
    type: str
    required: true
  deadline:
    description: Seconds after O(began_at) within which verdicts count, up to 30 days.
    type: float
    required: true
  clock_skew:
    description: Seconds by which the clocks of environments may differ from this one, up to an hour.
    type: float
    default: 30
  environments:
    description:
      - The environments that have a say. With none and O(quorum) V(0), approvals and freeze windows decide alone.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the environment.
        type: str
        required: true
      keys:
        description:
          - Public keys of the environment, RV(bitnet.devops.signing_key#module:public_key). Several where several
            hosts sign, or while a new key takes over. They come from the inventory, and not from whoever sent the
            verdict.
        type: list
        elements: str
        required: true
      clusters:
        description:
          - Its clusters, where it has several. It promotes if all of them do, refuses if one does, and is silent while
            one is. If none is listed, those that have spoken are all.
        type: list
        elements: str
        default: []
      veto:
        description: Whether its refusal alone decides. Without its verdict nothing is promoted.
        type: bool
        default: false
  quorum:
    description: How many environments must say promote, from 1 to all. V(0) where there are no O(environments).
    type: int
    required: true
  verdicts:
    description:
      - RV(bitnet.devops.verdict#module:verdict) of the environments, in any order. What is none is named in
        RV(ignored) and does no harm.
      - Each as it is or as its text in JSON. What an environment has kept is best given as text, since C(from_json)
        fails at rubbish.
    type: list
    elements: raw
    default: []
  promote_to:
    description: The environment that the release goes on to. Approvals are for it. Required with O(approvals_required).
    type: str
    default: ""
  approvals_required:
    description: How many different O(approvers) must have approved.
    type: int
    default: 0
  approvers:
    description: Who may approve. None has a key of an environment.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the person.
        type: str
        required: true
      keys:
        description: Public keys of the person.
        type: list
        elements: str
        required: true
  approvals:
    description: RV(bitnet.devops.approval#module:approval) of the approvers, in any order, each as it is or as text.
    type: list
    elements: raw
    default: []
  freeze_windows:
    description: When nothing is promoted. They do not keep a rollback away.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What is said of it.
        type: str
        required: true
      from:
        description: A date with a time there, as V(2026-12-23 18:00), or a weekly time, as V(fri 16:00).
        type: str
        required: true
      until:
        description: Its end, in the same form. A weekly one may go over the end of the week.
        type: str
        required: true
      timezone:
        description:
          - Name of a time zone, as V(Europe/Berlin) or V(UTC). An hour that its clocks show twice is in the window
            both times.
        type: str
        required: true
seealso:
  - module: bitnet.devops.verdict
  - module: bitnet.devops.approval
"""

EXAMPLES = r"""
- name: Decide whether the release goes on to production
  bitnet.devops.consensus:
    release: 1c7ff3ec1f0c
    model: 2f0e1ad5a3ac8a7dbaba2ecb4e2b7ab3f1a3b8e5f0e7c1d2a3b4c5d6e7f80912
    run: 7a52d9a6-9f0e-4f6c-8a35-0d1c33a2b0c4
    began_at: "{{ began_at }}"
    deadline: 3600
    environments:
      - {name: development, keys: ["{{ keys.development }}"]}
      - {name: staging, keys: ["{{ keys.staging }}"], veto: true}
    quorum: 1
    verdicts: "{{ verdicts }}"
    promote_to: production
    approvals_required: 1
    approvers:
      - {name: alice, keys: ["{{ keys.alice }}"]}
    approvals: "{{ approvals }}"
    freeze_windows:
      - {name: weekend, from: fri 16:00, until: mon 08:00, timezone: Europe/Berlin}
      - {name: holidays, from: "2026-12-23 18:00", until: "2027-01-02 08:00", timezone: Europe/Berlin}
  register: decided

- name: Say what was decided, and why
  ansible.builtin.debug:
    var: decided.report
"""

RETURN = r"""
outcome:
  description: One of V(promote), V(rollback) and V(undecided).
  returned: success
  type: str
reasons:
  description: Why, for people.
  returned: success
  type: list
  elements: str
  sample: ["veto of staging", "staging: refuse: gate compare: fail (3 of 20 requests to green failed (allowed 0))"]
waiting_for:
  description: What V(undecided) waits for, of C(verdicts), C(approvals) and C(the end of a freeze). Otherwise empty.
  returned: success
  type: list
  elements: str
environments:
  description: Where each environment stands.
  returned: success
  type: list
  elements: dict
  contains:
    name:
      description: Name of the environment.
      type: str
    veto:
      description: Whether its refusal alone decides.
      type: bool
    state:
      description: One of V(promote), V(refuse), V(contradictory) and V(silent).
      type: str
    why:
      description: What speaks against promotion.
      type: list
      elements: str
    verdicts:
      description: Which counted, of each cluster one.
      type: list
      elements: dict
      sample: [{id: 5f1d0c9be7aa, cluster: eu-west-1, made_at: "2026-11-26T10:30:00.000000Z"}]
ignored:
  description: What did not count.
  returned: success
  type: list
  elements: dict
  contains:
    kind:
      description: V(verdict) or V(approval).
      type: str
    id:
      description: A hash of it.
      type: str
    claims:
      description: Whom it says it is of. Anybody can claim that.
      type: str
    signed_by:
      description: Whose key has signed it, which is proven. Empty if it is none that is listed.
      type: str
    reason:
      description:
        - V(forged) is one that no listed key, or another's, has signed as it is. V(replayed) is of another release,
          model, run, environment or cluster, or older than the run. V(late), V(early), V(duplicate), V(contradictory)
          and V(unreadable) say it themselves.
      type: str
    explanation:
      description: Why, for people.
      type: str
approvals:
  description: The approvals that count.
  returned: success
  type: list
  elements: dict
  sample: [{approver: alice, expires_at: "2026-11-29T10:40:00.000000Z", reason: CHG-1042}]
frozen:
  description: The freeze windows that are open, and until when.
  returned: success
  type: list
  elements: dict
  sample: [{name: weekend, until: "2026-11-30T07:00:00.000000Z"}]
comparison:
  description: What was measured under the binding of each environment whose verdict counts.
  returned: success
  type: dict
  contains:
    bindings:
      description: Id and content of each environment's binding.
      type: dict
    differing:
      description: What differs between the bindings, with the value of each environment.
      type: dict
      sample: {threads: {development: 4, staging: 8}}
    measured:
      description:
        - Each number by environment. For latencies, ratios, errors and rates C(best) names the environments with the
          best one, of those that promote. Different hardware measures differently, so it is a hint and no proof.
      type: dict
      sample: {compare.slot.p95_ms: {values: {development: 131.0, staging: 97.0}, best: [staging]}}
report:
  description: All of this as lines for people.
  returned: success
  type: list
  elements: str
"""

import datetime

from ansible.module_utils.basic import AnsibleModule, missing_required_lib

from ..module_utils._consensus.decision import decide, policy_of
from ..module_utils._consensus.signing import HAS_CRYPTOGRAPHY, BadInput


def main() -> None:
    """Entry point."""
    # Public keys, which nobody has to hide.
    keys = {"type": "list", "elements": "str", "required": True, "no_log": False}
    text = {"type": "str", "required": True}
    module = AnsibleModule(
        argument_spec={
            "release": text,
            "model": text,
            "run": text,
            "began_at": text,
            "deadline": {"type": "float", "required": True},
            "clock_skew": {"type": "float", "default": 30},
            "environments": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": text,
                    "keys": keys,
                    "clusters": {"type": "list", "elements": "str", "default": []},
                    "veto": {"type": "bool", "default": False},
                },
            },
            "quorum": {"type": "int", "required": True},
            "verdicts": {"type": "list", "elements": "raw", "default": []},
            "promote_to": {"type": "str", "default": ""},
            "approvals_required": {"type": "int", "default": 0},
            "approvers": {"type": "list", "elements": "dict", "default": [], "options": {"name": text, "keys": keys}},
            "approvals": {"type": "list", "elements": "raw", "default": []},
            "freeze_windows": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {"name": text, "from": text, "until": text, "timezone": text},
            },
        },
        supports_check_mode=True,
    )
    if not HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    try:
        policy = policy_of(module.params)
        now = datetime.datetime.now(datetime.timezone.utc)
        decision = decide(policy, module.params["verdicts"], module.params["approvals"], now)
    except BadInput as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **decision.result())


if __name__ == "__main__":
    main()
