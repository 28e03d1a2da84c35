# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of swarm_service as AnsibleModule hands them over: all there, with defaults, in suboptions as well."""

from __future__ import annotations

from typing import Any

from ansible_collections.bitnet.devops.plugins.modules.swarm_service import argument_spec


def options(**given: Any) -> dict[str, Any]:
    return _filled(argument_spec(), {"name": "web", "image": "web@sha256:1", **given})


def _filled(described: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    filled = {}
    for name, how in described.items():
        value = values.get(name, how.get("default"))
        if "options" in how and isinstance(value, dict):
            value = _filled(how["options"], value)
        elif "options" in how and isinstance(value, list):
            value = [_filled(how["options"], item) for item in value]
        filled[name] = value
    return filled
