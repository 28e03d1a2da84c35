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
    and times that are always the same. Only with O(platforms) is it copied, to O(work_dir).
  - It uses the C(docker) command of the target, and so the log-ins of the user that the task runs as.
  - With O(platforms) it makes one OCI index of an image per platform, in the registry and not in the daemon. Each is
    built by C(buildx) where its selected builder can, otherwise by C(buildah), with one time for all files, and so
    the same content with the same base, packages and builder gives the same digest. Without O(platforms) the daemon
    builds, which is faster with what it has cached, and which writes the time of the build into the image.
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
      platform:
        description:
          - The one of O(platforms) whose context this is for; all of them by default.
          - Only with O(context[].remote_src=true).
        type: str
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
      - With O(platforms) a reference by digest of an index in a registry, V(registry/name@sha256:...), or V(scratch).
    type: str
    required: true
  platforms:
    description:
      - Platforms to build for, as V(linux/amd64) or V(linux/arm64). Needs O(push=true), and C(skopeo) on the target.
      - Programs that the build runs are run by the host's emulator (C(qemu-user-static), C(binfmt_misc)) where the host
        is of another platform.
      - By default the platform of the Docker daemon, built by that daemon.
    type: list
    elements: str
    default: []
  work_dir:
    description:
      - Folder on the target for what O(platforms) needs while it builds, and for the layers that C(buildah) keeps.
    type: path
    default: /var/lib/bitnet/cache/images
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
  - With O(platforms) the command skopeo, and buildx with a builder for the platforms or buildah
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

- name: Build one index for servers of both architectures
  bitnet.devops.oci_image:
    name: registry.example.com/bitnet/edge
    base_image: docker.io/library/debian@sha256:6b3a5e0d9f4c8e2b7a1d0c9f8e7d6c5b4a39281706f5e4d3c2b1a09f8e7d6c5b
    platforms: [linux/amd64, linux/arm64]
    context:
      - src: "{{ role_path }}/files/edge"
        dest: .
    push: true

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
base:
  description: Id of the base image; with O(platforms) its digest, or V(scratch).
  returned: success, but not where check mode cannot know it
  type: str
digest:
  description: Digest in the registry; with O(platforms) that of the index.
  returned: when O(push=true)
  type: str
size_compressed_bytes:
  description:
    - Size of the layers and the configuration as the registry holds them.
    - With O(platforms) that of the largest image, since a host pulls one of them.
  returned: when O(push=true) and the image exists
  type: int
platforms:
  description: By platform, digest and size of its image.
  returned: with O(platforms), when the index exists
  type: dict
  sample: {linux/arm64: {digest: "sha256:6b3a5e0d9f4c...", size_compressed_bytes: 71235911}}
builder:
  description: What has built, V(buildx) or V(buildah).
  returned: with O(platforms), when RV(built=true)
  type: str
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
import fcntl
import os
import re
import shutil
import tempfile
import time
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.bitnet.devops.plugins.module_utils._oci import content as oci
from ansible_collections.bitnet.devops.plugins.module_utils._oci import layout as layouts
from ansible_collections.bitnet.devops.plugins.module_utils._oci import platforms as tools
from ansible_collections.bitnet.devops.plugins.module_utils._oci.docker import Docker, Unavailable

PLATFORM = re.compile(r"linux/[a-z0-9]+")
BY_DIGEST = re.compile(r"[^\s@]+@(sha256:[0-9a-f]{64})")

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
            "platform": {"type": "str"},
            "digest": {"type": "str"},
        },
    },
    "archive": {"type": "path"},
    "base_image": {"type": "str", "required": True},
    "platforms": {"type": "list", "elements": "str", "default": []},
    "work_dir": {"type": "path", "default": "/var/lib/bitnet/cache/images"},
    "build_args": {"type": "dict", "default": {}},
    "labels": {"type": "dict", "default": {}},
    "target": {"type": "str"},
    "push": {"type": "bool", "default": False},
    "docker_host": {"type": "str", "default": "unix:///var/run/docker.sock"},
    "build_timeout": {"type": "int", "default": 1800},
    "push_timeout": {"type": "int", "default": 900},
}


Found = t.Union[oci.Published, layouts.Index, str, None]


class Image:
    """One image: what it is made of, whether it exists, and how it comes to be."""

    def __init__(self, params: dict[str, t.Any], check_mode: bool) -> None:
        self.params = params
        self.check_mode = check_mode
        self.docker = Docker(params["docker_host"])
        self.seconds: dict[str, float] = {}
        self.builder = ""
        self.platforms: list[str] = sorted(set(params["platforms"]))
        self._refuse()

    def _refuse(self) -> None:
        for item in self.params["context"]:
            if not item["platform"]:
                continue
            if item["platform"] not in self.platforms:
                known = ", ".join(self.platforms) or "platforms, which is empty"
                raise oci.ImageError(f"context: platform '{item['platform']}' is none of {known}.")
            if not item["remote_src"]:
                raise oci.ImageError(f"context: '{item['src']}' is for one platform; that needs remote_src: true.")

    def make(self) -> dict[str, t.Any]:
        with self._timed("look"):
            parts = self._parts()
            if parts is None:
                return self._unknown()
            content = oci.content(parts)
            tag = content[: oci.TAG_LENGTH]
            reference = f"{self.params['name']}:{tag}"
            found = self._look(reference)
        result: dict[str, t.Any] = {"built": False, "changed": found is None, "content": content}
        result.update(image=reference, tag=tag, base=parts["base"])
        if found is None and not self.check_mode:
            found = self._build_and_push(reference, content)
            result["built"] = True
        if self.params["push"]:
            result["digest"] = oci.UNKNOWN
        result.update(self._told(found))
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
            self.seconds[phase] = round(self.seconds.get(phase, 0) + time.monotonic() - begin, 2)

    def _unknown(self) -> dict[str, t.Any]:
        """The answer of check mode where something that goes into the image does not exist yet."""
        result: dict[str, t.Any] = dict.fromkeys(("image", "tag", "content", "digest"), oci.UNKNOWN)
        after = {"image": f"{self.params['name']} ({oci.UNKNOWN})"}
        return {**result, "changed": True, "built": False, "diff": {"before": {}, "after": after}}

    def _parts(self) -> dict[str, t.Any] | None:
        """Everything that the build is given, by what it contains; nothing if check mode cannot know it."""
        params = self.params
        base = self._base()
        if base is None:
            return None
        files: dict[str, str] = {}
        for item in params["context"]:
            if not item["digest"] and self.check_mode and not Path(item["src"]).exists():
                return None
            dest = f"{item['platform']} {item['dest']}" if item["platform"] else item["dest"]
            digest = item["digest"] or oci.digest(oci.entries_of(item))
            files[dest] = f"{files[dest]} {digest}" if dest in files else digest  # several may fill one folder
        return {
            "base": base,
            "build_args": {key: str(value) for key, value in params["build_args"].items()},
            "context": files,
            "labels": {key: str(value) for key, value in params["labels"].items()},
            "target": params["target"],
        }

    def _base(self) -> str | None:
        """What identifies the base image; nothing if check mode cannot know it."""
        image, host = self.params["base_image"], self.params["docker_host"]
        try:
            found = self.docker.image_id(image)
        except Unavailable:
            if self.check_mode:
                return None
            raise
        if found is None and not self.check_mode:
            raise oci.ImageError(
                f"base_image: the daemon at {host} has no image {image}. Pull it, or let the role "
                "bitnet.devops.image_build provide one."
            )
        return found

    def _look(self, reference: str) -> Found:
        try:
            return self._existing(reference)
        except Unavailable:
            if self.check_mode:
                return None  # the registry, too, may be something that a run would start
            raise

    def _existing(self, reference: str) -> Found:
        return self.docker.published(reference) if self.params["push"] else self.docker.image_id(reference)

    def _told(self, found: Found) -> dict[str, t.Any]:
        """What the result says of an image that a registry holds."""
        if not isinstance(found, (oci.Published, layouts.Index)):
            return {}
        told: dict[str, t.Any] = {"digest": found.digest, "size_compressed_bytes": found.size}
        if isinstance(found, layouts.Index):
            told["platforms"] = {
                part.platform: {"digest": part.digest, "size_compressed_bytes": part.size} for part in found.parts
            }
        if self.builder:
            told["builder"] = self.builder
        return {**told, "image": f"{self.params['name']}@{found.digest}"}

    def _build_and_push(self, reference: str, content: str) -> Found:
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
        write = self._context()
        arguments = ["--tag", reference, "--build-arg", f"BASE_IMAGE={params['base_image']}"]
        for key, value in params["build_args"].items():
            arguments += ["--build-arg", f"{key}={value}"]
        for key, value in sorted(self._labels(content).items()):
            arguments += ["--label", f"{key}={value}"]
        if params["target"]:
            arguments += ["--target", params["target"]]
        log = self._log()
        self.docker.build(arguments, write, log, params["build_timeout"])
        log.unlink()

    def _context(self, platform: str | None = None) -> t.Callable[[t.IO[bytes]], None]:
        """What writes the build context, of one platform if there are several, as a tar to a stream."""
        params = self.params
        if not params["archive"] and not all(item["remote_src"] for item in params["context"]):
            raise oci.ImageError("context: the controller's files come through the action plugin of this module only.")
        remote = [item for item in params["context"] if item["remote_src"]]
        items = [item for item in remote if (item["platform"] or platform) == platform]
        found = [entry for item in items for entry in oci.entries_of(item)]
        return lambda stream: oci.write_tar(stream, found, params["archive"])

    def _labels(self, content: str) -> dict[str, str]:
        return {
            **{key: str(value) for key, value in self.params["labels"].items()},
            "io.bitnet.owner": "bitnet.devops",
            "io.bitnet.schema": oci.SCHEMA,
            "io.bitnet.content": content,
        }

    @staticmethod
    def _log() -> Path:
        handle, path = tempfile.mkstemp(prefix="bitnet-image-", suffix=".log")
        os.close(handle)
        return Path(path)


class Index(Image):
    """One image for several platforms."""

    def __init__(self, params: dict[str, t.Any], check_mode: bool) -> None:
        super().__init__(params, check_mode)
        self.work_dir = Path(params["work_dir"])
        self.skopeo = tools.Skopeo(params["name"])

    def _refuse(self) -> None:
        if not self.params["push"]:
            raise oci.ImageError("platforms: an index lives in a registry. Set push to true.")
        for platform in self.platforms:
            if not PLATFORM.fullmatch(platform):
                raise oci.ImageError(f"platforms: '{platform}' is no platform. Write it as linux/amd64 or linux/arm64.")
        super()._refuse()

    def _parts(self) -> dict[str, t.Any] | None:
        parts = super()._parts()
        return parts and {**parts, "platforms": self.platforms}

    def _base(self) -> str | None:
        image = self.params["base_image"]
        match = BY_DIGEST.fullmatch(image)
        if match:
            return match.group(1)
        if image == "scratch":
            return image
        if self.check_mode:
            return None  # it may be something that a run would make
        raise oci.ImageError(
            f"base_image: '{image}' is not by digest. With platforms it must be, as in "
            "docker.io/library/debian@sha256:..., so that each platform has the same."
        )

    def _existing(self, reference: str) -> Found:
        name = self.params["name"]
        found = self.skopeo.index(name, reference[len(name) :])
        if found is None or [part.platform for part in found.parts] == self.platforms:
            return found
        raise oci.ImageError(
            f"The registry has {reference} for {', '.join(part.platform for part in found.parts) or 'no platform'}, "
            f"not for {', '.join(self.platforms)}: something else has taken that tag. Delete it there."
        )

    def _build_and_push(self, reference: str, content: str) -> Found:
        log = self._log()
        with self._alone() as folder:
            found = self._existing(reference)  # whoever was before us may have built it
            if found is None:
                with self._timed("build"):
                    digest = self._build_index(folder, content, log)
                with self._timed("push"):
                    self.skopeo.push(layouts.Layout(folder / "index"), reference, log, self.params["push_timeout"])
                    found = self._existing(reference)
                if not isinstance(found, layouts.Index) or found.digest != digest:
                    has = found.digest if isinstance(found, layouts.Index) else "nothing"
                    raise oci.ImageError(
                        f"{reference} was pushed with the digest {digest}, but the registry gives {has}: "
                        f"'skopeo inspect --raw docker://{reference}' shows what it has."
                    )
        log.unlink()
        return found

    @contextlib.contextmanager
    def _alone(self) -> t.Iterator[Path]:
        """A folder to build in, while no other run builds; what a killed run left is removed."""
        self.work_dir.mkdir(parents=True, exist_ok=True)
        deadline = time.monotonic() + self.params["build_timeout"]
        with (self.work_dir / "lock").open("w") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise oci.ImageError(
                            f"work_dir: another build in {self.work_dir} did not end within "
                            f"{self.params['build_timeout']} s (build_timeout): 'fuser -v {lock.name}' shows it"
                        ) from None
                    time.sleep(1)
            for left in self.work_dir.glob("building-*"):
                shutil.rmtree(left)
            folder = Path(tempfile.mkdtemp(prefix="building-", dir=self.work_dir))
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    def _build_index(self, folder: Path, content: str, log: Path) -> str:
        """Leaves the index as a layout in FOLDER/index; gives back its digest."""
        params = self.params
        base_image = params["base_image"]
        base_image = base_image if base_image == "scratch" else layouts.qualified(base_image)
        builder = tools.builder(self.docker, self.platforms, self.work_dir / "storage", base_image)
        self.builder = type(builder).__name__.lower()
        labels = self._labels(content)
        images = {}
        for platform in self.platforms:
            name = platform.replace("/", "-")
            context = folder / f"context-{name}"
            tools.unpack(context, self._context(platform))
            job = tools.Job(
                platform=platform,
                context=context,
                base_image=base_image,
                build_args={key: str(value) for key, value in params["build_args"].items()},
                labels=labels,
                target=params["target"],
                log=log,
                timeout=params["build_timeout"],
            )
            images[platform] = layouts.Layout(folder / name)
            builder.build(job, images[platform])
            shutil.rmtree(context)
        return layouts.join(images, layouts.Layout(folder / "index"), labels)


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    seconds: dict[str, float] = {}
    try:
        image = (Index if module.params["platforms"] else Image)(module.params, module.check_mode)
        seconds = image.seconds
        result = image.make()
    except oci.ImageError as error:
        module.fail_json(msg=str(error), seconds=seconds, **error.details)
    except OSError as error:
        where = error.filename or tempfile.gettempdir()
        full = f" Free some space there ('df -h {where}')." if error.errno == errno.ENOSPC else ""
        module.fail_json(msg=f"{where} cannot be used: {error.strerror or error}.{full}", seconds=seconds)
    module.exit_json(seconds=seconds, **result)


if __name__ == "__main__":
    main()
