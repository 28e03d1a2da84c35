# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An edge: by HAProxy's runtime socket on this machine, by its published port elsewhere. Every call has a deadline."""

from __future__ import annotations

import contextlib
import csv
import http.client
import json
import os
import re
import socket
import stat
import time
import typing as t
from pathlib import Path

from .routing import SLOTS, BadRecord, Router, Routing, routing_from, routing_of_map

FOLDER = "/run/bitnet-edge"
"""The edge's folder as HAProxy knows it; on the host it lies in the state of the environment."""

MAP = f"{FOLDER}/routing.map"
TESTERS = f"{FOLDER}/testers.acl"

_LARGEST = 4 << 20
_TOGETHER = 50
"""So many commands fit into a line that HAProxy reads."""


class EdgeFailed(Exception):
    """The edge did not do what it was told, or cannot be asked; the text is for a person."""


class NotRunning(EdgeFailed):
    """No edge listens here."""


class Edge:
    """The edge whose folder (socket and map file) lies on this machine."""

    def __init__(self, name: str, folder: Path, timeout: float = 3) -> None:
        self.name = name
        self.folder = folder
        self.timeout = timeout

    def ask(self, command: str) -> str:
        """One command (or several, with `;` between them) and what HAProxy answered."""
        path = self.folder / "haproxy.sock"
        until = time.monotonic() + self.timeout
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.settimeout(self.timeout)
                connection.connect(str(path))
                connection.sendall(command.encode() + b"\n")
                connection.shutdown(socket.SHUT_WR)
                answer = b""
                while len(answer) < _LARGEST:
                    left = until - time.monotonic()
                    if left <= 0:
                        raise socket.timeout
                    connection.settimeout(left)
                    part = connection.recv(65536)
                    if not part:
                        return answer.decode("utf-8", "replace")
                    answer += part
        except socket.timeout:
            raise EdgeFailed(
                f"edge {self.name}: HAProxy did not answer {command.split(maxsplit=1)[0]!r} at {path} within "
                f"{self.timeout:g} s"
            ) from None
        except OSError as error:
            failure = NotRunning if isinstance(error, (FileNotFoundError, ConnectionRefusedError)) else EdgeFailed
            raise failure(f"edge {self.name}: {path}: {error.strerror or error}") from error
        raise EdgeFailed(f"edge {self.name}: HAProxy's answer to {command.split(maxsplit=1)[0]!r} does not end")

    def routing(self) -> Routing:
        return routing_of_map(self.ask(f"show map {MAP}").splitlines(), f"the map of edge {self.name}")

    def _file_says(self, routing: Routing) -> bool:
        try:
            return (self.folder / "routing.map").read_text(encoding="ascii") == routing.map_text()
        except (OSError, ValueError):
            return False

    def view(self) -> Router:
        """What it really does; an edge that cannot be asked is a view with an error."""
        try:
            routing: Routing | None = self.routing()
            if routing and not self._file_says(routing):
                routing = None  # a reload would bring another routing back: it has to be told again
            up, connections = counts(self.ask("show stat"))
        except (EdgeFailed, BadRecord) as error:
            return Router(self.name, error=str(error))
        return Router(self.name, routing, up, connections)

    def reserve(self, routing: Routing) -> None:
        """Write the next map file beside the present one: a full disk is met before anything is decided."""
        self._write("routing.map.next", routing.map_text())

    def set(self, routing: Routing) -> None:
        """File first, so that a reload reads what the running process is told next; then all keys at once."""
        self.reserve(routing)
        self._publish("routing.map")
        self._tell("map", MAP, [f"{key} {value}" for key, value in routing.entries().items()])

    def testers_listed(self) -> list[str] | None:
        """The hashes in the file, which an edge reads when it begins; None where no file is, or others read it."""
        path = self.folder / "testers.acl"
        try:
            if stat.S_IMODE(path.stat().st_mode) != 0o600:
                return None
            return path.read_text(encoding="ascii").split()
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise EdgeFailed(f"edge {self.name}: {path} cannot be read ({error})") from error

    def testers_known(self) -> list[str]:
        """The hashes that the running process has in memory."""
        lines = self.ask(f"show acl {TESTERS}").splitlines()
        return sorted(line.split()[1] for line in lines if line.startswith("0x"))

    def set_testers(self, hashes: t.Sequence[str], running: bool) -> None:
        self._write("testers.acl.next", "".join(f"{text}\n" for text in hashes))
        self._publish("testers.acl")
        if running:
            self._tell("acl", TESTERS, hashes)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        try:
            with path.open("w", encoding="ascii") as handle:
                os.fchmod(handle.fileno(), 0o600)
                handle.write(text)
                handle.flush()
                os.fsync(handle.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                path.unlink()
            raise EdgeFailed(
                f"edge {self.name}: {path} cannot be written ({error.strerror}); 'df {self.folder}' shows more"
            ) from error

    def _publish(self, name: str) -> None:
        try:
            (self.folder / f"{name}.next").replace(self.folder / name)
        except OSError as error:
            raise EdgeFailed(f"edge {self.name}: {self.folder}/{name}: {error.strerror}") from error

    def _tell(self, kind: str, path: str, entries: t.Sequence[str]) -> None:
        """Replace a map or an ACL of the running process in one step."""
        said = self.ask(f"prepare {kind} {path}")
        found = re.search(r"New version created: (\d+)", said)
        if not found:
            raise EdgeFailed(f"edge {self.name}: HAProxy did not prepare the {kind}: {said.strip()}")
        version = found[1]
        commands = [f"add {kind} @{version} {path} {entry}" for entry in entries]
        commands.append(f"commit {kind} @{version} {path}")
        for start in range(0, len(commands), _TOGETHER):
            said = self.ask(" ; ".join(commands[start : start + _TOGETHER]))
            if said.strip():
                raise EdgeFailed(f"edge {self.name}: HAProxy did not take the {kind}: {said.strip()}")


class DistantEdge:
    """An edge on another machine, asked at its port as a tester. It is told by a job of the Swarm: no port writes."""

    def __init__(self, name: str, host: str, port: int, token: str, timeout: float = 3) -> None:
        self.name = name
        self.host = host
        self.port = port
        self.token = token
        self.timeout = timeout

    def view(self) -> Router:
        """What it really does; an edge that cannot be asked is a view with an error."""
        where = f"edge {self.name} at {self.host}:{self.port}"
        try:
            status, _slot, body = get(self.host, self.port, "/edge/state", self.token, self.timeout)
            if status != 200:
                why = "it does not take the probe token for a tester's; run bitnet.devops.rollout, which tells it"
                return Router(self.name, error=f"{where} answered {status}" + (f": {why}" if status == 404 else ""))
            told = json.loads(body)
            said = told["routing"]
            routing = routing_from(said["active"], said["share"], said["hold"], f"the map of edge {self.name}")
            up, connections = ({slot: int(told[what][slot]) for slot in SLOTS} for what in ("up", "connections"))
        except (OSError, http.client.HTTPException) as error:
            return Router(self.name, error=f"{where} did not answer ({error or type(error).__name__})")
        except (ValueError, KeyError, TypeError) as error:
            return Router(self.name, error=f"{where} did not say what it does ({type(error).__name__}: {error})")
        except BadRecord as error:
            return Router(self.name, error=str(error))
        return Router(self.name, routing, up, connections)


def get(host: str, port: int, path: str, token: str, timeout: float, *, asked: str = "") -> tuple[int, str, bytes]:
    """Status, slot and body of one answer, on a connection of its own; of the slot that is asked, or the active one."""
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        headers = {"Authorization": f"Bearer {token}", "Connection": "close"}
        connection.request("GET", path, headers={**headers, **({"X-Bitnet-Slot": asked} if asked else {})})
        response = connection.getresponse()
        return response.status, response.getheader("X-Bitnet-Slot") or "", response.read(_LARGEST)
    finally:
        connection.close()


def counts(statistics: str) -> tuple[dict[str, int], dict[str, int]]:
    """Servers that are up, and sessions that run, for each slot, from `show stat`."""
    up, connections = dict.fromkeys(SLOTS, 0), dict.fromkeys(SLOTS, 0)
    rows: t.Iterator[dict[str, str]] = csv.DictReader(statistics.lstrip("# ").splitlines())
    for row in rows:
        slot = row.get("pxname", "")
        if slot not in SLOTS:
            continue
        if row["svname"] == "BACKEND":
            connections[slot] = int(row["scur"] or 0)
        elif row["svname"] != "FRONTEND" and row["status"].startswith("UP"):
            up[slot] += 1
    return up, connections
