# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger: one row for each request, written beside it and not in its way.

Rows wait in memory and go to PostgreSQL in batches. While it is away they are kept up to a bound; then the newest are
lost, so that what is kept is whole up to a moment that the log names. They are not spilled: the container has no disk
of its own, and a file in its memory would end with it just as well. So a process that is killed loses what it has not
written: half a second of rows, or all since the database went away.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from itertools import islice
from typing import Any

from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.exc import DBAPIError

from .database import Away, Database, requests
from .entry import Entry
from .logs import event

BOUND = 20_000
BATCH = 500
WRITE_SECONDS = 0.5
CLOSE_SECONDS = 5.0


class Ledger:
    def __init__(self, database: Database, bound: int = BOUND, **same: str) -> None:
        self.database = database
        self.bound = bound
        self.same = same
        self.written = 0
        self.lost = 0
        self._waiting: deque[dict[str, Any]] = deque()
        self._losing = False

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def add(self, entry: Entry) -> None:
        if len(self._waiting) >= self.bound:
            self._lose(1, f"{self.bound} rows wait already")
            return
        self._losing = False
        self._waiting.append(
            {
                "id": entry.id,
                "began_at": entry.began_at,
                "owner": entry.owner,
                "path": entry.path,
                "status": entry.status,
                "prompt_tokens": entry.prompt_tokens,
                "completion_tokens": entry.completion_tokens,
                "duration_ms": round((time.monotonic() - entry.began) * 1000),
                **self.same,
            }
        )

    async def run(self) -> None:
        while True:
            await asyncio.sleep(WRITE_SECONDS)
            await self.flush()

    async def flush(self) -> None:
        """Write what waits, or leave it there when the database is away."""
        while self._waiting:
            rows = list(islice(self._waiting, BATCH))
            try:
                await self._write(rows)
            except Away:
                return
            except DBAPIError:  # one of them is not taken; the others are not to wait for ever behind it
                if not await self._write_singly(rows):
                    return

    async def _write(self, rows: list[dict[str, Any]]) -> None:
        # A batch whose commit was not answered may be there already, hence the conflict that is no fault.
        async with self.database.begin() as connection:
            await connection.execute(insert(requests).on_conflict_do_nothing(index_elements=["id"]), rows)
        self._done(len(rows))

    async def _write_singly(self, rows: list[dict[str, Any]]) -> bool:
        for row in rows:
            try:
                await self._write([row])
            except Away:
                return False
            except DBAPIError as error:
                self._waiting.popleft()
                self._lose(1, f"the database does not take a row ({type(error.orig).__name__})")
        return True

    def _done(self, count: int) -> None:
        for _unused in range(count):
            self._waiting.popleft()
        self.written += count

    def _lose(self, count: int, reason: str) -> None:
        self.lost += count
        if not self._losing:  # once for each time that it begins
            self._losing = True
            event(logging.ERROR, "ledger loses rows", reason=reason, waiting=len(self._waiting))

    async def close(self) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.flush()
        except TimeoutError:
            pass
        if self._waiting:
            self._lose(len(self._waiting), "the service ends while the database is away")
            self._waiting.clear()
