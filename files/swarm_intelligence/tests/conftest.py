# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Fixtures: the API server in a thread, in front of a fault injector that plays llama-server; the command line, and
kernels whose engine is a stand-in."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "src")]

from api_lab import TOKEN, Api, FaultInjector, settings_with, wait_until  # noqa: E402
from data_lab import Postgres, RedisServer  # noqa: E402
from engine_lab import make_kernels  # noqa: E402
from swarm_intelligence import cli  # noqa: E402
from swarm_intelligence.api import Server  # noqa: E402
from swarm_intelligence.auth import Tokens  # noqa: E402
from swarm_intelligence.engine_run import free_port  # noqa: E402
from swarm_intelligence.service import ModelCard, Service  # noqa: E402


@pytest.fixture
def injector() -> Iterator[FaultInjector]:
    injector = FaultInjector()
    yield injector
    injector.stop()


@pytest.fixture
def start_api(injector: FaultInjector) -> Iterator[Callable[..., Api]]:
    started: list[Api] = []

    def start(*, ready: bool = True, **variables: str) -> Api:
        settings = settings_with(engine_port=str(injector.port), context="4096", grace_seconds="5", **variables)
        tokens = Tokens({"tests": hashlib.sha256(TOKEN.encode()).hexdigest()})
        running = threading.Event()
        parts: dict[str, Any] = {}
        port = free_port()

        async def serve() -> None:
            parts["service"] = Service(settings, tokens, ModelCard("fault-injector", None))
            parts["service"].intake.state.ready = ready
            parts["server"] = Server(parts["service"], port)
            parts["loop"] = asyncio.get_running_loop()
            running.set()
            await parts["server"].serve()

        thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
        thread.start()
        assert running.wait(60)
        wait_until(lambda: parts["server"].started)
        api = Api(f"http://127.0.0.1:{port}", injector=injector, thread=thread, **parts)
        started.append(api)
        return api

    yield start
    for api in started:
        api.stop()


@pytest.fixture
def api(start_api: Callable[..., Api]) -> Api:
    return start_api()


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.remove()


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    server = RedisServer()
    yield server
    server.remove()


@pytest.fixture
def database_url(postgres: Postgres) -> str:
    """A database that is empty."""
    return postgres.create(f"test-{uuid.uuid4().hex}")


@pytest.fixture
def url_file(tmp_path: Path, database_url: str) -> Path:
    path = tmp_path / "database-url"
    path.write_text(database_url + "\n")
    return path


@pytest.fixture
def data(tmp_path: Path, url_file: Path, redis_server: RedisServer) -> dict[str, str]:
    """The settings of a service with an empty database and an empty Redis."""
    redis_server.client().flushall()
    (tmp_path / "redis-url").write_text(redis_server.url)
    return {"database_url_file": str(url_file), "redis_url_file": str(tmp_path / "redis-url")}


@pytest.fixture
def kernels(tmp_path: Path) -> Path:
    return make_kernels(tmp_path / "kernels")


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Exit code, JSON document, stderr."""

    def command(*arguments: object) -> tuple[int, Any, str]:
        capsys.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        written = capsys.readouterr()
        return code, json.loads(written.out) if written.out else None, written.err

    return command
