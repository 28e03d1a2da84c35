# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The connection to PostgreSQL: tables, whether it can be used just now, and why not.

Everything is asynchronous, since a query whose time is over can be cancelled that way; a thread that waits for a dead
server cannot. The URL comes from a file and is given to libpq as it is, which knows several hosts
(target_session_attrs=read-write finds the primary) and never shows it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import conninfo
from sqlalchemy import (
    ARRAY,
    Boolean,
    Column,
    DateTime,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    Uuid,
    create_engine,
    text,
)
from sqlalchemy.engine import Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from .schema import MAXIMUM, MINIMUM, Schema
from .settings import SettingsError
from .watched import Watched

QUERY_SECONDS = 5.0
CONNECT_SECONDS = 3
CONNECTIONS = 8
SCHEMA_QUERY = "SELECT version_num, oldest FROM alembic_version, schema_compatibility"

metadata = MetaData()
schema_compatibility = Table(
    "schema_compatibility",
    metadata,
    Column("only_row", Boolean, primary_key=True),
    Column("oldest", Text, nullable=False),
)
api_keys = Table(
    "api_keys",
    metadata,
    Column("id", Text, primary_key=True),
    Column("digest", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("requests_per_minute", Integer),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("expires_at", DateTime(timezone=True)),
    Column("revoked_at", DateTime(timezone=True)),
)
requests = Table(
    "requests",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("began_at", DateTime(timezone=True), nullable=False),
    Column("owner", Text, nullable=False),
    Column("path", Text, nullable=False),
    Column("environment", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("release", Text, nullable=False),
    Column("slot", Text, nullable=False),
    Column("status", Integer, nullable=False),
    Column("prompt_tokens", Integer, nullable=False),
    Column("completion_tokens", Integer, nullable=False),
    Column("duration_ms", Integer, nullable=False),
    Index("requests_owner_began_at", "owner", "began_at"),
)
jobs = Table(
    "jobs",
    metadata,
    Column("id", Uuid, primary_key=True),
    Column("environment", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("url", Text, nullable=False),
    # Texts and not jsonb: a prompt or an answer may hold the character 0, which jsonb refuses.
    Column("body", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("lapses", Integer, nullable=False, server_default="0"),
    Column("worker", Text),
    Column("lease_until", DateTime(timezone=True)),
    Column("created_at", DateTime(timezone=True), nullable=False, server_default=text("now()")),
    Column("started_at", DateTime(timezone=True)),
    Column("ended_at", DateTime(timezone=True)),
    Column("answer", Text),
    Index("jobs_state", "environment", "state", "created_at"),
    Index("jobs_owner", "owner", "state"),
)


class Away(Exception):
    """The database cannot be used now; the text says why, without its URL."""


@dataclass(frozen=True)
class Source:
    """Where the URL is. It is read for every connection: a secret that is replaced needs no restart."""

    url_file: Path
    ca_file: Path | None = None
    option: str = "BITNET_DATABASE_URL_FILE"

    def check(self) -> None:
        self.parameters()

    def parameters(self) -> dict[str, Any]:
        where = f"{self.option}={str(self.url_file)!r}"
        try:
            url = self.url_file.read_text().strip()
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is no text"
            raise SettingsError(f"{where} cannot be read ({reason}): mount the secret with the URL there.") from None
        try:
            if not url.startswith(("postgresql://", "postgres://")):
                raise ValueError
            parameters: dict[str, Any] = conninfo.conninfo_to_dict(url)
        except (psycopg.Error, ValueError):  # whose text may quote the URL
            raise SettingsError(
                f"{where} holds no URL of PostgreSQL: write postgresql://USER:PASSWORD@HOST:PORT/DATABASE into it."
            ) from None
        if self.ca_file is not None:
            if not self.ca_file.is_file():
                raise SettingsError(
                    f"BITNET_DATABASE_CA_FILE={str(self.ca_file)!r} is no file: mount the CA's certificate there, or "
                    "leave the variable out for a connection without TLS."
                )
            parameters.update(sslmode="verify-full", sslrootcert=str(self.ca_file))
        parameters.setdefault("connect_timeout", str(CONNECT_SECONDS))
        parameters.setdefault("tcp_user_timeout", str(int(QUERY_SECONDS * 1000)))
        # None: behind PgBouncer the next transaction may run on a connection that has not seen the statement.
        return {**parameters, "prepare_threshold": None}

    async def connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(**self.parameters())

    def engine(self) -> Engine:
        """For what is done step by step, outside the service: migrations, and the commands that look at them."""
        return create_engine(
            "postgresql+psycopg://", creator=lambda: psycopg.connect(**self.parameters()), poolclass=NullPool
        )


def reason_of(error: BaseException) -> str:
    """One line for people. libpq names host, port, user and database; a password is in none of its messages."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    lines = str(cause).strip().splitlines()
    return (lines[0] if lines else type(cause).__name__)[:300]


class Database(Watched):
    """PostgreSQL as the service sees it. What is asked of it while it is away fails at once."""

    name = "database"

    def __init__(self, source: Source, migrate: str) -> None:
        super().__init__()
        self.source = source
        self.migrate = migrate
        self.schema: Schema | None = None
        """What was seen last, also while the database is away."""
        self.seen = 0.0
        self.engine: AsyncEngine = create_async_engine(
            "postgresql+psycopg://",
            async_creator=source.connect,
            pool_size=CONNECTIONS,
            max_overflow=0,
            pool_timeout=2,
            pool_pre_ping=True,
        )

    @asynccontextmanager
    async def begin(self, seconds: float = QUERY_SECONDS) -> AsyncIterator[AsyncConnection]:
        """A transaction. Raises Away; errors of what is asked (IntegrityError, DataError) pass."""
        if not self.up:
            raise Away(self.reason)
        try:
            async with asyncio.timeout(seconds), self.engine.begin() as connection:
                yield connection
        except PoolTimeout:  # many ask at once; the database itself is well
            raise Away(f"all {CONNECTIONS} connections are busy") from None
        except (OperationalError, InterfaceError, SettingsError, TimeoutError, OSError) as error:
            self.away(reason_of(error))
            raise Away(self.reason) from error
        except DBAPIError as error:
            if error.connection_invalidated:
                self.away(reason_of(error))
                raise Away(self.reason) from error
            raise

    async def look(self) -> None:
        try:
            async with asyncio.timeout(QUERY_SECONDS):
                schema = await self._schema()
            if self.migrate == "expand" and schema.revision < MINIMUM:
                await asyncio.to_thread(self._expand)
                schema = await self._schema()
        except (DBAPIError, PoolTimeout, SettingsError, TimeoutError, OSError, psycopg.Error) as error:
            self.away(reason_of(error))
            return
        self.schema, self.seen = schema, time.monotonic()
        problem = schema.problem()
        if problem:
            self.away(f"{problem} (see 'bitnet-cli database check')")
        else:
            self.there(schema=schema.revision)

    def _expand(self) -> None:
        from .migrate import upgrade

        upgrade(self.source)

    async def _schema(self) -> Schema:
        async with self.engine.connect() as connection:
            if (await connection.execute(text("SELECT pg_is_in_recovery()"))).scalar():
                raise OSError("the server is a standby, which takes no writes")
            try:
                found = (await connection.execute(text(SCHEMA_QUERY))).first()
            except ProgrammingError:  # no such table
                return Schema()
        return Schema(found[0], found[1]) if found else Schema()

    async def close(self) -> None:
        await self.engine.dispose()

    def document(self) -> dict[str, Any]:
        schema = self.schema.document() if self.schema else None
        return {
            "up": self.up,
            "reason": self.reason,
            "schema": schema,
            "schema_seconds_ago": round(time.monotonic() - self.seen, 1) if self.schema else None,
            "release": {"minimum": MINIMUM, "maximum": MAXIMUM},
            "usable": not self.schema.problem() if self.schema else None,
        }
