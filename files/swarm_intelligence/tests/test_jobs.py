# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs, with a real PostgreSQL and a real Redis that go and come back, and workers that are killed."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import uuid

import httpx
import psycopg
import pytest
from api_lab import AUTHORIZED, TOKEN, wait_until
from swarm_intelligence import jobs as jobs_module
from swarm_intelligence.engine_run import free_port

JOB = {"url": "/v1/completions", "body": {"prompt": "Hi"}}


def start(start_api, data, **variables):
    api = start_api(**data, **variables)
    wait_until(lambda: api.service.data.database.up and api.service.data.redis.up)
    return api


def submit(api, body=JOB):
    answer = api.post("/v1/jobs", body)
    assert answer.status_code == 202, answer.text
    return answer.json()["id"]


def job(api, identity):
    return api.get(f"/v1/jobs/{identity}").json()


def row(url, identity, columns="state, attempt, lapses"):
    with psycopg.connect(url) as connection:
        return connection.execute(f"SELECT {columns} FROM jobs WHERE id = %s", [identity]).fetchone()


def test_a_job_is_made(start_api, data, database_url):
    api = start(start_api, data)
    identity = submit(api)
    chat = submit(api, {"url": "/v1/chat/completions", "body": {"messages": [{"role": "user", "content": "\0 Hi"}]}})
    wait_until(lambda: job(api, identity)["status"] == "completed" and job(api, chat)["status"] == "completed")
    made = job(api, identity)
    assert made["response"]["choices"][0]["text"] == " one two"
    assert made["response"]["usage"]["total_tokens"] == 5
    assert made["error"] is None
    assert made["created_at"] <= made["started_at"] <= made["ended_at"]
    assert job(api, chat)["response"]["object"] == "chat.completion"
    wait_until(lambda: api.metric('bitnet_ledger_rows_total{kind="written"}') == 2)
    assert api.metric('bitnet_jobs_total{kind="completed"}') == 2
    # what has ended is not cancelled any more
    assert api.post(f"/v1/jobs/{identity}/cancel", {}).json()["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "url"),
        ({"url": "/ws", "body": {}}, "url"),
        ({"url": "/v1/completions", "body": []}, "body"),
        ({"url": "/v1/completions", "body": {}}, "prompt"),
        ({"url": "/v1/completions", "body": {"prompt": "Hi", "stream": True}}, "body"),
        ({"url": "/v1/completions", "body": {"prompt": "Hi", "max_tokens": 5000}}, "max_tokens"),
        ({**JOB, "owner": "token:other"}, "owner"),
    ],
)
def test_wrong_jobs_are_named(start_api, data, body, field):
    api = start(start_api, data)
    answer = api.post("/v1/jobs", body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


@pytest.mark.parametrize("identity", ["x", "' OR 1=1 --", "%00", str(uuid.uuid4()), "1" * 5000])
def test_unknown_jobs(start_api, data, identity):
    api = start(start_api, data)
    assert api.get(f"/v1/jobs/{identity}").status_code == 404
    assert api.post(f"/v1/jobs/{identity}/cancel", {}).status_code == 404


def test_a_job_is_its_owners(start_api, data, database_url):
    api = start(start_api, data)
    identity = submit(api)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE jobs SET owner = 'key:another'")
    assert api.get(f"/v1/jobs/{identity}").status_code == 404


def test_a_key_has_a_bounded_number_of_jobs(start_api, data, monkeypatch):
    monkeypatch.setattr(jobs_module, "MOST_OPEN", 2)
    api = start(start_api, data, jobs_parallel="0")
    submit(api), submit(api)
    answer = api.post("/v1/jobs", JOB)
    assert (answer.status_code, answer.json()["error"]["code"]) == (429, "jobs_full")


def test_waiting_and_running_jobs_are_cancelled(start_api, data):
    api = start(start_api, data, jobs_lease_seconds="2")
    api.injector.behaviour = "silent"
    running, waiting = submit(api), submit(api)
    wait_until(lambda: job(api, running)["status"] == "running" and api.injector.open == 1)
    for identity in (waiting, running):
        assert api.post(f"/v1/jobs/{identity}/cancel", {}).json()["status"] == "cancelled"
    wait_until(lambda: api.injector.open == 0)
    api.injector.behaviour = "tokens"
    last = submit(api)
    wait_until(lambda: job(api, last)["status"] == "completed")
    assert {job(api, identity)["status"] for identity in (waiting, running)} == {"cancelled"}


@pytest.mark.parametrize("behaviour", ["error", "garbage"])
def test_a_job_that_fails_says_why(start_api, data, behaviour):
    api = start(start_api, data)
    api.injector.behaviour = behaviour
    identity = submit(api)
    wait_until(lambda: job(api, identity)["status"] == "failed")
    assert job(api, identity)["error"]["code"] == "engine_error"
    assert job(api, identity)["response"] is None


def test_an_engine_that_is_lost_costs_no_job(start_api, data, database_url):
    api = start(start_api, data)
    api.injector.behaviour = "cut"
    identity = submit(api)
    wait_until(lambda: row(database_url, identity)[1] >= 2)
    api.injector.behaviour = "tokens"
    wait_until(lambda: job(api, identity)["status"] == "completed")
    assert row(database_url, identity)[2] == 0


def test_requests_go_before_jobs(start_api, data):
    api = start(start_api, data, parallel="1")
    api.loop.call_soon_threadsafe(setattr, api.service.intake, "waiting", 1)
    identity = submit(api)
    api.get("/v1/models")
    assert job(api, identity)["status"] == "queued"
    api.loop.call_soon_threadsafe(setattr, api.service.intake, "waiting", 0)
    wait_until(lambda: job(api, identity)["status"] == "completed")


def test_a_slot_that_is_drained_gives_its_job_back_and_takes_no_more(start_api, data, database_url):
    blue, green = start(start_api, data, slot="blue"), start(start_api, data, slot="green")
    object.__setattr__(blue.service.settings, "grace_seconds", 0.5)
    blue.injector.behaviour = "silent"
    first, second = submit(blue), submit(blue)
    wait_until(lambda: row(database_url, first)[0] == "running")
    blue.begin_drain()
    blue.thread.join(60)
    assert [row(database_url, identity)[0] for identity in (first, second)] == ["queued", "queued"]
    green.injector.behaviour = "tokens"
    green.post("/v1/completions", {"prompt": "Hi"})  # the switch: clients come here now
    for identity in (first, second):
        wait_until(lambda identity=identity: job(green, identity)["status"] == "completed")
    assert row(database_url, first) == ("completed", 2, 0)


def test_only_the_slot_that_clients_use_works(start_api, data, database_url):
    blue, green = start(start_api, data, slot="blue", jobs_parallel="0"), start(start_api, data, slot="green")
    identity = submit(blue)  # blue is active, and makes none
    for _unused in range(8):
        assert row(database_url, identity)[0] == "queued"
        wait_until(lambda: green.service.data.jobs.active.startswith("blue"))
    green.post("/v1/completions", {"prompt": "Hi"})
    wait_until(lambda: row(database_url, identity)[0] == "completed")


def test_jobs_outlive_redis(start_api, data, database_url, redis_server):
    api = start(start_api, data)
    api.service.data.jobs.parallel = 0
    lost = submit(api)
    redis_server.stop()  # and with it the list
    try:
        without = submit(api)
        api.service.data.jobs.parallel = 1
        wait_until(lambda: row(database_url, without)[0] == "completed")
        wait_until(lambda: row(database_url, lost)[0] == "completed")
        api.service.data.jobs.parallel = 0
        waiting = submit(api)
    finally:
        redis_server.start()
    wait_until(lambda: api.service.data.redis.up)
    api.get(f"/v1/jobs/{waiting}")
    api.service.data.jobs.parallel = 1
    wait_until(lambda: row(database_url, waiting)[0] == "completed")


def test_a_job_outlives_an_absence_of_the_database(start_api, data, database_url, postgres):
    api = start(start_api, data)
    api.injector.behaviour = "silent"
    identity = submit(api)
    wait_until(lambda: api.injector.open == 1)
    postgres.stop()
    try:
        answer = api.post("/v1/jobs", JOB)
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "jobs_unavailable")
        assert api.get(f"/v1/jobs/{identity}").status_code == 503
    finally:
        postgres.start()
    api.injector.behaviour = "tokens"
    wait_until(lambda: api.service.data.database.up)
    for generation in list(api.service.generations):
        api.loop.call_soon_threadsafe(generation.interrupt, "drain")  # the engine does not come back by itself
    wait_until(lambda: job(api, identity)["status"] == "completed")


class Worker:
    """An API server as a process of its own, which can be killed."""

    def __init__(self, tmp_path, data, injector, **variables):
        digest = hashlib.sha256(TOKEN.encode()).hexdigest()
        (tmp_path / "tokens").write_text(json.dumps({"schema": 1, "tokens": {"tests": digest}}))
        variables = {
            **data, "tokens_file": str(tmp_path / "tokens"), "engine_port": str(injector.port), "context": "4096",
            "jobs_lease_seconds": "2", **variables,
        }  # fmt: skip
        self.port = free_port()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "swarm_intelligence.api", "--port", str(self.port)],
            stdin=subprocess.PIPE,
            env={**os.environ, **{f"BITNET_{name.upper()}": value for name, value in variables.items()}},
        )
        state = {"ready": True, "restarts": 0, "variant": "x", "reason": "y"}
        self.process.stdin.write(json.dumps(state).encode() + b"\n")
        self.process.stdin.flush()
        wait_until(lambda: self.ready() == {"ready": True, "database": "up", "redis": "up"}, 180)

    def ready(self):
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/ready", trust_env=False, timeout=20).json()
        except httpx.TransportError:
            return None

    def submit(self):
        url = f"http://127.0.0.1:{self.port}/v1/jobs"
        return httpx.post(url, json=JOB, headers=AUTHORIZED, trust_env=False, timeout=20).json()["id"]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)


@pytest.fixture
def start_worker(tmp_path, data, injector, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    workers = []

    def start_one(**variables):
        workers.append(Worker(tmp_path, data, injector, **variables))
        return workers[-1]

    yield start_one
    for worker in workers:
        worker.kill()


def test_a_worker_that_is_killed_gives_its_job_back(start_worker, start_api, data, injector, database_url):
    injector.behaviour = "silent"
    worker = start_worker()
    identity = worker.submit()
    wait_until(lambda: row(database_url, identity)[0] == "running" and injector.open == 1)
    worker.kill()
    injector.behaviour = "tokens"
    other = start(start_api, data, jobs_lease_seconds="2")
    other.post("/v1/completions", {"prompt": "Hi"})
    wait_until(lambda: job(other, identity)["status"] == "completed")
    assert row(database_url, identity) == ("completed", 2, 1)


def test_a_job_that_kills_its_workers_is_given_up(start_worker, start_api, data, injector, database_url):
    injector.behaviour = "silent"
    api = start(start_api, data, jobs_lease_seconds="2", jobs_parallel="0")
    identity = submit(api)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE jobs SET lapses = 2")
    worker = start_worker()
    httpx.post(f"http://127.0.0.1:{worker.port}/v1/completions", json={"prompt": "Hi", "max_tokens": 0},
               headers=AUTHORIZED, trust_env=False, timeout=20)  # fmt: skip
    wait_until(lambda: row(database_url, identity)[0] == "running")
    worker.kill()
    other = start_worker()
    httpx.get(f"http://127.0.0.1:{other.port}/v1/jobs/{identity}", headers=AUTHORIZED, trust_env=False, timeout=20)
    wait_until(lambda: row(database_url, identity)[0] == "failed")
    assert job(api, identity)["error"]["code"] == "job_lost"


def test_who_has_lost_a_job_does_not_write_its_answer(start_api, data, database_url):
    """A worker that was thought dead, and comes back with an answer, changes nothing."""
    api = start(start_api, data)
    api.injector.behaviour = "silent"
    identity = submit(api)
    wait_until(lambda: api.injector.open == 1)
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE jobs SET attempt = attempt + 1, worker = 'another', answer = '{}'")
    wait_until(lambda: api.injector.open == 0)  # it sees that when it renews its lease
    assert row(database_url, identity, "state, worker, answer") == ("running", "another", "{}")
    assert api.metric('bitnet_jobs_total{kind="completed"}') == 0


def test_two_servers_make_each_job_once(start_api, data, database_url):
    apis = [start(start_api, data) for _unused in range(2)]
    identities = [submit(apis[number % 2]) for number in range(20)]
    wait_until(lambda: all(row(database_url, identity)[0] == "completed" for identity in identities))
    assert {row(database_url, identity)[1:] for identity in identities} == {(1, 0)}
    assert len(apis[0].injector.payloads) == 20
    assert all(api.metric('bitnet_jobs_total{kind="completed"}') > 0 for api in apis)
