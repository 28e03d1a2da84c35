# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for the API of Swarm managers: HTTP as Docker speaks it, on a socket, with what a test wants it to say."""

from __future__ import annotations

import copy
import json
import socketserver
import ssl
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

OURS = {"io.bitnet.owner": "bitnet.devops", "io.bitnet.environment": "production"}


def node(name: str, role: str = "worker", **more):
    """As /nodes has it; addr, arch, labels, state and id may be given."""
    found = {
        "ID": more.get("id", f"id-of-{name}"),
        "Spec": {"Role": role, "Availability": "active", "Labels": more.get("labels", {})},
        "Description": {
            "Hostname": name,
            "Platform": {"Architecture": more.get("arch", "x86_64"), "OS": "linux"},
            "Engine": {"EngineVersion": "20.10.24"},
        },
        "Status": {"State": more.get("state", "ready"), "Addr": more.get("addr", "10.0.0.9")},
    }
    if role == "manager":
        found["ManagerStatus"] = {"Leader": True, "Reachability": "reachable", "Addr": "10.0.0.1:2377"}
    return found


def service(name: str, replicas: int = 1, labels=None, image: str = "registry.example.com/it@sha256:1"):
    return {
        "ID": f"id-of-{name}",
        "Spec": {
            "Name": name,
            "Labels": labels or {},
            "Mode": {"Replicated": {"Replicas": replicas}},
            "TaskTemplate": {"ContainerSpec": {"Image": image, "Env": ["PASSWORD=secret"]}},
        },
    }


def task(of: dict, on: dict, desired: str = "running", state: str = "running", number: int = 1):
    return {
        "ID": f"{of['Spec']['Name']}.{number}",
        "ServiceID": of["ID"],
        "NodeID": on["ID"],
        "Spec": copy.deepcopy(of["Spec"]["TaskTemplate"]),
        "DesiredState": desired,
        "Status": {"State": state},
    }


class Engine:
    """One manager. C(calls) counts what was asked; C(silent) has it take connections and say nothing."""

    def __init__(self, nodes=(), services=(), tasks=(), silent: bool = False) -> None:
        self.answers: dict[str, Any] = {
            "version": {"ApiVersion": "1.41", "Version": "20.10.24"},
            "info": {"Swarm": {"NodeID": nodes[0]["ID"] if nodes else ""}},
            "nodes": list(nodes),
            "services": list(services),
            "tasks": list(tasks),
        }
        self.silent = silent
        self.calls: Counter[str] = Counter()
        self.ended = threading.Event()

    def listen(self, at: Path | tuple[str, int], context: ssl.SSLContext | None = None):
        engine = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                if engine.silent:
                    engine.ended.wait(30)
                    return
                above, _slash, what = self.path.partition("?")[0].rpartition("/")
                engine.calls[f"{above.rpartition('/')[2]}/*" if what not in engine.answers else what] += 1
                body = json.dumps(engine.answers[what] if what in engine.answers else engine.node(what)).encode()
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def address_string(self) -> str:
                return "it"

            def log_message(self, *_arguments) -> None:
                pass

        kind: Any = socketserver.ThreadingUnixStreamServer if isinstance(at, Path) else socketserver.ThreadingTCPServer
        server = kind(str(at) if isinstance(at, Path) else at, Handler)
        server.daemon_threads = True
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        self.server = server
        return self

    def node(self, node_id: str):
        return next(node for node in self.answers["nodes"] if node["ID"] == node_id)

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
