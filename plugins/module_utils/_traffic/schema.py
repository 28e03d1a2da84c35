# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether the database's schema still lets a release work.

The release says in a label of its slot which schemas it knows (0003-0005: it needs what 0003 has, and knows up to
0005). The database says its revision, and from which one on a release must have been made (oldest): a migration that
takes something away writes that. Any slot that has a connection reads it, also one of another release.
"""

from __future__ import annotations

import dataclasses
import json
import re
import typing as t

SCHEMAS = "io.bitnet.schemas"

_SCHEMAS = re.compile(r"([0-9]{4})-([0-9]{4})")
_REVISION = re.compile(r"[0-9]{4}")


@dataclasses.dataclass(frozen=True)
class Schema:
    """What a slot has read in the database, so many seconds ago."""

    revision: str
    oldest: str
    seconds_ago: float = 0.0


def schema_of(body: bytes) -> Schema | None:
    """From a slot's answer at /api; None where it says nothing that could be used."""
    try:
        said = json.loads(body)["database"]
        schema = Schema(said["schema"]["revision"], said["schema"]["oldest"], float(said["schema_seconds_ago"]))
        usable = all(_REVISION.fullmatch(text) for text in (schema.revision, schema.oldest))
    except (ValueError, KeyError, TypeError):
        return None
    return schema if usable else None


def newest(schemas: t.Iterable[Schema | None]) -> Schema | None:
    known = [schema for schema in schemas if schema is not None]
    return min(known, key=lambda schema: schema.seconds_ago, default=None)


def refusal(label: str, schema: Schema | None) -> str:
    """Why a release with this label must not get traffic, empty when nothing is known against it."""
    match = _SCHEMAS.fullmatch(label)
    if match is None or schema is None:
        return ""
    minimum, maximum = match.groups()
    if schema.revision < minimum:
        return f"the database has schema {schema.revision}, and the release needs {minimum}"
    if schema.revision > maximum and schema.oldest > maximum:
        return (
            f"the database has schema {schema.revision}, which works with releases that know {schema.oldest} or later, "
            f"and the release knows up to {maximum}"
        )
    return ""
