# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands buildx, buildah and skopeo, as far as an image of several platforms needs them.

Each platform is built for itself into an OCI layout: by buildx where its selected builder can, otherwise by buildah.
skopeo pushes the index that the layouts are joined to, and asks a registry for one. All of them know the log-ins of
docker.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import threading
import typing as t
from dataclasses import dataclass
from pathlib import Path

from . import layout as layouts
from .content import MODIFIED, ImageError, is_loopback
from .docker import LOOK_TIMEOUT, Docker, Unavailable, end_of

# What a registry says of a name that it does not have; for one that it does not have yet some say "unauthorized".
UNKNOWN_NAMES = ("manifest unknown", "not found", "name unknown", "unauthorized", "denied")
# The same words of this host, which say nothing of the registry: of a helper for logins, of a file with them.
OF_THIS_HOST = ("executable file not found", "permission denied")
# Seconds: a builder in a container may be pulled first.
BOOT_TIMEOUT = 300
PR_SET_PDEATHSIG = 1  # linux/prctl.h


@dataclass(frozen=True)
class Job:
    """What one build is given."""

    platform: str
    context: Path
    base_image: str
    build_args: t.Mapping[str, str]
    labels: t.Mapping[str, str]
    target: str | None
    log: Path
    timeout: float

    @property
    def options(self) -> list[str]:
        """Those that buildx and buildah have in common."""
        given = {"BASE_IMAGE": self.base_image, "SOURCE_DATE_EPOCH": str(MODIFIED), **self.build_args}
        options = ["--platform", self.platform, "--file", str(self.context / "Dockerfile")]
        for key, value in given.items():
            options += ["--build-arg", f"{key}={value}"]
        for key, value in sorted(self.labels.items()):
            options += ["--label", f"{key}={value}"]
        return [*options, *(["--target", self.target] if self.target else [])]


def look(
    command: list[str], environment: t.Mapping[str, str] | None = None, timeout: float = LOOK_TIMEOUT
) -> tuple[int, bytes, str]:
    """Run a command that answers soon: its exit code, what it printed, what it complained of."""
    try:
        # No AnsibleModule here, so that this is tested as plain Python.
        done = subprocess.run(  # pylint: disable=ansible-bad-function
            command,
            env=environment and dict(environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise Unavailable(f"the command {command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise ImageError(f"'{' '.join(command[:3])}' did not end within {timeout:.0f} s.") from error
    return done.returncode, done.stdout, done.stderr.decode("utf-8", "replace").strip()


def unpack(folder: Path, write: t.Callable[[t.IO[bytes]], None]) -> None:
    """A build context that C(write) streams as a tar, as a folder: buildah reads no stream."""
    folder.mkdir(parents=True)
    # The modes of the archive, whatever the umask: they become those in the image.
    command = ["tar", "--extract", "--preserve-permissions", "--directory", str(folder)]
    process = subprocess.Popen(  # pylint: disable=ansible-bad-function
        command, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    )
    heard: list[bytes] = []
    with process:
        # On a full disk tar complains of each file, and would wait for a reader while we wait for tar.
        listener = threading.Thread(target=lambda: heard.append(t.cast(t.IO[bytes], process.stderr).read()))
        listener.start()
        with contextlib.suppress(BrokenPipeError), t.cast(t.IO[bytes], process.stdin) as stream:
            write(stream)
        listener.join()
    if process.returncode:
        said = b"".join(heard).decode("utf-8", "replace").strip()
        full = " The disk is full: free some space." if "no space left" in said.lower() else ""
        raise ImageError(f"The build context could not be written to {folder} ({said[-400:]}).{full}")


def _end_with_parent() -> None:
    """In a child: end when this module is killed, or it would go on without deadline while the next run builds, too."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def work(
    command: list[str], log: Path, timeout: float, option: str, environment: t.Mapping[str, str] | None = None
) -> None:
    """Run a command that takes long; its output goes to the end of the log. What it started ends with it."""
    with log.open("ab") as output:
        try:
            # run_command would keep the output in memory.
            process = subprocess.Popen(  # pylint: disable=ansible-bad-function,subprocess-popen-preexec-fn
                command,
                env=environment and dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=_end_with_parent,  # noqa: PLW1509
            )
        except FileNotFoundError as error:
            raise Unavailable(f"The command {command[0]} is not installed.") from error
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code is None:
        raise ImageError(
            f"{command[0]} did not end within {timeout:.0f} s ({option}). {end_of(log)} The whole log: {log}"
        )
    if code:
        raise ImageError(f"{command[0]} failed. {end_of(log)} The whole log: {log}")


class Skopeo:
    """Registries, by the command skopeo."""

    def __init__(self, registry: str) -> None:
        self.plain = is_loopback(registry)

    def _raw(self, reference: str, *options: str) -> bytes | None:
        command = ["skopeo", "inspect", "--raw", *options, *(["--tls-verify=false"] if self.plain else [])]
        code, raw, said = look([*command, f"docker://{reference}"])
        if code == 0:
            return raw
        local = any(text in said.lower() for text in OF_THIS_HOST)
        if not local and any(text in said.lower() for text in UNKNOWN_NAMES):
            return None
        registry = reference.partition("/")[0]
        raise Unavailable(
            f"The registry {registry} does not answer ({said[-600:]}). Is it reachable from this host, and is 'docker "
            f"login {registry}' done where it wants one?"
        )

    def index(self, name: str, suffix: str) -> layouts.Index | None:
        """The index that a registry holds under NAME:TAG or NAME@DIGEST; nothing if there is none."""
        raw = self._raw(name + suffix)
        found = layouts.manifests(raw) if raw else None
        if raw is None or found is None:
            return None
        parts = []
        for platform, descriptor in sorted(found.items()):
            manifest = self._raw(f"{name}@{descriptor['digest']}")
            if manifest is None:
                return None
            parts.append(layouts.Part(platform, descriptor["digest"], layouts.size_of(manifest)))
        return layouts.Index(layouts.digest_of(raw), tuple(parts))

    def platforms(self, reference: str) -> list[str]:
        """The platforms of an index or of an image that a registry holds; none if it holds nothing."""
        raw = self._raw(reference)
        found = layouts.manifests(raw) if raw else {}
        if found is not None:
            return sorted(found)
        config = self._raw(reference, "--config")
        return [layouts.platform_of({"platform": json.loads(config)})] if config else []

    def push(self, layout: layouts.Layout, reference: str, log: Path, timeout: float) -> None:
        command = ["skopeo", "copy", "--all", "--preserve-digests", "--quiet"]
        command += ["--dest-tls-verify=false"] if self.plain else []
        command += [f"oci:{layout.folder}:{layouts.NAME}", f"docker://{reference}"]
        try:
            work(command, log, timeout, "push_timeout")
        except ImageError as error:
            registry = reference.partition("/")[0]
            raise ImageError(
                f"The registry {registry} did not take {reference}: {error} If it wants a login, run 'docker login "
                f"{registry}' as the user that this task runs as."
            ) from error


class Buildx:
    """The builder of buildx that the user has selected."""

    def __init__(self, docker: Docker) -> None:
        # Docker's own class asks for the daemon's builder; here the user's choice counts.
        ours = {key: value for key, value in docker.environment.items() if key != "BUILDX_BUILDER"}
        chosen = os.environ.get("BUILDX_BUILDER")
        self.environment = {**ours, **({"BUILDX_BUILDER": chosen} if chosen else {})}

    def lacks(self, platforms: t.Iterable[str]) -> str:
        """Why it cannot be used; empty if it can."""
        try:
            # A builder tells its platforms while it runs, and it is first started by its first build.
            code, inspected, said = look(["docker", "buildx", "inspect", "--bootstrap"], self.environment, BOOT_TIMEOUT)
        except ImageError as error:
            return str(error)
        if code:
            errors = [line for line in said.splitlines() if line.startswith("ERROR")] or said.splitlines()
            return errors[0][:200] if errors else "docker buildx inspect failed"
        _code, info, _said = look(["docker", "info", "--format", "{{json .DriverStatus}}"], self.environment)
        return layouts.buildx_lacks(inspected.decode("utf-8", "replace"), info.decode("utf-8", "replace"), platforms)

    def build(self, job: Job, layout: layouts.Layout) -> None:
        command = ["docker", "buildx", "build", *job.options, "--provenance=false", "--sbom=false"]
        output = f"type=oci,tar=false,dest={layout.folder},rewrite-timestamp=true"
        work([*command, "--output", output, str(job.context)], job.log, job.timeout, "build_timeout", self.environment)


class Buildah:
    """buildah with a storage of its own, one per platform: a base image of the same digest is another image there."""

    def __init__(self, storage: Path, base_is_plain: bool) -> None:
        self.storage = storage
        self.plain = base_is_plain

    @staticmethod
    def lacks() -> str:
        try:
            code, _version, said = look(["buildah", "--version"])
        except Unavailable as error:
            return str(error)
        return said[:200] if code else ""

    def build(self, job: Job, layout: layouts.Layout) -> None:
        folder = self.storage / job.platform.replace("/", "-")
        buildah = ["buildah", "--root", str(folder / "root"), "--runroot", str(folder / "run")]
        identity = layout.folder.with_name(f"{layout.folder.name}.id")
        # What a killed build left there stays mounted and takes space; nobody else builds now.
        work([*buildah, "rm", "--all"], job.log, job.timeout, "build_timeout")
        command = [*buildah, "build", *job.options, "--iidfile", str(identity), "--layers", "--isolation=chroot"]
        # The format of Docker, since that of OCI has no health check; one time for the image and for all its files.
        command += ["--format=docker", f"--timestamp={MODIFIED}", "--identity-label=false", "--quiet"]
        command += ["--tls-verify=false"] if self.plain else []
        work([*command, str(job.context)], job.log, job.timeout, "build_timeout")
        image = identity.read_text(encoding="utf-8").strip()
        target = f"oci:{layout.folder}:{layouts.NAME}"
        work([*buildah, "push", "--quiet", image, target], job.log, job.timeout, "build_timeout")
        _code, told, said = look([*buildah, "inspect", "--type", "image", image])
        if not told:
            raise ImageError(f"buildah does not know the image {image} that it has built: {said}")
        layouts.settle(layout, ((json.loads(told).get("Docker") or {}).get("config") or {}).get("Healthcheck"))


def builder(docker: Docker, platforms: t.Sequence[str], storage: Path, base_image: str) -> Buildx | Buildah:
    """buildx where the user has it, buildah where not."""
    buildx = Buildx(docker)
    without_buildx = buildx.lacks(platforms)
    if not without_buildx:
        return buildx
    without_buildah = Buildah.lacks()
    if without_buildah:
        raise ImageError(
            f"platforms: an image for {', '.join(platforms)} needs buildx with a builder for them ({without_buildx}) "
            f"or buildah ({without_buildah}). Install buildah, or select a builder with 'docker buildx create --use'."
        )
    # buildah makes an image of a base of another platform without a word, and labels it as if it were of its own.
    has = list(platforms) if base_image == "scratch" else Skopeo(base_image).platforms(base_image)
    missing = [platform for platform in platforms if platform not in has]
    if missing:
        raise ImageError(
            f"base_image: {base_image} is there for {', '.join(has) or 'no platform'}, not for {', '.join(missing)}. "
            "If its registry is a mirror, copy it there with 'skopeo copy --all'; otherwise name another base image."
        )
    return Buildah(storage, is_loopback(base_image))
