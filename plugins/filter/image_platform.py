# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter image_platform."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.module_utils._kernels import fleet
from ansible_collections.bitnet.devops.plugins.module_utils._kernels.errors import KernelError


def image_platform(value: Any) -> str:
    try:
        return fleet.platform_of(value)
    except KernelError as error:
        raise AnsibleFilterError(f"image_platform: {error}") from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[[Any], str]]:
        return {"image_platform": image_platform}
