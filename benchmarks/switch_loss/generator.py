# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load: numbered completions at a rate, streams and WebSockets that are always open; bounded in number and time.

The HTTP side is asyncio and httptools, which take a tenth of the time that a full client takes: generator, edge and
slots share the machine. No request is ever sent a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import itertools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httptools
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from .ledger import (
    Answer,
    Entry,
    Judgement,
    Ledger,
    LedgerFull,
    Outcome,
    judge_generation,
    judge_http,
    judge_socket,
    judge_sse,
    judge_status,
)

CONNECT_SECONDS = 5.0
LONGEST_SECONDS = 1800.0


class TargetError(Exception):
    """An address that is not to be loaded, or a token that cannot be read."""


@dataclass(frozen=True)
class Target:
    host: str
    port: int
    token: str

    @classmethod
    def parse(cls, url: str, token_file: Path) -> Target:
        """Loopback, or an address of a private network such as a test machine's; nothing else is loaded."""
        parts = urlsplit(url)
        host = "127.0.0.1" if parts.hostname == "localhost" else parts.hostname or ""
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            raise TargetError(
                f"{url!r}: give an address, as in http://127.0.0.1:8080; names are not looked up"
            ) from None
        if parts.scheme != "http" or not (address.is_loopback or address.is_private):
            raise TargetError(f"{url!r} is not loaded: only http to loopback or to a test machine's private address is")
        try:
            token = token_file.read_text().strip()
        except OSError as error:
            raise TargetError(f"the token cannot be read: {error}") from None
        return cls(host, parts.port or 80, token)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Shape:
    """How much of what is sent."""

    rate: float = 100.0
    """Plain completions per second, begun whether or not earlier ones have been answered."""
    streams: int = 20
    sockets: int = 10
    tokens: int = 4
    stream_tokens: int = 12
    pace: float = 0.4
    """Seconds from token to token of a stream or generation, if the stand-in plays the engine."""
    deadline: float = 60.0
    in_flight: int = 1000
    """Plain completions at a time; beyond it they are not begun, and that is counted."""


class Connection(asyncio.Protocol):
    """One HTTP/1.1 connection with one request at a time."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.parser: Any = httptools.HttpResponseParser(self)
        self.answer: Answer | None = None
        self.done: asyncio.Future[None] | None = None
        self.first: float | None = None
        self.usable = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def send(self, data: bytes, answer: Answer) -> asyncio.Future[None]:
        self.answer, self.first = answer, None
        answer.connected = True
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(data)
        return self.done

    def data_received(self, data: bytes) -> None:
        if self.first is None:
            self.first = time.monotonic()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._finish(f"not HTTP: {error}")
            self.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.answer:
            self.answer.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self.answer:
            self.answer.status = self.parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        if self.answer:
            self.answer.body += body

    def on_message_complete(self) -> None:
        if self.answer and self.answer.status is not None and self.answer.status >= 200:
            self.answer.framed = True
            self.usable = self.usable and self.parser.should_keep_alive()
            self._finish("")

    def connection_lost(self, exc: Exception | None) -> None:
        self.usable = False
        answer = self.answer
        if answer and answer.status and not {"content-length", "transfer-encoding"} & answer.headers.keys():
            answer.framed = exc is None  # such a body ends with the connection
        self._finish(type(exc).__name__ if exc else "closed by the other side")

    def _finish(self, fault: str) -> None:
        if self.answer:
            self.answer.fault = fault
        self.answer = None
        if self.done and not self.done.done():
            self.done.set_result(None)

    def close(self) -> None:
        self.usable = False
        self.transport.abort()


class Load:
    """Sends the shape's load to the target until it is told to stop, then waits for what runs."""

    def __init__(self, target: Target, shape: Shape, ledger: Ledger) -> None:
        self.target = target
        self.shape = shape
        self.ledger = ledger
        self.began = time.monotonic()
        self.not_begun = 0
        self.full = False
        self._stop = asyncio.Event()
        self._idle: list[Connection] = []
        self._running: set[asyncio.Task[None]] = set()
        self._short = self._template({"prompt": "pace 0", "max_tokens": shape.tokens})
        self._long = self._template(
            {"prompt": f"pace {shape.pace:g}", "max_tokens": shape.stream_tokens, "stream": True}
        )

    def now(self) -> float:
        return time.monotonic() - self.began

    def stop(self) -> None:
        """Begin nothing new."""
        self._stop.set()

    async def run(self) -> None:
        """Until stop() and the end of all that runs then."""
        shape = self.shape
        workers = [asyncio.create_task(self._paced())] if shape.rate > 0 else []
        workers += [asyncio.create_task(self._stream(number)) for number in range(shape.streams)]
        workers += [asyncio.create_task(self._socket(number)) for number in range(shape.sockets)]
        try:
            async with asyncio.timeout(LONGEST_SECONDS):
                await asyncio.gather(*workers)
                while self._running:
                    await asyncio.wait(self._running)
        except TimeoutError:
            for worker in (*workers, *self._running):
                worker.cancel()
        finally:
            for connection in self._idle:
                connection.close()
            self.ledger.close(self.now())

    # --- HTTP -------------------------------------------------------------------------------------------------------

    def _template(self, document: dict[str, Any]) -> tuple[bytes, bytes]:
        body = json.dumps(document).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self.target.authority}\r\n"
            f"Authorization: Bearer {self.target.token}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nX-Request-Number: "
        )
        return head.encode(), b"\r\n\r\n" + body

    async def _paced(self) -> None:
        began, sent = time.monotonic(), 0
        while not self._stop.is_set():
            due = int((time.monotonic() - began) * self.shape.rate)
            for _unused in range(due - sent):
                if len(self._running) >= self.shape.in_flight:
                    self.not_begun += 1
                    continue
                task = asyncio.create_task(self._plain())
                self._running.add(task)
                task.add_done_callback(self._running.discard)
            sent = due
            await asyncio.sleep(0.005)

    async def _plain(self) -> None:
        await self._exchange("http")

    async def _stream(self, number: int) -> None:
        length = self.shape.stream_tokens * self.shape.pace
        await self._pause(length * number / max(self.shape.streams, 1))  # they do not march in step
        while not self._stop.is_set():
            if await self._exchange("sse") is not Outcome.COMPLETE:
                await self._pause(0.25)

    async def _exchange(self, kind: str) -> Outcome | None:
        entry = self._begin(kind)
        if entry is None:
            return None
        head, rest = self._short if kind == "http" else self._long
        answer = Answer()
        connection = None
        try:
            async with asyncio.timeout(self.shape.deadline):
                connection = await self._connection(answer)
                if connection is not None:
                    await connection.send(head + entry.number.encode() + rest, answer)
        except TimeoutError:
            answer.framed = False
            answer.fault = f"no end within {self.shape.deadline:g} s"
        if connection is not None:
            entry.first = connection.first - self.began if connection.first else None
            self._keep(connection, answer)
        entry.status = answer.status
        entry.slot = answer.headers.get("x-bitnet-slot")
        judge, tokens = (judge_http, self.shape.tokens) if kind == "http" else (judge_sse, self.shape.stream_tokens)
        self.ledger.end(entry, judge(answer, tokens), self.now())
        return entry.outcome

    def _begin(self, kind: str) -> Entry | None:
        try:
            return self.ledger.begin(kind, self.now())
        except LedgerFull:
            self.full = True
            self.stop()
            return None

    async def _connection(self, answer: Answer) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                loop = asyncio.get_running_loop()
                _unused, connection = await loop.create_connection(Connection, self.target.host, self.target.port)
                return connection
        except (OSError, TimeoutError) as error:
            answer.fault = f"no connection: {type(error).__name__}"
            return None

    def _keep(self, connection: Connection, answer: Answer) -> None:
        if connection.usable and answer.framed:
            self._idle.append(connection)
        else:
            connection.close()

    # --- WebSockets -------------------------------------------------------------------------------------------------

    async def _socket(self, number: int) -> None:
        await self._pause(0.02 * number)
        while not self._stop.is_set():
            entry = self._begin("socket")
            if entry is None:
                return
            judgement = await self._open(entry)
            self.ledger.end(entry, judgement, self.now())
            if judgement[0] is not Outcome.COMPLETE:
                await self._pause(0.25)

    async def _open(self, entry: Entry) -> Judgement:
        headers = {"Authorization": f"Bearer {self.target.token}", "X-Request-Number": entry.number}
        client = connect(
            f"ws://{self.target.authority}/ws", additional_headers=headers, proxy=None, compression=None,
            ping_interval=None, open_timeout=CONNECT_SECONDS * 2, close_timeout=CONNECT_SECONDS, max_queue=None,
        )  # fmt: skip
        try:
            async with asyncio.timeout(CONNECT_SECONDS * 2):
                connection = await client.__aenter__()
        except InvalidStatus as refusal:
            response = refusal.response
            entry.status = response.status_code
            plain = {name.lower(): value for name, value in response.headers.raw_items()}
            return judge_status(response.status_code, plain, bytes(response.body or b""))
        except (InvalidHandshake, EOFError) as error:
            return Outcome.LOST, f"cut in the handshake: {type(error).__name__}"
        except (OSError, TimeoutError) as error:
            return Outcome.REFUSED, f"no connection: {type(error).__name__}"
        try:
            if connection.response is not None:
                entry.first, entry.status = self.now(), connection.response.status_code
                entry.slot = connection.response.headers.get("X-Bitnet-Slot")
            ours = await self._generations(connection, entry) and connection.close_code is None
        finally:
            await connection.close()
        return judge_socket(connection.close_code, ours)

    async def _generations(self, connection: ClientConnection, socket: Entry) -> bool:
        """One after the other, until the connection ends; true when it was ended from here."""
        try:
            await asyncio.wait_for(connection.recv(), self.shape.deadline)  # ready
        except (ConnectionClosed, TimeoutError):
            return False
        while not self._stop.is_set():
            entry = self._begin("ws")
            if entry is None:
                break
            entry.connection, entry.slot = socket.number, socket.slot
            try:
                await self._generation(connection, entry)
            except (ConnectionClosed, TimeoutError):
                return False
            if entry.outcome is not Outcome.COMPLETE:  # the connection may be about to be closed
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(connection.wait_closed(), 0.25)
        return True

    async def _generation(self, connection: ClientConnection, entry: Entry) -> None:
        text, last, ended = "", None, False
        request = {"type": "generate", "id": entry.number, "prompt": f"pace {self.shape.pace:g}"}
        try:
            async with asyncio.timeout(self.shape.deadline):
                await connection.send(json.dumps({**request, "max_tokens": self.shape.stream_tokens}))
                while last is None:
                    message = json.loads(await connection.recv())
                    if entry.first is None:
                        entry.first = self.now()
                    if message.get("id") not in (entry.number, None):
                        self._late(message["id"])
                    elif message["type"] == "token":
                        text += message["text"]
                    elif message["type"] in ("done", "error"):
                        last = message
        except (ConnectionClosed, TimeoutError):
            ended = True
            raise
        finally:
            code = connection.close_code if ended else None
            self.ledger.end(entry, judge_generation(text, last, code, self.shape.stream_tokens), self.now())

    def _late(self, number: str) -> None:
        """A message for a generation that had ended: it got more than it asked for."""
        entry = self.ledger.entries.get(number)
        if entry is not None:
            self.ledger.end(entry, (Outcome.DUPLICATED, "a message after its end"), self.now())

    async def _pause(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._stop.wait(), seconds)
        except TimeoutError:
            return


RUNS = itertools.count(1)


def new_ledger(prefix: str, limit: int = 200_000) -> Ledger:
    """Numbers of different runs and subjects never meet in one log."""
    return Ledger(f"{prefix}{next(RUNS)}x", limit)
