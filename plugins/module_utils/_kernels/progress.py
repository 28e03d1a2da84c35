# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Progress lines, appended to a file that the action plugin follows."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Callable

from .commands import progress_of


class Progress:
    """Writes a line per phase, and while compiling at every tenth part or quarter of a minute."""

    def __init__(self, path: str | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = Path(path) if path else None
        self._clock = clock
        self._begin = clock()
        self._subject = ""
        self._told_share = 0.0
        self._told_at = 0.0

    def begin(self, subject: str) -> None:
        self._begin, self._subject = self._clock(), subject
        self._told_share = self._told_at = 0.0

    def say(self, words: str) -> None:
        self._told_at = self._clock()
        self._write(f"{self._subject} {words} {self._told_at - self._begin:.0f} s".strip())

    def _write(self, text: str) -> None:
        if self._path:
            try:
                with self._path.open("a", encoding="utf-8") as stream:
                    stream.write(text + "\n")
            except OSError:
                self._path = None  # Progress is a courtesy: the build goes on without it.

    def saw(self, line: str) -> None:
        """A line of the build's output."""
        news = progress_of(line)
        if news is None:
            return
        words, share = news
        if share in (0.0, 1.0) or share - self._told_share >= 0.1 or self._clock() - self._told_at >= 15:
            self._told_share = share
            self.say(words)

    def end(self) -> None:
        """Tells the action plugin that the result is there."""
        self._write("end")
