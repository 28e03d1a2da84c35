# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a service keeps outside its process, and how that is just now. Imported only where it is set."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .database import Database, Source
from .jobs import Jobs
from .keys import Keys
from .ledger import Ledger
from .limits import Limits, Rate
from .logs import event
from .redis_client import Redis
from .settings import Settings

if TYPE_CHECKING:
    from .service import Service

AGAIN_SECONDS = 5.0


def check(settings: Settings) -> None:
    """Raises SettingsError for files that are named and cannot be used."""
    if settings.database_url_file:
        Source(settings.database_url_file, settings.database_ca_file).check()
    if settings.redis_url_file:
        from .redis_client import client

        client(settings.redis_url_file, settings.redis_ca_file)


async def _for_ever(part: Callable[[], Awaitable[None]]) -> None:
    """What runs beside the requests must not end unseen by a fault of ours."""
    while True:
        try:
            await part()
        except Exception as error:
            event(logging.ERROR, "unexpected error", part=part.__qualname__, error=type(error).__name__)
            await asyncio.sleep(AGAIN_SECONDS)


class Data(Collector):
    def __init__(self, service: Service) -> None:
        settings = service.settings
        check(settings)
        self.rate = Rate(settings.requests_per_minute) if settings.requests_per_minute else None
        self.database: Database | None = None
        self.keys: Keys | None = None
        self.ledger: Ledger | None = None
        self.jobs: Jobs | None = None
        self.redis = Redis(settings.redis_url_file, settings.redis_ca_file) if settings.redis_url_file else None
        self.limits = Limits(settings.environment, self.redis)
        if settings.database_url_file:
            self.database = Database(
                Source(settings.database_url_file, settings.database_ca_file), settings.database_migrate
            )
            self.keys = Keys(self.database, self.rate)
            self.ledger = Ledger(
                self.database,
                environment=settings.environment,
                model=service.card.name,
                release=settings.release,
                slot=settings.slot,
            )
            if self.redis:
                self.jobs = Jobs(service, self.database, self.redis, self.ledger)
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """What runs beside the requests; nothing waits for a first answer."""
        parts: list[Callable[[], Awaitable[None]]] = []
        if self.database:
            parts.append(self.database.watch)
        if self.redis:
            parts.append(self.redis.watch)
        if self.ledger:
            parts.append(self.ledger.run)
        if self.jobs and self.jobs.parallel:
            parts.append(self.jobs.run)
        self._tasks = [asyncio.create_task(_for_ever(part)) for part in parts]

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for part in (self.jobs, self.ledger, self.database, self.redis):
            if part is not None:
                await part.close()

    def document(self) -> dict[str, Any]:
        """For /api; without a database or Redis nothing is said of it."""
        parts = {"database": self.database, "redis": self.redis}
        return {name: part.document() for name, part in parts.items() if part is not None}

    def states(self) -> dict[str, str]:
        """For /ready, which anybody may read: no reason."""
        parts = {"database": self.database, "redis": self.redis}
        return {name: "up" if part.up else "away" for name, part in parts.items() if part is not None}

    def collect(self) -> Iterator[Metric]:
        for name, state in self.states().items():
            text = {"database": "1 while PostgreSQL can be used.", "redis": "1 while Redis can be used."}[name]
            yield GaugeMetricFamily(f"bitnet_{name}_up", text, value=int(state == "up"))
        local = not self.redis or not self.redis.up
        yield GaugeMetricFamily(
            "bitnet_rate_limit_local", "1 while each replica has rate limits of its own.", value=int(local)
        )
        limited = CounterMetricFamily("bitnet_rate_limited", "Requests over their rate.", labels=["by"])
        for where, count in self.limits.refused.items():
            limited.add_metric([where], count)
        yield limited
        if self.ledger:
            rows = CounterMetricFamily(
                "bitnet_ledger_rows", "Rows of the ledger by what became of them.", labels=["kind"]
            )
            rows.add_metric(["written"], self.ledger.written)
            rows.add_metric(["lost"], self.ledger.lost)
            yield rows
            yield GaugeMetricFamily("bitnet_ledger_waiting", "Rows that wait to be written.", value=self.ledger.waiting)
        if self.jobs:
            ended = CounterMetricFamily("bitnet_jobs", "Jobs by how they ended here.", labels=["kind"])
            for kind, count in self.jobs.ended.items():
                ended.add_metric([kind], count)
            yield ended
            yield GaugeMetricFamily("bitnet_jobs_running", "Jobs that are made here.", value=self.jobs.running)
