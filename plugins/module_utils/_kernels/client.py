# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The Docker daemon, as this package needs it: what an image is, and containers that run to their end."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from typing import Any, Callable

from .errors import KernelError

try:
    import docker
    import docker.errors

    DOCKER_MISSING = ""
except ImportError as error:
    docker = None  # type: ignore[assignment,unused-ignore]
    DOCKER_MISSING = str(error)

OWNER = "bitnet.devops"
LABEL_CACHE = "io.bitnet.kernel-cache"
USER = 10001


class Unavailable(KernelError):
    """Docker or an image is not there (yet): check mode goes on without, a real run cannot."""


def unprivileged_user() -> tuple[int, int]:
    """Who compiles in the container: never root."""
    return (os.getuid(), os.getgid()) if os.getuid() else (USER, USER)


class Engine:
    """One Docker daemon; its bind mounts must see the same file system as the module."""

    def __init__(self, host: str) -> None:
        if docker is None:
            raise Unavailable(
                f"kernel_build needs the Docker SDK for Python on the target ({DOCKER_MISSING}): install the "
                "distribution's package python3-docker, or docker with pip"
            )
        try:
            self._client = docker.DockerClient(base_url=host, timeout=60)
            self._client.ping()
        except Exception as error:  # the SDK raises kinds of requests and urllib3 as well as its own
            text = str(error)
            if "Permission denied" in text or "PermissionError" in text:
                raise KernelError(
                    f"docker_host: {host!r} denies access to user {os.getuid()}; use become, or add the user to the "
                    "socket's group"
                ) from None
            raise Unavailable(f"docker_host: no Docker daemon answers at {host!r}: {text}") from None

    def image_id(self, option: str, reference: str) -> str:
        try:
            return str(self._client.images.get(reference).id)
        except docker.errors.ImageNotFound:
            raise Unavailable(
                f"{option}: the Docker daemon has no image {reference!r}; build or pull it first"
            ) from None
        except docker.errors.APIError as error:
            raise KernelError(f"{option}: {reference!r} cannot be looked up: {error}") from None

    def run(
        self,
        image: str,
        command: list[str],
        *,
        cache: str,
        mounts: dict[str, tuple[str, str]],
        environment: dict[str, str],
        timeout: float,
        user: str | None = None,
        on_line: Callable[[str], object] = str,
        what: str = "the container",
    ) -> tuple[int, str]:
        """Runs a command without network in a container that is removed afterwards; its exit code and output."""
        options: dict[str, Any] = {"user": user} if user else {}
        try:
            container = self._client.containers.create(
                image,
                command,
                entrypoint=[],
                labels={"io.bitnet.owner": OWNER, LABEL_CACHE: cache},
                network_mode="none",
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                tmpfs={"/tmp": "exec"},  # noqa: S108 - in the container
                init=True,
                environment=environment,
                volumes={path: {"bind": bind, "mode": mode} for path, (bind, mode) in mounts.items()},
                **options,
            )
        except docker.errors.ImageNotFound:
            raise Unavailable(f"the Docker daemon has no image {image!r}; build or pull it first") from None
        except docker.errors.DockerException as error:
            raise KernelError(f"{what} could not be created: {error}") from None
        try:
            container.start()
            return self._follow(container, timeout, on_line, what)
        except docker.errors.DockerException as error:
            raise KernelError(f"{what} could not be run: {error}") from None
        finally:
            # Who else removed it did no harm; what is left here the next run looks for.
            with contextlib.suppress(docker.errors.DockerException):
                container.remove(force=True)

    @staticmethod
    def _follow(container: Any, timeout: float, on_line: Callable[[str], object], what: str) -> tuple[int, str]:
        deadline = time.monotonic() + timeout
        chunks: queue.Queue[bytes | None] = queue.Queue()

        def read() -> None:
            # A broken stream ends the reading; the exit code is asked for afterwards.
            with contextlib.suppress(Exception):
                for chunk in container.logs(stream=True, follow=True):
                    chunks.put(chunk)
            chunks.put(None)

        threading.Thread(target=read, daemon=True).start()
        output: list[str] = []
        rest = ""
        while True:
            left = deadline - time.monotonic()
            try:
                chunk = chunks.get(timeout=max(0.0, left))
            except queue.Empty:
                log = "".join(output) + rest
                last = (log.strip().splitlines() or ["nothing"])[-1][:300]
                raise KernelError(f"{what} did not end within {timeout:.0f} s; it said last: {last}", log=log) from None
            if chunk is None:
                break
            *lines, rest = (rest + chunk.decode(errors="replace")).split("\n")
            for line in lines:
                output.append(line + "\n")
                on_line(line)
        status = container.wait(timeout=60)
        return int(status["StatusCode"]), "".join(output) + rest

    def remove_orphans(self, cache: str) -> None:
        """Ends the containers that a killed module left. Only the holder of the cache's lock may call this."""
        for container in self._client.containers.list(
            all=True, filters={"label": [f"io.bitnet.owner={OWNER}", f"{LABEL_CACHE}={cache}"]}
        ):
            # A failure means that it is on its way out already.
            with contextlib.suppress(docker.errors.APIError):
                container.remove(force=True)
