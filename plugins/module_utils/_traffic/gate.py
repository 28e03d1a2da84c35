# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a gate concludes from what was seen: figures and a verdict, decided without asking anybody.

No data is never a pass. What says nothing about the slot (an edge that is not reached, another slot that answered, a
limit of the edge) is no data.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import typing as t

PASS, FAIL, INCONCLUSIVE = "pass", "fail", "inconclusive"
SKIPPED = "skipped in check mode"
SLOTS = ("blue", "green")

LATENCY_SAMPLES = 5  # answers of each slot below which a 95th percentile says nothing
NOT_YET = (429, 503)  # busy, or not ready: worth another try before the deadline
REASON_LINES, REASON_CHARACTERS = 10, 1500

Figures = dict[str, t.Any]


class GateError(Exception):
    """The gate was described wrongly; the text names option, value and way out."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    verdict: str
    reason: str
    figures: Figures = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Answer:
    """What became of one request. Without a status there was no complete answer, and C(error) says why."""

    status: int | None
    slot: str = ""  # who answered, as the edge says; empty if it does not
    seconds: float = 0.0
    body: bytes = b""
    error: str = ""
    reached: bool = True  # whether the edge took the request

    def says(self) -> str:
        if self.status is None:
            return self.error
        # The body of an error is for people; the rest of a long one is not.
        told = self.body[:200].decode("utf-8", "replace").strip() if self.status >= 400 else ""
        return f"status {self.status}{f' from {self.slot}' if self.slot else ''}{f': {told}' if told else ''}"


# ---------------------------------------------------------------------------- one answer

GOOD, BAD, SILENT = "good", "bad", "silent"


def judge(answer: Answer, slot: str) -> tuple[str, str]:
    """Whether an answer is good or bad for the slot, or silent about it; and why."""
    if not answer.reached:
        kind, why = SILENT, f"the edge took no request ({answer.error})"
    elif answer.slot and answer.slot != slot:
        kind, why = SILENT, f"slot {answer.slot} answered in its place"
    elif answer.status is None:
        kind, why = BAD, answer.error
    elif answer.status == 429:
        kind, why = SILENT, f"refused for the rate or the length of the queue ({answer.says()})"
    elif answer.status >= 500:
        kind, why = BAD, answer.says()  # also without a name: the edge's own errors may not carry one
    elif not answer.slot:
        kind, why = (
            SILENT,
            (f"the edge did not say which slot answered ({answer.says()}); it does for the tokens of testers only"),
        )
    elif 200 <= answer.status < 300:
        kind, why = GOOD, ""
    else:
        kind, why = BAD, answer.says()
    return kind, why


def is_transient(answer: Answer) -> bool:
    return answer.status in NOT_YET or not answer.reached


_CONCLUSION = {GOOD: PASS, BAD: FAIL, SILENT: INCONCLUSIVE}


def healthy(answers: t.Mapping[str, Answer], slot: str) -> Verdict:
    """One answer for each path; all of them have to be 200."""
    figures: Figures = {}
    worst, reasons = GOOD, []
    for path, answer in answers.items():
        figures[path] = answer.status
        kind, why = judge(answer, slot)
        if kind == GOOD and answer.status != 200:
            kind, why = BAD, answer.says()
        if kind != GOOD:
            reasons.append(f"GET {path}: {why}")
            worst = BAD if BAD in (kind, worst) else SILENT
    if not answers:
        return Verdict(INCONCLUSIVE, "nothing was asked", figures)
    return Verdict(_CONCLUSION[worst], "; ".join(reasons) or f"{' and '.join(answers)} of {slot} answered 200", figures)


def token(answer: Answer, slot: str) -> Verdict:
    """Whether the answer to a completion holds a token."""
    kind, why = judge(answer, slot)
    figures: Figures = {"status": answer.status, "seconds": round(answer.seconds, 3)}
    if kind == GOOD:
        figures["tokens"] = generated(answer.body)
        if not figures["tokens"]:
            kind, why = (
                BAD,
                f"status {answer.status}, and no token in it: {tail(answer.body.decode('utf-8', 'replace'))!r}",
            )
    return Verdict(_CONCLUSION[kind], why or f"{slot} generated a token in {answer.seconds:.2f} s", figures)


def generated(body: bytes) -> int:
    """The tokens that a completion says it has generated; none if it is not one."""
    try:
        document = json.loads(body)
        tokens = document["usage"]["completion_tokens"]
        choices = document["choices"]
    except (ValueError, KeyError, TypeError):
        return 0
    return tokens if isinstance(tokens, int) and isinstance(choices, list) and choices else 0


# ---------------------------------------------------------------------------- one slot against the other


@dataclasses.dataclass
class Tally:
    """The answers of one slot in a comparison."""

    slot: str
    seconds: list[float] = dataclasses.field(default_factory=list)
    errors: list[str] = dataclasses.field(default_factory=list)
    silent: list[str] = dataclasses.field(default_factory=list)

    def add(self, answer: Answer) -> None:
        kind, why = judge(answer, self.slot)
        if kind == GOOD and not generated(answer.body):
            kind, why = BAD, f"status {answer.status}, and no token in it"
        if kind == GOOD:
            self.seconds.append(answer.seconds)
        else:
            (self.errors if kind == BAD else self.silent).append(why)

    @property
    def counted(self) -> int:
        return len(self.seconds) + len(self.errors)

    def figures(self) -> Figures:
        figures: Figures = {"requests": self.counted, "errors": len(self.errors), "not counted": len(self.silent)}
        if self.counted:
            figures["error_ratio"] = round(len(self.errors) / self.counted, 4)
        if self.seconds:
            figures["p50_ms"] = _milliseconds(percentile(self.seconds, 0.50))
            figures["p95_ms"] = _milliseconds(percentile(self.seconds, 0.95))
        return figures


def percentile(values: t.Sequence[float], share: float) -> float:
    """The nearest rank: a value that was measured."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def _milliseconds(seconds: float) -> float:
    return round(seconds * 1000, 1)


@dataclasses.dataclass(frozen=True)
class Limits:
    error_ratio: float = 0.0
    latency_ratio: float = 1.5  # 0: the latency is not judged
    latency_floor_ms: float = 50.0


CONTEND = "both slots share this machine while they are measured, so each is slower than it is alone"


def compare(slot: Tally, baseline: Tally | None, limits: Limits, asked: int) -> Verdict:
    """Errors of the slot by themselves, latency against the baseline of the same run."""
    figures: Figures = {"asked": asked, "slot": slot.figures()}
    if baseline is not None:
        figures["baseline"] = baseline.figures()
    errors = _errors(slot.slot, len(slot.errors), slot.counted, asked, limits.error_ratio)
    if errors.verdict != PASS:
        more = (slot.errors or slot.silent)[-1:]
        return Verdict(errors.verdict, "; ".join([errors.reason, *(f"the last: {why}" for why in more)]), figures)
    if baseline is None:
        return Verdict(PASS, f"{errors.reason}; the latency was not judged (max_latency_ratio is 0)", figures)
    latency = _latency(slot, baseline, limits, figures)
    return Verdict(latency.verdict, f"{errors.reason}; {latency.reason}", figures)


def _errors(who: str, errors: int, counted: int, asked: int, allowed: float) -> Verdict:
    if errors > allowed * asked:  # too many, even if all that is open ended well
        return Verdict(
            FAIL,
            f"{errors} of {counted} requests to {who} failed, a ratio of {errors / counted:.3f} (allowed: {allowed:g})",
        )
    if counted < asked:
        return Verdict(INCONCLUSIVE, f"only {counted} of {asked} requests say something about {who}")
    return Verdict(PASS, f"{errors} of {counted} requests to {who} failed (allowed: {allowed:g})")


def _latency(slot: Tally, baseline: Tally, limits: Limits, figures: Figures) -> Verdict:
    for tally in (slot, baseline):
        if len(tally.seconds) < LATENCY_SAMPLES:
            last = "".join(f" (the last: {why})" for why in (tally.errors or tally.silent)[-1:])
            return Verdict(
                INCONCLUSIVE,
                f"the latency is not judged: {len(tally.seconds)} answers of {tally.slot} are fewer than "
                f"{LATENCY_SAMPLES}{last}",
            )
    ours, theirs = percentile(slot.seconds, 0.95), percentile(baseline.seconds, 0.95)
    ratio = ours / max(theirs, 1e-6)
    figures["latency_ratio"] = round(ratio, 3)
    said = (
        f"p95 is {_milliseconds(ours)} ms in {slot.slot} and {_milliseconds(theirs)} ms in {baseline.slot}, "
        f"a ratio of {ratio:.2f}; allowed is {limits.latency_ratio:g} ({CONTEND})"
    )
    if _milliseconds(ours - theirs) <= limits.latency_floor_ms:
        if ratio > limits.latency_ratio:
            said += f"; a difference of up to {limits.latency_floor_ms:g} ms counts as noise"
        return Verdict(PASS, said)
    return Verdict(FAIL if ratio > limits.latency_ratio else PASS, said)


# ---------------------------------------------------------------------------- what the edge has seen


@dataclasses.dataclass(frozen=True)
class Seen:
    """The counters of one backend at one moment, and the process that counts."""

    pid: int
    requests: int
    status_5xx: int
    connect_errors: int
    response_errors: int
    cut: int  # answers that the server aborted after their status; in the response errors, too
    servers_up: int


def seen(info: str, stat: str, backend: str) -> Seen:
    """Read them from C(show info) and C(show stat)."""
    lines = dict(line.partition(":")[::2] for line in info.splitlines())
    rows = csv.DictReader(io.StringIO(stat.lstrip("# ")))
    row = next((row for row in rows if row.get("pxname") == backend and row.get("svname") == "BACKEND"), None)
    if row is None:
        raise GateError(f"slot: the edge has no backend {backend}; 'show stat' at its socket lists what it has")

    def number(name: str) -> int:
        return int(row.get(name) or 0)

    answers = sum(number(f"hrsp_{kind}") for kind in ("1xx", "2xx", "3xx", "4xx", "5xx", "other"))
    return Seen(
        pid=int(lines.get("Pid") or 0),
        requests=answers,
        status_5xx=number("hrsp_5xx"),
        connect_errors=number("econ"),
        response_errors=number("eresp"),
        cut=number("srv_abrt"),
        servers_up=number("act"),
    )


def watch(before: Seen, after: Seen, slot: str, seconds: float, max_error_ratio: float) -> Verdict:
    """The errors between two moments.

    A 5xx that the edge itself gave, for a connection or an answer that failed, is in two counters and counts once. An
    answer that was cut has no status of an error, and counts beside them.
    """
    if before.pid != after.pid or after.requests < before.requests:
        return Verdict(INCONCLUSIVE, "the edge was restarted or reloaded meanwhile, and its counters began anew")
    requests = after.requests - before.requests
    status = after.status_5xx - before.status_5xx
    connect = after.connect_errors - before.connect_errors
    response = after.response_errors - before.response_errors
    cut = after.cut - before.cut
    errors = cut + max(status, connect + response - cut)
    figures: Figures = {
        "seconds": round(seconds, 1),
        "requests": requests,
        "status_5xx": status,
        "connect_errors": connect,
        "response_errors": response,
        "cut": cut,
        "errors": errors,
        "servers_up": after.servers_up,
    }
    if not requests and not errors:
        return Verdict(INCONCLUSIVE, f"no request was answered by {slot} in {seconds:.0f} s", figures)
    ratio = errors / max(requests, errors)
    figures["error_ratio"] = round(ratio, 4)
    return Verdict(
        FAIL if ratio > max_error_ratio else PASS,
        f"the edge saw {errors} errors in {requests} requests to {slot} within {seconds:.0f} s, a ratio of {ratio:.3f} "
        f"(allowed: {max_error_ratio:g}): {status} times 5xx, {connect} connections and {response} answers failed, "
        f"{cut} of these were cut",
        figures,
    )


# ---------------------------------------------------------------------------- a command


def command(status: int, output: str) -> Verdict:
    """0 passes, 4 is inconclusive (as bitnet-cli has it), everything else fails."""
    ended = f"it ended with status {status}" if status >= 0 else f"signal {-status} ended it"
    told = tail(output)
    verdict = {0: PASS, 4: INCONCLUSIVE}.get(status, FAIL)
    return Verdict(verdict, f"{ended}{f': {told}' if told else ''}", {"status": status})


def no_result(deadline: float, last: str = "") -> Verdict:
    """A gate that did not return has not passed, and it has not failed either."""
    return Verdict(INCONCLUSIVE, f"no result within {deadline:g} s{f'; seen last: {last}' if last else ''}")


def tail(text: str) -> str:
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    return "\n".join(lines[-REASON_LINES:])[-REASON_CHARACTERS:]
