# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one exception of this package: what went wrong, in words for the person who reads it."""

from __future__ import annotations


class KernelError(Exception):
    """A refusal or failure; details are added to the module's result."""

    def __init__(self, message: str, **details: object) -> None:
        super().__init__(message)
        self.details = details
