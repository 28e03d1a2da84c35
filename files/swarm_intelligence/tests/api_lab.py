# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the API server's real process code in a thread, in front of a fault injector that plays llama-server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx
from swarm_intelligence.api import Server
from swarm_intelligence.engine_run import free_port
from swarm_intelligence.service import Service
from swarm_intelligence.settings import Settings

TOKEN = "a-token-of-the-tests"
AUTHORIZED = {"Authorization": f"Bearer {TOKEN}"}


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not reached within {seconds} s: {condition}"
        time.sleep(0.02)


class FaultInjector:
    """Stands where llama-server would, and fails in the ways that it can. It says so in its Server header.

    behaviour: tokens | bytes | cut | silent | slow | error | error-in-stream | loading | garbage
    """

    def __init__(self) -> None:
        self.behaviour = "tokens"
        self.port = free_port()
        self.open = 0
        self.payloads: list[dict[str, Any]] = []
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._started.wait(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._server = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", self.port))
        self._started.set()
        self._loop.run_forever()

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._server.close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            lengths = [line.split(":")[1] for line in head.splitlines() if line.lower().startswith("content-length")]
            body = json.loads(await reader.readexactly(int(lengths[0])))
            await self._answer(head.split()[1], body, reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(
        self, path: str, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        def document(status: int, content: dict[str, Any]) -> bytes:
            data = json.dumps(content).encode()
            head = b"HTTP/1.1 %d x\r\nServer: fault-injector\r\nContent-Type: application/json\r\n" % status
            return head + b"Content-Length: %d\r\n\r\n" % len(data) + data

        if path == "/tokenize":
            writer.write(document(200, {"tokens": [1] * len(body["content"].split())}))
            return
        if path == "/apply-template":
            writer.write(document(200, {"prompt": body["messages"][-1]["content"]}))
            return
        self.payloads.append(body)
        if self.behaviour == "silent":
            await reader.read()  # until the client goes
            return
        if self.behaviour in ("error", "loading"):
            code = {"error": 500, "loading": 503}[self.behaviour]
            writer.write(document(code, {"error": {"code": code, "message": "[json.exception.type_error.316]"}}))
            return
        writer.write(b"HTTP/1.1 200 OK\r\nServer: fault-injector\r\nTransfer-Encoding: chunked\r\n\r\n")
        pieces = {"bytes": [b"ab\xff\xfe", b"\x80"], "garbage": [b'"'], "slow": [b"x"] * 400}.get(
            self.behaviour, [b" one", b" two"]
        )
        for piece in pieces:
            await self._event(writer, b'{"content":"' + piece + b'","stop":false}')
            if self.behaviour == "slow":
                await asyncio.sleep(0.05)
        if self.behaviour == "cut":
            return
        if self.behaviour == "error-in-stream":
            await self._event(writer, b'{"error":{"code":500,"message":"decoding failed"}}')
        else:
            text = b"".join(pieces)
            await self._event(
                writer,
                b'{"content":"","stop":true,"stopped_limit":true,"tokens_evaluated":3,"tokens_predicted":2,'
                b'"generated_text":"' + text + (b"\xf0" if self.behaviour == "bytes" else b"") + b'"}',
            )
        writer.write(b"0\r\n\r\n")
        await writer.drain()

    @staticmethod
    async def _event(writer: asyncio.StreamWriter, data: bytes) -> None:
        data = b"data: " + data + b"\n\n"
        writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await writer.drain()


@dataclass
class Api:
    url: str
    service: Service
    server: Server
    injector: FaultInjector
    thread: threading.Thread
    loop: asyncio.AbstractEventLoop

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=AUTHORIZED, timeout=20, trust_env=False, **options)

    def get(self, path: str, authorized: bool = True) -> httpx.Response:
        headers = AUTHORIZED if authorized else {}
        return httpx.get(self.url + path, headers=headers, timeout=20, trust_env=False)

    def metric(self, line: str) -> float:
        """Value of one line of /metrics, 0 when it is not there."""
        for found in self.get("/metrics", authorized=False).text.splitlines():
            if found.startswith(line + " "):
                return float(found.rsplit(" ", 1)[1])
        return 0

    def begin_drain(self) -> None:
        self.loop.call_soon_threadsafe(self.server.begin_drain)

    def stop(self) -> None:
        if self.thread.is_alive():
            self.loop.call_soon_threadsafe(setattr, self.server, "should_exit", True)
        self.thread.join(20)
        assert not self.thread.is_alive(), "the server did not end"


def settings_with(**variables: str) -> Settings:
    return Settings.from_environment({f"BITNET_{name.upper()}": value for name, value in variables.items()})
