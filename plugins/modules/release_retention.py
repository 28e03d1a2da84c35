#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release_retention
short_description: Removes the images and models of releases that no service needs any more
version_added: 0.2.0
author:
  - "bitnet.devops contributors (@bitnet-devops)"
description:
  - Keeps what any service of the Swarm names, in every environment and whether it has tasks or not. That is the active
    release, and the one that is parked for a rollback. While Swarm updates a service or has paused that, what the
    service named before is kept, too.
  - Keeps what a running task names and what a container on this host runs or has mounted, whoever made it.
  - Of the rest it removes images of O(repositories) from the local daemon, their manifests from the registry of
    this host, and models with their records from O(state_dir). An index goes with the images that it is made of, what
    cosign has put beside an image goes with it, and so does what the role C(image_build) has written of it.
  - Only what carries the label C(io.bitnet.owner=bitnet.devops) goes, and of models only what has a C(model.json) that
    names it.
  - Ended containers of our services go where they hold an image that goes.
  - The registry is looked at only if it is our container on a loopback address of this host, since then nobody else
    pulls from it. It stands still for the moment in which its space is freed, and that only if something was deleted.
extends_documentation_fragment:
  - bitnet.devops.docker
attributes:
  check_mode:
    support: full
    description: Makes the same plan and does not carry it out.
  diff_mode:
    support: full
    description: Lists what goes.
  idempotent:
    support: full
    description: Where everything is needed, nothing is removed and nothing is changed.
options:
  needed:
    description:
      - RV(needed) of a run on a manager of the Swarm, for a host that is none.
      - Left out, the Swarm is asked, and this host has to be a manager of it.
    type: dict
    suboptions:
      images:
        description: Digests of images.
        type: list
        elements: str
        required: true
      models:
        description: SHA-256 of models.
        type: list
        elements: str
        required: true
  keep_images:
    description: Images that are kept as well, by digest, such as one that is about to be rolled out.
    type: list
    elements: str
    default: []
  keep_models:
    description: Models that are kept as well, by their SHA-256.
    type: list
    elements: str
    default: []
  registry:
    description: Address of the registry that the images' names begin with.
    type: str
    default: 127.0.0.1:5000
  registry_container:
    description: Name of the registry's container.
    type: str
    default: bitnet-registry
  repositories:
    description: Repositories in the registry that hold what the collection builds, and nothing else.
    type: list
    elements: str
    default: [bitnet/swarm-intelligence, bitnet/edge]
  state_dir:
    description: Where the collection keeps its state on the target.
    type: path
    default: /var/lib/bitnet
  grace:
    description:
      - Seconds for which an image or a model is kept that nobody needs yet. Another environment's run may have made it
        and be about to name it.
    type: int
    default: 600
notes:
  - A folder in which a model is being made, C(models/.making-*), is left to the next run that goes on in it.
seealso:
  - module: bitnet.devops.oci_image
  - module: bitnet.devops.swarm_service
"""

EXAMPLES = r"""
- name: Remove what no release needs (on a manager)
  bitnet.devops.release_retention:
  register: retention

- name: Remove it on a worker
  bitnet.devops.release_retention:
    needed: "{{ hostvars[groups['swarm_managers'][0]].retention.needed }}"
"""

RETURN = r"""
needed:
  description: What the services and the running tasks of the Swarm name.
  returned: success
  type: dict
  contains:
    images:
      description: Digests of images.
      type: list
      elements: str
    models:
      description: SHA-256 of models.
      type: list
      elements: str
plan:
  description: What was removed, or in check mode would be.
  returned: success
  type: dict
  contains:
    images:
      description: Names of local images.
      type: list
      elements: str
    containers:
      description: Names of ended containers.
      type: list
      elements: str
    manifests:
      description: Manifests in the registry.
      type: list
      elements: str
    models:
      description: Folders of models.
      type: list
      elements: str
    evidence:
      description: Digests of images whose bill of materials and provenance go with them.
      type: list
      elements: str
    records:
      description: Records that say which model a source gave.
      type: list
      elements: str
    collect:
      description: Whether the registry's space is freed.
      type: bool
kept:
  description: What no service needs and stays, and why.
  returned: success
  type: dict
  sample: {"127.0.0.1:5000/bitnet/swarm-intelligence:6b3a5e0d9f4c": "it is younger than 600 s"}
registry:
  description: Whether the registry was looked at, and if not, why.
  returned: success
  type: str
  sample: looked at
"""

import re
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, env_fallback, missing_required_lib

from ..module_utils._retention.client import RetentionClient
from ..module_utils._retention.models import Models
from ..module_utils._retention.plan import DIGEST, SHA256, Found, Manifest, Needed, Plan, Scope, needed, plan
from ..module_utils._retention.registry import Registry, RegistryFailed
from ..module_utils._swarm.client import HAS_DOCKER, Conflict, DockerFailed

LOOPBACK = re.compile(r"(127[.][0-9.]+|localhost):[0-9]+")
# Beside the models, since it has to outlive the run that is killed between deleting and freeing.
UNCOLLECTED = "registry-uncollected"
ANSWER_SECONDS = 30


class BadInput(Exception):
    """An option that cannot be used; the text names it, its value and the way out."""


class Retention:
    """One host: what is there, what of it goes, and its going."""

    def __init__(self, params: t.Mapping[str, t.Any]) -> None:
        self.params = params
        self.client = RetentionClient(params["docker_host"] or "unix:///var/run/docker.sock")
        self.models = Models(params["state_dir"])
        self.uncollected = Path(params["state_dir"]) / UNCOLLECTED
        self.scope = Scope(params["registry"], params["repositories"], time.time(), params["grace"])
        self.registry = Registry(params["registry"])
        self.container, self.registry_seen = self._registry()

    def needed(self) -> Needed:
        given = self.params["needed"]
        if given is not None:
            return _given("needed.images", given["images"], "needed.models", given["models"])
        return needed(self.client.services(), self.client.all_tasks())

    def kept(self) -> Needed:
        images = []
        for image in self.params["keep_images"]:
            digest = DIGEST.search(image)
            if not digest:
                raise BadInput(
                    f"keep_images: {image!r} has no digest, as name@sha256:... with 64 hexadecimal digits has"
                )
            images.append(digest.group())
        return _given("keep_images", images, "keep_models", self.params["keep_models"])

    def _registry(self) -> tuple[dict[str, t.Any] | None, str]:
        address = self.params["registry"]
        if not LOOPBACK.fullmatch(address):
            return None, f"{address} is not on a loopback address: others may pull from it"
        container = self.client.registry(self.params["registry_container"], address)
        if container is None:
            name = self.params["registry_container"]
            return None, f"this host has no container {name} of ours that listens on {address}"
        return container, "looked at"

    def _manifests(self, act: bool) -> list[Manifest]:
        if self.container is None:
            return []
        if not self.container["State"]["Running"]:
            if not self.uncollected.exists():
                self.registry_seen = "it is stopped, and not by an earlier run of this module"
                return []
            if not act:
                self.registry_seen = "an earlier run left it stopped: what it holds is known after it is started"
                return []
            self.client.start(self.container["Id"])
            self.registry.await_answer(ANSWER_SECONDS)
        return [manifest for name in self.params["repositories"] for manifest in self.registry.manifests(name)]

    def plan(self, wanted: Needed, act: bool) -> Plan:
        manifests = self._manifests(act)
        found = Found(
            images=self.client.images(self.scope),
            containers=self.client.containers(),
            manifests=manifests,
            models=self.models.models(),
            records=self.models.records(),
            leftovers=self.models.leftovers(),
            evidence=self.models.evidence(),
            registry_seen=self.registry_seen == "looked at",
            uncollected=self.container is not None and self.uncollected.exists(),
        )
        return plan(found, wanted, self.scope)

    def carry_out(self, made: Plan) -> None:
        for name in made.records:
            self.models.remove_record(name)
        for name in made.leftovers:
            self.models.finish(name)
        for digest in made.evidence:
            self.models.remove_evidence(digest)
        for sha256 in made.models:
            self.models.remove(sha256)
        for container in made.containers:
            self.client.remove_container(container)
        for reference in made.images:
            self.client.remove_image(reference)
        if made.collect and self.container is not None:
            self.uncollected.parent.mkdir(parents=True, exist_ok=True)
            self.uncollected.touch()
            for manifest in made.manifests:
                self.registry.delete(manifest)
            self.client.collect(self.container)
            self.registry.await_answer(ANSWER_SECONDS)
            self.uncollected.unlink()


def _given(images_option: str, images: t.Iterable[str], models_option: str, models: t.Iterable[str]) -> Needed:
    for option, pattern, values in ((images_option, DIGEST, images), (models_option, SHA256, models)):
        for value in values:
            if not pattern.fullmatch(value):
                form = "sha256: and 64 hexadecimal digits" if pattern is DIGEST else "64 hexadecimal digits"
                raise BadInput(f"{option}: {value!r} is not {form}")
    return Needed(frozenset(images), frozenset(models))


def main() -> None:
    names: dict[str, t.Any] = {"type": "list", "elements": "str"}
    module = AnsibleModule(
        argument_spec={
            "needed": {
                "type": "dict",
                "options": {"images": {**names, "required": True}, "models": {**names, "required": True}},
            },
            "keep_images": {**names, "default": []},
            "keep_models": {**names, "default": []},
            "registry": {"type": "str", "default": "127.0.0.1:5000"},
            "registry_container": {"type": "str", "default": "bitnet-registry"},
            "repositories": {**names, "default": ["bitnet/swarm-intelligence", "bitnet/edge"]},
            "state_dir": {"type": "path", "default": "/var/lib/bitnet"},
            "grace": {"type": "int", "default": 600},
            "docker_host": {"type": "str", "fallback": (env_fallback, ["DOCKER_HOST"])},
        },
        supports_check_mode=True,
    )
    if not HAS_DOCKER:
        module.fail_json(msg=missing_required_lib("docker"))
    try:
        retention = Retention(module.params)
        kept = retention.kept()
        wanted = retention.needed()
        made = retention.plan(wanted | kept, not module.check_mode)
        if not module.check_mode:
            retention.carry_out(made)
    except Conflict as error:
        module.fail_json(msg=f"what was to go is used by now; run again ({error})")
    except (BadInput, DockerFailed, RegistryFailed) as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"state_dir: {error}. Run again; it goes on where it stopped")
    result: dict[str, t.Any] = {
        "changed": made.changed,
        "needed": {"images": sorted(wanted.images), "models": sorted(wanted.models)},
        "plan": made.summary(),
        "kept": made.kept,
        "registry": retention.registry_seen,
    }
    if made.changed:
        going = {kind: names for kind, names in made.summary().items() if names}
        result["diff"] = {"before": going, "after": {}}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
