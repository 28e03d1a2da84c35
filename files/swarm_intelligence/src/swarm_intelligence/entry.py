# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the ledger is told of one request."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime


@dataclass
class Entry:
    """One request, filled in while it runs."""

    owner: str
    path: str
    status: int = 500
    prompt_tokens: int = 0
    completion_tokens: int = 0
    id: uuid.UUID = field(default_factory=uuid.uuid4)
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    began: float = field(default_factory=time.monotonic)

    def ended(self, status: int, prompt_tokens: int, completion_tokens: int) -> None:
        self.status, self.prompt_tokens, self.completion_tokens = status, prompt_tokens, completion_tokens
