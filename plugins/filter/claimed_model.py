# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter claimed_model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.bitnet.devops.plugins.module_utils import _promotion


def claimed_model(verdicts: Iterable[Any], release: str) -> str:
    return _promotion.claimed_model(verdicts, release)


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[[Iterable[Any], str], str]]:
        return {"claimed_model": claimed_model}
