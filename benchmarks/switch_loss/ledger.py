# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The client's ledger: what became of each numbered request. Nothing in here does input or output, files apart.

| outcome | meaning |
|---|---|
| complete | answered whole: the framing, the JSON or `[DONE]`, every token in its order |
| announced | ended by an announced close: the event `draining` of a stream or generation, 1012 of a WebSocket |
| refused | not accepted: no connection, 429 or 503 with Retry-After, or a 503 that a proxy made itself |
| failed | answered with another error |
| lost | accepted and cut before an answer began, or the edge says that it lost it (502, 504), or no end in time |
| truncated | the answer began and is not whole |
| duplicated | answered, sent or worked on more than once |
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

LETTERS = {"http": "h", "sse": "s", "ws": "w", "socket": "c"}
KINDS = tuple(LETTERS)
GOING_AWAY = 1012


class Outcome(str, Enum):
    COMPLETE = "complete"
    ANNOUNCED = "announced"
    REFUSED = "refused"
    FAILED = "failed"
    LOST = "lost"
    TRUNCATED = "truncated"
    DUPLICATED = "duplicated"


BROKEN = (Outcome.LOST, Outcome.TRUNCATED, Outcome.DUPLICATED, Outcome.FAILED)
Judgement = tuple[Outcome, str]


@dataclass
class Entry:
    """One request's life; times are seconds since the ledger began."""

    number: str
    kind: str
    begun: float
    first: float | None = None
    end: float | None = None
    outcome: Outcome | None = None
    detail: str = ""
    status: int | None = None
    slot: str | None = None
    connection: str | None = None
    """A generation's WebSocket."""

    @property
    def accepted(self) -> bool:
        return self.outcome is not Outcome.REFUSED

    @property
    def seconds(self) -> float | None:
        return None if self.end is None else self.end - self.begun


class LedgerFull(Exception):
    """The bound on the number of requests is reached."""


class Ledger:
    """Numbers requests and takes down how each one ended."""

    def __init__(self, run: str, limit: int = 200_000) -> None:
        if not re.fullmatch(r"[0-9a-z]{1,12}", run):
            raise ValueError(f"run {run!r}: one to twelve digits and small letters")
        self.run = run
        self.limit = limit
        self.entries: dict[str, Entry] = {}

    def begin(self, kind: str, now: float) -> Entry:
        if len(self.entries) >= self.limit:
            raise LedgerFull(f"{self.limit} requests were made, more are not")
        entry = Entry(f"{self.run}{LETTERS[kind]}{len(self.entries):06d}", kind, now)
        self.entries[entry.number] = entry
        return entry

    def end(self, entry: Entry, judgement: Judgement, now: float) -> None:
        """A second end is what must never be: it stays visible as duplicated."""
        if entry.outcome is not None:
            entry.outcome, entry.detail = Outcome.DUPLICATED, f"ended twice: {entry.detail}; {judgement[1]}"
            return
        entry.outcome, entry.detail = judgement
        entry.end = now

    def close(self, now: float) -> None:
        """Whatever has no end yet has lost its request."""
        for entry in self.entries.values():
            if entry.outcome is None:
                self.end(entry, (Outcome.LOST, "no end when the run was over"), now)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries.values())

    def write(self, path: Path) -> None:
        with path.open("w") as file:
            for entry in self:
                file.write(json.dumps({name: value for name, value in asdict(entry).items() if value is not None}))
                file.write("\n")


def read(path: Path) -> list[Entry]:
    entries = []
    for line in path.read_text().splitlines():
        fields = json.loads(line)
        outcome = fields.pop("outcome", None)
        entries.append(Entry(**fields, outcome=Outcome(outcome) if outcome else None))
    return entries


def table(entries: Iterable[Entry]) -> dict[str, Counter[Outcome]]:
    """Outcomes by kind; a request without an end counts as lost."""
    counts: dict[str, Counter[Outcome]] = {kind: Counter() for kind in KINDS}
    for entry in entries:
        counts[entry.kind][entry.outcome or Outcome.LOST] += 1
    return counts


# --- judging one request --------------------------------------------------------------------------------------------


@dataclass
class Answer:
    """What came back for one HTTP request."""

    connected: bool = False
    """A connection was open and the request was written to it."""
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    framed: bool = False
    """The body is whole by its own framing: Content-Length reached, last chunk seen."""
    fault: str = ""


def sequence_fault(text: str, tokens: int) -> Judgement | None:
    """The stand-in engine numbers its tokens (" t0 t1 t2"): none may be missing or be there twice."""
    if not text.startswith(" t0"):
        return None  # a real model's text
    found = text.split()
    wanted = [f"t{number}" for number in range(tokens)]
    if found == wanted:
        return None
    if len(found) > len(set(found)):
        return Outcome.DUPLICATED, f"{len(found) - len(set(found))} tokens came twice"
    return Outcome.TRUNCATED, f"{len(found)} of {tokens} tokens came, or not in their order"


def judge_error(error: dict[str, Any], began: bool) -> Judgement:
    """An error of the service, before (refusal) or after an answer began."""
    code = str(error.get("code"))
    if code == "draining" and (began or "before the answer was complete" in str(error.get("message"))):
        return Outcome.ANNOUNCED, code
    if code == "engine_lost":
        return Outcome.LOST, code
    if not began and code in ("draining", "not_ready", "queue_full", "queue_timeout", "too_many", "engine_loading"):
        return Outcome.REFUSED, code
    return Outcome.FAILED, code


def judge_status(status: int, headers: dict[str, str], body: bytes) -> Judgement:
    """An answer that is no success."""
    try:
        error = dict(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        error = {"code": f"status {status}"}
    if status in (502, 504) and error.get("code") in ("bad_gateway", "gateway_timeout", f"status {status}"):
        return Outcome.LOST, f"the edge says {status}"
    if status in (429, 503):
        verdict, code = judge_error(error, began=False)
        if verdict is Outcome.FAILED and ("retry-after" in headers or code == f"status {status}"):
            return Outcome.REFUSED, f"{status} {code}"  # a proxy's own plain 503 says that nothing was sent on
        return verdict, f"{status} {code}"
    return Outcome.FAILED, f"{status} {error.get('code')}"


def judge_http(answer: Answer, tokens: int) -> Judgement:
    """A completion in one JSON document."""
    early = _judge_start(answer)
    if early is not None:
        return early
    try:
        choice = json.loads(answer.body)["choices"][0]
        text, reason = choice["text"], choice["finish_reason"]
    except (ValueError, KeyError, IndexError, TypeError):
        return Outcome.TRUNCATED, "the answer is not the document that it should be"
    if reason not in ("stop", "length"):
        return Outcome.TRUNCATED, f"finish_reason is {reason!r}"
    return sequence_fault(text, tokens) or (Outcome.COMPLETE, "")


def judge_sse(answer: Answer, tokens: int) -> Judgement:
    """A completion as a stream of events: it ends with [DONE], once."""
    early = _judge_start(answer)
    if early is not None:
        return early
    text, reasons, done = "", 0, 0
    for line in answer.body.split(b"\n"):
        if not line.startswith(b"data: "):
            continue
        if line == b"data: [DONE]":
            done += 1
            continue
        try:
            event = json.loads(line[6:])
        except ValueError:
            return Outcome.TRUNCATED, "an event is cut"
        if "error" in event:
            return judge_error(event["error"], began=True)
        for choice in event.get("choices", []):
            text += choice.get("text") or ""
            reasons += choice.get("finish_reason") is not None
    if not done or not reasons:
        return Outcome.TRUNCATED, "no [DONE]" if not done else "no finish_reason"
    if done > 1 or reasons > 1:
        return Outcome.DUPLICATED, f"{done} [DONE], {reasons} finish_reason"
    return sequence_fault(text, tokens) or (Outcome.COMPLETE, "")


def _judge_start(answer: Answer) -> Judgement | None:
    """What can be said before the body is looked into; nothing when it is worth a look."""
    if not answer.connected:
        return Outcome.REFUSED, answer.fault or "no connection"
    if answer.status is None:
        return Outcome.LOST, f"cut before an answer began: {answer.fault or 'closed'}"
    if not answer.framed:
        return Outcome.TRUNCATED, f"cut after {len(answer.body)} bytes of the answer: {answer.fault or 'closed'}"
    if answer.status != 200:
        return judge_status(answer.status, answer.headers, bytes(answer.body))
    return None


def judge_generation(text: str, last: dict[str, Any] | None, close_code: int | None, tokens: int) -> Judgement:
    """A generation on a WebSocket: its `done` or `error`, or the close code of a connection that ended first."""
    if last is None:
        if close_code == GOING_AWAY:
            return (Outcome.ANNOUNCED, "1012 while it ran") if text else (Outcome.REFUSED, "1012 before it began")
        how = f"the connection ended ({'cut' if close_code in (None, 1006) else close_code})"
        return (Outcome.TRUNCATED if text else Outcome.LOST), how
    if last["type"] == "error":
        return judge_error(last["error"], began=bool(text))
    if last["finish_reason"] not in ("stop", "length"):
        return Outcome.TRUNCATED, f"finish_reason is {last['finish_reason']!r}"
    return sequence_fault(text, tokens) or (Outcome.COMPLETE, "")


def judge_socket(close_code: int | None, ours: bool) -> Judgement:
    """An open WebSocket that ended."""
    if ours:
        return Outcome.COMPLETE, ""
    if close_code == GOING_AWAY:
        return Outcome.ANNOUNCED, "1012"
    return Outcome.LOST, f"ended with {'a cut' if close_code in (None, 1006) else close_code}"
