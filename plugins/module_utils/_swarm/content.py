# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Configs and secrets of a Swarm cannot be changed: new content has a new name, and the old ones are collected."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import hmac
import typing as t

from .plan import Refused
from .spec import OWNER, OWNER_LABEL, SCHEMA, SCHEMA_LABEL

HASH_LENGTH = 12
BASE_LABEL = "io.bitnet.base"
LARGEST = 500_000  # bytes, Swarm's own limit

Json = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Wanted:
    """One content under its name. The name of a secret is keyed, so that nobody can try values against it."""

    base: str
    name: str
    data: bytes = dataclasses.field(repr=False)
    labels: dict[str, str]


def wanted(base: str, data: str, key: str | None, labels: t.Mapping[str, t.Any] | None) -> Wanted:
    raw = data.encode()
    if not raw or len(raw) > LARGEST:
        raise Refused(f"{base}: the content has {len(raw)} bytes; Swarm takes 1 to {LARGEST}")
    if key is None:
        digest = hashlib.sha256(raw).hexdigest()
    elif len(key) < 32:
        raise Refused(f"key: {len(key)} characters are too few for {base}; give at least 32 random ones")
    else:
        digest = hmac.new(key.encode(), raw, hashlib.sha256).hexdigest()
    ours = {OWNER_LABEL: OWNER, SCHEMA_LABEL: SCHEMA, BASE_LABEL: base}
    given = {name: str(value) for name, value in (labels or {}).items()}
    return Wanted(base, f"{base}-{digest[:HASH_LENGTH]}", raw, {**given, **ours})


def find(name: str, objects: t.Iterable[Json]) -> Json | None:
    """The object of that name, if there is one and it is ours."""
    found = next((thing for thing in objects if thing["Spec"]["Name"] == name), None)
    if found and (found["Spec"].get("Labels") or {}).get(OWNER_LABEL) != OWNER:
        raise Refused(
            f"{name} exists and has no label {OWNER_LABEL}={OWNER}, so it is not ours and nothing was changed. "
            "Remove or rename it"
        )
    return found


def versions(base: str, objects: t.Iterable[Json]) -> list[Json]:
    """All of ours that were made for this base, the newest first."""
    ours = [
        thing
        for thing in objects
        if (thing["Spec"].get("Labels") or {}).get(OWNER_LABEL) == OWNER
        and (thing["Spec"].get("Labels") or {}).get(BASE_LABEL) == base
    ]
    return sorted(ours, key=lambda thing: str(thing["CreatedAt"]), reverse=True)


def text(config: Json) -> str:
    """The content of a config as the API gives it."""
    return base64.b64decode(config["Spec"].get("Data") or "").decode("utf-8", "replace")


def used(services: t.Iterable[Json]) -> set[str]:
    """The names of all configs and secrets that any service refers to.

    What a service referred to before does not count: a rollback to a revoked token is not to be had.
    """
    names = set()
    for service in services:
        container = service["Spec"]["TaskTemplate"].get("ContainerSpec", {})
        names |= {reference["SecretName"] for reference in container.get("Secrets") or []}
        names |= {reference["ConfigName"] for reference in container.get("Configs") or []}
    return names
