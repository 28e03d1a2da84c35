# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The calls to Docker that retention needs beside those of a service."""

from __future__ import annotations

import contextlib
import typing as t

from .._swarm.client import DockerFailed, SwarmClient
from .plan import OWNER, OWNER_LABEL, Container, Image, Scope
from .registry import moment

try:
    import docker.errors
    import docker.types
except ImportError:
    pass  # the module says so

Json = t.Mapping[str, t.Any]

REGISTRY_LABEL = "io.bitnet.registry"
COLLECTOR = "bitnet-registry-collect"
STOP_SECONDS = 10
COLLECT_SECONDS = 600


class RetentionClient(SwarmClient):
    """One daemon, which may be a manager of a Swarm."""

    def all_tasks(self) -> list[dict[str, t.Any]]:
        tasks: list[dict[str, t.Any]] = self._call("list tasks", self.api.tasks)
        return tasks

    def images(self, scope: Scope) -> list[Image]:
        """The images that have a name in the scope."""
        found = []
        for image in self._call("list images", self.api.images):
            references = [*(image.get("RepoTags") or []), *(image.get("RepoDigests") or [])]
            references = [reference for reference in references if "<none>" not in reference]
            if any(map(scope.covers, references)):
                found.append(Image(image["Id"], tuple(references), image.get("Labels") or {}, self._made(image)))
        return found

    def _made(self, image: Json) -> float:
        """When it was made or, later than that, got its name here."""
        try:
            told = self.api.inspect_image(image["Id"])
        except docker.errors.DockerException:
            return float(image.get("Created") or 0)
        tagged = moment(str((told.get("Metadata") or {}).get("LastTagTime") or ""))
        return max(float(image.get("Created") or 0), tagged)

    def containers(self) -> list[Container]:
        return [
            Container(
                id=container["Id"],
                name=(container.get("Names") or [container["Id"][:12]])[0].lstrip("/"),
                image=container.get("ImageID") or "",
                state=container.get("State") or "",
                labels=container.get("Labels") or {},
                sources=tuple(mount.get("Source") or "" for mount in container.get("Mounts") or []),
            )
            for container in self._call("list containers", self.api.containers, all=True)
        ]

    def remove_container(self, container: Container) -> None:
        """Only an ended one: without force Docker refuses the others."""
        with contextlib.suppress(docker.errors.NotFound):
            self._call(f"remove the ended container {container.name}", self.api.remove_container, container.id)

    def remove_image(self, reference: str) -> None:
        """Without force: Docker refuses what a container uses by now."""
        with contextlib.suppress(docker.errors.NotFound):
            self._call(f"remove the image {reference}", self.api.remove_image, reference)

    # ------------------------------------------------------------------------ the registry's container

    def registry(self, name: str, address: str) -> dict[str, t.Any] | None:
        """The registry's container as Docker describes it, if it is ours and listens there."""
        try:
            found: dict[str, t.Any] = self._call("look for the registry", self.api.inspect_container, name)
        except docker.errors.NotFound:
            return None
        labels = found["Config"].get("Labels") or {}
        if labels.get(OWNER_LABEL) != OWNER or labels.get(REGISTRY_LABEL) != address:
            return None
        return found

    def start(self, container_id: str) -> None:
        self._call("start the registry", self.api.start, container_id)

    def collect(self, registry: Json) -> None:
        """Free the space of what was deleted. The registry is stopped meanwhile: a push would lose its layers."""
        self._remove_collector()
        self._call("stop the registry", self.api.stop, registry["Id"], timeout=STOP_SECONDS)
        try:
            self._run_collector(registry)
        finally:
            self.start(registry["Id"])

    def _run_collector(self, registry: Json) -> None:
        config = registry["Config"]
        ours = {name: text for name, text in (config.get("Labels") or {}).items() if name.startswith("io.bitnet.")}
        command = list(config["Cmd"])  # docker-registry serve FILE
        host = self.api.create_host_config(
            volumes_from=[registry["Id"]],
            network_mode="none",
            read_only=True,
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            tmpfs={"/tmp": ""},  # noqa: S108
        )
        made = self._call(
            "make the container that frees the registry's space",
            self.api.create_container,
            registry["Image"],
            command=[command[0], "garbage-collect", command[-1]],
            environment=config.get("Env") or [],
            labels=ours,
            host_config=host,
            name=COLLECTOR,
        )
        try:
            self._call("free the registry's space", self.api.start, made["Id"])
            ended = self._call("free the registry's space", self.api.wait, made["Id"], timeout=COLLECT_SECONDS)
            if ended.get("StatusCode"):
                said = self.api.logs(made["Id"], tail=10).decode("utf-8", "replace").strip()
                raise DockerFailed(f"registry: freeing its space ended with status {ended['StatusCode']}: {said}")
        finally:
            self._remove_collector()

    def _remove_collector(self) -> None:
        """Its own, or that of a run that was killed; somebody else's container of that name is left and stops this."""
        with contextlib.suppress(docker.errors.NotFound):
            found = self._call("look for an earlier container", self.api.inspect_container, COLLECTOR)
            if (found["Config"].get("Labels") or {}).get(OWNER_LABEL) == OWNER:
                self._call("remove the container that freed space", self.api.remove_container, COLLECTOR, force=True)
