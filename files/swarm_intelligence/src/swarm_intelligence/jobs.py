# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs: completions that are made later, when the engine has a place that nobody waits for.

PostgreSQL has the job, its state and its answer; a list in Redis says which is next. A worker holds a job by a lease
in the row, which it renews while it lives; when that lapses, another one takes the job. Each taking has a number
(attempt), and only the taker with the present number may write the answer: a job may be made twice, and has one answer.
A list and no stream, because a stream's own record of who took what would be a second one beside the row's: what Redis
loses is pushed again from the rows, and while Redis is away workers look for rows themselves.

Only the slot to which clients' requests come takes jobs: the one that was asked last says so in Redis. So one that is
parked, or prepared and not yet judged, makes none.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Row, String, bindparam, case, delete, func, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from .auth import Principal
from .completions import NOTHING, ChatShape, CompletionShape, Shape
from .database import Away, Database, jobs
from .engine import Piece
from .entry import Entry
from .errors import ApiError, unavailable
from .ledger import Ledger
from .logs import event
from .redis_client import Redis, RedisAway
from .schemas import ChatRequest, CompletionRequest, JobRequest, parse
from .service import Generation, Interrupted

if TYPE_CHECKING:
    from .service import Service

KINDS: dict[str, tuple[type[CompletionRequest] | type[ChatRequest], type[CompletionShape] | type[ChatShape]]] = {
    "/v1/completions": (CompletionRequest, CompletionShape),
    "/v1/chat/completions": (ChatRequest, ChatShape),
}
QUEUED, RUNNING, DONE, FAILED, CANCELLED = "queued", "running", "completed", "failed", "cancelled"
OPEN = (QUEUED, RUNNING)
LAPSES = 3
"""A job whose worker died so many times is not tried again: it may be why."""
MOST_OPEN = 1000
"""Jobs of one client that wait or run."""
KEPT = timedelta(days=7)
IDLE_SECONDS = 0.25
SWEEP_SECONDS = 5.0
WRITE_AGAIN_SECONDS = 300.0
PROBE = "token:probe"


class Jobs:
    def __init__(self, service: Service, database: Database, redis: Redis, ledger: Ledger) -> None:
        settings = service.settings
        self.service = service
        self.database = database
        self.redis = redis
        self.ledger = ledger
        self.environment = settings.environment
        self.parallel = settings.jobs_parallel
        self.lease = timedelta(seconds=settings.jobs_lease_seconds)
        self.worker = f"{settings.slot}/{socket.gethostname()}/{os.getpid()}/{uuid.uuid4().hex[:8]}"
        self.list = f"bitnet:{self.environment}:jobs"
        self.active_key = f"bitnet:{self.environment}:active"
        self.me = f"{settings.slot} {settings.release}"
        self.active = ""
        self.ended = dict.fromkeys((DONE, FAILED, CANCELLED, "given back"), 0)
        self._running: dict[uuid.UUID, asyncio.Task[None]] = {}
        self._marking: asyncio.Task[None] | None = None

    @property
    def running(self) -> int:
        return len(self._running)

    # ---- what clients do

    async def submit(self, principal: Principal, body: bytes) -> dict[str, Any]:
        request = parse(JobRequest, body)
        text = json.dumps(request.body)
        wanted = parse(KINDS[request.url][0], text)
        if wanted.stream:
            raise ApiError(400, "body.stream: a job has no stream; leave it out.", code="invalid_value", param="body")
        self.service.check_request(wanted)
        identity = uuid.uuid4()
        async with self._database() as connection:
            held = select(func.count()).where(jobs.c.owner == principal.id, jobs.c.state.in_(OPEN))
            if ((await connection.execute(held)).scalar() or 0) >= MOST_OPEN:
                raise ApiError(
                    429,
                    f"{MOST_OPEN} jobs of this key wait or run, more are not taken: try again later.",
                    code="jobs_full",
                    headers={"Retry-After": "60"},
                )
            values = {
                "id": identity,
                "environment": self.environment,
                "owner": principal.id,
                "url": request.url,
                "body": text,
                "state": QUEUED,
            }
            row = (await connection.execute(jobs.insert().values(values).returning(*jobs.c))).one()
        await self._push([identity])
        return document(row)

    async def get(self, principal: Principal, identity: str) -> dict[str, Any]:
        async with self._database() as connection:
            row = (await connection.execute(select(jobs).where(*self._of(principal, identity)))).first()
        return document(_found(row))

    async def cancel(self, principal: Principal, identity: str) -> dict[str, Any]:
        """What has ended stays as it ended. A running one stops when its worker renews its lease."""
        mine = self._of(principal, identity)
        async with self._database() as connection:
            ends = {"state": CANCELLED, "ended_at": func.now(), "lease_until": None}
            changed = await connection.execute(update(jobs).where(*mine, jobs.c.state.in_(OPEN)).values(ends))
            row = (await connection.execute(select(jobs).where(*mine))).first()
        self.ended[CANCELLED] += changed.rowcount
        return document(_found(row))

    def _of(self, principal: Principal, identity: str) -> list[Any]:
        try:
            number = uuid.UUID(identity)
        except ValueError:
            raise _unknown() from None
        return [jobs.c.id == number, jobs.c.owner == principal.id, jobs.c.environment == self.environment]

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[AsyncConnection]:
        """A transaction for a client, whose loss is an answer to him."""
        try:
            async with self.database.begin() as connection:
                yield connection
        except Away:
            raise unavailable(
                "Jobs are not taken or shown just now: their database is away.", "jobs_unavailable", 5
            ) from None

    async def _push(self, identities: list[uuid.UUID]) -> None:
        """That it fails is no fault: jobs that are in no list are found by their rows."""
        with suppress(RedisAway):
            await self.redis.ask(self.redis.client.lpush(self.list, *(str(identity) for identity in identities)))

    # ---- which slot works

    def seen(self, principal: Principal, path: str) -> None:
        """A client's request came here, so this slot is the active one. Probes ask idle slots, too."""
        if principal.id == PROBE and not path.startswith("/v1/jobs"):
            return
        if self.active != self.me and (self._marking is None or self._marking.done()):
            self.active = self.me
            self._marking = asyncio.create_task(self._mark())

    async def _mark(self) -> None:
        with suppress(RedisAway):
            await self.redis.ask(self.redis.client.set(self.active_key, self.me))

    async def _look(self) -> None:
        if self._marking is not None and not self._marking.done():
            return
        with suppress(RedisAway):  # then what was known last holds
            active: Any = await self.redis.ask(self.redis.client.get(self.active_key))
            self.active = active or ""

    # ---- the worker

    async def run(self) -> None:
        """Take jobs while there is room that no request waits for."""
        sweep_at = 0.0
        while True:
            await asyncio.sleep(IDLE_SECONDS)
            try:
                await self._look()
                now = asyncio.get_running_loop().time()
                if self.active == self.me and now >= sweep_at:
                    sweep_at = now + min(SWEEP_SECONDS, self.lease.total_seconds() / 2)
                    await self._sweep()
                while self._may_take() and await self._take():
                    await asyncio.sleep(0)
            except Away:
                continue
            except DBAPIError as error:
                event(logging.ERROR, "jobs cannot be taken", error=type(error.orig).__name__)
                await asyncio.sleep(SWEEP_SECONDS)

    def _may_take(self) -> bool:
        intake = self.service.intake
        room = intake.waiting == 0 and intake.running + 1 <= intake.parallel
        return self.active == self.me and intake.open and room and self.running < self.parallel

    async def _take(self) -> bool:
        row = await self._claim()
        if row is None:
            return False
        self._running[row.id] = task = asyncio.create_task(self._work(row))
        task.add_done_callback(lambda _task: self._running.pop(row.id, None))
        return True

    async def _claim(self) -> Row[Any] | None:
        """The next one: from the list, from the rows while there is no list. Who changes the row has it."""
        which: Any
        try:
            identity = await self.redis.ask(self.redis.client.rpop(self.list))
            if identity is None:
                return None
            which = jobs.c.id == uuid.UUID(str(identity))
        except ValueError:  # not pushed by us
            return None
        except RedisAway:
            oldest = select(jobs.c.id).where(jobs.c.environment == self.environment, jobs.c.state == QUEUED)
            which = jobs.c.id.in_(oldest.order_by(jobs.c.created_at).limit(1).with_for_update(skip_locked=True))
        taken = {
            "state": RUNNING,
            "worker": self.worker,
            "attempt": jobs.c.attempt + 1,
            "lease_until": func.now() + self.lease,
            "started_at": func.coalesce(jobs.c.started_at, func.now()),
        }
        async with self.database.begin() as connection:
            claim = update(jobs).where(which, jobs.c.state == QUEUED, jobs.c.environment == self.environment)
            return (await connection.execute(claim.values(taken).returning(*jobs.c))).first()

    async def _work(self, row: Row[Any]) -> None:
        generation: Generation | None = None
        lease: asyncio.Task[None] | None = None
        entry = Entry(row.owner, "/v1/jobs")
        state, answer = FAILED, ""
        try:
            model, shape = KINDS[row.url]
            request = parse(model, row.body)
            async with self.service.generation() as generation:
                lease = asyncio.create_task(self._renew(row, generation))
                answer = json.dumps(await self._generate(request, shape(self.service.card.name), entry))
            state = DONE
        except Interrupted as interruption:
            entry.status = 503
            if interruption.reason != "drain":  # cancelled, or not ours any more: its row says so already
                return
            state = QUEUED
        except ApiError as error:
            entry.status = error.status
            # Busy, draining, or an engine that was lost: nothing is wrong with the job.
            state = QUEUED if error.status in (429, 503) else FAILED
            answer = json.dumps(error.document())
        except Exception as error:
            event(logging.ERROR, "a job failed unexpectedly", job=str(row.id), error=type(error).__name__)
            answer = json.dumps(ApiError(500, "An unexpected error.", code="internal_error").document())
        finally:
            if lease is not None:
                lease.cancel()
            self.ledger.add(entry)
        await self._end(row, state, answer)

    async def _generate(self, request: CompletionRequest | ChatRequest, shape: Shape, entry: Entry) -> dict[str, Any]:
        pieces: list[Piece] = []
        end = NOTHING
        async with aclosing(self.service.pieces(request)) as answer:
            async for piece in answer:
                if isinstance(piece, Piece):
                    pieces.append(piece)
                else:
                    end = piece
        entry.ended(200, end.prompt_tokens, end.generated_tokens)
        return shape.answer(pieces, end)

    async def _renew(self, row: Row[Any], generation: Generation) -> None:
        while True:
            await asyncio.sleep(min(self.lease.total_seconds() / 6, 5))
            with suppress(Away, DBAPIError):
                async with self.database.begin() as connection:
                    renewed = await connection.execute(
                        update(jobs).where(*_held(row)).values(lease_until=func.now() + self.lease)
                    )
                if renewed.rowcount == 0:
                    generation.interrupt("cancelled")
                    return

    async def _end(self, row: Row[Any], state: str, answer: str) -> None:
        """Write how it ended, as long as nobody else has the job; while the database is away, again and again."""
        values: dict[str, Any] = {"state": state, "lease_until": None, "worker": None}
        if state == QUEUED:
            values["started_at"] = None
        else:
            values.update(answer=answer, ended_at=func.now())
        give_up = asyncio.get_running_loop().time() + WRITE_AGAIN_SECONDS
        while True:
            try:
                async with self.database.begin() as connection:
                    written = await connection.execute(update(jobs).where(*_held(row)).values(values))
                break
            except Away:
                # Given up, its lease lapses and the job is made again.
                if self.service.intake.draining or asyncio.get_running_loop().time() > give_up:
                    return
                await asyncio.sleep(1)
        if written.rowcount:
            self.ended["given back" if state == QUEUED else state] += 1
            if state == QUEUED:
                with suppress(RedisAway):
                    await self.redis.ask(self.redis.client.rpush(self.list, str(row.id)))  # it was next

    async def _sweep(self) -> None:
        """Give back what a dead worker held, push what is in no list, and let old ones go."""
        lapsed = update(jobs).where(
            jobs.c.environment == self.environment, jobs.c.state == RUNNING, jobs.c.lease_until < func.now()
        )
        last = jobs.c.lapses + 1 >= LAPSES
        why = ApiError(500, f"Its worker ended {LAPSES} times while it was made.", code="job_lost")
        async with self.database.begin() as connection:
            rows = await connection.execute(
                lapsed.values(
                    lapses=jobs.c.lapses + 1,
                    state=case((last, FAILED), else_=QUEUED),
                    answer=case((last, bindparam("why", json.dumps(why.document()), String)), else_=None),
                    ended_at=case((last, func.now()), else_=None),
                    lease_until=None,
                    worker=None,
                ).returning(jobs.c.id, jobs.c.state)
            )
            found = list(rows)
            old = (jobs.c.environment == self.environment, jobs.c.ended_at < func.now() - KEPT)
            await connection.execute(delete(jobs).where(*old))
        back = [row.id for row in found if row.state == QUEUED]
        if found:
            event(logging.WARNING, "jobs of workers that ended", given_back=len(back), failed=len(found) - len(back))
        await self._push_lost(back)

    async def _push_lost(self, back: list[uuid.UUID]) -> None:
        with suppress(RedisAway):
            if await self.redis.ask(self.redis.client.llen(self.list)) == 0:
                waiting = select(jobs.c.id).where(jobs.c.environment == self.environment, jobs.c.state == QUEUED)
                async with self.database.begin() as connection:
                    rows = await connection.execute(waiting.order_by(jobs.c.created_at).limit(1000))
                    back = [row.id for row in rows]
            if back:
                await self._push(back)

    async def close(self) -> None:
        """After the drain: what was given back is to be written before the connections close."""
        if self._running:
            await asyncio.wait(self._running.values(), timeout=3)


def _held(row: Row[Any]) -> list[Any]:
    return [jobs.c.id == row.id, jobs.c.attempt == row.attempt, jobs.c.state == RUNNING]


def _unknown() -> ApiError:
    return ApiError(404, "There is no such job of this key.", code="job_not_found")


def _found(row: Row[Any] | None) -> Row[Any]:
    if row is None:
        raise _unknown()
    return row


def document(row: Row[Any]) -> dict[str, Any]:
    moments = {name: getattr(row, name) for name in ("created_at", "started_at", "ended_at")}
    answer = json.loads(row.answer) if row.answer else {}
    failed = row.state == FAILED
    return {
        "id": str(row.id),
        "object": "job",
        "status": row.state,
        "url": row.url,
        **{name: int(moment.timestamp()) if moment else None for name, moment in moments.items()},
        "response": answer if row.state == DONE else None,
        "error": answer.get("error") if failed else None,
    }
