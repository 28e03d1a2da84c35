# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What hosts need of the catalogue. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .catalogue import PLATFORMS, VARIANTS, choose, platform
from .errors import KernelError

# Other names of the architectures, as image indexes and some systems write them.
_ALIASES = {"amd64": "x86_64", "arm64": "aarch64"}


def variants_for(results: Any) -> list[str]:
    """The variants that give each host its best, in the order of the catalogue.

    :param results: results of the module cpu_info, by host name or as a list.
    """
    if isinstance(results, (list, tuple)):
        hosts = {f"host {number} of {len(results)}": result for number, result in enumerate(results, 1)}
    elif isinstance(results, Mapping):
        hosts = dict(results)
    else:
        raise KernelError("wants results of cpu_info, as a dictionary by host name or as a list")
    if not hosts:
        raise KernelError("wants results of at least one host; there is none")
    unfit = []
    for name, result in hosts.items():
        if not isinstance(result, Mapping) or not {"best", "why"} <= result.keys():
            raise KernelError(f"{name}: is no result of cpu_info (it has no best and no why)")
        if not result["best"]:
            unfit.append(f"{name}: {result['why']}")
    if unfit:
        raise KernelError(
            f"no variant fits {'; nor '.join(unfit)}. Leave out what cannot run it, or let cpu_info choose from more"
        )
    return [variant.name for variant in choose(sorted({str(result["best"]) for result in hosts.values()}))]


def platform_of(value: Any) -> str:
    """The OCI platform of a variant, an architecture, or of something that has the key architecture."""
    if isinstance(value, Mapping):
        if "architecture" not in value:
            raise KernelError("has no architecture; gather the facts of the subset architecture")
        value = value["architecture"]
    if not isinstance(value, str):
        raise KernelError(f"{value!r} is neither a variant nor facts nor a result of cpu_info")
    if value in VARIANTS:
        return platform(VARIANTS[value].architecture)
    architecture = _ALIASES.get(value, value)
    if architecture not in PLATFORMS:
        raise KernelError(
            f"{value!r} is neither an architecture ({', '.join(PLATFORMS)}) nor a variant ({', '.join(VARIANTS)})"
        )
    return platform(architecture)
