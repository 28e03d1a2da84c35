# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""/ws: several generations over one connection. The protocol is described in this package's README."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from contextlib import aclosing
from typing import Any

from starlette.responses import JSONResponse
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from .auth import Principal, bearer
from .engine import Piece
from .entry import Entry
from .errors import ApiError, unauthorized, unavailable
from .logs import NUMBER_HEADER, event, number_of, numbers
from .schemas import WsAuth, WsCancel, WsGenerate, WsKind, parse
from .service import Generation, Interrupted, Service

AUTH_SECONDS = 5.0
SEND_SECONDS = 30.0
MAX_GENERATIONS = 8
MAX_CONNECTIONS = 1000


async def serve(service: Service, websocket: WebSocket) -> None:
    """Answer one WebSocket from handshake to close."""
    header = websocket.headers.get("authorization")
    principal = None
    try:
        if header is not None:
            principal = await service.authorize(header, "generate")
        service.intake.check()
        if len(service.websockets) >= MAX_CONNECTIONS:
            raise unavailable(f"{MAX_CONNECTIONS} WebSockets are open, more are not taken.", "too_many_websockets")
    except ApiError as error:
        await websocket.send_denial_response(JSONResponse(error.document(), error.status, error.headers))
        return
    await websocket.accept()
    await Connection(service, websocket).run(principal)


class Connection:
    def __init__(self, service: Service, websocket: WebSocket) -> None:
        self.service = service
        self.websocket = websocket
        self.token = bearer(websocket.headers.get("authorization"))
        self.number = number_of(websocket.headers.get(NUMBER_HEADER))
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.generations: dict[str, Generation] = {}
        self._sending = asyncio.Lock()

    @property
    def busy(self) -> bool:
        return bool(self.tasks)

    async def run(self, principal: Principal | None) -> None:
        service = self.service
        service.websockets.add(self)
        service.metrics.websockets.inc()
        try:
            if principal is None:
                principal = await self._authenticate()
            if principal is None:
                return
            service.metrics.seen(principal.id)
            await self._send({"type": "ready", "model": service.card.name, "release": service.settings.release})
            while True:
                await self._handle(await self.websocket.receive_text())
        except (WebSocketDisconnect, RuntimeError, KeyError, TimeoutError):
            # The client went, does not read what is sent to it, or sends binary frames, which the protocol has not.
            pass
        finally:
            service.websockets.discard(self)
            service.metrics.websockets.dec()
            for generation in list(self.generations.values()):
                generation.interrupt("gone")
            await asyncio.gather(*self.tasks.values(), return_exceptions=True)
            await self._close(1003, "only text frames with JSON are understood")

    async def close_for_drain(self) -> None:
        await self._close(1012, "this slot is being replaced, connect again")

    async def _authenticate(self) -> Principal | None:
        principal = None
        error = unauthorized()
        error.message = 'The first message must be {"type": "auth", "token": "<a known token>"}, within 5 s.'
        try:
            async with asyncio.timeout(AUTH_SECONDS):
                self.token = parse(WsAuth, await self.websocket.receive_text()).token
                principal = await self.service.authorize_token(self.token, "generate")
        except TimeoutError:
            pass
        except ApiError as refusal:
            if refusal.status in (403, 503):  # a known key, or one that cannot be looked up now
                error = refusal
        if principal is None:
            await self._send({"type": "error", "id": None, **error.document()})
            await self._close(1008, "not authorized")
        return principal

    async def _handle(self, text: str) -> None:
        identity: str | None = None
        try:
            kind = parse(WsKind, text).type
            if kind == "cancel":
                cancel = parse(WsCancel, text)
                if generation := self.generations.get(cancel.id):
                    generation.interrupt("cancelled")
                return
            if kind == "auth":
                raise ApiError(400, "type: this connection is authorized already.", code="invalid_value", param="type")
            request = parse(WsGenerate, text)
            identity = request.id
            if (request.prompt is None) == (request.messages is None):
                raise ApiError(
                    400, "prompt: give exactly one of prompt and messages.", code="invalid_value", param="prompt"
                )
            if identity in self.tasks:
                raise ApiError(400, "id: a generation with this id still runs.", code="invalid_value", param="id")
            if len(self.tasks) >= MAX_GENERATIONS:
                raise ApiError(429, f"{MAX_GENERATIONS} generations run on this connection.", code="too_many")
            self.service.check_request(request)
            self.service.intake.check()
            # Again for each: a connection may outlive its key.
            principal = await self.service.authorize_token(self.token, "generate")
            await self.service.admit(principal, "/ws")
            task = asyncio.create_task(self._generate(request, principal))
            self.tasks[identity] = task
            task.add_done_callback(lambda _done, done_id=request.id: self.tasks.pop(done_id, None))  # type: ignore[misc]
        except ApiError as error:
            await self._send({"type": "error", "id": identity, **error.document()})

    async def _generate(self, request: WsGenerate, principal: Principal) -> None:
        service = self.service
        entry = Entry(principal.id, "/ws", status=499)
        began = time.monotonic()
        last: dict[str, Any]
        try:
            async with service.generation() as generation, aclosing(service.pieces(request)) as pieces:
                self.generations[request.id] = generation
                async for piece in pieces:
                    if isinstance(piece, Piece):
                        await self._send({"type": "token", "id": request.id, "text": piece.text})
                        continue
                    entry.ended(200, piece.prompt_tokens, piece.generated_tokens)
                    last = {
                        "type": "done",
                        "id": request.id,
                        "finish_reason": piece.finish_reason,
                        "usage": piece.usage(),
                    }
                    event(
                        logging.INFO,
                        "generated",
                        path="/ws",
                        token=principal.name,
                        stream=True,
                        seconds=round(time.monotonic() - began, 4),
                        prompt_tokens=piece.prompt_tokens,
                        generated_tokens=piece.generated_tokens,
                        **(numbers(connection_number=self.number, request_number=request.id) if self.number else {}),
                    )
        except Interrupted as interruption:
            if interruption.reason == "cancelled":
                last = {"type": "done", "id": request.id, "finish_reason": "cancelled", "usage": None}
            else:
                error = unavailable("This slot was drained before the answer was complete.", "draining")
                entry.status = 499 if interruption.reason == "gone" else error.status
                last = {"type": "error", "id": request.id, **error.document()}
        except ApiError as error:
            entry.status = error.status
            last = {"type": "error", "id": request.id, **error.document()}
        except (RuntimeError, WebSocketDisconnect, TimeoutError):  # sent to a client that has gone or does not read
            return
        finally:
            self.generations.pop(request.id, None)
            service.account(entry)
        try:
            await self._send(last)
        except (RuntimeError, WebSocketDisconnect, TimeoutError):
            return

    async def _send(self, document: dict[str, Any]) -> None:
        async with asyncio.timeout(SEND_SECONDS), self._sending:
            await self.websocket.send_text(json.dumps(document))

    async def _close(self, code: int, reason: str) -> None:
        states = (self.websocket.client_state, self.websocket.application_state)
        if states == (WebSocketState.CONNECTED, WebSocketState.CONNECTED):
            try:
                await self.websocket.close(code, reason)
            except RuntimeError:
                return
