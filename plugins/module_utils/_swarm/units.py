# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Units as people write them, and as Docker counts them."""

from __future__ import annotations

import re

_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600, "d": 86400}
_BYTES = {"": 1, "b": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)


def nanoseconds(text: str) -> int:
    """The nanoseconds in C(1m30s), C(500ms) or a plain number of seconds."""
    text = str(text).strip()
    try:
        return round(float(text) * 1e9)
    except ValueError:
        pass
    if not text or _DURATION.sub("", text):
        raise ValueError(f"{text!r} is no duration: write seconds, or a number with us, ms, s, m, h, d, as in 1m30s")
    return round(sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(text)) * 1e9)


def duration(count: int) -> str:
    """Nanoseconds in the one way that a diff shows them: as seconds."""
    return f"{count / 1e9:.9f}".rstrip("0").rstrip(".") + "s"


def size(text: str) -> int:
    """The bytes in C(512M), C(2GiB) or a plain number of bytes; the units are binary."""
    found = _SIZE.fullmatch(str(text).strip())
    if not found:
        raise ValueError(f"{text!r} is no size: write bytes, or a number with K, M, G, T, as in 512M")
    return int(float(found[1]) * _BYTES[found[2].lower()])
