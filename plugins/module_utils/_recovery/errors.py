# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What goes wrong, and how long something may take or be old."""

from __future__ import annotations

import re

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class RecoveryError(Exception):
    """The text names what was given or found, and the way out."""


def seconds(option: str, value: object) -> int:
    """The seconds in a text such as C(45s), C(24h) or C(7d); a bare number is one of seconds."""
    found = re.fullmatch(r"([0-9]{1,9})\s*([smhdw]?)", str(value).strip())
    if not found:
        raise RecoveryError(f"{option}: {value!r} is no duration: give a number and s, m, h, d or w, as in 24h")
    return int(found.group(1)) * UNITS[found.group(2) or "s"]


def spoken(number: float) -> str:
    """A duration for a person."""
    whole = int(number)
    for unit in ("d", "h", "m"):
        if whole >= 2 * UNITS[unit]:
            return f"{whole / UNITS[unit]:.1f} {unit}"
    return f"{whole} s"
