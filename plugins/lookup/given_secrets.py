# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup given_secrets: it asks the sources of the controller and decides nothing."""

from __future__ import annotations

DOCUMENTATION = r"""
name: given_secrets
short_description: Values of declared secrets that a source on the controller has
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Takes each declared secret from the first of its sources that has a value. One that none has is left out. For these
    the role C(bitnet.devops.secrets) keeps or generates one.
  - A file that SOPS has encrypted is read by P(community.sops.sops#lookup), once for all secrets, and only if one of
    them has V(sops) among its sources. Its settings hold, as C(SOPS_AGE_KEY_FILE) in the environment or
    C(sops_age_keyfile).
  - Whoever uses it sets C(no_log), since the result is values.
options:
  _terms:
    description: The declaration, as the variable C(bitnet_secrets) of the role.
    type: list
    elements: dict
    required: true
  values:
    description:
      - Values in variables, by name, for the source V(variable). They may be from Ansible's vault, from the vars plugin
        of community.sops, or extra variables of a credential of AWX.
    type: dict
    default: {}
  sops_file:
    description: The encrypted file, YAML or JSON, a dictionary from names to values, for the source V(sops).
    type: str
    default: ""
seealso:
  - plugin: community.sops.sops
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Read what is given
  ansible.builtin.set_fact:
    given: "{{ lookup('bitnet.devops.given_secrets', {'smtp': {'kind': 'password'}}, sops_file='secrets.sops.yaml') }}"
  no_log: true
"""

RETURN = r"""
_list:
  description: One dictionary. C(secrets) has the values and C(sources) where each is from, both by name.
  type: list
  elements: dict
"""

import json
import os
import typing as t

from ansible.errors import AnsibleError, AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase
from ansible_collections.bitnet.devops.plugins.module_utils._secrets import declaration


class LookupModule(LookupBase):
    """What Ansible looks for in this file."""

    def run(
        self, terms: list[t.Any], variables: dict[str, t.Any] | None = None, **kwargs: t.Any
    ) -> list[dict[str, t.Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        found: dict[str, dict[str, str]] = {"secrets": {}, "sources": {}}
        try:
            for term in terms:
                secrets = declaration.declared(term)
                asked = self._sources(secrets, variables)
                for name, secret in secrets.items():
                    for source in secret.sources:
                        key = secret.environment if source == "environment" else name
                        value = asked.get(source, {}).get(key)
                        if value not in (None, ""):
                            found["secrets"][name] = declaration.fitting(secret, value, source)
                            found["sources"][name] = source
                            break
        except declaration.BadInput as error:
            raise AnsibleLookupError(str(error)) from error
        return [found]

    def _sources(
        self, secrets: dict[str, declaration.Declared], variables: dict[str, t.Any] | None
    ) -> dict[str, t.Mapping[str, t.Any]]:
        asked: dict[str, t.Mapping[str, t.Any]] = {"variable": self.get_option("values"), "environment": os.environ}
        if self.get_option("sops_file") and any("sops" in secret.sources for secret in secrets.values()):
            asked["sops"] = self._decrypted(self.get_option("sops_file"), variables)
        return asked

    def _decrypted(self, file: str, variables: dict[str, t.Any] | None) -> t.Mapping[str, t.Any]:
        sops = lookup_loader.get("community.sops.sops", loader=self._loader, templar=self._templar)
        if sops is None:
            raise declaration.BadInput(
                f"secrets_sops_file is {file!r}, and the collection community.sops is not there to read it: "
                "ansible-galaxy collection install community.sops"
            )
        try:
            text = sops.run([file], variables, output_type="json")[0]
        except AnsibleError as error:
            raise declaration.BadInput(
                f"secrets_sops_file: {file} cannot be decrypted: {str(error).strip()[:500]}. The program sops "
                "must be on the controller's PATH, and the key of age where SOPS_AGE_KEY_FILE or sops_age_keyfile says"
            ) from error
        decrypted = json.loads(text)
        if not isinstance(decrypted, dict):
            raise declaration.BadInput(
                f"secrets_sops_file: {file} holds no dictionary from names to values; write it so"
            )
        return decrypted
