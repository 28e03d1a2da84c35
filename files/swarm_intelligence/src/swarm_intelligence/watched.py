# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A server that the service uses while it is there, and does without while it is away."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import Any

from .logs import event

LOOK_SECONDS = 1.0
"""How often it is looked whether a server can be used."""


class Watched(ABC):
    """Whether the server can be used just now, and why not. A change is logged, once."""

    name: str
    """What logs call it."""

    def __init__(self) -> None:
        self.up = False
        self.reason = "not asked yet"

    @abstractmethod
    async def look(self) -> None:
        """Find out, and tell it by there() or away()."""

    async def watch(self) -> None:
        """Look again and again; what went away comes back by itself."""
        while True:
            await self.look()
            await asyncio.sleep(LOOK_SECONDS)

    def there(self, **facts: Any) -> None:
        if not self.up:
            event(logging.INFO, f"{self.name} is there", **facts)
        self.up, self.reason = True, ""

    def away(self, reason: str) -> None:
        if self.up or reason != self.reason:
            event(logging.WARNING, f"{self.name} is away", reason=reason)
        self.up, self.reason = False, reason
