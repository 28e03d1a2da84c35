# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The docker command, as far as making an image needs it. It knows the user's log-ins; an API client would not."""

from __future__ import annotations

import os
import subprocess
import threading
import typing as t
from pathlib import Path

from .content import ImageError, Published, is_loopback, published

LOOK_TIMEOUT = 60
ENVIRONMENT = {
    # A plain manifest, one digest per image: attestations would turn it into an index.
    "BUILDX_NO_DEFAULT_ATTESTATIONS": "1",
    # The builder of the daemon itself: it knows the local images that a Dockerfile names in FROM.
    "BUILDX_BUILDER": "default",
    "BUILDKIT_PROGRESS": "plain",
    "DOCKER_CLI_HINTS": "false",
}
MEANINGS = {
    "no space left on device": "The disk is full: free space, or see 'docker system df'. ",
    "exec format error": "This host does not run programs of that platform: install qemu-user-static, which tells the "
    "kernel of its emulator (binfmt_misc). ",
    "not supported over overlayfs": "work_dir is itself on an overlay file system, as in a container: name a folder on "
    "another one, or set STORAGE_DRIVER=vfs in the environment of the task, which is slower. ",
}


class Unavailable(ImageError):
    """Docker is not installed or does not answer."""


class Docker:
    """One daemon. Every call has a deadline."""

    def __init__(self, host: str) -> None:
        self.host = host
        self.environment = {**os.environ, **ENVIRONMENT, "DOCKER_HOST": host}

    def _run(self, *arguments: str, timeout: float = LOOK_TIMEOUT) -> subprocess.CompletedProcess[str]:
        try:
            # No AnsibleModule here, so that this is tested as plain Python.
            return subprocess.run(  # pylint: disable=ansible-bad-function
                ["docker", *arguments],
                env=self.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError as error:
            raise Unavailable(
                "The command docker is not installed. Run the role bitnet.devops.docker_engine."
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ImageError(
                f"'docker {' '.join(arguments[:2])}' did not end within {timeout:.0f} s at docker_host {self.host}. "
                f"'docker -H {self.host} info' shows whether the daemon answers."
            ) from error

    def image_id(self, image: str) -> str | None:
        """The id of a local image; nothing if there is none of that name."""
        done = self._run("image", "inspect", "--format", "{{.Id}}", image)
        if done.returncode == 0:
            return done.stdout.strip()
        if "no such image" in done.stderr.lower():
            return None
        raise self._refused(done.stderr)

    def _refused(self, said: str) -> ImageError:
        if "permission denied" in said.lower():
            return ImageError(
                f"docker_host {self.host} denies access. Use become, or a user of the group docker ({said.strip()})"
            )
        return Unavailable(
            f"docker_host: no Docker answers at {self.host}. Start it, or correct docker_host ({said.strip()})"
        )

    def published(self, reference: str) -> Published | None:
        """What the registry holds under a reference; nothing if it does not know it."""
        insecure = ["--insecure"] if is_loopback(reference) else []
        done = self._run("manifest", "inspect", "--verbose", *insecure, reference)
        if done.returncode == 0:
            return published(done.stdout)
        said = done.stderr.strip()
        # A registry may answer "unauthorized" for a name that it does not have yet: the push says more.
        if any(
            text in said.lower()
            for text in ("no such manifest", "manifest unknown", "not found", "unauthorized", "denied")
        ):
            return None
        registry = reference.partition("/")[0]
        raise Unavailable(
            f"The registry {registry} does not answer ({said}). Is it reachable from this host, and is 'docker login "
            f"{registry}' done where it wants one?"
        )

    def push(self, reference: str, timeout: float) -> None:
        done = self._run("push", "--quiet", reference, timeout=timeout)
        if done.returncode:
            registry = reference.partition("/")[0]
            raise ImageError(
                f"The registry {registry} did not take {reference}: {done.stderr.strip()[-800:]}. If it wants a login, "
                f"run 'docker login {registry}' as the user that this task runs as."
            )

    def build(self, arguments: list[str], write: t.Callable[[t.IO[bytes]], None], log: Path, timeout: float) -> None:
        """Run docker build on a context that C(write) streams; the output goes to the file C(log)."""
        command = ["docker", "build", *arguments, "-"]
        with log.open("wb") as output:
            # run_command cannot stream the context while docker reads it.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function
                command, env=self.environment, stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT
            )
            expired = threading.Event()

            def expire() -> None:
                expired.set()
                process.kill()

            timer = threading.Timer(timeout, expire)
            timer.start()
            try:
                try:
                    with t.cast(t.IO[bytes], process.stdin) as stream:
                        write(stream)
                except BrokenPipeError:
                    pass  # docker ended before it had read all: its log says why
                except BaseException:
                    process.kill()
                    raise
                process.wait()
            finally:
                timer.cancel()
        if expired.is_set():
            raise ImageError(
                f"docker build did not end within {timeout:.0f} s (build_timeout). {end_of(log)} The whole log: {log}"
            )
        if process.returncode:
            raise ImageError(f"docker build failed. {end_of(log)} The whole log: {log}")


def end_of(log: Path, lines: int = 15) -> str:
    """The last lines of a log, after a sentence on what they mean where that is known."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    hint = next((meaning for sign, meaning in MEANINGS.items() if sign in text.lower()), "")
    rows = [row for row in text.splitlines() if row.strip()][-lines:]
    return f"{hint}Its last lines:\n" + "\n".join(row[:300] for row in rows) + "\n"
