# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter not_promoted."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.bitnet.devops.plugins.module_utils import _promotion


def not_promoted(
    after: Sequence[str], results: Sequence[Mapping[str, Any]], release: str, soak: float = 0
) -> list[str]:
    looks = []
    for result in results:
        host, environment, cluster = result["item"]
        look = {"host": host, "environment": environment, "cluster": cluster}
        if "contents" in result:
            look["contents"] = [kept["content"] for kept in result["contents"]]
        looks.append(look)
    now = datetime.datetime.now(datetime.timezone.utc)
    return _promotion.not_promoted(after, looks, release, float(soak), now)


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., list[str]]]:
        return {"not_promoted": not_promoted}
