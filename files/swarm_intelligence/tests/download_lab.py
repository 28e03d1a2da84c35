# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A file server that misbehaves in the ways servers do. Needs nothing but Python, so that a test machine can run it.

python3 download_lab.py PORT FOLDER [FAULT ...]     serves the folder; each fault befalls one request of a .gguf
"""

from __future__ import annotations

import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any


class Server(ThreadingHTTPServer):
    """Serves one content under every name, or the files of a folder. ``faults`` are taken from the front, one for each
    request of a .gguf; without any it behaves."""

    daemon_threads = True

    def __init__(self, content: bytes = b"", folder: Path | None = None, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.folder = folder
        self.faults: list[str] = []
        self.always = ""
        self.content = content
        self.etag = '"one"'
        self.requests: list[dict[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.gguf"

    def body(self, path: str) -> bytes:
        return (self.folder / Path(path).name).read_bytes() if self.folder else self.content


class Handler(BaseHTTPRequestHandler):
    server: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: Any) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        server: Server = self.server
        server.requests.append({key.lower(): value for key, value in self.headers.items()} | {"path": self.path})
        takes = server.faults and self.path.endswith(".gguf")
        fault = server.always or (server.faults.pop(0) if takes else "")
        self.close_connection = True
        if re.fullmatch(r"\d{3}", fault):
            self.reply(int(fault), b"an error page", {})
        elif fault.startswith("redirect "):
            self.reply(302, b"", {"Location": fault.removeprefix("redirect ")})
        elif fault != "drop at once":
            self.serve(server, fault)

    def serve(self, server: Server, fault: str) -> None:
        try:
            body, status = server.body(self.path), 200
        except OSError:
            self.reply(404, b"", {})
            return
        headers = {"ETag": server.etag, "Accept-Ranges": "bytes"}
        wanted = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
        if wanted and self.headers.get("If-Range") == server.etag and fault != "ignore range":
            start = int(wanted[1])
            if start >= len(body):
                self.reply(416, b"", {"Content-Range": f"bytes */{len(body)}"})
                return
            shift = 5 if fault == "wrong place" else 0
            headers["Content-Range"] = f"bytes {start + shift}-{len(body) - 1}/{len(body)}"
            body, status = body[start:], 206
        if fault == "no etag":
            headers = {}
        length = len(body)
        if fault == "promise more":
            length += 1000
        if fault == "promise less":
            length -= 1000
        if fault == "wrong file":
            body = bytes(length)
        if fault in ("cut", "no etag"):
            body = body[: max(1, len(body) // 3)]
        self.reply(status, body, headers, length)

    def reply(self, status: int, body: bytes, headers: dict[str, str], length: int | None = None) -> None:
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body) if length is None else length)}.items():
            self.send_header(key, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except OSError:
            return


if __name__ == "__main__":
    lab = Server(folder=Path(sys.argv[2]), port=int(sys.argv[1]))
    lab.faults = sys.argv[3:]
    lab.serve_forever()
