# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run in the verifier image proves. Pure."""

from __future__ import annotations

import json
import math
from typing import Any

from .errors import KernelError

MIN_COSINE = 0.999
MAX_RELATIVE_L2 = 0.02
SWITCHED_OFF = "verification was switched off (verify=false)"


def not_run(reason: str) -> dict[str, Any]:
    return {"ran": False, "reason": reason}


def judge_run(variant: str, status: int, output: str) -> dict[str, Any]:
    """The record of a run that agrees with the reference; anything else is a refusal.

    The figures are judged here and not by the exit code alone: a verifier that is too kind proves nothing.
    """
    report = _last_json(output)
    if report is not None and report.get("ran") is False:
        return not_run(f"the verifier did not run it: {report.get('reason', 'no reason given')}")
    if report is None or not {"cosine", "relative_l2"} <= report.keys():
        raise KernelError(
            f"variant {variant} is refused: the verifier gave no result (exit code {status}): {output.strip()[-600:]!r}"
        )
    try:
        cosine, relative_l2 = float(report["cosine"]), float(report["relative_l2"])
    except (TypeError, ValueError):
        cosine = relative_l2 = math.nan
    agrees = cosine >= MIN_COSINE and relative_l2 < MAX_RELATIVE_L2
    if status != 0 or not agrees:
        raise KernelError(
            f"variant {variant} is refused: it computes something else than the reference (cosine {cosine:.6f}, wanted "
            f"at least {MIN_COSINE}; relative L2 error {relative_l2:.4%}, wanted under {MAX_RELATIVE_L2:.0%}; "
            f"exit code {status}): {output.strip()[-300:]!r}"
        )
    return {"ran": True, "reason": "", "cosine": cosine, "relative_l2": relative_l2}


def judge_command(variant: str, status: int, output: str) -> dict[str, Any]:
    """The same of a command of the user, which says by its exit code whether the variant computes right."""
    if status != 0:
        raise KernelError(
            f"variant {variant} is refused: verify_command ended with exit code {status}: {output.strip()[-600:]!r}"
        )
    return {"ran": True, "reason": ""}


def _last_json(output: str) -> dict[str, Any] | None:
    """The last JSON object that begins a line. Docker joins stdout and stderr in any order, so more may follow it."""
    decoder = json.JSONDecoder()
    for start in reversed([0, *(index + 1 for index, char in enumerate(output) if char == "\n")]):
        if output[start : start + 1] == "{":
            try:
                value, _end = decoder.raw_decode(output, start)
            except ValueError:
                continue
            return dict(value)
    return None
