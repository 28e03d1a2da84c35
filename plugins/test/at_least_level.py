# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The test at_least_level."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import cpu
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError


def at_least_level(value: Any, level: str) -> bool:
    try:
        # cpu_info gives no level for a CPU of which nothing is known.
        return value is not None and cpu.at_least(value, level)
    except KernelError as error:
        raise AnsibleFilterError(f"at_least_level: {error}") from error


class TestModule:
    """What Ansible looks for in this file."""

    def tests(self) -> dict[str, Callable[[Any, str], bool]]:
        return {"at_least_level": at_least_level}
