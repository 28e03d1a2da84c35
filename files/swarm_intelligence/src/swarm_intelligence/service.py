# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the endpoints share: settings, tokens, the engine, the intake, and the drain that ends it all in good order."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from .auth import SCOPES, Principal, Tokens, bearer
from .engine import End, Engine, Piece
from .entry import Entry
from .errors import ApiError, forbidden, unauthorized
from .intake import Intake
from .logs import event
from .metrics import Metrics
from .schemas import ChatRequest, CompletionRequest, WsGenerate
from .settings import Settings

if TYPE_CHECKING:
    from .data import Data

Reason = Literal["gone", "cancelled", "drain"]


class Interrupted(Exception):
    """A generation was stopped: its client went or cancelled it, or the drain's deadline passed."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason = reason


class Generation:
    """One running generation, in the task that entered it; interrupt() stops it from another one."""

    def __init__(self) -> None:
        self.task = cast("asyncio.Task[Any]", asyncio.current_task())
        self.reason: Reason | None = None
        self.finished = False

    def interrupt(self, reason: Reason) -> None:
        if not self.finished and self.reason is None:
            self.reason = reason
            self.task.cancel()


class WebSocketConnection(Protocol):
    @property
    def busy(self) -> bool: ...

    def close_for_drain(self) -> Coroutine[Any, Any, None]: ...


@dataclass(frozen=True)
class ModelCard:
    name: str
    sha256: str | None

    @classmethod
    def beside(cls, model: Path) -> ModelCard:
        """From model.json beside the model, which bitnet-cli writes; without it the folder's name serves."""
        try:
            card = json.loads((model.parent / "model.json").read_text())
            return cls(str(card["name"]), str(card["sha256"]))
        except (OSError, ValueError, KeyError, TypeError):
            return cls(model.stem, None)


class Service:
    def __init__(self, settings: Settings, tokens: Tokens, card: ModelCard) -> None:
        self.settings = settings
        self.tokens = tokens
        self.card = card
        self.started = int(time.time())
        self.intake = Intake(settings.parallel, settings.queue, settings.queue_seconds)
        self.metrics = Metrics(settings, self.intake)
        self.engine = Engine(settings.engine_url, settings.context, settings.stall_seconds)
        self.generations: set[Generation] = set()
        self.websockets: set[WebSocketConnection] = set()
        self.data: Data | None = None
        if settings.database_url_file or settings.redis_url_file or settings.requests_per_minute:
            from .data import Data  # its libraries cost a service nothing that needs none of them

            self.data = Data(self)
            self.metrics.registry.register(self.data)

    async def principal(self, token: str) -> Principal | None:
        """Who has this token: one of the file, or a key of the database."""
        owner = self.tokens.owner(token) if token else None
        if owner is not None:
            return Principal(f"token:{owner}", owner, frozenset(SCOPES), self.data.rate if self.data else None)
        if token and self.data and self.data.keys:
            return await self.data.keys.principal(token)
        return None

    async def authorize(self, authorization: str | None, scope: str = "") -> Principal:
        """Raises ApiError for who is not known, or may not do what the scope names."""
        return await self.authorize_token(bearer(authorization), scope)

    async def authorize_token(self, token: str, scope: str = "") -> Principal:
        principal = await self.principal(token)
        if principal is None:
            raise unauthorized()
        if scope and scope not in principal.scopes:
            raise forbidden(scope)
        return principal

    async def admit(self, principal: Principal, path: str) -> None:
        """Count a request of a client; raises ApiError when he has used up his rate."""
        self.metrics.seen(principal.id)
        if self.data:
            await self.data.limits.take(principal.id, principal.rate)
            if self.data.jobs:
                self.data.jobs.seen(principal, path)

    def account(self, entry: Entry) -> None:
        if self.data and self.data.ledger:
            self.data.ledger.add(entry)

    def check_model(self, name: str | None) -> None:
        if name is not None and name != self.card.name:
            raise ApiError(
                404,
                f"The model {name!r} is not served here; {self.card.name!r} is.",
                code="model_not_found",
                param="model",
            )

    def check_request(self, request: CompletionRequest | ChatRequest | WsGenerate) -> None:
        self.check_model(request.model)
        wanted = request.engine_options()["n_predict"]
        if wanted >= self.settings.context:
            raise ApiError(
                400,
                f"max_tokens: {wanted} leaves no room for a prompt in a context of {self.settings.context} tokens.",
                code="invalid_value",
                param="max_tokens",
            )

    @asynccontextmanager
    async def generation(self) -> AsyncGenerator[Generation, None]:
        """Run the body until it ends, is interrupted (raises Interrupted) or takes too long (raises ApiError)."""
        generation = Generation()
        self.generations.add(generation)
        try:
            async with asyncio.timeout(self.settings.request_seconds):
                yield generation
        except asyncio.CancelledError:
            if generation.reason is None:
                raise
            generation.task.uncancel()
            if generation.reason == "gone":
                self.metrics.disconnects.inc()
            raise Interrupted(generation.reason) from None
        except TimeoutError:
            raise ApiError(
                504,
                f"The answer was not complete after {self.settings.request_seconds:g} s.",
                code="request_timeout",
            ) from None
        finally:
            generation.finished = True
            self.generations.discard(generation)

    async def pieces(self, request: CompletionRequest | ChatRequest | WsGenerate) -> AsyncGenerator[Piece | End, None]:
        """The engine's answer, once it is this request's turn."""
        async with self.intake.slot(), aclosing(self.engine.generate(request)) as pieces:
            async for piece in pieces:
                if isinstance(piece, End):
                    self.metrics.prompt_tokens.inc(piece.prompt_tokens)
                    self.metrics.generated_tokens.inc(piece.generated_tokens)
                yield piece

    async def drain(self) -> None:
        """Take no new work, let what runs finish, close WebSockets one after the other; past the deadline cut."""
        self.intake.draining = True
        grace = self.settings.grace_seconds
        event(
            logging.INFO,
            "draining",
            grace_seconds=grace,
            generations=len(self.generations),
            websockets=len(self.websockets),
        )
        deadline = time.monotonic() + grace
        while (self.generations or self.websockets) and time.monotonic() < deadline:
            idle = next((socket for socket in self.websockets if not socket.busy), None)
            if idle is not None:
                self.websockets.discard(idle)
                await self._close(idle)
            left = max(deadline - time.monotonic(), 0)
            await asyncio.sleep(min(0.1, left / (2 * len(self.websockets) + 2)))
        cut = len(self.generations)
        for generation in list(self.generations):
            generation.interrupt("drain")
        ends = time.monotonic() + 2
        while self.generations and time.monotonic() < ends:
            await asyncio.sleep(0.02)
        await asyncio.gather(*(self._close(socket) for socket in list(self.websockets)))
        event(logging.INFO, "drained", cut=cut)

    async def _close(self, socket: WebSocketConnection) -> None:
        self.metrics.announced_closes.labels("websocket").inc()
        try:
            async with asyncio.timeout(2):
                await socket.close_for_drain()
        except (TimeoutError, RuntimeError):  # its client went at the same moment
            return
