# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The store: every value of an environment with its versions, as one document that each manager keeps. Pure.

One document and one file, so that a value and how far its rotation has come never disagree, whenever a run is killed.
Each write adds one to the serial. Managers that were away take the highest. The Swarm's index knows the serial, too, so
that those who were away are told from those who wrote last when only they are reached.
"""

from __future__ import annotations

import copy
import datetime
import hashlib
import hmac
import json
import secrets
import string
import typing as t

from .declaration import BY_LOGIN, LOGINS, NOT, OF_ROLES, SOURCES, BadInput, Declared, fitting, place

SCHEMA = 1
ID_LENGTH = 12  # as long as the hash in the name of a secret of the Swarm, and the same one
LOGIN_TURNS = 2
LONGEST_REASON = 500
REMEMBERED = 200  # of the newest times that a value was revealed
FORGOTTEN = 100  # of the newest versions of each secret that are no more
_ALPHABET = string.ascii_letters + string.digits

PREPARED, BOTH_VALID, MOVING, VERIFIED, WITHDRAWN = "prepared", "both_valid", "moving", "verified", "withdrawn"
PHASES = (PREPARED, BOTH_VALID, MOVING, VERIFIED, WITHDRAWN)
"""How far a rotation has come. Each names what holds, or is brought about: that is done again after a kill.

prepared    the new value is kept on every manager, and nobody uses it
both_valid  whoever checks the secret takes both values; what is set up from now on gets the new one
moving      the consumers move to the new value, one after the other
verified    each of them was seen with the new value
withdrawn   the old value is taken away; after that it is forgotten
"""

Json = dict[str, t.Any]


def generate(length: int) -> str:
    return "".join(secrets.choice(_ALPHABET) for _unused in range(length))


def identity(key: str, value: str) -> str:
    """What a version is called, keyed so that nobody can try values against it."""
    return hmac.new(key.encode(), value.encode(), hashlib.sha256).hexdigest()[:ID_LENGTH]


def stamp(now: datetime.datetime) -> str:
    return now.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def empty(environment: str) -> Json:
    return {
        "schema": SCHEMA,
        "serial": 0,
        "environment": environment,
        "key": generate(48),
        "secrets": {},
        "forgotten": {},
        "revealed": [],
    }


def text_of(store: Json) -> str:
    return json.dumps(store, sort_keys=True, indent=1) + "\n"


def read(text: str, environment: str, where: str) -> Json:
    """The document in a file. What cannot be read is not made anew: its values would be lost."""
    try:
        store = json.loads(text)
        schema = store["schema"]
        entries = list(store["secrets"].values())
        usable = (
            isinstance(store["revealed"], list)
            and all(isinstance(ids, list) for ids in store["forgotten"].values())
            and isinstance(store["serial"], int)
            and isinstance(store["key"], str)
            and len(store["key"]) >= 32
        )
        usable = usable and all(
            entry["current"] in {version["id"] for version in entry["versions"]}
            and entry["phase"] in ("", *PHASES)
            and all(isinstance(version["value"], str) for version in entry["versions"])
            for entry in entries
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        schema, usable = SCHEMA, False
    if schema != SCHEMA:
        raise BadInput(
            f"{where} has the schema {str(schema)[:20]!r}, and this collection knows {SCHEMA}; use a newer one"
        )
    if not usable:
        raise BadInput(
            f"{where} is no store of secrets. Move it away: the next run takes the one of another manager, and where "
            "there is none, docs/runbooks/secrets.md says what to do"
        )
    if store["environment"] != environment:
        raise BadInput(
            f"{where} is the store of the environment {str(store['environment'])[:40]!r}, not of {environment!r}; "
            "move it to where it belongs"
        )
    return t.cast(Json, store)


def newest(stores: t.Mapping[str, Json]) -> Json | None:
    """The one with the highest serial, of those that the hosts have."""
    if not stores:
        return None
    serial = max(store["serial"] for store in stores.values())
    hosts = sorted(host for host, store in stores.items() if store["serial"] == serial)
    if any(stores[host] != stores[hosts[0]] for host in hosts):
        raise BadInput(
            f"the stores of secrets of {', '.join(hosts)} differ and are equally new (serial {serial}): two runs wrote "
            "while these managers did not reach each other. Compare their secrets/store.json, move away the one whose "
            "values nobody uses, and run again"
        )
    return stores[hosts[0]]


# ---------------------------------------------------------------------------- what the Swarm remembers of it


def index(store: Json) -> Json:
    """What the Swarm's index has of the store. The digest tells nothing: it covers a key that nobody can guess."""
    return {
        "serial": store["serial"],
        "digest": hashlib.sha256(text_of(store).encode()).hexdigest(),
        "versions": {name: entry["current"] for name, entry in sorted(store["secrets"].items())},
    }


def _indexed(seen: t.Mapping[str, t.Any]) -> tuple[int, str, dict[str, str]]:
    """Serial, digest and versions in an index; none where the Swarm has never had a store."""
    if not seen:
        return 0, "", {}
    try:
        versions = {str(name): str(identity) for name, identity in seen["versions"].items()}
        return int(seen["serial"]), str(seen["digest"]), versions
    except (KeyError, TypeError, ValueError, AttributeError):
        raise BadInput(
            "index: the newest config bitnet-ENVIRONMENT-secrets-* of the Swarm ('docker config ls') does not say what "
            "bitnet.devops.secrets writes there; somebody else has made it. Remove that, and run again"
        ) from None


def _knows(store: Json, name: str, identity: str) -> bool:
    entry = store["secrets"].get(name)
    held = {one["id"] for one in entry["versions"]} if entry is not None else set()
    return identity in held or identity in store["forgotten"].get(name, ())


def goes_on(
    kept: Json | None,
    seen: t.Mapping[str, t.Any],
    wanted: t.Mapping[str, Declared],
    given: t.Mapping[str, Json],
    *,
    make_anew: bool,
    environment: str,
) -> tuple[Json, list[str]]:
    """The store to go on with, and what was done to it: kept, if it is the one the Swarm knows, or came after that.

    make_anew has what the index knows and the store does not made once more.
    """
    serial, digest, versions = _indexed(seen)
    way = (
        "Reach the manager that has it (and leave --limit out), or restore that file (docs/runbooks/secrets.md), or go "
        "on without it with secrets_make_anew=true. Nothing was changed"
    )
    if kept is None:
        lost = sorted(name for name in versions if name in wanted and name not in given)
        if lost and not make_anew:
            raise BadInput(
                f"secrets_make_anew is false, and no manager that was reached has the values of {', '.join(lost)}, "
                f"which the Swarm has had, in secrets/store.json. {way}"
            )
        unknown = list(versions)
    else:
        older = kept["serial"] < serial
        if older and not make_anew:
            raise BadInput(
                f"the newest secrets/store.json that was reached (serial {kept['serial']}) is older than what the "
                f"Swarm knows (serial {serial}): its manager was away. {way}"
            )
        if older:
            unknown = [name for name in versions if kept["secrets"].get(name, {}).get("current") != versions[name]]
        else:
            unknown = [name for name in versions if not _knows(kept, name, versions[name])]
            other = kept["serial"] == serial and index(kept)["digest"] != digest
            if (unknown or other) and not make_anew:
                raise BadInput(
                    f"the newest secrets/store.json that was reached (serial {kept['serial']}) has not come of what "
                    f"the Swarm knows (serial {serial}; {', '.join(unknown) or 'the same values'}): two runs wrote "
                    f"while they did not reach each other. {way}"
                )
    after = copy.deepcopy(kept) if kept is not None else empty(environment)
    for name in unknown:
        gone = after["secrets"].pop(name, {"versions": []})
        _forget(after, name, *(one["id"] for one in gone["versions"]), versions[name])
    after["serial"] = max(after["serial"], serial)
    again = kept is not None and make_anew and (bool(unknown) or index(kept)["digest"] != digest) and bool(versions)
    return after, [f"store: made the newest, without {', '.join(unknown) or 'a loss'}"] if again else []


def _forget(store: Json, name: str, *gone: str) -> None:
    """Notes versions that are no more: their secrets may be removed from the Swarm. One that came back is none."""
    held = {one["id"] for one in store["secrets"].get(name, {"versions": []})["versions"]}
    ids = [one for one in dict.fromkeys([*store["forgotten"].get(name, ()), *gone]) if one not in held]
    store["forgotten"][name] = ids[-FORGOTTEN:]


def forgotten(store: Json, wanted: t.Mapping[str, Declared], prefix: str) -> dict[str, list[str]]:
    """For each secret of the Swarm, by the base of its name, the names of the versions that are no more."""
    return {
        f"{prefix}-{name}": [f"{prefix}-{name}-{identity}" for identity in store["forgotten"].get(name, ())]
        for name, secret in sorted(wanted.items())
        if secret.in_swarm
    }


# ---------------------------------------------------------------------------- what is needed


def _version(store: Json, value: str, source: str, now: datetime.datetime, turn: int) -> Json:
    return {
        "id": identity(store["key"], value),
        "value": value,
        "source": source,
        "since": stamp(now),
        "turn": turn,
    }


def version(entry: Json, which: str) -> Json | None:
    """Its version that is current, next or previous."""
    return next((one for one in entry["versions"] if one["id"] == entry.get(which, "")), None)


def current(entry: Json) -> Json:
    return next(one for one in entry["versions"] if one["id"] == entry["current"])  # read() has seen that it is there


def _first(secret: Declared, given: t.Mapping[str, Json], found: t.Mapping[str, str]) -> tuple[str, str]:
    """Its first value and where that is from: given, or what a role made before there was a declaration, or new."""
    if secret.name in given:
        return given[secret.name]["value"], given[secret.name]["source"]
    if secret.name in found:
        return found[secret.name], "found"
    if "generated" in secret.sources:
        return generate(secret.length), "generated"
    asked = ", ".join(place(secret, source) for source in secret.sources)
    raise BadInput(
        f"bitnet_secrets.{secret.name}: none of its sources has a value ({asked}). Put it into one of these, or add "
        "generated to its sources"
    )


def plan(
    store: Json,
    wanted: t.Mapping[str, Declared],
    given: t.Mapping[str, Json],
    found: t.Mapping[str, str],
    now: datetime.datetime,
) -> tuple[Json, list[str]]:
    """The store with all that is declared, and what was done to it, one sentence each; equal if nothing was to be done.

    A value that its source has changed takes the old one's place at once only where no rotation is known for it.
    """
    after, said = copy.deepcopy(store), []
    for name, secret in sorted(wanted.items()):
        if name in given:
            fitting(secret, given[name]["value"], given[name]["source"])
        entry = after["secrets"].get(name)
        if entry is None:
            value, source = _first(secret, given, found)
            fitting(secret, value, source)
            first = _version(after, value, source, now, 0)
            after["secrets"][name] = {"versions": [first], "current": first["id"], "phase": ""}
            _forget(after, name)
            said.append(f"{name}: {source}")
        elif name in given and secret.rotation == NOT and given[name]["value"] != current(entry)["value"]:
            value, source = given[name]["value"], given[name]["source"]
            new = _version(after, value, source, now, 0)
            old = entry["current"]
            entry.update({"versions": [new], "current": new["id"]})
            _forget(after, name, old)
            said.append(f"{name}: another value of {source}")
    if said:
        after["serial"] += 1
    return after, said


def waiting(store: Json, wanted: t.Mapping[str, Declared], given: t.Mapping[str, Json]) -> list[str]:
    """Names of the secrets for which a source has a value that a rotation has to bring."""
    return [
        name
        for name, secret in sorted(wanted.items())
        if name in given
        and name in store["secrets"]
        and secret.rotation != NOT
        and given[name]["value"] not in {one["value"] for one in store["secrets"][name]["versions"]}
    ]


def due(store: Json, wanted: t.Mapping[str, Declared], now: datetime.datetime) -> list[Json]:
    """When each that has a period, or was revealed to somebody, is to be rotated, the most urgent first."""
    found = []
    for name, secret in wanted.items():
        entry = store["secrets"].get(name)
        if entry is None:
            continue
        times = [event["at"] for event in store["revealed"] if event["version"] == entry["current"]]
        if secret.rotate_days:
            since = datetime.datetime.strptime(current(entry)["since"], "%Y-%m-%dT%H:%M:%SZ")
            since = since.replace(tzinfo=datetime.timezone.utc)
            times.append(stamp(since + datetime.timedelta(days=secret.rotate_days)))
        if times:
            at = min(times)
            rotates = secret.rotation != NOT
            found.append(
                {"name": name, "due_at": at, "overdue": at <= stamp(now), "phase": entry["phase"], "rotates": rotates}
            )
    return sorted(found, key=lambda one: (one["due_at"], one["name"]))


def reveal(store: Json, secret: Declared, by: str, reason: str, now: datetime.datetime) -> Json:
    """The store with a note that somebody is given the current value, which is due for rotation from now on."""
    for option, text in (("by", by), ("reason", reason)):
        if not text.strip() or len(text) > LONGEST_REASON:
            raise BadInput(
                f"{option} is {text[:80]!r}: say who needs the value, and why, in 1 to {LONGEST_REASON} characters"
            )
    after = copy.deepcopy(store)
    entry = _entry(after, secret)
    note = {"at": stamp(now), "name": secret.name, "version": entry["current"], "by": by, "reason": reason}
    after["revealed"] = [*after["revealed"], note][-REMEMBERED:]
    after["serial"] += 1
    return after


# ---------------------------------------------------------------------------- rotation


def _entry(store: Json, secret: Declared) -> Json:
    entry = store["secrets"].get(secret.name)
    if entry is None:
        raise BadInput(f"name: {secret.name} is declared and not kept yet; run bitnet.devops.secrets first")
    return t.cast(Json, entry)


def begin(store: Json, secret: Declared, given: t.Mapping[str, Json], now: datetime.datetime) -> Json:
    """The store with a new value prepared. One whose rotation has begun already stays as it is."""
    if secret.rotation == NOT:
        raise BadInput(
            f"rotate: {secret.name} cannot have two values that hold at once. Give another one in a source and run "
            f"bitnet.devops.secrets and then the playbook of its role: those who use it are cut off in between"
        )
    after = copy.deepcopy(store)
    entry = _entry(after, secret)
    if entry["phase"]:
        return store
    old = current(entry)
    if secret.name in given:
        value, source = (
            fitting(secret, given[secret.name]["value"], given[secret.name]["source"]),
            given[secret.name]["source"],
        )
        if value == old["value"]:
            raise BadInput(
                f"rotate: {place(secret, source)} still has the current value of {secret.name}. Put a new one there "
                "and run again"
            )
    elif old["source"] in SOURCES[:-1] and old["source"] in secret.sources:
        # Whoever gives it has to know the new one: a generated one would be refused where it is used.
        raise BadInput(
            f"rotate: {secret.name} has come from {place(secret, old['source'])}, which has no value now. Put a new "
            f"one there and run again, or take {old['source']} out of bitnet_secrets.{secret.name}.sources"
        )
    elif "generated" in secret.sources:
        value, source = generate(secret.length), "generated"
    else:
        value, source = _first(secret, given, {})
    new = _version(after, value, source, now, (old["turn"] + 1) % LOGIN_TURNS)
    entry.update({"versions": [old, new], "next": new["id"], "phase": PREPARED, "began": stamp(now)})
    _forget(after, secret.name)
    after["serial"] += 1
    return after


def advance(store: Json, secret: Declared, phase: str, now: datetime.datetime) -> Json:
    """The store with the rotation in its next phase. Phases that it has been through already change nothing."""
    after = copy.deepcopy(store)
    entry = _entry(after, secret)
    if not entry["phase"]:
        raise BadInput(
            f"phase: {secret.name} is not being rotated, so it cannot become {phase}; begin a rotation first"
        )
    at, to = PHASES.index(entry["phase"]), PHASES.index(phase)
    if to <= at:
        return store
    if to > at + 1:
        raise BadInput(
            f"phase: the rotation of {secret.name} is {entry['phase']} and cannot become {phase} before it was "
            f"{PHASES[at + 1]}; run bitnet.devops.rotate, which goes on where it stopped"
        )
    if phase == BOTH_VALID:
        entry.update({"previous": entry["current"], "current": entry.pop("next")})
        current(entry)["since"] = stamp(now)
    entry["phase"] = phase
    after["serial"] += 1
    return after


def finish(store: Json, secret: Declared) -> Json:
    """The store without the old value. It must have been withdrawn."""
    after = copy.deepcopy(store)
    entry = _entry(after, secret)
    if not entry["phase"]:
        return store
    if entry["phase"] != WITHDRAWN:
        raise BadInput(
            f"phase: the rotation of {secret.name} is {entry['phase']}, and only what is {WITHDRAWN} can be forgotten; "
            "run bitnet.devops.rotate, which goes on where it stopped"
        )
    gone = [one["id"] for one in entry["versions"] if one["id"] != entry["current"]]
    after["secrets"][secret.name] = {"versions": [current(entry)], "current": entry["current"], "phase": ""}
    _forget(after, secret.name, *gone)
    after["serial"] += 1
    return after


# ---------------------------------------------------------------------------- what others read


def files(store: Json, wanted: t.Mapping[str, Declared]) -> dict[str, str]:
    """What roles of this collection read, by path below the folder of the environment."""
    found = {}
    for name, secret in wanted.items():
        entry = store["secrets"].get(name)
        if entry is None or secret.in_swarm:
            continue
        found[OF_ROLES[name][1]] = current(entry)["value"] + "\n"
        if secret.rotation == BY_LOGIN:
            passwords = [""] * LOGIN_TURNS
            for one in valid(entry):
                passwords[one["turn"]] = one["value"]
            found[LOGINS] = json.dumps({"current": current(entry)["turn"], "passwords": passwords}) + "\n"
    return found


def valid(entry: Json) -> list[Json]:
    """The versions that hold now."""
    both = entry["phase"] in (BOTH_VALID, MOVING, VERIFIED)
    return [current(entry)] + [one for one in [version(entry, "previous")] if both and one is not None]


def in_swarm(store: Json, wanted: t.Mapping[str, Declared], prefix: str) -> dict[str, str]:
    """For each secret of the Swarm, by the base of its name, the name of the version that is current."""
    return {
        f"{prefix}-{name}": f"{prefix}-{name}-{store['secrets'][name]['current']}"
        for name, secret in sorted(wanted.items())
        if secret.in_swarm and name in store["secrets"]
    }


def summary(store: Json) -> Json:
    """All that may be shown."""
    return {
        name: {
            "version": entry["current"],
            "source": current(entry)["source"],
            "since": current(entry)["since"],
            "phase": entry["phase"],
        }
        for name, entry in sorted(store["secrets"].items())
    }
