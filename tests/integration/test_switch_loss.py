# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The loss proof, short, on a real Swarm: the edge as the role sets it up, and what it is compared with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
SUBJECTS = ["switch", "rolling-stop-first", "traefik-file"]


@pytest.mark.full
def test_nothing_is_lost(workload_image: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.switch_loss", "--image", workload_image, "--output", str(tmp_path),
         "--subjects", ",".join(SUBJECTS), "--rate", "20", "--streams", "10", "--sockets", "5", "--seconds", "8",
         "--switches", "3", "--rollbacks", "1", "--updates", "1"],
        cwd=CHECKOUT, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    subjects = json.loads((tmp_path / "result.json").read_text())["subjects"]
    assert list(subjects) == SUBJECTS
    switch = subjects["switch"]
    assert switch["proved"]
    assert [move["kind"] for move in switch["moves"]].count("rollback") == 1
    assert switch["reconciled"]["sides"] == "client, edge, backend"
    for kind in ("http", "sse", "ws", "socket"):
        assert switch["by_kind"][kind].get("complete")
    # What is not overlapped is refused meanwhile; a proof that cannot see that proves nothing.
    assert subjects["rolling-stop-first"]["outcomes"]["refused"] > 0
    assert (tmp_path / "plot.png").stat().st_size > 10_000
    ledger = (tmp_path / "ledger-switch.jsonl").read_text().splitlines()
    assert len(ledger) == sum(switch["outcomes"].values())
    assert {json.loads(line).get("slot") for line in ledger} >= {"blue", "green"}
