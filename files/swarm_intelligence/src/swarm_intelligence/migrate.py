# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Brings the database's schema to another revision: one transaction, one at a time.

A migration is of the kind expand (it only adds, so releases before it go on working) or contract (it takes away what no
running release needs any more, and writes into schema_compatibility from which revision on a release must have been
made). The service itself makes the expanding ones when it starts; contracting is a decision, and a command.
"""

from __future__ import annotations

from typing import Any

from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlalchemy.exc import ProgrammingError

from .database import SCHEMA_QUERY, Source
from .schema import Schema

LOCK = 0x6269746E6574  # any number that nobody else takes: "bitnet"
LOCK_SECONDS = 10
SCRIPTS = "swarm_intelligence:migrations"


class MigrationError(Exception):
    """The schema cannot be brought to what was asked for; the text says why and the way out."""


def upgrade(source: Source, to: str = "", *, contract: bool = False, lose_data: bool = False) -> tuple[str, str]:
    """Revision before and after. Without a target as far as the expanding ones go, with contract=True to the last."""
    config = Config()
    config.set_main_option("script_location", SCRIPTS)
    line = _line(config)
    if to and to not in line:
        raise MigrationError(f"--to {to!r} is no revision; there are {', '.join(line)}.")
    engine = source.engine()
    try:
        with engine.begin() as connection:
            # Statements that wait for a lock make all others wait behind them: rather fail, and try again.
            connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_SECONDS}s'"))
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
            before = current(connection)
            if before.revision > max(line):
                return before.revision, before.revision  # a later release was here
            target = to or _furthest(line, before.revision, contract)
            _refuse(line, before.revision, target, contract, lose_data)
            config.attributes["connection"] = connection
            if target < before.revision:
                command.downgrade(config, target)
            elif target > before.revision:
                command.upgrade(config, target)
            return before.revision, target
    finally:
        engine.dispose()


def look(source: Source) -> Schema:
    engine = source.engine()
    try:
        with engine.connect() as connection:
            return current(connection)
    finally:
        engine.dispose()


def current(connection: Connection) -> Schema:
    try:
        with connection.begin_nested() if connection.in_transaction() else connection.begin():
            found = connection.execute(text(SCHEMA_QUERY)).first()
    except ProgrammingError:  # no such table
        return Schema()
    return Schema(found[0], found[1]) if found else Schema()


def _line(config: Config) -> dict[str, str]:
    """Kind of each migration, in their order."""
    scripts: list[Any] = list(ScriptDirectory.from_config(config).walk_revisions())
    return {script.revision: script.module.kind for script in reversed(scripts)}


def _furthest(line: dict[str, str], present: str, contract: bool) -> str:
    target = present
    for revision, kind in line.items():
        if revision > present:
            if kind == "contract" and not contract:
                break
            target = revision
    return target


def _refuse(line: dict[str, str], present: str, target: str, contract: bool, lose_data: bool) -> None:
    if target < present and not lose_data:
        raise MigrationError(
            f"--to {target}: the database has schema {present}, and going back drops what later ones have added, with "
            "what is in it: say --lose-data if that is meant, after a backup."
        )
    contracting = [revision for revision, kind in line.items() if present < revision <= target and kind == "contract"]
    if contracting and not contract:
        raise MigrationError(
            f"--to {target}: schema {contracting[0]} takes away what releases before it use: say --contract when none "
            "of them runs or is kept for a rollback."
        )
