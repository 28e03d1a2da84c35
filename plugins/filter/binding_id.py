# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter binding_id."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.module_utils import _release


def binding_id(value: Any) -> str:
    try:
        return _release.binding_id(value)
    except _release.ReleaseError as error:
        raise AnsibleFilterError(f"binding_id: {error}") from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[[Any], str]]:
        return {"binding_id": binding_id}
