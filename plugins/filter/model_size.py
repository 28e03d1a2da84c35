# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter model_size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.bitnet.devops.plugins.module_utils import _model_size


def model_size(
    value: Any, layers_type: str = "iq2_bn", embeddings_type: str = "f16", output_type: str | None = None
) -> int:
    try:
        return _model_size.size(value, layers_type, embeddings_type, output_type)
    except _model_size.ModelSizeError as error:
        raise AnsibleFilterError(f"model_size: {error}") from error


class FilterModule:
    """What Ansible looks for in this file."""

    def filters(self) -> dict[str, Callable[..., int]]:
        return {"model_size": model_size}
