# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rate limits: a token bucket in its form GCRA, which keeps one moment for each client and no counters.

The bucket is in Redis, so that all replicas share it. While Redis is away each replica has buckets of its own: with N
replicas a client then gets up to N times its rate, which bitnet_rate_limit_local says.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from dataclasses import dataclass

from .errors import ApiError
from .redis_client import Redis, RedisAway

LOCAL_CLIENTS = 10_000
# KEYS[1]: the moment until which what was used lasts. ARGV: microseconds of one request, requests at once.
# Answers the microseconds to wait, 0 when the request may go. The time is the server's: clocks of replicas differ.
SCRIPT = """
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local each, full = tonumber(ARGV[1]), tonumber(ARGV[1]) * tonumber(ARGV[2])
local used = tonumber(redis.call('GET', KEYS[1]) or now) or now
used = math.min(math.max(used, now), now + full) + each
if used - full > now then return math.ceil(used - full - now) end
redis.call('SET', KEYS[1], string.format('%.0f', used), 'PX', math.ceil((used - now) / 1000) + 1)
return 0
"""


@dataclass(frozen=True)
class Rate:
    """So many requests a minute; a sixth of them, ten seconds' worth, at once."""

    per_minute: int

    @property
    def each(self) -> float:
        return 60 / self.per_minute

    @property
    def burst(self) -> int:
        return max(1, self.per_minute // 6)


class LocalBuckets:
    """The same in this process."""

    def __init__(self) -> None:
        self._used: OrderedDict[str, float] = OrderedDict()

    def wait(self, owner: str, rate: Rate, now: float) -> float:
        full = rate.each * rate.burst
        used = min(max(self._used.get(owner, now), now), now + full) + rate.each
        if used - full > now + 1e-9:
            return used - full - now
        self._used[owner] = used
        self._used.move_to_end(owner)
        while len(self._used) > LOCAL_CLIENTS:
            self._used.popitem(last=False)
        return 0.0


class Limits:
    def __init__(self, environment: str, redis: Redis | None) -> None:
        self.environment = environment
        self.redis = redis
        self.local = LocalBuckets()
        self.refused = {"redis": 0, "local": 0}
        self._script = redis.client.register_script(SCRIPT) if redis else None

    async def take(self, owner: str, rate: Rate | None) -> None:
        """Raises ApiError when the client has used up its rate."""
        if rate is None:
            return
        wait, where = await self._wait(owner, rate)
        if wait > 0:
            self.refused[where] += 1
            seconds = math.ceil(wait)
            raise ApiError(
                429,
                f"This key may make {rate.per_minute} requests a minute; try again in {seconds} s.",
                code="rate_limit_exceeded",
                headers={"Retry-After": str(seconds)},
            )

    async def _wait(self, owner: str, rate: Rate) -> tuple[float, str]:
        if self.redis is not None and self._script is not None:
            try:
                microseconds = await self.redis.ask(
                    self._script(
                        keys=[f"bitnet:{self.environment}:rate:{owner}"], args=[int(rate.each * 1_000_000), rate.burst]
                    )
                )
                return int(microseconds) / 1_000_000, "redis"
            except RedisAway:
                pass
        return self.local.wait(owner, rate, time.monotonic()), "local"
