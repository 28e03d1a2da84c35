# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys, policies, verdicts and approvals for the tests of the consensus, honest ones and others."""

from __future__ import annotations

import base64
import dataclasses
import datetime
import hashlib
import json
from typing import Any

from ansible_collections.bitnet.devops.plugins.module_utils._consensus import decision, signing, statements
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

RELEASE, OTHER_RELEASE = "1c7ff3ec1f0c", "aaaaaaaaaaaa"
MODEL, OTHER_MODEL = "sha256:" + "1" * 64, "sha256:" + "2" * 64
RUN, OTHER_RUN = "run-2026-11-26", "run-2026-11-25"
BEGAN = datetime.datetime(2026, 11, 26, 10, tzinfo=datetime.timezone.utc)
DEADLINE = BEGAN + datetime.timedelta(hours=1)
SOON = BEGAN + datetime.timedelta(minutes=30)
AFTER = DEADLINE + datetime.timedelta(seconds=1)
SKEW = datetime.timedelta(seconds=30)

GOOD_GATE = {
    "name": "compare",
    "verdict": "pass",
    "reason": "",
    "figures": {"slot": {"p95_ms": 97.0}},
    "required": True,
}
BAD_GATE = {**GOOD_GATE, "verdict": "fail", "reason": "3 of 20 requests failed"}


def key(owner: str) -> Ed25519PrivateKey:
    """Always the same, so that a failing example can be run again."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(owner.encode()).digest())


def public(owner: str) -> str:
    return signing.public_line(key(owner))


def params(environments: dict[str, bool], quorum: int, **more: Any) -> dict[str, Any]:
    """The options of the module; environments are names and vetoes."""
    return {
        "release": RELEASE,
        "model": MODEL,
        "run": RUN,
        "began_at": "2026-11-26T11:00:00+01:00",
        "deadline": 3600.0,
        "clock_skew": 30.0,
        "environments": [{"name": name, "keys": [public(name)], "veto": veto} for name, veto in environments.items()],
        "quorum": quorum,
        "promote_to": "production",
        "approvals_required": 0,
        "approvers": [],
        "freeze_windows": [],
        **more,
    }


def policy(environments: dict[str, bool], quorum: int, **more: Any) -> decision.Policy:
    return decision.policy_of(params(environments, quorum, **more))


def said(environment: str, decides: str = "promote", **more: Any) -> statements.Verdict:
    promotes = decides == "promote"
    return dataclasses.replace(
        statements.Verdict(
            environment=environment,
            release=RELEASE,
            model=MODEL,
            run=RUN,
            made_at=SOON,
            decision=decides,
            gates=(GOOD_GATE if promotes else BAD_GATE,),
            figures={},
            binding={"replicas": 1},
            failure="",
        ),
        **more,
    )


def verdict(environment: str, decides: str = "promote", signer: str = "", **more: Any) -> dict[str, Any]:
    return signing.seal("verdict", said(environment, decides, **more).document(), key(signer or environment))


def approval(approver: str, signer: str = "", **more: Any) -> dict[str, Any]:
    given = statements.Approval(
        approver=approver,
        release=RELEASE,
        environment="production",
        approved_at=BEGAN,
        expires_at=BEGAN + datetime.timedelta(days=3),
        reason="CHG-1042",
    )
    return signing.seal("approval", dataclasses.replace(given, **more).document(), key(signer or approver))


def altered(envelope: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Its statement changed and its signature kept."""
    statement = json.loads(base64.b64decode(envelope["payload"]))
    payload = json.dumps({**statement, **more}, sort_keys=True, separators=(",", ":")).encode()
    return {**envelope, "payload": base64.b64encode(payload).decode()}


def noise(kind: str, environment: str) -> tuple[dict[str, Any], str]:
    """A verdict that does not count, and the word for why."""
    hour = datetime.timedelta(hours=1)
    return {
        "signed by a stranger": lambda: (verdict(environment, signer="mallory"), "forged"),
        "a veto by a stranger": lambda: (verdict(environment, "refuse", signer="mallory"), "forged"),
        "signed by another": lambda: (verdict(environment, signer="another"), "forged"),
        "altered to promote": lambda: (altered(verdict(environment, "refuse"), decision="promote"), "forged"),
        "altered to refuse": lambda: (altered(verdict(environment), decision="refuse"), "forged"),
        "another release": lambda: (verdict(environment, release=OTHER_RELEASE), "replayed"),
        "another model": lambda: (verdict(environment, model=OTHER_MODEL), "replayed"),
        "another run": lambda: (verdict(environment, "refuse", run=OTHER_RUN), "replayed"),
        "before the run": lambda: (verdict(environment, made_at=BEGAN - hour), "replayed"),
        "late": lambda: (verdict(environment, made_at=DEADLINE + hour), "late"),
        "a late veto": lambda: (verdict(environment, "refuse", made_at=AFTER), "late"),
        "an approval": lambda: (approval("alice", signer=environment), "unreadable"),
        "an approval in a verdict's clothes": lambda: (
            {**approval(environment), "payloadType": verdict(environment)["payloadType"]},
            "forged",
        ),
        "no binding": lambda: (verdict(environment, binding={}), "unreadable"),
        "unknown environment": lambda: (verdict("unheard-of"), "forged"),
    }[kind]()


NOISE = (
    "signed by a stranger",
    "a veto by a stranger",
    "signed by another",
    "altered to promote",
    "altered to refuse",
    "another release",
    "another model",
    "another run",
    "before the run",
    "late",
    "a late veto",
    "an approval",
    "an approval in a verdict's clothes",
    "no binding",
    "unknown environment",
)
