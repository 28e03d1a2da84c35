# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which schemas of the database this release works with, and which releases a schema lets work.

Revisions are a line of four-digit numbers. A migration that only adds (expand) leaves the releases before it at work;
one that takes away (contract) writes into the database from which revision on a release must have been made. So an
older release, which knows nothing of later migrations, can still tell whether it may go on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

MINIMUM = "0003"
"""The oldest schema with everything in it that this release reads and writes."""
MAXIMUM = "0003"
"""The newest that this release knows. Later ones will do as long as they say so; the image's label names both."""


@dataclass(frozen=True)
class Schema:
    """What a database says of itself. Without a revision it is empty."""

    revision: str = ""
    oldest: str = ""
    """The revision that a release must at least know to work with this schema."""

    def problem(self, minimum: str = MINIMUM, maximum: str = MAXIMUM) -> str:
        """Why a release that works with minimum to maximum cannot work with it; empty when it can."""
        if not self.revision:
            return "the database is empty"
        if self.revision < minimum:
            return f"the database has schema {self.revision}, this release needs {minimum}"
        if self.revision > maximum and self.oldest > maximum:
            return (
                f"the database has schema {self.revision}, which releases need to know up to {self.oldest}, "
                f"and this release knows {maximum}"
            )
        return ""

    def document(self) -> dict[str, Any]:
        return asdict(self)
