# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The perplexity of a held-out text by the engine's own probabilities, against what the NumPy reference makes of it.

llama-server gives probabilities only of what may come next, so the text is sampled: at positions spread evenly over it
the engine is given what stands before, and asked for the next token's probability. A position is a place in a passage
(passages are parted by blank lines) before which the text by itself reads as the same tokens; so the prompt is sent as
text, and how the engine tokenises it is judged with the rest. With t_i the token that follows at position i of N::

    perplexity = exp(-1/N sum_i log p_i(t_i))

Two ways of asking, the same positions on both sides, hence a paired comparison:

* ``measure``: the engine itself gives the whole distribution, and p_i is its probability of the token.
* ``ask``: the public API names at most 20 rivals, which the engine normalises by a sum that is too large (see
  ``engine_run``). There p_i is the probability *among the reference's ten most probable tokens* R_i, which is
  p_i(t) = exp l(t) / sum_{r in R_i} exp l(r), over those positions whose token is in R_i. A constant in the
  logarithms l cancels, and with it the engine's normalisation. A token of R_i that the answer does not name counts as
  the least probable one that it names. This *shortlist* figure is smaller than the perplexity, and is compared with
  the reference's own shortlist figure.

The reference rounds activations to int8, as the model was trained and as the engine does: a network that learned with
the rounding is not the same without it, and the difference would be taken for one of the kernels.

Two things must hold: the perplexities differ by no more than the tolerance, a hundredth; and the root mean square of
the differences of log p_i(t_i), position by position, is small. The second finds what the first cannot: probabilities
that are too large here and too small there.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from .engine_run import Engine, EngineError, running
from .gguf_check import check_servable
from .gguf_file import GGUFFile, ModelError
from .known_answer import NoAnswer, ask_one, token_text
from .reference import Reference
from .tokenizer import Tokenizer

POSITIONS = 256
SHORTLIST = 10
LEAST_CONTEXT = 8
"""Tokens before a position, at least."""
TOLERANCE = 0.01
"""Largest relative difference of the perplexities."""
RMS_TOLERANCE = 0.1
"""Largest root mean square difference of the log-probabilities, in nats. Right kernels stay below half of it."""
LEAST_SHARE = 0.9
"""Of the positions that must have been answered; with fewer there is no verdict."""


@dataclass(frozen=True)
class Finding:
    """``passed`` is None when nothing could be compared: inconclusive, which is never a pass."""

    passed: bool | None
    reason: str
    method: str
    perplexity: float | None = None
    expected: float | None = None
    positions: int = 0
    rms_difference: float | None = None

    def document(self) -> dict[str, Any]:
        verdict = {True: "pass", False: "fail", None: "inconclusive"}[self.passed]
        return {
            "verdict": verdict,
            "reason": self.reason,
            "method": self.method,
            "perplexity": self.perplexity,
            "expected": self.expected,
            "relative_difference": (
                round(self.perplexity / self.expected - 1, 5) if self.perplexity and self.expected else None
            ),
            "positions": self.positions,
            "rms_difference": self.rms_difference,
        }


# ---- the reference's side ----


def passages(text: str) -> list[tuple[int, int]]:
    """Where the passages of a text begin and end."""
    found, at = [], 0
    for part in text.split("\n\n"):
        if part.strip():
            found.append((at, at + len(part.rstrip("\n"))))
        at += len(part) + 2
    return found


@dataclass(frozen=True)
class Place:
    """A position: its prompt is text[start:end], which reads as ``tokens``, and ``token`` is what follows."""

    start: int
    end: int
    tokens: list[int]
    token: int


def places(tokenizer: Tokenizer, texts: list[str], text: str, context: int) -> list[Place]:
    """All positions of a text that a prompt of text can end at; ``texts`` are those of the tokens."""
    found = []
    for start, end in passages(text):
        tokens = tokenizer.encode(text[start:end])
        at = start
        for number, token in enumerate(tokens):
            if number >= context:
                break
            prefix = tokens[:number]
            if number >= LEAST_CONTEXT and tokenizer.encode(text[start:at]) == prefix:
                found.append(Place(start, at, prefix, token))
            if number >= len(tokenizer.begin):
                at += len(texts[token])
    return found


def spread(found: Sequence[Any], count: int) -> list[Any]:
    if len(found) <= count:
        return list(found)
    return [found[int(number)] for number in np.linspace(0, len(found) - 1, count)]


def compute(model: GGUFFile, text: str, file_name: str, positions: int = POSITIONS) -> dict[str, Any]:
    """What ``model.json`` keeps of a held-out text: the positions and the reference's numbers there."""
    reference = Reference(model, int8=True)
    vocabulary = [token_text(token) for token in model.metadata["tokenizer.ggml.tokens"]]
    chosen = spread(places(Tokenizer(model), vocabulary, text, reference.parameters.context_length - 1), positions)
    if not chosen:
        raise ModelError(f"{file_name}: no passage is longer than {LEAST_CONTEXT} tokens; take a longer text.")
    logs = distributions(reference, [place.tokens for place in chosen])
    cases = [_case(place, row, vocabulary) for place, row in zip(chosen, logs, strict=True)]
    return {
        "file": file_name,
        "sha256": hashlib.sha256(text.encode()).hexdigest(),
        "perplexity": round(_perplexity([case["logprob"] for case in cases]), 4),
        "shortlist_perplexity": round(_perplexity([_shortlisted(case, case["top"]) for case in listed(cases)]), 4),
        "tolerance": TOLERANCE,
        "rms_tolerance": RMS_TOLERANCE,
        "cases": cases,
    }


def distributions(reference: Reference, prompts: Sequence[Sequence[int]]) -> list[np.ndarray]:
    """The log-distribution after each prompt. Those that begin the same, as in one passage, are computed as one: what
    comes later changes nothing before it."""
    longest: list[list[int]] = []
    for prompt in sorted(prompts, key=len, reverse=True):
        if not any(known[: len(prompt)] == list(prompt) for known in longest):
            longest.append(list(prompt))
    result: list[np.ndarray] = [np.empty(0)] * len(prompts)
    for known in longest:
        rows = reference.log_probabilities([known], last=len(known))[0]
        for number, prompt in enumerate(prompts):
            if known[: len(prompt)] == list(prompt):
                result[number] = rows[len(prompt) - 1].copy()
    return result


def _case(place: Place, row: np.ndarray, vocabulary: list[str]) -> dict[str, Any]:
    case: dict[str, Any] = {
        "start": place.start,
        "end": place.end,
        "id": place.token,
        "token": vocabulary[place.token],
        "logprob": round(float(row[place.token]), 4),
    }
    best = [int(number) for number in row.argsort()[::-1][:SHORTLIST]]
    if place.token in best:
        case["top"] = {vocabulary[number]: round(float(row[number]), 4) for number in best}
    return case


def listed(cases: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The cases that the shortlist figure is taken over."""
    return [case for case in cases if "top" in case]


def _perplexity(logs: Sequence[float]) -> float:
    return math.exp(-sum(logs) / len(logs)) if logs else math.nan


def _shortlisted(case: dict[str, Any], found: dict[str, float]) -> float:
    """Log-probability of a case's token among its shortlist, by what was found of it."""
    least = min(found.values())
    values = [found.get(token, least) for token in case["top"]]
    highest = max(values)
    total = highest + math.log(sum(math.exp(value - highest) for value in values))
    return found.get(case["token"], least) - total


# ---- the engine's side ----


def read_held_out(record: dict[str, Any], text: Path) -> tuple[dict[str, Any] | None, str]:
    """The record's part on the held-out text, and that text, which must be the one that was recorded."""
    content = read_text(text)
    held_out = record.get("held_out")
    if not isinstance(held_out, dict) or not held_out.get("cases"):
        return None, content
    if hashlib.sha256(content.encode()).hexdigest() != held_out["sha256"]:
        raise ModelError(
            f"{text}: this is not the text that the record was made with (sha256 {held_out['sha256'][:12]}...); "
            "name that one, or write the record again: bitnet-cli model perplexity --record."
        )
    return held_out, content


def read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except UnicodeDecodeError as error:
        raise ModelError(f"{path}: a held-out text is plain ASCII ({error.reason} at byte {error.start}).") from error


NOTHING_KNOWN = "model.json has no reference perplexity; write it: bitnet-cli model perplexity --record."


def measure(
    kernels: Path,
    variant: str,
    model: Path,
    held_out: dict[str, Any] | None,
    text: str,
    *,
    tolerance: float | None = None,
    threads: int = 1,
    deadline: float = 600,
    positions: int = POSITIONS,
    emulator: Sequence[str] = (),
) -> Finding:
    """By the whole distributions of an engine that is started for it, at so many of the recorded positions."""
    if held_out is None:
        return Finding(None, NOTHING_KNOWN, "whole")
    try:
        check_servable(model)
        size = len(GGUFFile(model).metadata["tokenizer.ggml.tokens"])
    except ModelError as error:
        return Finding(False, str(error), "whole")
    logs: list[float] = []
    cases = spread(held_out["cases"], positions)
    try:
        with running(kernels, variant, model, threads=threads, deadline=deadline, emulator=emulator) as engine:
            logs = [_probability(engine, case, text, size) for case in cases]
    except EngineError as error:
        return Finding(False, f"{variant}: {error}", "whole", positions=len(logs))
    return judge([case["logprob"] for case in cases], logs, "whole", held_out, tolerance)


def _probability(engine: Engine, case: dict[str, Any], text: str, size: int) -> float:
    tokens = engine.tokens(text[case["start"] : case["end"]])
    _unused, rows = engine.distributions(tokens, 1, size)
    if case["id"] >= size:
        raise EngineError("the model has fewer tokens than the one of the record; name the record of this model.")
    return float(rows[0][case["id"]])


def ask(
    url: str,
    token: str,
    held_out: dict[str, Any] | None,
    text: str,
    *,
    tolerance: float | None = None,
    deadline: float = 600,
    verify: bool | str = True,
) -> Finding:
    """By what a served slot's API names of the next token's rivals; the deadline is for all positions."""
    if held_out is None:
        return Finding(None, NOTHING_KNOWN, "shortlist")
    cases = listed(held_out["cases"])
    expected: list[float] = []
    measured: list[float] = []
    trouble = ""
    headers = {"Authorization": f"Bearer {token}"}
    until = time.monotonic() + deadline
    with httpx.Client(base_url=url, headers=headers, trust_env=False, verify=verify) as client:
        for number, case in enumerate(cases):
            left = until - time.monotonic()
            if left <= 0:
                trouble = f" The deadline of {deadline:g} s was over at position {number}."
                break
            client.timeout = httpx.Timeout(left)
            try:
                found = ask_one(client, text[case["start"] : case["end"]])
            except NoAnswer as error:
                trouble = f" The last trouble, at position {number}: {error}"
                if number - len(measured) + 1 > (1 - LEAST_SHARE) * len(cases):
                    break
                continue
            expected.append(_shortlisted(case, case["top"]))
            measured.append(_shortlisted(case, found))
    if not measured or len(measured) < LEAST_SHARE * len(cases):
        return Finding(
            None,
            f"{url}: {len(measured)} of {len(cases)} positions were answered.{trouble}",
            "shortlist",
            positions=len(measured),
        )
    return judge(expected, measured, "shortlist", held_out, tolerance)


def judge(
    expected: Sequence[float],
    measured: Sequence[float],
    method: str,
    limits: dict[str, Any],
    tolerance: float | None = None,
) -> Finding:
    """The two perplexities over the same positions, and how far they are apart; ``tolerance`` replaces the record's."""
    tolerance = tolerance or float(limits["tolerance"])
    rms_tolerance = float(limits["rms_tolerance"])
    wanted, seen = _perplexity(expected), _perplexity(measured)
    difference = seen / wanted - 1
    rms = math.sqrt(sum((a - b) ** 2 for a, b in zip(expected, measured, strict=True)) / len(expected))
    passed = bool(abs(difference) <= tolerance and rms <= rms_tolerance)  # false for what is no number
    advice = "" if passed else ", so it computes wrongly or serves another model; do not switch to it"
    return Finding(
        passed,
        f"{method} perplexity {seen:.4f}, the reference's {wanted:.4f} over the same {len(expected)} positions: "
        f"{100 * difference:+.2f} % (at most {100 * tolerance:g} %), and log-probabilities differ by {rms:.3f} "
        f"(at most {rms_tolerance:g}){advice}.",
        method,
        round(seen, 4),
        round(wanted, 4),
        len(expected),
        round(rms, 4),
    )
