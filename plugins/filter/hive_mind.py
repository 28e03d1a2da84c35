# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter hive_mind."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.bitnet.devops.plugins.module_utils import _hive_mind


def hive_mind(hosts: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    rows = []
    for host in hosts:
        known = hostvars[host]
        rows.append(
            _hive_mind.Row(
                host=host,
                environment=str(known.get("bitnet_environment", "local")),
                cluster=str(known.get("bitnet_cluster", "")),
                stage=str(known.get("swarm_rollout_stage", "")),
                failure=str(known.get("swarm_rollout_failure", "")),
                release=str(known.get("swarm_rollout_release", "")),
                look=known.get("swarm_rollout_look") or {},
            )
        )
    found = _hive_mind.parts(rows)
    return {"not_prepared": _hive_mind.not_prepared(found), **_hive_mind.settle(found)}


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., dict[str, Any]]]:
        return {"hive_mind": hive_mind}
