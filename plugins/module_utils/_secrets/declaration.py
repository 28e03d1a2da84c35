# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The declaration of an environment's secrets: what it may say, and what it means. Pure."""

from __future__ import annotations

import dataclasses
import re
import typing as t

NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
SERVICE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")

SOURCES = ("variable", "sops", "environment", "generated")
LONGEST = 256  # characters that are generated
LARGEST = 100_000  # characters of a given key, well below what the Swarm takes

FORMS = {
    "password": (re.compile(r"[A-Za-z0-9._~-]{16,256}"), "16 to 256 letters, digits and . _ ~ -"),
    "token": (re.compile(r"[!-~]{16,256}"), "16 to 256 printable ASCII characters without blanks"),
    "key": (re.compile(rf"[^\x00]{{32,{LARGEST}}}"), f"32 to {LARGEST} characters"),
}
SHORTEST = {"password": 16, "token": 16, "key": 32}

# What roles of this collection read, below the folder of the environment. Every other secret is one of the Swarm.
OF_ROLES = {
    "postgresql": ("password", "database/postgresql"),
    "pgbouncer": ("password", "database/pgbouncer"),
    "redis": ("password", "database/redis"),
}
LOGINS = "database/logins"

# How a secret is rotated while both values hold.
BY_LOGIN = "login"  # a second user of PostgreSQL
BY_SERVICES = "services"  # a second secret of the Swarm, to which each service moves
NOT = ""

_FIELDS = ("kind", "length", "sources", "environment", "consumers", "rotate_days")


class BadInput(Exception):
    """Something that cannot be used; the text names it, what it is and the way out, and never a secret."""


@dataclasses.dataclass(frozen=True)
class Declared:
    """One secret that is needed."""

    name: str
    kind: str
    length: int
    sources: tuple[str, ...]
    environment: str
    consumers: tuple[str, ...]
    rotate_days: int  # 0 is never

    @property
    def rotation(self) -> str:
        if self.name in OF_ROLES:
            return BY_LOGIN if self.name == "postgresql" else NOT
        return BY_SERVICES

    @property
    def in_swarm(self) -> bool:
        return self.name not in OF_ROLES


def _number(where: str, value: t.Any, least: int, most: int, says: str) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not re.fullmatch(r"[0-9]{1,9}", text) or not least <= int(text) <= most:
        raise BadInput(f"{where} is {value!r}: give a whole number from {least} to {most}, {says}")
    return int(text)


def _texts(where: str, value: t.Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(part, str) for part in value):
        raise BadInput(f"{where} is {value!r}: give a list of names, as in [a, b]")
    if len(set(value)) != len(value):
        raise BadInput(f"{where} is {value!r}: name each once")
    return tuple(str(part) for part in value)


def _one(option: str, name: str, value: t.Mapping[str, t.Any]) -> Declared:
    where = f"{option}.{name}"
    unknown = sorted(str(key) for key in value if key not in _FIELDS)
    if unknown:
        raise BadInput(f"{where} has {', '.join(unknown)[:200]}, which is not known: it may have {', '.join(_FIELDS)}")
    given_kind = value.get("kind")
    kind = OF_ROLES[name][0] if given_kind is None and name in OF_ROLES else given_kind
    if not isinstance(kind, str) or kind not in FORMS:
        raise BadInput(f"{where}.kind is {kind!r}: give one of {', '.join(FORMS)}")
    if name in OF_ROLES and kind != OF_ROLES[name][0]:
        raise BadInput(f"{where}.kind is {kind!r}: what roles know as {name} is a {OF_ROLES[name][0]}; leave kind out")
    sources = _texts(f"{where}.sources", value.get("sources", SOURCES))
    if not sources or set(sources) - set(SOURCES):
        raise BadInput(
            f"{where}.sources is {list(sources)!r}: name one or more of {', '.join(SOURCES)}, in their order"
        )
    if "generated" in sources[:-1]:
        raise BadInput(
            f"{where}.sources is {list(sources)!r}: generated always has a value, so nothing can come after it"
        )
    environment = value.get("environment", "BITNET_SECRET_" + name.upper().replace("-", "_"))
    if not isinstance(environment, str) or not VARIABLE.fullmatch(environment):
        raise BadInput(f"{where}.environment is {environment!r}: give the name of a variable of the environment")
    consumers = _texts(f"{where}.consumers", value.get("consumers", ()))
    wrong = [consumer for consumer in consumers if not SERVICE.fullmatch(consumer)]
    if wrong:
        raise BadInput(f"{where}.consumers has {wrong[0]!r}: give names of services, as 'docker service ls' shows them")
    if consumers and name in OF_ROLES:
        raise BadInput(f"{where}.consumers is {list(consumers)!r}: a role knows who needs {name}; leave consumers out")
    days = _number(f"{where}.rotate_days", value.get("rotate_days", 0), 0, 3650, "days until it is due, 0 for never")
    secret = Declared(
        name,
        kind,
        _number(f"{where}.length", value.get("length", 48), SHORTEST[kind], LONGEST, "characters to generate"),
        sources,
        environment,
        consumers,
        days,
    )
    if days and secret.rotation == NOT:
        raise BadInput(
            f"{where}.rotate_days is {days}: {name} cannot have two values that hold at once, so that nothing rotates "
            "it; leave rotate_days out, and give a new value in a source when it is time"
        )
    return secret


def declared(value: t.Any, option: str = "bitnet_secrets") -> dict[str, Declared]:
    """What is declared, by name."""
    if not isinstance(value, t.Mapping):
        raise BadInput(
            f"{option} is {type(value).__name__}: give a dictionary, from the name of a secret to what it is"
        )
    found: dict[str, Declared] = {}
    for name, fields in value.items():
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise BadInput(f"{option}: {str(name)[:80]!r} is no name: give up to 32 small letters, digits and dashes")
        if "secret" in name.split("-"):
            # Only without it nobody can name a secret of one environment as one of another is called in the Swarm.
            raise BadInput(f"{option}: {name!r} has the word secret between its dashes; choose another")
        if fields is not None and not isinstance(fields, t.Mapping):
            # Not the value: it may be the secret, put here by mistake.
            raise BadInput(
                f"{option}.{name} is {type(fields).__name__}: give a dictionary of {', '.join(_FIELDS)}, or {{}}; "
                "the value itself belongs into a source"
            )
        found[name] = _one(option, name, fields or {})
    return found


def fitting(secret: Declared, value: t.Any, source: str, option: str = "bitnet_secrets") -> str:
    """The value, if it is one of its kind; the error shows nothing of it."""
    form, says = FORMS[secret.kind]
    where = place(secret, source)
    if not isinstance(value, str):
        raise BadInput(f"{option}.{secret.name}: {where} has {type(value).__name__}, no text; quote it there")
    if not form.fullmatch(value):
        raise BadInput(
            f"{option}.{secret.name}: {where} has {len(value)} characters that are no {secret.kind}, which is {says}. "
            "Correct it there, or take it out to use the next source"
        )
    return value


def place(secret: Declared, source: str) -> str:
    """Where somebody would look for the value of a source."""
    places = {
        "variable": f"bitnet_secret_values.{secret.name}",
        "sops": f"{secret.name} in the file bitnet_secrets_sops_file",
        "environment": f"the variable {secret.environment} of the controller's environment",
        "found": f"the file {OF_ROLES[secret.name][1] if secret.name in OF_ROLES else secret.name} on a manager",
    }
    return places.get(source, source)
