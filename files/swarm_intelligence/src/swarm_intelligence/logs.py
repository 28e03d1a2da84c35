# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One JSON object per line on standard output. Prompts, answers and tokens are never logged."""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any

LOG = logging.getLogger("swarm_intelligence")
NUMBER_HEADER = "x-request-number"
_NUMBER = re.compile(r"[0-9A-Za-z]{1,32}", re.ASCII)


class JsonFormatter(logging.Formatter):
    def __init__(self, component: str) -> None:
        super().__init__()
        self.component = component

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "component": self.component,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(component: str, level: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter(component))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    LOG.setLevel(level.upper())


def event(level: int, message: str, **fields: Any) -> None:
    LOG.log(level, message, extra={"fields": fields})


def number_of(value: str | None) -> str | None:
    """What a client calls its request, where it can be logged: digits and letters, at most 32; else nothing."""
    return value if value is not None and _NUMBER.fullmatch(value) else None


def numbers(**values: str | None) -> dict[str, str]:
    """Fields of a log line for those numbers that are there."""
    return {name: number for name, value in values.items() if (number := number_of(value)) is not None}
