# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots and edges as services of a real Swarm on a test machine: what rolling updates can be compared on.

The workload's image runs with the stand-in for its engine; the edge is built from the collection's own files, and the
module traffic_switch moves the traffic.
"""

from __future__ import annotations

import hashlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.lab import machine

from .processes import (
    slot_environment,
    traefik,
    traefik_options,
    write_traefik,
)
from .stands import (
    CHECKOUT,
    SLOTS,
    AskedLog,
    StandError,
    Subject,
    await_ready,
    command,
    dropped_lines,
    edge_configuration,
    write_tokens,
)

NAME = "switch-loss"
ENVIRONMENT, ROLLING = "loss", "loss-rolling"
PORTS = {ENVIRONMENT: 18080, ROLLING: 18081, "traefik": 18082}
FOLDER = "/var/lib/bitnet-loss"
LOAD_SECONDS = 2.0
UPDATE_SECONDS = 240.0
READY_SECONDS = 120.0
ROLLINGS = {"rolling-start-first": "start-first", "rolling-stop-first": "stop-first"}
# Runs in the machine: what all tasks of a service said. `docker service logs` may hang on those that were replaced.
LOGS = """
for container in $(docker ps --all --quiet --filter label=com.docker.swarm.service.name=$1); do
    docker logs --since "$2" "$container" 2>&1 | sed "s/^/$container@machine | /"
done
"""
# Runs in the machine: what HAProxy says of itself.
INFORMATION = """
import socket, sys
runtime = socket.socket(socket.AF_UNIX)
runtime.settimeout(5)
runtime.connect(sys.argv[1] + "/haproxy.sock")
runtime.sendall(b"show info\\n")
while part := runtime.recv(65536):
    sys.stdout.write(part.decode())
"""
RELEASE = "loss-proof"
# Filled in by Swarm for each task, as for the edge of the role.
ROUTING_OF_LABELS = {
    "BITNET_ACTIVE_SLOT": "active-slot",
    "BITNET_IDLE_SHARE": "idle-share",
    "BITNET_HOLD": "hold",
}


class SwarmStand:
    """Use as a context: a machine that it made ends with it; on one that was given its services are removed."""

    def __init__(self, folder: Path, image: str, given: str, wanted: list[str]) -> None:
        self.folder = folder
        self.image = image
        self.given = given
        self.wanted = wanted
        self.token_file = folder / "token"
        self.services: list[str] = []
        self.host: machine.Machine | None = None

    # --- the machine ------------------------------------------------------------------------------------------------

    def __enter__(self) -> SwarmStand:
        try:
            self._bring_up()
        except (machine.LabError, subprocess.SubprocessError, OSError) as error:
            self.__exit__()
            raise StandError(f"the Swarm stand cannot be brought up: {error}") from error
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        if self.host is None:
            return
        if not self.given:
            self.host.down()
            return
        for name in self.services:
            self.docker("service", "rm", name, check=False)

    def docker(self, *arguments: str, check: bool = True) -> str:
        if self.host is None:
            raise StandError("there is no machine")
        return self.host.exec("docker", *arguments, check=check)

    def put(self, text: str, path: str) -> None:
        """Write a file in the machine, at once."""
        if self.host is None:
            raise StandError("there is no machine")
        script = f"mkdir -p $(dirname {path}) && cat > {path}.new && mv {path}.new {path}"
        subprocess.run(
            ["docker", "exec", "--interactive", self.host.container, "sh", "-c", script],
            input=text, text=True, check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def _put_source(self) -> None:
        """The workload of this checkout, in the image's environment: what is proved is what is here."""
        source = CHECKOUT / "files" / "swarm_intelligence" / "src"
        container = self.host.container if self.host else ""
        packed = subprocess.run(
            ["tar", "-c", "-C", str(source), "--exclude=__pycache__", "swarm_intelligence"],
            check=True, capture_output=True, timeout=60,
        ).stdout  # fmt: skip
        subprocess.run(
            ["docker", "exec", "--interactive", container, "tar", "-x", "--no-same-owner", "-C", FOLDER],
            input=packed, check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    def _bring_up(self) -> None:
        self.token_file = write_tokens(self.folder)
        if not machine._quietly("docker", "version"):
            raise StandError("Docker does not answer: tests/lab/host-docker.sh start; or take --stand processes")
        if not machine._quietly("docker", "image", "inspect", self.image):
            raise StandError(f"the image {self.image} is not on the host's Docker: `make test` builds it")
        edge = self._edge_image()
        self.host = machine.get(self.given) if self.given else machine.up(NAME)
        self.host.load(self.image, edge)
        if self.docker("info", "--format", "{{.Swarm.LocalNodeState}}").strip() != "active":
            self.docker("swarm", "init", "--advertise-addr", self.host.address)
        self.put((Path(__file__).resolve().parent / "stand_in.py").read_text(), f"{FOLDER}/stand_in.py")
        self._put_source()
        self.put((self.folder / "tokens.json").read_text(), f"{FOLDER}/tokens.json")
        if {"switch", "traefik-file"} & set(self.wanted):
            self._network(ENVIRONMENT)
            for slot in SLOTS:
                self._slot(ENVIRONMENT, slot)
        if "switch" in self.wanted:
            self._edge(ENVIRONMENT, edge)
        if set(ROLLINGS) & set(self.wanted):
            self._network(ROLLING)
            self._slot(ROLLING, "blue")
            self._edge(ROLLING, edge)
        if "traefik-file" in self.wanted and traefik():
            self._traefik(edge)

    def _edge_image(self) -> str:
        """Built from the collection's files, named by their content."""
        context = CHECKOUT / "files" / "images" / "edge"
        machine.ensure_base()
        digest = hashlib.sha256()
        for path in sorted(context.iterdir()):
            digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
        tag = f"bitnet-test-loss-edge:{digest.hexdigest()[:12]}"
        if not machine._quietly("docker", "version"):
            raise StandError("Docker does not answer: tests/lab/host-docker.sh start; or take --stand processes")
        if not machine._quietly("docker", "image", "inspect", tag):
            machine.run("docker", "build", "--quiet", "--tag", tag, str(context))
        return tag

    # --- services ---------------------------------------------------------------------------------------------------

    def _network(self, environment: str) -> None:
        name = f"bitnet-{environment}"
        if name not in self.docker("network", "ls", "--format", "{{.Name}}").split():
            self.docker("network", "create", "--driver", "overlay", name)

    def _service(self, name: str, environment: str, *options: str) -> None:
        self.docker("service", "rm", name, check=False)
        self.services.append(name)
        self.docker(
            "service", "create", "--detach", "--quiet", "--no-resolve-image", "--name", name,
            "--network", f"bitnet-{environment}", "--endpoint-mode", "dnsrr", *options,
        )  # fmt: skip

    def _slot(self, environment: str, slot: str) -> None:
        """As the role runs it: its grace period, its health check, its restart policy."""
        variables = slot_environment("/loss/tokens.json", slot, 8081)
        self._service(
            f"bitnet-{environment}-{slot}", environment,
            *(part for name, value in variables.items() for part in ("--env", f"{name}={value}")),
            "--env", "PYTHONPATH=/loss",
            "--mount", f"type=bind,source={FOLDER},target=/loss,readonly", "--stop-grace-period", "40s",
            "--restart-delay", "2s", "--health-interval", "5s", "--health-start-period", "300s",
            *labels(environment, {"release": RELEASE, "replicas": "1"}),
            self.image, "/usr/bin/python3", "/loss/stand_in.py", "--load-seconds", f"{LOAD_SECONDS:g}", "--",
            "api-server", "--port", "8080",
        )  # fmt: skip

    def _edge(self, environment: str, image: str) -> None:
        state = f"{FOLDER}/environments/{environment}"
        folder = f"{state}/edge"
        self.put(edge_configuration(environment), f"{FOLDER}/haproxy-{environment}.cfg")
        token = self.token_file.read_text()
        self.put(f"{hashlib.sha256(token.encode()).hexdigest()}\n", f"{folder}/testers.acl")
        self.put(token, f"{state}/tokens/probe")  # with which the module looks as a client
        self._service(
            f"bitnet-{environment}-edge", environment, *labels(environment, {"active-slot": "blue"}),
            "--publish", f"published={PORTS[environment]},target=8080,mode=host",
            "--mount", f"type=bind,source={folder},target=/run/bitnet-edge",
            "--mount", f"type=bind,source={FOLDER}/haproxy-{environment}.cfg,target=/etc/haproxy/bitnet.cfg,readonly",
            *(part for name, label in ROUTING_OF_LABELS.items()
              for part in ("--env", f'{name}={{{{index .Service.Labels "io.bitnet.{label}"}}}}')),
            "--env", "BITNET_EDGE_CONFIG=/etc/haproxy/bitnet.cfg", "--restart-delay", "0s", image,
        )  # fmt: skip

    def _traefik(self, image: str) -> None:
        if self.host is None:
            raise StandError("there is no machine")
        machine.run("docker", "cp", "--follow-link", traefik(), f"{self.host.container}:{FOLDER}/traefik")
        self._route("blue")
        self._service(
            "bitnet-loss-traefik", ENVIRONMENT, "--publish", f"published={PORTS['traefik']},target=8080,mode=host",
            "--mount", f"type=bind,source={FOLDER}/traefik,target=/traefik,readonly",
            "--mount", f"type=bind,source={FOLDER}/routes,target=/routes,readonly",
            "--no-healthcheck", "--entrypoint", "/traefik", image,
            *traefik_options(":8080", Path("/routes"), ""),
        )  # fmt: skip

    def _route(self, slot: str) -> None:
        servers = {name: f"http://bitnet-{ENVIRONMENT}-{name}:8080" for name in SLOTS}
        path = self.folder / "routes.yml"
        write_traefik(path, slot, servers)
        self.put(path.read_text(), f"{FOLDER}/routes/routes.yml")

    # --- moves ------------------------------------------------------------------------------------------------------

    async def by_module(self, kind: str, slot: str) -> tuple[int, str]:
        container = self.host.container if self.host else ""
        arguments = f"environment={ENVIRONMENT} state_dir={FOLDER} action={kind} release={RELEASE} slot={slot}"
        return await command(
            ["ansible", "all", "-i", f"{container},", "-c", "community.docker.docker",
             "-m", "bitnet.devops.traffic_switch", "-a", arguments],
            UPDATE_SECONDS,
        )  # fmt: skip

    async def by_traefik(self, _kind: str, slot: str) -> tuple[int, str]:
        self._route(slot)
        return 0, ""

    async def _in_machine(self, *argv: str) -> tuple[int, str]:
        if self.host is None:
            raise StandError("there is no machine")
        return await command(["docker", "exec", self.host.container, *argv], UPDATE_SECONDS)

    def _updating(self, order: str) -> Callable[[str, str], object]:
        async def act(_kind: str, _target: str) -> tuple[int, str]:
            return await self._in_machine(
                "docker", "service", "update", "--quiet", "--force", "--update-order", order, f"bitnet-{ROLLING}-blue"
            )

        return act

    # --- what it offers ---------------------------------------------------------------------------------------------

    def subjects(self) -> dict[str, Subject]:
        blue_green = {slot: self._log(f"bitnet-{ENVIRONMENT}-{slot}") for slot in SLOTS}
        found: dict[str, Subject] = {}
        if f"bitnet-{ENVIRONMENT}-edge" in self.services:
            found["switch"] = Subject(
                "switch", "bitnet.devops.traffic_switch, HAProxy with the role's configuration",
                self._url(ENVIRONMENT), self.token_file, self.by_module,
                edge_log=self._log(f"bitnet-{ENVIRONMENT}-edge"), slot_logs=dict(blue_green),
                ready=self._ready(ENVIRONMENT), dropped=self._dropped(ENVIRONMENT),
            )  # fmt: skip
        if f"bitnet-{ROLLING}-edge" in self.services:
            for name, order in ROLLINGS.items():
                found[name] = Subject(
                    name, f"docker service update --force --update-order {order}, the same HAProxy before it",
                    self._url(ROLLING), self.token_file, self._updating(order),  # type: ignore[arg-type]
                    kinds=("update",), targets=("blue",), edge_log=self._log(f"bitnet-{ROLLING}-edge"),
                    slot_logs={"blue": self._log(f"bitnet-{ROLLING}-blue")}, ready=self._ready(ROLLING),
                    dropped=self._dropped(ROLLING),
                )  # fmt: skip
        if "bitnet-loss-traefik" in self.services:
            found["traefik-file"] = Subject(
                "traefik-file", "Traefik, its file provider's file rewritten", self._url("traefik"), self.token_file,
                self.by_traefik, edge_log=self._log("bitnet-loss-traefik"), slot_logs=dict(blue_green), settle=2.0,
                ready=self._ready("traefik"),
            )  # fmt: skip
        return found

    def _url(self, name: str) -> str:
        return f"http://{self.host.address if self.host else ''}:{PORTS[name]}"

    def _ready(self, name: str) -> Callable[[], None]:
        def ready() -> None:
            more = f"docker exec {self.host.container if self.host else ''} docker service ls"
            await_ready(self._url(name), READY_SECONDS, f"the edge of {name}", more)
            time.sleep(1)

        return ready

    def _dropped(self, environment: str) -> Callable[[], int]:
        container = self.host.container if self.host else ""
        return edge_dropped(container, f"{FOLDER}/environments/{environment}/edge")

    def _log(self, service: str) -> AskedLog:
        return service_log(self.host.container if self.host else "", service)


def labels(environment: str, ours: dict[str, str]) -> Iterator[str]:
    """Options that say of a service what the module looks for."""
    found = {"owner": "bitnet.devops", "schema": "1", "environment": environment, **ours}
    for name, value in found.items():
        yield from ("--label", f"io.bitnet.{name}={value}")


def service_log(container: str, service: str) -> AskedLog:
    """The log of a service whose tasks all run on that machine."""
    return AskedLog(["docker", "exec", container, "sh", "-c", LOGS, "logs", service, "{since}"])


def edge_dropped(container: str, folder: str) -> Callable[[], int]:
    """How many lines of its log the edge whose socket is in that folder has dropped; 0 where it does not answer."""

    def dropped() -> int:
        argv = ["docker", "exec", container, "python3", "-c", INFORMATION, folder]
        return dropped_lines(machine.run(*argv, timeout=20, check=False))

    return dropped
