# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""api-server: the HTTP and WebSocket interface. swarm-orchestrator starts it and tells it the engine's state."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from . import __version__, openapi, websocket
from .auth import Principal, Tokens
from .completions import ChatShape, CompletionsEndpoint, CompletionShape, read_body
from .errors import ApiError
from .logs import configure, event
from .schemas import ChatRequest, CompletionRequest
from .service import ModelCard, Service
from .settings import Settings, SettingsError

if TYPE_CHECKING:
    from .jobs import Jobs


class Measured:
    """Counts and times every HTTP request and WebSocket, by what was really answered."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self.app = app
        self.metrics = service.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        status = 499  # the client went before an answer began
        began = time.perf_counter()

        async def watched_send(message: Message) -> None:
            nonlocal status
            if message["type"] in ("http.response.start", "websocket.http.response.start"):
                status = message["status"]
            elif message["type"] == "websocket.accept":
                status = 101
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        finally:
            method = scope["method"] if scope["type"] == "http" else "WEBSOCKET"
            self.metrics.request(method, scope["path"], status, time.perf_counter() - began)


class Endpoints:
    """The short answers; the long ones are in completions and websocket."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.document = openapi.document(jobs=bool(service.data and service.data.jobs))

    async def _authorize(self, request: Request, scope: str = "") -> Principal:
        return await self.service.authorize(request.headers.get("authorization"), scope)

    async def api(self, request: Request) -> Response:
        """Anonymously only the name; with a token what runs here."""
        if "authorization" not in request.headers:
            return JSONResponse({"name": "bitnet"})
        await self._authorize(request)
        service = self.service
        settings, intake = service.settings, service.intake
        return JSONResponse(
            {
                "name": "bitnet",
                "version": __version__,
                "environment": settings.environment,
                "release": settings.release,
                "slot": settings.slot,
                "variant": {"name": intake.state.variant, "reason": intake.state.reason},
                "model": {"name": service.card.name, "sha256": service.card.sha256},
                "load": {
                    "running": intake.running,
                    "waiting": intake.waiting,
                    "parallel": intake.parallel,
                    "queue": intake.queue,
                    "websockets": len(service.websockets),
                    "active_users": service.metrics.active_users(),
                },
                "engine": {"ready": intake.state.ready, "restarts": intake.state.restarts},
                "ready": intake.open,
                "draining": intake.draining,
                **(service.data.document() if service.data else {}),
            }
        )

    async def models(self, request: Request) -> Response:
        await self._authorize(request)
        service = self.service
        model = {"id": service.card.name, "object": "model", "created": service.started, "owned_by": "bitnet.devops"}
        return JSONResponse({"object": "list", "data": [model]})

    async def health(self, _request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    async def ready(self, _request: Request) -> Response:
        # A slot without its database or Redis still answers: that it is away is said, and closes nothing.
        states = self.service.data.states() if self.service.data else {}
        try:
            self.service.intake.check()
        except ApiError as error:
            return JSONResponse({"ready": False, **states, **error.document()}, 503, error.headers)
        return JSONResponse({"ready": True, **states})

    async def metrics(self, _request: Request) -> Response:
        registry = self.service.metrics.registry
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    async def describe(self, request: Request) -> Response:
        await self._authorize(request)
        return JSONResponse(self.document)

    async def submit_job(self, request: Request) -> Response:
        principal = await self._authorize(request, "jobs")
        await self.service.admit(principal, request.url.path)
        body = await read_body(request, self.service.settings.max_body_bytes)
        return JSONResponse(await self._jobs.submit(principal, body), 202)

    async def job(self, request: Request) -> Response:
        principal = await self._authorize(request, "jobs")
        self._jobs.seen(principal, request.url.path)
        return JSONResponse(await self._jobs.get(principal, request.path_params["id"]))

    async def cancel_job(self, request: Request) -> Response:
        principal = await self._authorize(request, "jobs")
        return JSONResponse(await self._jobs.cancel(principal, request.path_params["id"]))

    @property
    def _jobs(self) -> Jobs:
        jobs = self.service.data.jobs if self.service.data else None
        if jobs is None:  # has no route then
            raise HTTPException(404)
        return jobs

    async def websocket(self, connection: WebSocket) -> None:
        await websocket.serve(self.service, connection)


async def _api_error(_request: Request, error: Any) -> Response:
    return JSONResponse(error.document(), error.status, error.headers)


async def _http_error(request: Request, error: Any) -> Response:
    headers = dict(error.headers or {})
    if error.status_code == 405:
        message = f"{request.method} is not possible on this path; {headers.get('Allow', 'another method')} is."
        code = "method_not_allowed"
    else:
        message = "There is nothing at this path. See /openapi.json for what there is."
        code = "not_found"
    return await _api_error(request, ApiError(error.status_code, message, code=code, headers=headers))


async def _fault(request: Request, error: Exception) -> Response:
    event(logging.ERROR, "unexpected error", path=request.url.path, error=type(error).__name__)
    message = "An unexpected error; it is in the service's log."
    return await _api_error(request, ApiError(500, message, code="internal_error"))


def application(service: Service) -> Starlette:
    endpoints = Endpoints(service)

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        if service.data:
            service.data.start()
        yield
        if service.data:
            await service.data.close()
        await service.engine.close()

    completions = CompletionsEndpoint(service, CompletionRequest, CompletionShape)
    chat_completions = CompletionsEndpoint(service, ChatRequest, ChatShape)
    jobs = [
        Route("/v1/jobs", endpoints.submit_job, methods=["POST"]),
        Route("/v1/jobs/{id}", endpoints.job),
        Route("/v1/jobs/{id}/cancel", endpoints.cancel_job, methods=["POST"]),
    ]
    if not (service.data and service.data.jobs):
        jobs = []
    app = Starlette(
        routes=[
            Route("/api", endpoints.api),
            Route("/v1/models", endpoints.models),
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            WebSocketRoute("/ws", endpoints.websocket),
            Route("/health", endpoints.health),
            Route("/ready", endpoints.ready),
            Route("/metrics", endpoints.metrics),
            Route("/openapi.json", endpoints.describe),
            *jobs,
        ],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error, Exception: _fault},
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.add_middleware(Measured, service=service)
    return app


class Server(uvicorn.Server):
    """uvicorn, which on SIGTERM and SIGINT drains before it closes its socket."""

    def __init__(self, service: Service, port: int) -> None:
        self.service = service
        self._draining: asyncio.Task[None] | None = None
        super().__init__(
            uvicorn.Config(
                application(service),
                host="0.0.0.0",  # noqa: S104 - the edge reaches it over the overlay network
                port=port,
                loop="uvloop",
                http="httptools",
                ws="websockets-sansio",
                ws_max_size=service.settings.max_body_bytes,
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                proxy_headers=False,
                timeout_keep_alive=75,  # longer than the edge keeps its idle connections
                timeout_graceful_shutdown=3,
                backlog=1024,
            )
        )

    def handle_exit(self, _sig: int, _frame: FrameType | None) -> None:
        asyncio.get_running_loop().call_soon_threadsafe(self.begin_drain)

    def begin_drain(self) -> None:
        if self._draining is None:
            self._draining = asyncio.create_task(self._drain())

    async def _drain(self) -> None:
        try:
            await self.service.drain()
        finally:
            self.should_exit = True


async def _follow_supervisor(server: Server) -> None:
    """Each line on standard input is the engine's state; its end means that the supervisor is gone."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        server.service.intake.state.update(json.loads(line))
    server.begin_drain()


async def _serve(settings: Settings, port: int) -> int:
    service = Service(settings, Tokens.from_file(settings.tokens_file), ModelCard.beside(settings.model))
    server = Server(service, port)
    follower = asyncio.create_task(_follow_supervisor(server))
    await server.serve()
    follower.cancel()
    return 0 if server.started else 1


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="api-server",
        description="HTTP and WebSocket interface of the service. swarm-orchestrator starts it and writes the engine's "
        "state to its standard input; settings come from BITNET_* variables.",
    )
    parser.add_argument("--port", type=int, default=8080)
    arguments = parser.parse_args()
    try:
        settings = Settings.from_environment()
        configure("api-server", settings.log_level)
        code = uvloop.run(_serve(settings, arguments.port))
    except SettingsError as error:
        print(f"api-server: {error}", file=sys.stderr)
        code = os.EX_CONFIG
    sys.exit(code)


if __name__ == "__main__":
    main()
