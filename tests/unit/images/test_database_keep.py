# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""keep.py, process 1 of a member: starts again what ended, passes on the end, reaps orphans."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

KEEP = Path(__file__).resolve().parents[3] / "files" / "images" / "database" / "keep.py"


def keep(*command: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, str(KEEP), *command], stderr=subprocess.PIPE, text=True)


def until(there: Callable[[], bool], deadline: float = 15) -> None:
    end = time.monotonic() + deadline
    while not there():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_ends_is_started_again_and_the_end_is_passed_on(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    script = f"echo $$ >> {ran}; exec sleep 600"
    kept = keep("sh", "-c", script, "--", "sleep", "601")
    until(lambda: ran.exists() and len(ran.read_text().split()) == 1)
    os.kill(int(ran.read_text().split()[0]), signal.SIGKILL)
    until(lambda: len(ran.read_text().split()) == 2)
    kept.send_signal(signal.SIGTERM)
    assert kept.wait(10) == 0
    assert "sh ended (-9), starting it again" in kept.communicate()[1]
    until(lambda: not Path(f"/proc/{ran.read_text().split()[1]}").exists())


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    kept = keep(str(tmp_path / "nothing"))
    time.sleep(1.5)
    kept.send_signal(signal.SIGTERM)
    assert kept.wait(10) == 0
    assert "No such file" in kept.communicate()[1]


def test_without_a_program_it_says_how() -> None:
    kept = keep("sleep", "1", "--")
    assert kept.wait(10) == 1
    assert "give at least one program" in kept.communicate()[1]
