# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verdict and an approval say: made here, and read again from whoever signed them, who may lie."""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t

from .._release import ID_LENGTH, ReleaseError, model_digest, plain
from .._traffic.gate import FAIL, INCONCLUSIVE, PASS, SKIPPED
from .signing import BadInput, Json, Unreadable

SCHEMA = 1
PROMOTE, REFUSE = "promote", "refuse"
GATE_VERDICTS = (PASS, FAIL, INCONCLUSIVE, SKIPPED)

_ENVIRONMENT = re.compile("[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_CLUSTER = re.compile("[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_RELEASE = re.compile(f"[0-9a-f]{{{ID_LENGTH}}}")
_RUN = re.compile("[A-Za-z0-9][A-Za-z0-9._:-]{7,63}")
_PERSON = re.compile("[A-Za-z0-9][A-Za-z0-9._@+-]{0,63}")

# ---------------------------------------------------------------------------- names and times at the edge


def environment_name(option: str, text: str) -> str:
    if not _ENVIRONMENT.fullmatch(text):
        raise BadInput(f"{option}: {text!r} is no name of up to 32 small letters, digits and dashes")
    return text


def cluster_name(option: str, text: str) -> str:
    if not _CLUSTER.fullmatch(text):
        raise BadInput(f"{option}: {text!r} is no name of up to 64 letters, digits and _ . -")
    return text


def person_name(option: str, text: str) -> str:
    if not _PERSON.fullmatch(text):
        raise BadInput(f"{option}: {text!r} is no name of up to 64 letters, digits and . _ @ + -")
    return text


def release_name(option: str, text: str) -> str:
    if not _RELEASE.fullmatch(text):
        raise BadInput(
            f"{option}: {text!r} is no release id of {ID_LENGTH} hexadecimal digits; the filter "
            "bitnet.devops.release_id makes it, and the summary of a rollout shows it"
        )
    return text


def model_name(option: str, text: str) -> str:
    try:
        return model_digest(text)
    except ReleaseError as error:
        raise BadInput(f"{option}: {text!r} is no SHA-256 of a model file, which has 64 hexadecimal digits") from error


def run_name(option: str, text: str) -> str:
    if not _RUN.fullmatch(text):
        raise BadInput(
            f"{option}: {text!r} is no id of a run; give 8 to 64 letters, digits and . _ : -, new for each run, "
            "such as a UUID"
        )
    return text


def moment(text: str) -> datetime.datetime:
    """A point in time, in UTC. Raises ValueError for what is none or names no zone."""
    when = datetime.datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text.strip()))
    if when.tzinfo is None:
        raise ValueError("it names no time zone")
    try:
        return when.astimezone(datetime.timezone.utc)
    except OverflowError as error:
        raise ValueError("it is out of range") from error


def time_of(option: str, text: str) -> datetime.datetime:
    try:
        return moment(text)
    except ValueError as error:
        raise BadInput(
            f"{option}: {text!r} is no time ({error}); give it as 2026-11-26T10:40:00Z or with +01:00"
        ) from error


def written(when: datetime.datetime) -> str:
    return when.astimezone(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def printable(text: str) -> str:
    """A text of somebody else's for a line of ours."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:300])


# ---------------------------------------------------------------------------- a verdict


def against(gates: t.Sequence[t.Mapping[str, t.Any]], failure: str) -> list[str]:
    """What speaks against promotion. No gate at all does: no data is no pass."""
    required = [gate for gate in gates if gate["required"]]
    reasons = [f"it failed: {failure}"] if failure else []
    if not required:
        reasons.append("no required gate has judged it")
    for gate in required:
        if gate["verdict"] != PASS:
            reasons.append(
                f"gate {gate['name']}: {gate['verdict']}{' (' + gate['reason'] + ')' if gate['reason'] else ''}"
            )
    return reasons


def gate_of(number: int, result: t.Mapping[str, t.Any]) -> Json:
    """What a verdict keeps of the result of bitnet.devops.traffic_gate."""
    name, verdict, figures = result.get("name"), result.get("verdict"), result.get("figures") or {}
    required = result.get("required", True)
    if not isinstance(name, str) or not name or verdict not in GATE_VERDICTS or not isinstance(figures, t.Mapping):
        raise BadInput(
            f"gates: entry {number} is no result of bitnet.devops.traffic_gate, which has name, verdict (one of "
            f"{', '.join(GATE_VERDICTS)}), reason and figures. It says name {name!r}, verdict {verdict!r}"
        )
    if not isinstance(required, bool):
        raise BadInput(f"gates: entry {number} ({name}) has required {required!r}; give true or false")
    return {
        "name": name,
        "verdict": verdict,
        "reason": str(result.get("reason") or ""),
        "figures": _plain(f"gates: entry {number} ({name}), figures", figures),
        "required": required,
    }


def _plain(option: str, value: t.Mapping[str, t.Any]) -> Json:
    try:
        return t.cast(Json, plain(value, option))
    except ReleaseError as error:
        raise BadInput(str(error)) from error


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What one environment says of a release in one run; of several clusters of it, one."""

    environment: str
    cluster: str  # empty where the environment is one cluster that nobody named
    release: str
    model: str
    run: str
    made_at: datetime.datetime
    decision: str
    gates: tuple[Json, ...]
    figures: Json
    binding: Json
    failure: str

    def document(self) -> Json:
        document = dataclasses.asdict(self)
        return {"schema": SCHEMA, **document, "made_at": written(self.made_at), "gates": list(document["gates"])}

    def reasons(self) -> list[str]:
        return against(self.gates, self.failure)


def verdict_of(params: t.Mapping[str, t.Any], now: datetime.datetime) -> Verdict:
    """The verdict that follows from what was measured; the decision is derived and not asked for."""
    gates = tuple(gate_of(number, result) for number, result in enumerate(params["gates"], 1))
    if not params["binding"]:
        raise BadInput(
            "binding: it is empty; give what bitnet.devops.binding_id names: replicas, threads, limits, placement"
        )
    return Verdict(
        environment=environment_name("environment", params["environment"]),
        cluster=cluster_name("cluster", params["cluster"]) if params["cluster"] else "",
        release=release_name("release", params["release"]),
        model=model_name("model", params["model"]),
        run=run_name("run", params["run"]),
        made_at=now,
        decision=REFUSE if against(gates, params["failure"]) else PROMOTE,
        gates=gates,
        figures=_plain("figures", params["figures"]),
        binding=_plain("binding", params["binding"]),
        failure=params["failure"],
    )


def _field(statement: Json, name: str, kind: type) -> t.Any:
    value = statement.get(name)
    if not isinstance(value, kind):
        raise Unreadable(f"its {name} is no {kind.__name__}")
    return value


def _when(statement: Json, name: str) -> datetime.datetime:
    try:
        return moment(_field(statement, name, str))
    except ValueError as error:
        raise Unreadable(f"its {name} is no time") from error


def _known_schema(statement: Json) -> None:
    schema = statement.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise Unreadable(f"its schema is {ascii(schema)[:20]}, this collection knows {SCHEMA}")


def read_verdict(statement: Json) -> Verdict:
    """Raises Unreadable."""
    _known_schema(statement)
    gates = tuple(_field({"entry of gates": gate}, "entry of gates", dict) for gate in _field(statement, "gates", list))
    for gate in gates:
        for name, kind in (("name", str), ("verdict", str), ("reason", str), ("figures", dict), ("required", bool)):
            _field(gate, name, kind)
    if not _field(statement, "binding", dict):
        raise Unreadable("its binding is empty")
    decision = _field(statement, "decision", str)
    if decision not in (PROMOTE, REFUSE):
        raise Unreadable(f"its decision is neither {PROMOTE} nor {REFUSE}")
    return Verdict(
        **{
            name: _field(statement, name, str)
            for name in ("environment", "cluster", "release", "model", "run", "failure")
        },
        **{name: _field(statement, name, dict) for name in ("figures", "binding")},
        made_at=_when(statement, "made_at"),
        decision=decision,
        gates=gates,
    )


# ---------------------------------------------------------------------------- an approval


@dataclasses.dataclass(frozen=True)
class Approval:
    """One person lets one release into one environment, until it ends."""

    approver: str
    release: str
    environment: str
    approved_at: datetime.datetime
    expires_at: datetime.datetime
    reason: str

    def document(self) -> Json:
        times = {"approved_at": written(self.approved_at), "expires_at": written(self.expires_at)}
        return {"schema": SCHEMA, **dataclasses.asdict(self), **times}


def approval_of(params: t.Mapping[str, t.Any], now: datetime.datetime) -> Approval:
    hours = params["valid_hours"]
    if not 0 < hours <= 24 * 366:
        raise BadInput(f"valid_hours: {hours:g} is not between 0 and {24 * 366} (a year)")
    return Approval(
        approver=person_name("approver", params["approver"]),
        release=release_name("release", params["release"]),
        environment=environment_name("environment", params["environment"]),
        approved_at=now,
        expires_at=now + datetime.timedelta(hours=hours),
        reason=params["reason"],
    )


def read_approval(statement: Json) -> Approval:
    """Raises Unreadable."""
    _known_schema(statement)
    return Approval(
        **{name: _field(statement, name, str) for name in ("approver", "release", "environment", "reason")},
        approved_at=_when(statement, "approved_at"),
        expires_at=_when(statement, "expires_at"),
    )
