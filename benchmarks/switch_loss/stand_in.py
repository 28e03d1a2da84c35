# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Standard library only: it runs in the workload's container as well.
"""A stand-in for the inference engine that answers at the pace which the prompt asks for, and numbers its tokens.

    python stand_in.py --engine-port 8081 [--load-seconds S] -- api-server --port 8080

It plays llama-server on the loopback interface and swarm-orchestrator towards the API server, which it starts; SIGTERM
goes on to that, and its exit status is this one's. "pace 0.25" in the prompt means 0.25 s from token to token. Engine
and model are not what a switch moves, so that a proof about switching may do without them.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import re
import signal
import sys

HEAD = b"HTTP/1.1 200 OK\r\nServer: stand-in\r\n"
PACE = re.compile(r"pace (\d+(?:\.\d+)?)")


def event(document: dict[str, object]) -> bytes:
    data = b"data: " + json.dumps(document).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


def final(tokens: int) -> bytes:
    text = "".join(f" t{number}" for number in range(tokens))
    document = {"content": "", "stop": True, "stopped_limit": True, "tokens_evaluated": 2, "tokens_predicted": tokens}
    return event({**document, "generated_text": text}) + b"0\r\n\r\n"


class Engine(asyncio.Protocol):
    """One connection, one request; the engine closes it after a stream."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.received = b""
        self.stream: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, _error: Exception | None) -> None:
        if self.stream:
            self.stream.cancel()

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator or self.stream:
            return
        length = re.search(rb"(?i)\ncontent-length: *(\d+)", head)
        if length and len(body) < int(length[1]):
            return
        self.answer(head.split(b" ", 2)[1], json.loads(body or b"{}"))

    def answer(self, path: bytes, body: dict[str, object]) -> None:
        if path != b"/completion":
            known = {
                b"/tokenize": {"tokens": [1] * len(str(body.get("content")).split())},
                b"/apply-template": {"prompt": str(body.get("messages"))},
            }
            data = json.dumps(known.get(path, {"status": "ok"})).encode()
            self.transport.write(HEAD + b"Connection: close\r\nContent-Length: %d\r\n\r\n%s" % (len(data), data))
            self.transport.close()
            return
        tokens = int(str(body["n_predict"]))
        pace = PACE.search(str(body["prompt"]))
        self.transport.write(HEAD + b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        if pace and float(pace[1]) > 0:
            self.stream = asyncio.ensure_future(self.paced(tokens, float(pace[1])))
            return
        self.transport.write(b"".join(event({"content": f" t{number}", "stop": False}) for number in range(tokens)))
        self.transport.write(final(tokens))
        self.transport.close()

    async def paced(self, tokens: int, pace: float) -> None:
        for number in range(tokens):
            self.transport.write(event({"content": f" t{number}", "stop": False}))
            await asyncio.sleep(pace)
        self.transport.write(final(tokens))
        self.transport.close()


async def serve(port: int, load_seconds: float, command: list[str]) -> int:
    loop = asyncio.get_running_loop()
    engine = await loop.create_server(Engine, "127.0.0.1", port, backlog=1024)
    child = await asyncio.create_subprocess_exec(*command, stdin=asyncio.subprocess.PIPE)

    def end() -> None:
        if child.returncode is None:
            child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, end)

    async def load() -> None:
        await asyncio.sleep(load_seconds)
        state = {"ready": True, "restarts": 0, "variant": "stand-in", "reason": "a stand-in plays the engine"}
        if child.stdin:
            with contextlib.suppress(ConnectionError):
                child.stdin.write(json.dumps(state).encode() + b"\n")
                await child.stdin.drain()

    loading = asyncio.create_task(load())
    status = await child.wait()
    loading.cancel()
    engine.close()
    return status


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engine-port", type=int, default=8081)
    parser.add_argument("--load-seconds", type=float, default=0.0, help="until the model counts as loaded")
    parser.add_argument("command", nargs="+", help="the API server and its arguments")
    arguments = parser.parse_args()
    return asyncio.run(serve(arguments.engine_port, arguments.load_seconds, arguments.command))


if __name__ == "__main__":
    sys.exit(main())
