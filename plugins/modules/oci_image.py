#!/usr/bin/python
# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes an image that is named by its content."""

from __future__ import annotations

DOCUMENTATION = r"""
module: oci_image
version_added: 0.1.0
short_description: Build an image that is named by its content, and push it
author:
  - bitnet.devops contributors (@bitnet-devops)
description:
  - Computes a hash over everything that a build is given (the files of its context, the id of the base image,
    arguments, labels), and uses it as the image's tag. Where an image of that tag exists, nothing is built and nothing
    is changed.
  - With O(push=true) the registry decides whether it exists; otherwise the local daemon does.
  - The context is put together from files of the controller and of the target, and streamed to the daemon with owners
    and times that are always the same. Nothing is copied to a folder.
  - It uses the C(docker) command of the target, and so the log-ins of the user that the task runs as.
options:
  name:
    description: Repository of the image without a tag, for example V(127.0.0.1:5000/bitnet/swarm-intelligence).
    type: str
    required: true
  context:
    description: What the build context consists of. One of its files must be C(Dockerfile).
    type: list
    elements: dict
    required: true
    suboptions:
      src:
        description: File or folder, on the controller unless O(context[].remote_src=true).
        type: path
        required: true
      dest:
        description: Name in the context; V(.) for the context itself.
        type: str
        required: true
      remote_src:
        description: Whether O(context[].src) is on the target.
        type: bool
        default: false
      exclude:
        description:
          - Shell patterns of names, at any depth, that are left out.
          - C(__pycache__), C(*.pyc), C(*.egg-info) and names that begin with a dot are always left out.
        type: list
        elements: str
        default: []
      digest:
        description:
          - A hash that already stands for the content of O(context[].src); its files are then not read unless a
            build is needed.
          - For what is on the controller it is computed there.
        type: str
  archive:
    description:
      - An archive on the target with the part of the context that is on the controller.
      - Set by the action plugin of this module.
    type: path
  base_image:
    description:
      - A local image that the build argument E(BASE_IMAGE) is set to; its id is a part of the content.
    type: str
    required: true
  build_args:
    description: More build arguments. They can be read from the image, so they must not be secret.
    type: dict
    default: {}
  labels:
    description:
      - Labels of the image.
      - C(io.bitnet.owner), C(io.bitnet.schema) and C(io.bitnet.content) are always set.
    type: dict
    default: {}
  target:
    description: Stage of the Dockerfile to build; the last one by default.
    type: str
  push:
    description: Whether the image is pushed to the registry that O(name) begins with.
    type: bool
    default: false
  docker_host:
    description: The Docker daemon.
    type: str
    default: unix:///var/run/docker.sock
  build_timeout:
    description: Seconds after which a build is ended.
    type: int
    default: 1800
  push_timeout:
    description: Seconds after which a push is ended.
    type: int
    default: 900
attributes:
  check_mode:
    support: full
    description: Nothing is built. What only a build can tell is returned as V(known after build).
  diff_mode:
    support: full
    description: Shows the tag, the digest and the content that it is made of.
  idempotent:
    support: full
    description: The same content is built once.
requirements:
  - The command docker on the target
"""

EXAMPLES = r"""
- name: Build and push
  bitnet.devops.oci_image:
    name: 127.0.0.1:5000/bitnet/edge
    base_image: debian:bookworm-slim
    context:
      - src: "{{ role_path }}/files/edge"
        dest: .
    push: true
  register: edge

- name: Use it by digest
  ansible.builtin.debug:
    msg: "{{ edge.image }}"
"""

RETURN = r"""
image:
  description: Reference of the image; by digest if it was pushed, otherwise by tag.
  returned: success
  type: str
  sample: 127.0.0.1:5000/bitnet/edge@sha256:6b3a5e0d9f4c8e2b7a1d0c9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b
tag:
  description: The tag, 12 hexadecimal digits of RV(content).
  returned: success
  type: str
  sample: 6b3a5e0d9f4c
content:
  description: Hash of what the image is made of.
  returned: success
  type: str
digest:
  description: Digest in the registry.
  returned: when O(push=true)
  type: str
size_compressed_bytes:
  description: Size of the layers and the configuration as the registry holds them.
  returned: when O(push=true) and the image exists
  type: int
built:
  description: Whether this run has built it.
  returned: success
  type: bool
seconds:
  description: Where the time went, by phase.
  returned: success
  type: dict
  sample: {look: 0.2, build: 81.4, push: 6.3}
"""

import contextlib
import errno
import os
import tempfile
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bitnet.devops.plugins.module_utils._oci import content as oci
from ansible_collections.bitnet.devops.plugins.module_utils._oci.docker import Docker, Unavailable

ARGUMENTS: dict[str, t.Any] = {
    "name": {"type": "str", "required": True},
    "context": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "src": {"type": "path", "required": True},
            "dest": {"type": "str", "required": True},
            "remote_src": {"type": "bool", "default": False},
            "exclude": {"type": "list", "elements": "str", "default": []},
            "digest": {"type": "str"},
        },
    },
    "archive": {"type": "path"},
    "base_image": {"type": "str", "required": True},
    "build_args": {"type": "dict", "default": {}},
    "labels": {"type": "dict", "default": {}},
    "target": {"type": "str"},
    "push": {"type": "bool", "default": False},
    "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
    "build_timeout": {"type": "int", "default": 1800},
    "push_timeout": {"type": "int", "default": 900},
}


class Image:
    """One image: what it is made of, whether it exists, and how it comes to be."""

    def __init__(self, params: dict[str, t.Any], check_mode: bool) -> None:
        self.params = params
        self.check_mode = check_mode
        self.docker = Docker(params["docker_host"])
        self.seconds: dict[str, float] = {}

    def make(self) -> dict[str, t.Any]:
        with self._timed("look"):
            parts = self._parts()
            if parts is None:
                return self._unknown()
            content = oci.content(parts)
            tag = content[: oci.TAG_LENGTH]
            reference = f"{self.params['name']}:{tag}"
            found = self._existing(reference)
        result: dict[str, t.Any] = {"built": False, "changed": found is None, "content": content}
        result.update(image=reference, tag=tag)
        if found is None and not self.check_mode:
            found = self._build_and_push(reference, content)
            result["built"] = True
        if self.params["push"]:
            result["digest"] = oci.UNKNOWN
        if isinstance(found, oci.Published):
            result.update(digest=found.digest, size_compressed_bytes=found.size)
            result["image"] = f"{self.params['name']}@{found.digest}"
        if result["changed"]:
            after = {"image": reference, "digest": result.get("digest"), "made of": parts}
            result["diff"] = {"before": {}, "after": after}
        return result

    @contextlib.contextmanager
    def _timed(self, phase: str) -> t.Iterator[None]:
        begin = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = round(time.monotonic() - begin, 2)

    def _unknown(self) -> dict[str, t.Any]:
        """The answer of check mode where something that goes into the image does not exist yet."""
        result: dict[str, t.Any] = dict.fromkeys(("image", "tag", "content", "digest"), oci.UNKNOWN)
        after = {"image": f"{self.params['name']} ({oci.UNKNOWN})"}
        return {**result, "changed": True, "built": False, "diff": {"before": {}, "after": after}}

    def _parts(self) -> dict[str, t.Any] | None:
        """Everything that the build is given, by what it contains; nothing if check mode cannot know it."""
        params = self.params
        try:
            base_id = self.docker.image_id(params["base_image"])
        except Unavailable:
            if self.check_mode:
                return None
            raise
        if base_id is None:
            if self.check_mode:
                return None
            raise oci.ImageError(
                f"base_image: the daemon at {params['docker_host']} has no image {params['base_image']}. Pull it, or "
                "let the role bitnet.devops.image_build provide one."
            )
        files = {}
        for item in params["context"]:
            if not item["digest"] and self.check_mode and not Path(item["src"]).exists():
                return None
            files[item["dest"]] = item["digest"] or oci.digest(oci.entries_of(item))
        return {
            "base": base_id,
            "build_args": {key: str(value) for key, value in params["build_args"].items()},
            "context": files,
            "labels": {key: str(value) for key, value in params["labels"].items()},
            "target": params["target"],
        }

    def _existing(self, reference: str) -> oci.Published | str | None:
        try:
            return self.docker.published(reference) if self.params["push"] else self.docker.image_id(reference)
        except Unavailable:
            if self.check_mode:
                return None  # the registry, too, may be something that a run would start
            raise

    def _build_and_push(self, reference: str, content: str) -> oci.Published | str | None:
        with self._timed("build"):
            self._build(reference, content)
        if not self.params["push"]:
            return reference
        with self._timed("push"):
            self.docker.push(reference, self.params["push_timeout"])
            found = self.docker.published(reference)
        if found is None:
            raise oci.ImageError(
                f"{reference} was pushed, but the registry does not give one manifest for it: "
                f"'docker manifest inspect {reference}' shows what it has."
            )
        return found

    def _build(self, reference: str, content: str) -> None:
        params = self.params
        if not params["archive"] and not all(item["remote_src"] for item in params["context"]):
            raise oci.ImageError("context: the controller's files come through the action plugin of this module only.")
        found = [entry for item in params["context"] if item["remote_src"] for entry in oci.entries_of(item)]
        arguments = ["--tag", reference, "--build-arg", f"BASE_IMAGE={params['base_image']}"]
        for key, value in params["build_args"].items():
            arguments += ["--build-arg", f"{key}={value}"]
        labels = {
            **params["labels"],
            "io.bitnet.owner": "bitnet.devops",
            "io.bitnet.schema": oci.SCHEMA,
            "io.bitnet.content": content,
        }
        for key, value in sorted(labels.items()):
            arguments += ["--label", f"{key}={value}"]
        if params["target"]:
            arguments += ["--target", params["target"]]
        handle, path = tempfile.mkstemp(prefix="bitnet-image-", suffix=".log")
        os.close(handle)
        log = Path(path)
        self.docker.build(
            arguments, lambda stream: oci.write_tar(stream, found, params["archive"]), log, params["build_timeout"]
        )
        log.unlink()


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    image = Image(module.params, module.check_mode)
    try:
        result = image.make()
    except oci.ImageError as error:
        module.fail_json(msg=str(error), seconds=image.seconds, **error.details)
    except OSError as error:
        where = error.filename or tempfile.gettempdir()
        full = f" Free some space there ('df -h {where}')." if error.errno == errno.ENOSPC else ""
        module.fail_json(msg=f"{where} cannot be used: {error.strerror or error}.{full}", seconds=image.seconds)
    module.exit_json(seconds=image.seconds, **result)


if __name__ == "__main__":
    main()
