# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter postgresql_parameters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.module_utils import _database


def postgresql_parameters(value: Any, cpus: int, members: int = 1) -> dict[str, object]:
    try:
        return _database.postgresql_parameters(int(value), int(cpus), int(members))
    except _database.DatabaseError as error:
        raise AnsibleFilterError(f"postgresql_parameters: {error}") from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., dict[str, object]]]:
        return {"postgresql_parameters": postgresql_parameters}
