# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rate limits, with a real Redis that goes and comes back."""

from __future__ import annotations

import time

import pytest
from api_lab import wait_until
from swarm_intelligence.limits import SCRIPT, LocalBuckets, Rate

PROMPT = {"prompt": "Hi"}


@pytest.fixture
def redis_only(data):
    return {"redis_url_file": data["redis_url_file"]}


def start(start_api, variables, rate=12):
    api = start_api(**variables, requests_per_minute=str(rate))
    wait_until(lambda: not api.service.data.redis or api.service.data.redis.up)
    return api


def codes(*apis, times=4):
    return [api.post("/v1/completions", PROMPT).status_code for _unused in range(times) for api in apis]


def test_a_burst_then_the_rate():
    buckets, rate = LocalBuckets(), Rate(60)  # ten at once, one a second
    assert [buckets.wait("a", rate, 100.0) for _unused in range(11)] == [0.0] * 10 + [1.0]
    assert buckets.wait("b", rate, 100.0) == 0
    assert buckets.wait("a", rate, 101.0) == 0
    assert buckets.wait("a", rate, 101.0) == 1.0
    assert [buckets.wait("a", rate, 1000.0) for _unused in range(11)] == [0.0] * 10 + [1.0]
    assert Rate(1).burst == 1


def test_the_script_does_the_same(redis_server):
    client = redis_server.client()
    script = client.register_script(SCRIPT)
    arguments = [1_000_000, 10]
    waits = [script(keys=["bitnet:t:rate:a"], args=arguments) for _unused in range(11)]
    assert waits[:10] == [0] * 10
    assert 0 < waits[10] <= 1_000_000
    assert 9 <= client.ttl("bitnet:t:rate:a") <= 11
    # what is no moment of ours, or one far ahead (another rate, a clock that was set back), does not lock anybody out
    for value in ("nonsense", "9" * 17, "-5"):
        client.set("bitnet:t:rate:b", value)
        assert script(keys=["bitnet:t:rate:b"], args=arguments) <= 1_000_000


def test_two_servers_share_one_rate(start_api, redis_only):
    first, second = start(start_api, redis_only), start(start_api, redis_only)
    answers = codes(first, second, times=2)  # two at once, and one each five seconds
    assert answers[:2] == [200, 200]
    refused = second.post("/v1/completions", PROMPT)
    if refused.status_code == 200:  # a slow machine: five seconds have passed
        refused = second.post("/v1/completions", PROMPT)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")
    assert 1 <= int(refused.headers["retry-after"]) <= 10
    assert second.metric('bitnet_rate_limited_total{by="redis"}') >= 1
    assert second.metric("bitnet_rate_limit_local") == 0


def test_other_requests_are_not_counted(start_api, redis_only):
    api = start(start_api, redis_only, rate=1)
    for _unused in range(5):
        assert api.get("/v1/models").status_code == 200
    assert api.post("/v1/completions", PROMPT).status_code == 200


@pytest.mark.parametrize("how", ["stopped", "frozen"])
def test_without_redis_each_has_limits_of_its_own(start_api, redis_only, redis_server, how):
    api = start(start_api, redis_only, rate=6)
    assert api.post("/v1/completions", PROMPT).status_code == 200
    redis_server.freeze(True) if how == "frozen" else redis_server.stop()
    try:
        began = time.monotonic()
        answers = codes(api, times=4)  # one of this process' own bucket, then no more; none fails
        assert set(answers) == {200, 429}
        assert time.monotonic() - began < 20
        assert api.metric("bitnet_redis_up") == 0
        assert api.metric("bitnet_rate_limit_local") == 1
        assert api.metric('bitnet_rate_limited_total{by="local"}') >= 1
        assert api.get("/ready", authorized=False).json() == {"ready": True, "redis": "away"}
    finally:
        redis_server.freeze(False) if how == "frozen" else redis_server.start()
    wait_until(lambda: api.metric("bitnet_redis_up") == 1)
    assert api.metric("bitnet_rate_limit_local") == 0


def test_a_full_redis_counts_as_away(start_api, redis_only, redis_server):
    api = start(start_api, redis_only)
    client = redis_server.client()
    client.config_set("maxmemory", "1")
    try:
        wait_until(lambda: not api.service.data.redis.up)
        assert api.post("/v1/completions", PROMPT).status_code == 200
    finally:
        client.config_set("maxmemory", "0")
    wait_until(lambda: api.service.data.redis.up)


def test_a_limit_needs_no_redis(start_api):
    api = start(start_api, {}, rate=1)
    assert codes(api, times=2) == [200, 429]
    assert api.metric("bitnet_rate_limit_local") == 1
