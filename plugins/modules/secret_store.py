#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_store
short_description: Keeps the secrets of an environment on a manager, makes what is missing, and rotates one
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Keeps every secret that is declared in C(secrets/store.json) below O(path), readable by its owner alone, with its
    versions and how far a rotation has come, and writes those that roles of this collection read into their files.
  - A secret has its first value from O(given), or else O(found), or is generated. It keeps it until it is rotated.
  - Each write adds one to the serial of the store. A store of other managers that is newer goes before the own one, and
    one that is older than what the Swarm's index knows is refused.
  - No value is in its result, its difference or its errors. The role C(bitnet.devops.secrets) uses it.
attributes:
  check_mode:
    support: full
    description: Says what would be made; its version is known after that.
  diff_mode:
    support: full
    description: Shows versions, sources and phases, and no values.
  idempotent:
    support: full
    description: What is kept is left alone.
options:
  path:
    description: The folder of the environment. Its folders C(secrets) and C(database) exist.
    type: path
    required: true
  environment:
    description: Name of the environment.
    type: str
    required: true
  declared:
    description: The secrets that are needed, as the variable C(bitnet_secrets) of the role.
    type: dict
    required: true
  given:
    description: Values that a source has, by name.
    type: dict
    default: {}
  given_by:
    description: The source of each of these, by name.
    type: dict
    default: {}
  found:
    description: Values that roles have made before the secret was declared, by name.
    type: dict
    default: {}
  others:
    description: The stores of other managers, as texts by host.
    type: dict
    default: {}
  index:
    description:
      - What the Swarm's index has of the store, as RV(index) was when it was written. With O(state=present) a store
        that is older, or has not come of that one, is refused.
    type: dict
    default: {}
  make_anew:
    description: With O(state=present), whether to go on without what O(index) knows and no manager reached has.
    type: bool
    default: false
  state:
    description:
      - V(present) has all that is declared, and writes the files that roles read.
      - V(copied) takes the newest of O(others), and refuses if the own one is newer.
      - V(rotating) brings the rotation of O(name) to O(phase).
      - V(rotated) forgets the old value of O(name), once that is withdrawn.
      - V(revealed) notes that O(by) is given the value of O(name), which is due for rotation from then on.
    type: str
    choices: [present, copied, rotating, rotated, revealed]
    default: present
  name:
    description: The secret that is rotated or revealed.
    type: str
  phase:
    description:
      - Each follows the one before it. One that the rotation has been through changes nothing.
      - With V(prepared) a rotation begins.
    type: str
    choices: [prepared, both_valid, moving, verified, withdrawn]
  by:
    description: Who is given the value.
    type: str
  reason:
    description: Why.
    type: str
  wait_seconds:
    description: So long another run's write is waited for.
    type: int
    default: 30
seealso:
  - module: bitnet.devops.secret_consumers
  - module: bitnet.devops.swarm_content
"""

EXAMPLES = r"""
- name: Keep what is needed
  bitnet.devops.secret_store:
    path: /var/lib/bitnet/environments/staging
    environment: staging
    declared:
      postgresql: {rotate_days: 90}
      smtp: {kind: password, sources: [environment], consumers: [mailer]}
    given: {smtp: "{{ lookup('ansible.builtin.env', 'BITNET_SECRET_SMTP') }}"}
    given_by: {smtp: environment}

- name: Begin a rotation, or see how far one has come
  bitnet.devops.secret_store:
    path: /var/lib/bitnet/environments/staging
    environment: staging
    declared:
      postgresql: {rotate_days: 90}
    state: rotating
    name: postgresql
    phase: prepared
  register: rotation
"""

RETURN = r"""
serial:
  description: Number of the store; each write adds one. In check mode what it would be.
  returned: success
  type: int
actions:
  description: What was done, a sentence for each.
  returned: success
  type: list
  elements: str
secrets:
  description: Of each secret its current version, its source, since when, and the phase of its rotation.
  returned: success
  type: dict
phase:
  description: Phase of the rotation of O(name), empty when there is none.
  returned: when O(name) is given
  type: str
due:
  description:
    - When each that has a period, or was revealed, is to be rotated, the most urgent first.
    - Those that nothing rotates (C(rotates) is false) need a new value in a source.
  returned: success
  type: list
  elements: dict
waiting:
  description: Secrets for which a source has another value, which a rotation has to bring.
  returned: success
  type: list
  elements: str
in_swarm:
  description: For each that is a secret of the Swarm, by the base of its name, the name of its current version.
  returned: success
  type: dict
forgotten:
  description: For each that is a secret of the Swarm, by the base of its name, the names of versions that are no more.
  returned: success
  type: dict
index:
  description: What the Swarm's index is to say of the store, its C(serial), a C(digest) and its current C(versions).
  returned: success, not in check mode
  type: dict
"""

import datetime
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

from ..module_utils._secrets import declaration, keeping, store
from ..module_utils._secrets.declaration import BadInput, Declared

UNKNOWN_YET = "known after it is made"
LONGEST_NAME = 64  # of a secret of the Swarm


class Work:
    """What one call does to the store of its manager."""

    def __init__(self, options: dict[str, t.Any], act: bool) -> None:
        self.options, self.act = options, act
        self.folder = Path(options["path"])
        self.declared = declaration.declared(options["declared"])
        self.given = {
            name: {"value": value, "source": str(options["given_by"].get(name, "variable"))}
            for name, value in options["given"].items()
            if name in self.declared
        }
        self.prefix = f"bitnet-{options['environment']}-secret"
        for name, secret in self.declared.items():
            length = len(f"{self.prefix}-{name}-") + store.ID_LENGTH
            if secret.in_swarm and length > LONGEST_NAME:
                raise BadInput(
                    f"bitnet_secrets.{name}: {self.prefix}-{name}-VERSION has {length} characters, and a secret of the "
                    f"Swarm up to {LONGEST_NAME}; give it a shorter name"
                )
        self.now = datetime.datetime.now(datetime.timezone.utc)

    def do(self) -> dict[str, t.Any]:
        if not self.act and not (self.folder / "secrets").is_dir():
            # No folder for a lock, and nobody who writes: others may have the store.
            return self._done(keeping.load(self.folder, self.options["environment"], self.options["others"]))
        with keeping.locked(self.folder, self.options["wait_seconds"]):
            return self._done(keeping.load(self.folder, self.options["environment"], self.options["others"]))

    def _done(self, before: store.Json | None) -> dict[str, t.Any]:
        own = keeping.text_at(self.folder / keeping.STORE) if before is not None else None
        after, actions = self._after(before)
        text = store.text_of(after)
        if text != own and not actions:
            actions.append(f"store: taken from another manager (serial {after['serial']})")
        written = {keeping.STORE: text, **store.files(after, self.declared)}
        missing = keeping.differing(self.folder, written)
        for below in missing if self.act else []:
            keeping.write(self.folder / below, written[below])
        actions += [f"{below}: written" for below in missing if below != keeping.STORE]
        seen = store.summary(after)
        was = store.summary(before) if before is not None else {}
        if not self.act:
            # A version that is drawn by lot will be another one when it is made.
            known = {one["version"] for one in was.values()}
            seen = {
                name: one if one["version"] in known else {**one, "version": UNKNOWN_YET, "since": UNKNOWN_YET}
                for name, one in seen.items()
            }
        name = self.options["name"]
        return {
            "changed": bool(missing),
            "serial": after["serial"],
            "actions": actions,
            "secrets": seen,
            **({"phase": after["secrets"][name]["phase"]} if name in after["secrets"] else {}),
            "due": store.due(after, self.declared, self.now),
            "waiting": store.waiting(after, self.declared, self.given),
            "in_swarm": store.in_swarm(after, self.declared, self.prefix),
            "forgotten": store.forgotten(after, self.declared, self.prefix),
            **({"index": store.index(after)} if self.act else {}),
            "diff": {"before": {**was, "files": []}, "after": {**seen, "files": missing}},
        }

    def _after(self, before: store.Json | None) -> tuple[store.Json, list[str]]:
        state = self.options["state"]
        if state == "present":
            environment, anew = self.options["environment"], self.options["make_anew"]
            start, said = store.goes_on(
                before, self.options["index"], self.declared, self.given, make_anew=anew, environment=environment
            )
            after, more = store.plan(start, self.declared, self.given, self.options["found"], self.now)
            if said and not more:
                after["serial"] += 1
            return after, said + more
        if before is None:
            raise BadInput(f"path: there is no store of secrets in {self.folder}; run bitnet.devops.secrets first")
        if state == "copied":
            return self._copied(before), []
        secret = self._secret()
        if state == "revealed":
            by, reason = self.options["by"], self.options["reason"]
            return store.reveal(before, secret, by, reason, self.now), [f"{secret.name}: revealed to {by}"]
        if state == "rotated":
            after = store.finish(before, secret)
        elif self.options["phase"] == store.PREPARED:
            after = store.begin(before, secret, self.given, self.now)
        else:
            after = store.advance(before, secret, self.options["phase"], self.now)
        phase = after["secrets"][secret.name]["phase"] or "ended"
        return after, [] if after is before else [f"{secret.name}: the rotation is {phase}"]

    def _copied(self, newest: store.Json) -> store.Json:
        theirs = [store.read(text, self.options["environment"], host) for host, text in self.options["others"].items()]
        if newest["serial"] > max((one["serial"] for one in theirs), default=0):
            raise BadInput(
                f"path: the store in {self.folder} is newer (serial {newest['serial']}) than what it was to take: "
                "another run has written meanwhile. Run again"
            )
        return newest

    def _secret(self) -> Declared:
        name = self.options["name"]
        if name not in self.declared:
            raise BadInput(f"name: {name!r} is not declared; bitnet_secrets has {', '.join(self.declared) or 'none'}")
        return self.declared[name]


def main() -> None:
    """Entry point."""
    values = {"type": "dict", "default": {}, "no_log": True}
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "environment": {"type": "str", "required": True},
            "declared": {"type": "dict", "required": True},
            "given": values,
            "given_by": {"type": "dict", "default": {}},
            "found": values,
            "others": values,
            "index": {"type": "dict", "default": {}},
            "make_anew": {"type": "bool", "default": False},
            "state": {
                "type": "str",
                "choices": ["present", "copied", "rotating", "rotated", "revealed"],
                "default": "present",
            },
            "name": {"type": "str"},
            "phase": {"type": "str", "choices": list(store.PHASES)},
            "by": {"type": "str"},
            "reason": {"type": "str"},
            "wait_seconds": {"type": "int", "default": 30},
        },
        required_if=[
            ("state", "rotating", ("name", "phase")),
            ("state", "rotated", ("name",)),
            ("state", "revealed", ("name", "by", "reason")),
        ],
        supports_check_mode=True,
    )
    try:
        result = Work(module.params, not module.check_mode).do()
    except BadInput as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
