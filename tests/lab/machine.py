# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Test machines: containers that behave like a host of their own, with Docker (flavour `docker`) or without (`bare`).

Tests run Swarm, builds and teardowns in them, so that the real host stays as it was. Standard library and the
docker command only: it runs before any virtual environment exists.

    python3 tests/lab/machine.py up demo --flavour docker --load debian:bookworm-slim --cache
    python3 tests/lab/machine.py exec demo docker info
    python3 tests/lab/machine.py down demo
    python3 tests/lab/machine.py prune --all
    python3 tests/lab/machine.py note; ...; python3 tests/lab/machine.py clean
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
IMAGE = "bitnet-test-machine"
BASE = "debian:bookworm-slim"
SUITE = "bookworm"
PREFIX = "bitnet-test-"
# Where mmdebstrap made the base image it is kept under this name: the official one is lent to it while tests run.
KEPT_BASE = f"{PREFIX}base:bookworm-slim"
KEPT = (IMAGE, f"{PREFIX}base", f"{PREFIX}builder", f"{PREFIX}builder-cross")  # what saves a later run minutes
LABEL = "io.bitnet.test.machine"
OWNER = "io.bitnet.test.owner"
FLAVOURS = ("bare", "docker")

# `--privileged` gives a container every capability, and a host that lacks one itself (a container host without
# SYS_RESOURCE, say) refuses it. These are the ones that dockerd, runc, overlayfs and VXLAN really use, beyond the
# default set; seccomp, AppArmor and the masked /proc would each forbid the inner runc to mount and to pivot_root.
CAPABILITIES = (
    *("SYS_ADMIN", "NET_ADMIN", "SYS_CHROOT", "MKNOD", "AUDIT_WRITE", "SYS_PTRACE", "DAC_OVERRIDE", "DAC_READ_SEARCH"),
    *("SYS_TIME", "IPC_LOCK", "NET_RAW", "IPC_OWNER", "LEASE", "SYS_NICE"),
)
OPEN = ("seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined")


class LabError(Exception):
    """Something about a test machine failed; the text says what and what shows more."""


def cache_dir() -> Path:
    """The folder that test runs share; never inside a checkout."""
    return Path(os.environ.get("BITNET_TEST_CACHE") or Path.home() / ".cache" / "bitnet-test")


def run(*command: str, timeout: float = 600, check: bool = True) -> str:
    """Run a command, give back its standard output; a failure carries its standard error."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except FileNotFoundError as error:
        raise LabError(f"{command[0]} is not installed; tests/lab/host-docker.sh start installs Docker") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(command)}: no end after {timeout:.0f} s") from error
    if check and done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise LabError(f"{' '.join(command)}: exit code {done.returncode}: {said}")
    return done.stdout


def _quietly(*command: str) -> bool:
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False).returncode == 0


# --- images -------------------------------------------------------------------------------------------------------


def ensure_base() -> None:
    """The base image on the host's daemon: as it is, kept, pulled, or, where no registry is reached, made."""
    if _quietly("docker", "image", "inspect", BASE) or _quietly("docker", "tag", KEPT_BASE, BASE):
        return
    if _quietly("timeout", "120", "docker", "pull", BASE):
        return
    if not _quietly("mmdebstrap", "--version"):
        raise LabError(f"{BASE} cannot be pulled and mmdebstrap is not installed to make it; install mmdebstrap")
    with tempfile.TemporaryDirectory() as folder:
        tar = f"{folder}/base.tar"
        run("mmdebstrap", "--variant=minbase", SUITE, tar)
        run("docker", "import", "--change", 'CMD ["bash"]', "--change", f"LABEL {LABEL}=base", tar, KEPT_BASE)
    run("docker", "tag", KEPT_BASE, BASE)


def _base_id() -> str:
    """The id of the base image, nothing where there is none yet."""
    for name in (BASE, KEPT_BASE):
        if found := run("docker", "image", "inspect", "--format", "{{.Id}}", name, check=False).strip():
            return found
    return ""


def _note() -> Path:
    return cache_dir() / "images.before"


def _images() -> list[tuple[str, str]]:
    """All images of the host's daemon, newest first: reference and id; one without a name is its id."""
    rows = run("docker", "image", "ls", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    pairs = [row.split() for row in rows]
    return [(identity if "<none>" in reference else reference, identity) for reference, identity in pairs]


def note() -> None:
    """Write down which images are there before the tests; what a run that was killed wrote down still holds."""
    if not _note().exists():
        cache_dir().mkdir(parents=True, exist_ok=True)
        _note().write_text("".join(f"{reference}\n" for reference, _unused in _images()))


def clean() -> list[str]:
    """Remove the images that tests left and no later run saves time with; gives back what went."""
    before = set(_note().read_text().split()) if _note().exists() else {name for name, _unused in _images()}
    removed, kept = [], set()
    for reference, _unused in _images():
        repository = reference.rpartition(":")[0]
        if repository.startswith(PREFIX):
            goes = repository not in KEPT or (repository != IMAGE and repository in kept)
            kept.add(repository)
        elif reference == BASE:
            shown = ("docker", "image", "inspect", "--format", f'{{{{index .Config.Labels "{LABEL}"}}}}', reference)
            goes = run(*shown, check=False).strip() == "base"
        else:
            goes = repository.startswith("bitnet/") and reference not in before
        if goes and _quietly("docker", "image", "rm", reference):
            removed.append(reference)
    # What an image was before a later load took its name.
    ours = run("docker", "image", "ls", "--no-trunc", "--quiet", "--filter", "dangling=true",
               "--filter", "label=io.bitnet.owner=bitnet.devops").split()  # fmt: skip
    removed += [image for image in ours if image not in before and _quietly("docker", "image", "rm", image)]
    _note().unlink(missing_ok=True)
    return removed


def _content_hash(flavour: str, base_id: str) -> str:
    digest = hashlib.sha256(f"{flavour}\0{base_id}\0".encode())
    for path in sorted((HERE / "image").iterdir()):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


def ensure_image(flavour: str) -> str:
    """The machine's image, named by the content it is made of; the same content is built once."""
    ensure_base()
    base_id = _base_id()
    tag = f"{IMAGE}:{flavour}-{_content_hash(flavour, base_id)}"
    with _lock("image"):
        if not _quietly("docker", "image", "inspect", tag):
            run("docker", "build", "--quiet", "--target", flavour, "--label", f"{LABEL}=image", "--tag", tag,
                str(HERE / "image"))  # fmt: skip
    return tag


@contextmanager
def _lock(name: str) -> Iterator[None]:
    """One builder at a time, over processes; the kernel gives the lock back when its holder is killed."""
    import fcntl

    cache_dir().mkdir(parents=True, exist_ok=True)
    with (cache_dir() / f"{name}.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# --- machines -----------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Machine:
    """A running test machine."""

    name: str
    container: str
    address: str

    def exec(self, *command: str, user: str = "root", timeout: float = 600, check: bool = True) -> str:
        """Run a command in it and give back its standard output."""
        return run("docker", "exec", "--user", user, self.container, *command, timeout=timeout, check=check)

    def load(self, *images: str) -> None:
        """Bring images of the host's daemon into the machine's daemon."""
        load(self.name, images)

    def down(self) -> None:
        """Remove it with everything that belongs to it."""
        down(self.name)


def container_name(name: str) -> str:
    """The container's name on the host's daemon."""
    return PREFIX + name


def up(
    name: str,
    *,
    flavour: str = "docker",
    images: Iterable[str] = (),
    mounts: Iterable[str] = (),
    cache: bool = False,
    dockerd: bool = True,
    deadline: float = 60,
    owner: int | None = None,
) -> Machine:
    """Start a machine; one of the same name from an earlier run is removed first.

    mounts are given as docker's `--volume` has them; cache mounts the tests' cache as the collection's. The owner is
    the process whose end makes the machine a leftover (0: only `prune --all` counts it as one).
    """
    if flavour not in FLAVOURS:
        raise LabError(f"flavour '{flavour}' is unknown; there are {', '.join(FLAVOURS)}")
    image = ensure_image(flavour)
    down(name)
    container = container_name(name)
    labels = ["--label", f"{LABEL}={name}", "--label", f"{OWNER}={_owner_id(os.getpid() if owner is None else owner)}"]
    run("docker", "volume", "create", *labels, f"{container}-docker")
    command = ["docker", "run", "--detach", "--name", container, "--hostname", name, *labels]
    for capability in CAPABILITIES:
        command += ["--cap-add", capability]
    for option in OPEN:
        command += ["--security-opt", option]
    command += ["--volume", "/sys/fs/cgroup:/sys/fs/cgroup:rw", "--cgroupns=host"]
    command += ["--volume", f"{container}-docker:/var/lib/docker"]
    command += ["--env", f"TEST_MACHINE_CGROUP=/{container}"]
    command += ["--env", f"TEST_MACHINE_DOCKERD={'on' if dockerd else 'off'}"]
    if cache:
        cache_dir().mkdir(parents=True, exist_ok=True)
        command += ["--volume", f"{cache_dir()}:/var/lib/bitnet/cache"]
    for mount in mounts:
        command += ["--volume", mount]
    run(*command, image)
    if flavour == "docker" and dockerd:
        await_docker(container, deadline)
        load(name, images)
    return get(name)


def get(name: str) -> Machine:
    """The running machine of that name."""
    container = container_name(name)
    found = json.loads(run("docker", "container", "inspect", container))[0]
    if not found["State"]["Running"]:
        raise LabError(f"machine '{name}' has ended; 'docker logs {container}' shows more")
    addresses = [network["IPAddress"] for network in found["NetworkSettings"]["Networks"].values()]
    return Machine(name, container, next(filter(None, addresses), ""))


def await_docker(container: str, deadline: float = 60) -> None:
    """Wait until the daemon of a machine answers."""
    end = time.monotonic() + deadline
    while not _quietly("docker", "exec", container, "docker", "version"):
        if time.monotonic() > end:
            log = run("docker", "exec", container, "tail", "-n", "20", "/var/log/docker.log", check=False)
            raise LabError(
                f"the daemon of {container} did not answer within {deadline:.0f} s; the end of its log:\n{log}\n"
                f"'docker exec {container} cat /var/log/docker.log' shows more"
            )
        time.sleep(0.25)


def load(name: str, images: Iterable[str]) -> None:
    """Bring images of the host's daemon into the machine's daemon, those that are not there yet."""
    container = container_name(name)
    missing = []
    for image in images:
        if image == BASE:
            ensure_base()
        wanted = run("docker", "image", "inspect", "--format", "{{.Id}}", image).strip()
        inside = ("docker", "exec", container, "docker", "image", "inspect", "--format", "{{.Id}}", image)
        there = run(*inside, check=False)
        if wanted != there.strip():
            missing.append(image)
    if not missing:
        return
    with subprocess.Popen(["docker", "save", *missing], stdout=subprocess.PIPE) as save:
        done = subprocess.run(
            ["docker", "exec", "--interactive", container, "docker", "load", "--quiet"],
            stdin=save.stdout, capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    if save.returncode or done.returncode:
        raise LabError(f"loading {', '.join(missing)} into {container} failed: {done.stderr.strip()}")


def down(name: str) -> None:
    """Remove a machine: inner containers, container, volumes, control groups. One that is not there is no error."""
    container = container_name(name)
    if _quietly("docker", "container", "inspect", container):
        # A graceful end lets the inner daemon take its containers, and their control groups, with it.
        _quietly("docker", "stop", "--time", "15", container)
        run("docker", "rm", "--force", "--volumes", container)
    volumes = run("docker", "volume", "ls", "--quiet", "--filter", f"label={LABEL}={name}").split()
    if volumes:
        run("docker", "volume", "rm", "--force", *volumes)
    _remove_cgroups(container)


def _remove_cgroups(container: str) -> None:
    """Control groups that a killed inner daemon left on the host; only empty ones can go, the kernel sees to that."""
    root = Path("/sys/fs/cgroup")
    for top in {*root.glob(container), *root.glob(f"*/{container}")}:
        for folder, _unused, _unused in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:
                continue


def _owner_id(pid: int) -> str:
    """A process by pid and start time, so that a later process with the same pid is not taken for it; 0 is nobody's."""
    if not pid:
        return "0"
    try:
        started = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except OSError:
        started = "gone"
    return f"{pid}:{started}"


def prune(everything: bool = False) -> list[str]:
    """Remove machines whose owner is gone (or all of them), and images of earlier content; gives back what went."""
    removed = []
    rows = run("docker", "container", "ls", "--all", "--filter", f"label={LABEL}", "--format",
               f'{{{{.Label "{LABEL}"}}}} {{{{.Label "{OWNER}"}}}}')  # fmt: skip
    rows += run("docker", "volume", "ls", "--filter", f"label={LABEL}", "--format",
                f'{{{{.Label "{LABEL}"}}}} {{{{.Label "{OWNER}"}}}}')  # fmt: skip
    for row in sorted(set(rows.splitlines())):
        name, _unused, owner = row.partition(" ")
        alive = owner == "0" or owner == _owner_id(int(owner.partition(":")[0] or 0))
        if everything or not alive:
            down(name)
            removed.append(name)
    if base_id := _base_id():
        current = {f"{IMAGE}:{flavour}-{_content_hash(flavour, base_id)}" for flavour in FLAVOURS}
        for tag in run("docker", "image", "ls", "--format", "{{.Repository}}:{{.Tag}}", IMAGE).split():
            if tag not in current and _quietly("docker", "image", "rm", tag):
                removed.append(tag)
    return removed


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="machine.py", description="Test machines: containers that act as hosts.")
    commands = parser.add_subparsers(dest="command", required=True)
    start = commands.add_parser("up", help="start a machine and print it as JSON")
    start.add_argument("name")
    start.add_argument("--flavour", choices=FLAVOURS, default="docker")
    start.add_argument("--load", action="append", default=[], metavar="IMAGE", help="image of the host to bring in")
    start.add_argument("--mount", action="append", default=[], metavar="SOURCE:TARGET[:ro]")
    start.add_argument("--cache", action="store_true", help="mount the tests' cache at /var/lib/bitnet/cache")
    start.add_argument("--no-dockerd", action="store_true", help="Docker is installed but does not run")
    start.add_argument("--owner", type=int, default=0, metavar="PID", help="its end makes the machine a leftover")
    loading = commands.add_parser("load", help="bring images of the host into a machine")
    loading.add_argument("name")
    loading.add_argument("images", nargs="+")
    inside = commands.add_parser("exec", help="run a command in a machine")
    inside.add_argument("name")
    inside.add_argument("argv", nargs=argparse.REMAINDER)
    commands.add_parser("down", help="remove a machine").add_argument("name")
    commands.add_parser("prune", help="remove machines whose owner is gone").add_argument(
        "--all", action="store_true", help="those whose owner lives, too"
    )
    commands.add_parser("note", help="write down which images are on the host before the tests")
    commands.add_parser("clean", help="remove the images that tests left, those that save a later run time aside")
    options = parser.parse_args(arguments)
    try:
        if options.command == "up":
            machine = up(options.name, flavour=options.flavour, images=options.load, mounts=options.mount,
                         cache=options.cache, dockerd=not options.no_dockerd, owner=options.owner)  # fmt: skip
            print(json.dumps(dataclasses.asdict(machine)))
        elif options.command == "load":
            load(options.name, options.images)
        elif options.command == "exec":
            command = ["docker", "exec", container_name(options.name), *options.argv]
            return subprocess.run(command, check=False).returncode
        elif options.command == "down":
            down(options.name)
        elif options.command == "note":
            note()
        else:
            for name in clean() if options.command == "clean" else prune(options.all):
                print(f"removed {name}")
    except LabError as error:
        print(f"machine.py: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
