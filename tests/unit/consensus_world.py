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
from collections.abc import Callable
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
        "environments": [
            {"name": name, "keys": [public(name)], "clusters": [], "veto": veto} for name, veto in environments.items()
        ],
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
            cluster="",
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


HOUR = datetime.timedelta(hours=1)
# Verdicts that do not count: how one is made of an environment, and the word for why.
NOISE: dict[str, tuple[Callable[[str], dict[str, Any]], str]] = {
    "signed by a stranger": (lambda name: verdict(name, signer="mallory"), "forged"),
    "a veto by a stranger": (lambda name: verdict(name, "refuse", signer="mallory"), "forged"),
    "signed by another": (lambda name: verdict(name, signer="another"), "forged"),
    "altered to promote": (lambda name: altered(verdict(name, "refuse"), decision="promote"), "forged"),
    "altered to refuse": (lambda name: altered(verdict(name), decision="refuse"), "forged"),
    "unknown environment": (lambda name: verdict("unheard-of"), "forged"),
    "an approval in a verdict's clothes": (
        lambda name: {**approval(name), "payloadType": verdict(name)["payloadType"]},
        "forged",
    ),
    "another release": (lambda name: verdict(name, release=OTHER_RELEASE), "replayed"),
    "another model": (lambda name: verdict(name, model=OTHER_MODEL), "replayed"),
    "another run": (lambda name: verdict(name, "refuse", run=OTHER_RUN), "replayed"),
    "before the run": (lambda name: verdict(name, made_at=BEGAN - HOUR), "replayed"),
    "late": (lambda name: verdict(name, made_at=DEADLINE + HOUR), "late"),
    "a late veto": (lambda name: verdict(name, "refuse", made_at=AFTER), "late"),
    "an approval": (lambda name: approval("alice", signer=name), "unreadable"),
    "no binding": (lambda name: verdict(name, binding={}), "unreadable"),
}


def noise(kind: str, environment: str) -> tuple[dict[str, Any], str]:
    make, reason = NOISE[kind]
    return make(environment), reason
