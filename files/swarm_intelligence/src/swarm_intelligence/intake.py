# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many generations run, how many wait, and whether new ones are taken at all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from .errors import ApiError, unavailable


@dataclass
class EngineState:
    """What the supervisor last said about the engine."""

    ready: bool = False
    restarts: int = 0
    variant: str = ""
    reason: str = ""

    def update(self, message: dict[str, Any]) -> None:
        self.ready = bool(message["ready"])
        self.restarts = int(message["restarts"])
        self.variant = str(message["variant"])
        self.reason = str(message["reason"])


@dataclass
class Intake:
    parallel: int
    queue: int
    queue_seconds: float
    state: EngineState = field(default_factory=EngineState)
    draining: bool = False
    running: int = 0
    waiting: int = 0

    def __post_init__(self) -> None:
        self._slots = asyncio.Semaphore(self.parallel)

    @property
    def open(self) -> bool:
        return self.state.ready and not self.draining

    def check(self) -> None:
        if self.draining:
            raise unavailable("This slot is being drained and takes no new work.", "draining", 5)
        if not self.state.ready:
            raise unavailable("The model is not ready yet.", "not_ready")

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """A place in the engine, after a bounded wait in a bounded queue."""
        self.check()
        if self._slots.locked() and self.waiting >= self.queue:
            raise ApiError(
                429,
                f"{self.running} requests run and {self.waiting} wait, more are not taken: try again later.",
                code="queue_full",
                headers={"Retry-After": "2"},
            )
        self.waiting += 1
        try:
            async with asyncio.timeout(self.queue_seconds):
                await self._slots.acquire()
        except TimeoutError:
            raise unavailable(
                f"The request waited {self.queue_seconds:g} s in the queue without its turn.", "queue_timeout"
            ) from None
        finally:
            self.waiting -= 1
        self.running += 1
        try:
            yield
        finally:
            self.running -= 1
            self._slots.release()
