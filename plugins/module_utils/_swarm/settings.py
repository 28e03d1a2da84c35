# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Desired minus actual of the settings of a Swarm itself. Pure."""

from __future__ import annotations

import dataclasses
import typing as t

TOKENS_LABEL = "io.bitnet.join-tokens"

Json = t.Mapping[str, t.Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """C(spec) is the whole of what the Swarm is told: what it is not told it forgets."""

    before: dict[str, t.Any]
    after: dict[str, t.Any]
    spec: dict[str, t.Any]

    @property
    def changed(self) -> bool:
        return self.before != self.after

    @property
    def rotates(self) -> bool:
        return self.before["join_tokens"] != self.after["join_tokens"]


def plan(swarm: Json, autolock: bool | None, join_tokens: str | None) -> Plan:
    spec = swarm["Spec"]
    labels, encryption = spec.get("Labels") or {}, spec.get("EncryptionConfig") or {}
    before = {"autolock": bool(encryption.get("AutoLockManagers")), "join_tokens": labels.get(TOKENS_LABEL, "")}
    after = {
        "autolock": before["autolock"] if autolock is None else autolock,
        "join_tokens": before["join_tokens"] if join_tokens is None else join_tokens,
    }
    if after["join_tokens"] != before["join_tokens"]:
        labels = {**labels, TOKENS_LABEL: after["join_tokens"]}
    target = {**spec, "Labels": labels, "EncryptionConfig": {**encryption, "AutoLockManagers": after["autolock"]}}
    return Plan(before, after, target)
