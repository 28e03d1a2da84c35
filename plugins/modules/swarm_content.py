#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: swarm_content
short_description: Keeps a config or a secret of a Docker Swarm under a name made of its content
version_added: 0.1.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Configs and secrets of a Swarm cannot be changed. A new content gets a new name, the service moves to it, and
    then the old ones are collected.
  - With O(state=present) the content exists under the name that is returned. With O(state=collected) the other contents
    of the same O(base) are removed as far as no service refers to them.
  - The name of a config ends in a hash of the content. That of a secret ends in a hash that is keyed with O(key), so
    that a weak value cannot be guessed from it.
extends_documentation_fragment:
  - bitnet.devops.docker
attributes:
  check_mode:
    support: full
    description: Returns the same name and changes nothing.
  diff_mode:
    support: full
    description: Shows the text of a config, and of a secret only the name.
  idempotent:
    support: full
    description: The same content is created once.
options:
  base:
    description: Beginning of the name. It stands for what the content is, whatever its version.
    type: str
    required: true
  config:
    description: Content of a config.
    type: str
  secret:
    description: Content of a secret.
    type: str
  key:
    description: Key of the hash in the name of a secret, at least 32 characters. Required with O(secret).
    type: str
  labels:
    description: More labels. Those of the owner, the schema and the base are added.
    type: dict
  state:
    description:
      - V(present) creates the content.
      - V(collected) removes the other versions that nobody uses.
    type: str
    choices: [present, collected]
    default: present
  keep:
    description: So many of the newest other versions stay with O(state=collected), as a history.
    type: int
    default: 0
    version_added: 0.2.0
  only:
    description: With O(state=collected) only versions of these names are removed. Left out, all that nobody uses.
    type: list
    elements: str
    version_added: 0.2.0
seealso:
  - module: bitnet.devops.swarm_service
"""

EXAMPLES = r"""
- name: Keep the configuration
  bitnet.devops.swarm_content:
    base: web-configuration
    config: "{{ lookup('ansible.builtin.template', 'web.conf.j2') }}"
  register: configuration

- name: Run the service with it
  bitnet.devops.swarm_service:
    name: web
    image: registry.example.org/web@sha256:0f3c2f3a8d5a8e5d2f4d6b6d1f2d5ab54a7c1a9b6f8f4f5a1d3c7f0b2e9d8c7a
    configs:
      - source: "{{ configuration.name }}"
        target: /etc/web.conf

- name: Remove earlier configurations
  bitnet.devops.swarm_content:
    base: web-configuration
    config: "{{ lookup('ansible.builtin.template', 'web.conf.j2') }}"
    state: collected
"""

RETURN = r"""
name:
  description: Name of the config or secret with this content.
  returned: success
  type: str
  sample: web-configuration-6b3a5e0d9f4c
removed:
  description: Names of the versions that were removed, or in check mode would be.
  returned: success
  type: list
  elements: str
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._swarm import content
from ..module_utils._swarm.client import HAS_DOCKER, Conflict, DockerFailed, SwarmClient
from ..module_utils._swarm.plan import Refused


def present(client: SwarmClient, kind: str, wanted: content.Wanted, act: bool) -> dict[str, t.Any]:
    objects = client.contents(kind)
    if content.find(wanted.name, objects):
        return {"changed": False, "removed": []}
    if act:
        client.create_content(kind, wanted.name, wanted.data, wanted.labels)
    older = content.versions(wanted.base, objects)[:1]
    diff = {
        "before_header": "".join(old["Spec"]["Name"] for old in older) or "none",
        "before": "".join(content.text(old) for old in older),
        "after_header": wanted.name,
        "after": wanted.data.decode() if kind == "config" else "(a secret is not shown)\n",
    }
    return {"changed": True, "removed": [], "diff": diff}


def collected(
    client: SwarmClient, kind: str, wanted: content.Wanted, *, keep: int, only: list[str] | None, act: bool
) -> dict[str, t.Any]:
    in_use = content.used(client.services())
    others = [
        version
        for version in content.versions(wanted.base, client.contents(kind))
        if version["Spec"]["Name"] != wanted.name
    ]
    old = [version for version in others[keep:] if version["Spec"]["Name"] not in in_use]
    if only is not None:
        old = [version for version in old if version["Spec"]["Name"] in only]
    for version in old if act else []:
        client.remove_content(kind, version["ID"])
    names = [version["Spec"]["Name"] for version in old]
    return {"changed": bool(old), "removed": names, "diff": {"before": {"old": names}, "after": {"old": []}}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "base": {"type": "str", "required": True},
            "config": {"type": "str"},
            "secret": {"type": "str", "no_log": True},
            "key": {"type": "str", "no_log": True},
            "labels": {"type": "dict"},
            "state": {"type": "str", "choices": ["present", "collected"], "default": "present"},
            "keep": {"type": "int", "default": 0},
            "only": {"type": "list", "elements": "str"},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        mutually_exclusive=[("config", "secret"), ("config", "key")],
        required_one_of=[("config", "secret")],
        required_by={"secret": "key"},
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    options = module.params
    kind = "config" if options["secret"] is None else "secret"
    try:
        wanted = content.wanted(options["base"], options[kind], options["key"], options["labels"])
        client = SwarmClient(options["docker_host"] or "unix:///var/run/docker.sock")
        act = not module.check_mode
        if options["state"] == "present":
            result = present(client, kind, wanted, act)
        else:
            result = collected(client, kind, wanted, keep=max(options["keep"], 0), only=options["only"], act=act)
    except Conflict as error:
        module.fail_json(msg=f"{wanted.name} was created by somebody else at the same time; run again ({error})")
    except (Refused, DockerFailed) as error:
        module.fail_json(msg=str(error))
    module.exit_json(name=wanted.name, **result)


if __name__ == "__main__":
    main()
