# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to Redis: whether it can be used just now, and why not. No request waits long for it."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from .settings import SettingsError
from .watched import Watched

ASK_SECONDS = 0.5
CONNECTIONS = 128

Answer = TypeVar("Answer")


class RedisAway(Exception):
    """Redis cannot be used now."""


def client(url_file: Path, ca_file: Path | None, option: str = "BITNET_REDIS_URL_FILE") -> redis.asyncio.Redis:
    where = f"{option}={str(url_file)!r}"
    try:
        url = url_file.read_text().strip()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise SettingsError(f"{where} cannot be read ({reason}): mount the secret with the URL there.") from None
    options: dict[str, Any] = {}
    if ca_file is not None:
        if not url.startswith("rediss://") or not ca_file.is_file():
            raise SettingsError(
                f"BITNET_REDIS_CA_FILE={str(ca_file)!r} needs a certificate in that file, and a URL that begins with "
                "rediss:// in BITNET_REDIS_URL_FILE: mount the one and mend the other, or leave the variable out."
            )
        options["ssl_ca_certs"] = str(ca_file)
    try:
        return redis.asyncio.Redis.from_url(
            url,
            socket_timeout=ASK_SECONDS,
            socket_connect_timeout=ASK_SECONDS,
            max_connections=CONNECTIONS,
            retry=Retry(NoBackoff(), 0),  # what is away is asked again by the watch, and no request waits for it
            decode_responses=True,
            **options,
        )
    except (ValueError, TypeError):  # whose text may quote the URL
        raise SettingsError(
            f"{where} holds no URL of Redis: write redis://:PASSWORD@HOST:PORT/0 into it, rediss:// for TLS."
        ) from None


class Redis(Watched):
    name = "redis"

    def __init__(self, url_file: Path, ca_file: Path | None) -> None:
        super().__init__()
        self.client = client(url_file, ca_file)

    async def ask(self, command: Awaitable[Answer], seconds: float = ASK_SECONDS) -> Answer:
        """Raises RedisAway, at once while it is known to be away."""
        if not self.up:
            if inspect.iscoroutine(command):
                command.close()
            raise RedisAway(self.reason)
        return await self._ask(command, seconds)

    async def _ask(self, command: Awaitable[Answer], seconds: float) -> Answer:
        try:
            async with asyncio.timeout(seconds):
                return await command
        except (RedisError, OSError, TimeoutError) as error:
            reason = "no answer in time" if isinstance(error, TimeoutError) else str(error).splitlines()[0][:300]
            self.away(reason or type(error).__name__)
            raise RedisAway(self.reason) from error

    async def look(self) -> None:
        try:
            # A write: a replica, or a server that is out of memory or disk, answers a ping as well.
            await self._ask(self.client.set("bitnet:probe", "1", ex=60), ASK_SECONDS * 2)
        except RedisAway:
            return
        self.there()

    async def close(self) -> None:
        await self.client.aclose()

    def document(self) -> dict[str, Any]:
        return {"up": self.up, "reason": self.reason}
