# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Services of a Swarm that use a secret: which version each has, and its specification with another. Pure."""

from __future__ import annotations

import copy
import typing as t

Json = dict[str, t.Any]


def references(spec: Json) -> list[Json]:
    return spec["TaskTemplate"].get("ContainerSpec", {}).get("Secrets") or []


def versions_of(spec: Json, names: t.Collection[str]) -> list[str]:
    """The names that it refers to, of these."""
    return sorted({reference["SecretName"] for reference in references(spec)} & set(names))


def moved(spec: Json, names: t.Collection[str], name: str, identity: str) -> Json:
    """The specification with the named version in place of the others, at the same place and with the same rights."""
    after = copy.deepcopy(spec)
    for reference in references(after):
        if reference["SecretName"] in names:
            reference.update({"SecretName": name, "SecretID": identity})
    return after
