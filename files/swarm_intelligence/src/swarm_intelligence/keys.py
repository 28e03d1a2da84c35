# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""API keys in PostgreSQL, beside the tokens of the file.

A key is bitnet_ID_SECRET. The ID finds the row; of the whole key only the SHA-256 is kept. The secret has 256 random
bits, which nobody guesses however fast the hash is: a slow or salted one, made for what people choose as passwords,
would cost every request and protect nothing more.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Row, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from .auth import Principal
from .database import Away, Database, api_keys
from .errors import unavailable
from .limits import Rate

FORM = re.compile(r"bitnet_([a-z0-9]{12})_[A-Za-z0-9_-]{43}")
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
FRESH_SECONDS = 10.0
"""So long a key is believed without asking again: a revoked one ends within this time."""
KEPT_SECONDS = 3600.0
"""So long a key that was good goes on while the database is away."""
ASK_SECONDS = 2.0
REMEMBERED = 10_000

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"


class BadKey(Exception):
    """A key cannot be made or found as asked; the text says why and the way out."""


def digest_of(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


@dataclass
class _Remembered:
    principal: Principal | None
    expires_at: datetime | None
    asked: float


class Keys:
    """Who a key belongs to: from memory while that is fresh, from the database, or from memory while that is away."""

    def __init__(self, database: Database, default_rate: Rate | None) -> None:
        self.database = database
        self.default_rate = default_rate
        self._known: OrderedDict[bytes, _Remembered] = OrderedDict()

    async def principal(self, key: str) -> Principal | None:
        """None for a key that is unknown, revoked or expired. Raises ApiError when that cannot be told now."""
        match = FORM.fullmatch(key)
        if match is None:
            return None
        digest = digest_of(key)
        known = self._known.get(digest)
        if known is None or time.monotonic() - known.asked > FRESH_SECONDS:
            known = await self._ask(match[1], digest, known)
        if known.expires_at is not None and known.expires_at <= datetime.now(UTC):
            return None
        return known.principal

    async def _ask(self, identity: str, digest: bytes, known: _Remembered | None) -> _Remembered:
        try:
            async with self.database.begin(ASK_SECONDS) as connection:
                row = (await connection.execute(select(api_keys).where(api_keys.c.id == identity))).first()
        except Away:
            if known is not None and time.monotonic() - known.asked < KEPT_SECONDS:
                return known
            raise unavailable("API keys cannot be checked just now.", "keys_unavailable", 5) from None
        found = _Remembered(None, None, time.monotonic())
        if row is not None and row.revoked_at is None and hmac.compare_digest(row.digest, digest):
            rate = Rate(row.requests_per_minute) if row.requests_per_minute else self.default_rate
            found = _Remembered(
                Principal(f"key:{row.id}", row.name, frozenset(row.scopes), rate), row.expires_at, time.monotonic()
            )
        self._known[digest] = found
        self._known.move_to_end(digest)
        while len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
        return found


# ---- what bitnet-cli does ----


async def create(
    connection: AsyncConnection,
    name: str,
    scopes: Iterable[str],
    days: int | None = None,
    requests_per_minute: int | None = None,
) -> tuple[str, dict[str, Any]]:
    """The key, which is known nowhere else, and its row."""
    if not NAME.fullmatch(name):
        raise BadKey(
            f"The name {name!r} cannot be used: give 1 to 63 small letters, digits, '.', '_' and '-', a letter or "
            "digit first."
        )
    identity = "".join(secrets.choice(_ALPHABET) for _unused in range(12))
    key = f"bitnet_{identity}_{secrets.token_urlsafe(32)}"
    values = {
        "id": identity,
        "digest": digest_of(key),
        "name": name,
        "scopes": sorted(set(scopes)),
        "requests_per_minute": requests_per_minute,
        "expires_at": datetime.now(UTC) + timedelta(days=days) if days else None,
    }
    row = (await connection.execute(api_keys.insert().values(values).returning(*api_keys.c))).one()
    return key, document(row)


async def listed(connection: AsyncConnection) -> list[dict[str, Any]]:
    rows = await connection.execute(select(api_keys).order_by(api_keys.c.created_at, api_keys.c.id))
    return [document(row) for row in rows]


async def revoke(connection: AsyncConnection, identity: str) -> tuple[bool, dict[str, Any]]:
    """Whether it was good until now, and its row."""
    revoked = (
        await connection.execute(
            update(api_keys)
            .where(api_keys.c.id == identity, api_keys.c.revoked_at.is_(None))
            .values(revoked_at=datetime.now(UTC))
            .returning(*api_keys.c)
        )
    ).first()
    row = revoked or (await connection.execute(select(api_keys).where(api_keys.c.id == identity))).first()
    if row is None:
        raise BadKey(f"There is no key {identity[:40]!r}: 'bitnet-cli keys list' shows the ids.")
    return revoked is not None, document(row)


def document(row: Row[Any]) -> dict[str, Any]:
    """What may be shown of a key: everything but its digest."""
    moments = {name: getattr(row, name) for name in ("created_at", "expires_at", "revoked_at")}
    return {
        "id": row.id,
        "name": row.name,
        "scopes": list(row.scopes),
        "requests_per_minute": row.requests_per_minute,
        **{name: moment.isoformat(timespec="seconds") if moment else None for name, moment in moments.items()},
    }
