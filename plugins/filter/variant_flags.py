# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter variant_flags."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import catalogue
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError


def variant_flags(value: Any) -> list[str]:
    try:
        return list(catalogue.choose([str(value)])[0].flags)
    except KernelError as error:
        raise AnsibleFilterError(f"variant_flags: {error}") from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[[Any], list[str]]]:
        return {"variant_flags": variant_flags}
