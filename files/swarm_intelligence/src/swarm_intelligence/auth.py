# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Bearer tokens: only their SHA-256 is known here."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .settings import SettingsError

if TYPE_CHECKING:
    from .limits import Rate

_DIGEST = re.compile(r"[0-9a-f]{64}")

SCOPES = {"generate": "completions, chats and WebSockets", "jobs": "jobs"}
"""What a key may be good for, beside a look at what is served; a token of the file is good for all."""


@dataclass(frozen=True)
class Principal:
    """Who asks. id is unique among tokens and keys, name is for people and logs."""

    id: str
    name: str
    scopes: frozenset[str]
    rate: Rate | None = None


def bearer(authorization: str | None) -> str:
    """The token of a header, empty when there is none."""
    scheme, _unused, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class Tokens:
    def __init__(self, digests: dict[str, str]) -> None:
        self._digests = {name: bytes.fromhex(digest) for name, digest in digests.items()}

    @classmethod
    def from_file(cls, path: Path) -> Tokens:
        """Read {"schema": 1, "tokens": {name: sha256 in hex}}. Whatever is wrong with it, the service stays closed."""
        try:
            document = json.loads(path.read_text())
            digests = document["tokens"]
            usable = document["schema"] == 1 and all(_DIGEST.fullmatch(digest) for digest in digests.values())
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            # Only the error's kind: a JSON error's text may quote the secret.
            reason = error.strerror if isinstance(error, OSError) else type(error).__name__
            raise SettingsError(
                f"BITNET_TOKENS_FILE={str(path)!r} cannot be used ({reason}). The service does not start without it: "
                'mount the secret, JSON of the form {"schema": 1, "tokens": {"<name>": "<sha256 of the token>"}}.'
            ) from error
        if not usable or not digests:
            raise SettingsError(
                f"BITNET_TOKENS_FILE={str(path)!r} must have schema 1 and at least one token, each value the SHA-256 "
                "of a token as 64 lower-case hex digits."
            )
        return cls(digests)

    def owner(self, token: str) -> str | None:
        """Name of the token, None when it is unknown. Each comparison takes constant time, and all are made."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        found = None
        for name, known in self._digests.items():
            if hmac.compare_digest(digest, known):
                found = name
        return found

    def owner_of_header(self, authorization: str | None) -> str | None:
        token = bearer(authorization)
        return self.owner(token) if token else None
