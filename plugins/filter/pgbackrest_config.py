# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter pgbackrest_config."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.module_utils._recovery import configuration
from ansible_collections.bitnet.devops.plugins.module_utils._recovery.errors import RecoveryError


def pgbackrest_config(value: Any, cpus: Any = 2) -> dict[str, str]:
    if not isinstance(value, dict):
        # Not its value: there may be a pass in it.
        raise AnsibleFilterError(f"pgbackrest_config: a {type(value).__name__} was given, and a dictionary is needed")
    try:
        return configuration.render(value, int(cpus))
    except RecoveryError as error:
        raise AnsibleFilterError(f"pgbackrest_config: {error}") from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., dict[str, str]]]:
        return {"pgbackrest_config": pgbackrest_config}
