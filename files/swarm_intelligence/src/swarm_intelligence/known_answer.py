# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The known-answer test of a served model: what it says next, against what the NumPy reference says.

``model.json`` keeps for a few prompts the most probable next tokens and their log-probabilities. The served slot is
asked for its own through the public API. Texts are never compared: variants of the kernels differ in what they choose.

The difference is taken after the mean of both sides over the tokens they share is subtracted, since the engine
normalises a list that is shorter than the vocabulary by too large a sum (see ``engine_run``), which shifts all alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from .gguf_file import GGUFFile, ModelError
from .reference import Reference

TOP = 20
SHARED = 12
"""So many of the reference's top tokens must be among the answer's; at the lower end near ties change places."""
TOLERANCE = 0.2
"""Largest root mean square difference of the log-probabilities, in nats. A record may say a smaller one."""


@dataclass(frozen=True)
class Finding:
    """``passed`` is None when nothing could be compared: inconclusive, which is never a pass."""

    passed: bool | None
    reason: str
    worst: float | None = None

    def document(self) -> dict[str, Any]:
        verdict = {True: "pass", False: "fail", None: "inconclusive"}[self.passed]
        return {"verdict": verdict, "reason": self.reason, "rms_difference": self.worst}


def compute(
    model: GGUFFile, prompts: Sequence[tuple[str, Sequence[int]]], tolerance: float = TOLERANCE
) -> list[dict[str, Any]]:
    """The reference's answers to prompts, each given as text and as the tokens that the engine reads it as."""
    reference = Reference(model)
    vocabulary = model.metadata["tokenizer.ggml.tokens"]
    answers = reference.log_probabilities([tokens for _unused, tokens in prompts])
    result = []
    for (text, tokens), logs in zip(prompts, answers, strict=True):
        best = logs[0].argsort()[::-1][:TOP]
        top = [{"id": int(n), "token": token_text(vocabulary[n]), "logprob": round(float(logs[0][n]), 4)} for n in best]
        result.append({"prompt": text, "tokens": [int(token) for token in tokens], "top": top, "tolerance": tolerance})
    return result


def token_text(token: str) -> str:
    """A byte-level token as the text it stands for; bytes that are no text become replacement characters."""
    codes = _byte_codes()
    if any(character not in codes for character in token):
        return token
    return bytes(codes[character] for character in token).decode("utf-8", errors="replace")


def _byte_codes() -> dict[str, int]:
    from .synthetic import byte_alphabet

    return {character: byte for byte, character in enumerate(byte_alphabet())}


def compare(expected: list[dict[str, Any]], found: dict[str, float]) -> tuple[int, float]:
    """How many of the expected tokens were found, and the root mean square difference of those."""
    pairs = [(entry["logprob"], found[entry["token"]]) for entry in expected if entry["token"] in found]
    if len(pairs) < 2:
        return len(pairs), math.inf
    differences = [wanted - seen for wanted, seen in pairs]
    mean = sum(differences) / len(differences)
    return len(pairs), math.sqrt(sum((value - mean) ** 2 for value in differences) / len(differences))


def ask(url: str, token: str, record: dict[str, Any], *, deadline: float = 60, verify: bool | str = True) -> Finding:
    """Put the record's prompts to a running slot and judge its answers."""
    known = record.get("known_answer")
    if not isinstance(known, list) or not known:
        return Finding(
            None, "model.json has no known answers; write them: bitnet-cli model check --record --kernels DIR."
        )
    worst = 0.0
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=url, timeout=deadline, headers=headers, trust_env=False, verify=verify) as client:
        for number, case in enumerate(known):
            try:
                found = ask_one(client, case["prompt"])
            except NoAnswer as error:
                return Finding(None, f"{url}, prompt {number}: {error}")
            finding = _judge(case["top"], found, float(case["tolerance"]))
            if not finding.passed:
                return Finding(False, f"{url}, prompt {number}: {finding.reason}", finding.worst)
            worst = max(worst, finding.worst or 0.0)
    return Finding(True, f"{len(known)} prompts agree with the reference", worst)


class NoAnswer(Exception):
    """Nothing came that could be judged."""


def ask_one(client: httpx.Client, prompt: str) -> dict[str, float]:
    try:
        response = client.post(
            "/v1/completions", json={"prompt": prompt, "max_tokens": 1, "temperature": 0, "logprobs": TOP}
        )
    except httpx.HTTPError as error:
        raise NoAnswer(f"no answer came ({type(error).__name__}); look at the slot's log.") from error
    if response.status_code != httpx.codes.OK:
        raise NoAnswer(f"the answer was {response.status_code} ({_message(response)}); look at the slot's log.")
    try:
        return top_of(response.json())
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise NoAnswer("the answer has no logprobs; ask an API that gives them.") from None


def _judge(expected: list[dict[str, Any]], found: dict[str, float], tolerance: float) -> Finding:
    shared, difference = compare(expected, found)
    if shared < min(SHARED, len(expected)):
        return Finding(
            False,
            f"only {shared} of the {len(expected)} most probable tokens are among the answer's, so the slot serves "
            "another model or computes wrongly; do not switch to it.",
        )
    if not difference <= tolerance:
        return Finding(
            False,
            f"log-probabilities differ by {difference:.3f} (at most {tolerance}), so the slot computes wrongly; "
            "do not switch to it.",
            round(difference, 4),
        )
    return Finding(True, "", round(difference, 4))


def top_of(answer: dict[str, Any]) -> dict[str, float]:
    """Log-probabilities of the first generated token's rivals, by text: OpenAI's legacy form, or llama-server's own."""
    logprobs = answer["choices"][0]["logprobs"]
    if "content" in logprobs:
        return {entry["token"]: float(entry["logprob"]) for entry in logprobs["content"][0]["top_logprobs"]}
    return {str(text): float(value) for text, value in logprobs["top_logprobs"][0].items()}


def _message(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"]["message"])[:300]
    except (ValueError, KeyError, TypeError):
        return response.text[:100]


def read_token(path: Path) -> str:
    """The bearer token, from a file so that it never shows in a process list."""
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise ModelError(
            f"token-file={str(path)!r} cannot be read ({error}); run as a user who may, or name another."
        ) from error
    if not token or not token.isascii() or not token.isprintable():
        raise ModelError(f"token-file={str(path)!r} holds no token; write the token alone into it.")
    return token


def tokenised(read: Callable[[str], list[int]]) -> list[tuple[str, list[int]]]:
    """Plain prompts for a model whose tokenizer only the engine knows."""
    return [(text, read(text)) for text in PROMPTS]


PROMPTS = ("The capital of France is", "Two and two are", "Water boils at a temperature of")
