# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/v1/completions and /v1/chat/completions: one JSON document, or server-sent events."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from itertools import accumulate
from typing import Any, ClassVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from .engine import End, Piece
from .entry import Entry
from .errors import ApiError, unavailable
from .logs import NUMBER_HEADER, event, numbers
from .schemas import ChatRequest, CompletionRequest, parse
from .service import Generation, Interrupted, Service

BODY_SECONDS = 30.0
NOTHING = End("stop", 0, 0)
DONE = b"data: [DONE]\n\n"
JSON_HEADERS = [(b"content-type", b"application/json")]
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


async def read_body(request: Request, limit: int) -> bytes:
    """The whole body, counted while it comes, whatever its Content-Length says."""
    too_large = ApiError(413, f"The body is larger than {limit} bytes.", code="body_too_large")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared[:20]) > limit:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > limit:
                    raise too_large
    except TimeoutError:
        raise ApiError(
            408,
            f"The body did not arrive within {BODY_SECONDS:g} s.",
            code="body_timeout",
            headers={"Connection": "close"},
        ) from None
    return bytes(body)


@asynccontextmanager
async def _watched(service: Service, receive: Receive) -> AsyncIterator[Generation]:
    """A generation that ends when the client goes."""
    async with service.generation() as generation:

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            generation.interrupt("gone")

        watcher = asyncio.create_task(watch())
        try:
            yield generation
        finally:
            watcher.cancel()


class Shape(ABC):
    """How one kind of answer looks in OpenAI's interface."""

    prefix: str
    whole: str
    chunk: str
    opening: ClassVar[dict[str, Any] | None] = None
    closing: ClassVar[dict[str, Any]]

    def __init__(self, model: str) -> None:
        self.head = {"id": f"{self.prefix}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}

    @abstractmethod
    def content(self, text: str) -> dict[str, Any]:
        """Where a piece of text stands in a chunk's choice."""

    def message(self, text: str) -> dict[str, Any]:
        """Where the whole text stands in an answer's choice."""
        return self.content(text)

    def answer(self, pieces: list[Piece], end: End) -> dict[str, Any]:
        choice = self.message("".join(piece.text for piece in pieces))
        usage = {"usage": end.usage()}
        return self._document(self.whole, choice, end.finish_reason, logprobs(pieces)) | usage

    def part(self, piece: Piece) -> dict[str, Any]:
        return self._document(self.chunk, self.content(piece.text), None, logprobs([piece]))

    def first(self) -> bytes:
        return _event(self._document(self.chunk, self.opening)) if self.opening else b""

    def last(self, end: End, with_usage: bool | None) -> bytes:
        data = _event(self._document(self.chunk, self.closing, end.finish_reason))
        if with_usage:
            data += _event({**self.head, "object": self.chunk, "choices": [], "usage": end.usage()})
        return data + DONE

    def _document(
        self,
        kind: str,
        choice: dict[str, Any],
        finish_reason: str | None = None,
        probabilities: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        choice = {"index": 0, **choice, "logprobs": probabilities, "finish_reason": finish_reason}
        return {**self.head, "object": kind, "choices": [choice]}


class CompletionShape(Shape):
    prefix = "cmpl"
    whole = chunk = "text_completion"
    closing: ClassVar[dict[str, Any]] = {"text": ""}

    def content(self, text: str) -> dict[str, Any]:
        return {"text": text}


class ChatShape(Shape):
    prefix = "chatcmpl"
    whole = "chat.completion"
    chunk = "chat.completion.chunk"
    opening: ClassVar[dict[str, Any] | None] = {"delta": {"role": "assistant", "content": ""}}
    closing: ClassVar[dict[str, Any]] = {"delta": {}}

    def content(self, text: str) -> dict[str, Any]:
        return {"delta": {"content": text}}

    def message(self, text: str) -> dict[str, Any]:
        return {"message": {"role": "assistant", "content": text}}


def logprobs(pieces: list[Piece]) -> dict[str, Any] | None:
    """OpenAI's form for completions. A token that is not among the named rivals has null as its own value."""
    entries = [entry for piece in pieces for entry in piece.probabilities or []]
    if not entries:
        return None
    tops = [{rival["tok_str"]: math.log(max(rival["prob"], 1e-30)) for rival in entry["probs"]} for entry in entries]
    tokens = [entry["content"] for entry in entries]
    return {
        "tokens": tokens,
        "token_logprobs": [top.get(token) for token, top in zip(tokens, tops, strict=True)],
        "top_logprobs": tops,
        "text_offset": list(accumulate((len(token) for token in tokens[:-1]), initial=0)),
    }


def _event(document: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(document).encode() + b"\n\n"


class CompletionsEndpoint:
    """An ASGI application: it must see the disconnection of a client while the engine works."""

    def __init__(
        self,
        service: Service,
        model: type[CompletionRequest] | type[ChatRequest],
        shape: type[CompletionShape] | type[ChatShape],
    ) -> None:
        self.service = service
        self.model = model
        self.shape = shape

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self.service
        request = Request(scope, receive)
        principal = await service.authorize(request.headers.get("authorization"), "generate")
        await service.admit(principal, scope["path"])
        entry = Entry(principal.id, scope["path"])
        try:
            body = parse(self.model, await read_body(request, service.settings.max_body_bytes))
            service.check_request(body)
            shape = self.shape(service.card.name)
            began = time.monotonic()
            if body.stream:
                end = await self._stream(body, shape, receive, send, entry)
            else:
                end = await self._whole(body, shape, receive, send, entry)
        except ApiError as error:
            entry.status = error.status
            raise
        finally:
            service.account(entry)
        if end is not None:
            event(
                logging.INFO,
                "generated",
                path=scope["path"],
                token=principal.name,
                stream=bool(body.stream),
                seconds=round(time.monotonic() - began, 4),
                prompt_tokens=end.prompt_tokens,
                generated_tokens=end.generated_tokens,
                **numbers(request_number=request.headers.get(NUMBER_HEADER)),
            )

    async def _whole(
        self, body: CompletionRequest | ChatRequest, shape: Shape, receive: Receive, send: Send, entry: Entry
    ) -> End | None:
        answer: list[Piece] = []
        end = NOTHING
        try:
            async with _watched(self.service, receive), aclosing(self.service.pieces(body)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Piece):
                        answer.append(piece)
                    else:
                        end = piece
            entry.ended(200, end.prompt_tokens, end.generated_tokens)
        except Interrupted as interruption:
            if interruption.reason == "gone":
                entry.status = 499
                return None
            raise unavailable("This slot was drained before the answer was complete.", "draining") from None
        payload = json.dumps(shape.answer(answer, end)).encode()
        headers = [*JSON_HEADERS, (b"content-length", str(len(payload)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": payload})
        return end

    async def _stream(
        self, body: CompletionRequest | ChatRequest, shape: Shape, receive: Receive, send: Send, entry: Entry
    ) -> End | None:
        started = False
        end = NOTHING

        async def write(data: bytes) -> None:
            nonlocal started
            if not started:
                started = True
                await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
                data = shape.first() + data
            await send({"type": "http.response.body", "body": data, "more_body": True})

        try:
            async with _watched(self.service, receive), aclosing(self.service.pieces(body)) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Piece):
                        await write(_event(shape.part(piece)))
                    else:
                        end = piece
            entry.ended(200, end.prompt_tokens, end.generated_tokens)
            await write(shape.last(end, body.stream_options is not None and body.stream_options.include_usage))
        except Interrupted as interruption:
            if interruption.reason == "gone":
                entry.status = 499
                return None
            error = unavailable("This slot was drained before the answer was complete.", "draining")
            if not started:
                raise error from None
            entry.status = error.status
            self.service.metrics.announced_closes.labels("sse").inc()
            await write(_event(error.document()) + DONE)
        except ApiError as error:
            if not started:
                raise
            entry.status = error.status
            await write(_event(error.document()) + DONE)
        await send({"type": "http.response.body", "body": b""})
        return end
