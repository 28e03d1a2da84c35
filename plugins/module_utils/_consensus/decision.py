# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision over a release: k of n verdicts, vetoes, a deadline, approvals and freeze windows.

Whatever does not count (forged, replayed, late, ...) is named and changes nothing: the decision is that without it.
Silence and contradiction are never a yes. The time is given, and the order in which things came does not matter.
"""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import json
import typing as t

from . import statements
from .comparison import comparison, lines
from .freeze import Window, window_of
from .signing import BadInput, Json, Keyring, Opened, Unreadable, open_envelope, raw
from .statements import PROMOTE, REFUSE, Approval, Verdict, printable, written

ROLLBACK, UNDECIDED = "rollback", "undecided"
CONTRADICTORY, SILENT = "contradictory", "silent"

MOST_DEADLINE = 30 * 86400
MOST_SKEW = 3600


@dataclasses.dataclass(frozen=True)
class Policy:
    """What is decided, and who has a say in it."""

    release: str
    model: str
    run: str
    began: datetime.datetime
    oldest: datetime.datetime  # when a clock that is behind may have shown that it began
    deadline: datetime.datetime
    skew: datetime.timedelta
    vetoes: t.Mapping[str, bool]  # each environment, and whether its refusal alone decides
    clusters: t.Mapping[str, tuple[str, ...]]  # of each environment, all that must be heard; none: whoever speaks
    keys: Keyring
    quorum: int
    promote_to: str
    approvals_required: int
    approver_keys: Keyring
    windows: tuple[Window, ...]


def _unique(option: str, names: t.Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{option}: {twice[0]} is listed twice; list it once, with all of its keys")


def _between(option: str, value: float, low: float, high: float) -> float:
    if not low <= value <= high:
        raise BadInput(f"{option}: {value:g} is not between {low:g} and {high:g}")
    return value


def _separate(keys: Keyring, approver_keys: Keyring) -> None:
    environments = {raw(key): name for name, key in keys.keys}
    for person, key in approver_keys.keys:
        if raw(key) in environments:
            raise BadInput(
                f"approvers: {person} and environment {environments[raw(key)]} have a key in "
                "common, so whoever judges there could approve it, too; make one key for each"
            )


def policy_of(params: t.Mapping[str, t.Any]) -> Policy:
    """Raises BadInput."""
    environments, approvers = params["environments"], params["approvers"]
    names = [statements.environment_name("environments", each["name"]) for each in environments]
    people = [statements.person_name("approvers", each["name"]) for each in approvers]
    _unique("environments", names)
    _unique("approvers", people)
    if not names and params["quorum"]:
        raise BadInput(
            "environments: it is empty; list the environments that give a verdict, or ask with quorum 0 for approvals "
            "and freeze windows alone"
        )
    if names and not 1 <= params["quorum"] <= len(names):
        raise BadInput(f"quorum: {params['quorum']} is not between 1 and {len(names)}, the number of environments")
    if not 0 <= params["approvals_required"] <= len(people):
        raise BadInput(
            f"approvals_required: {params['approvals_required']} is not between 0 and {len(people)}, the number of "
            "approvers; list who may approve, with their keys"
        )
    if params["approvals_required"] and not params["promote_to"]:
        raise BadInput(
            "promote_to: it is empty; approvals are for one environment, so name the one that is promoted to"
        )
    began = statements.time_of("began_at", params["began_at"])
    skew = datetime.timedelta(seconds=_between("clock_skew", params["clock_skew"], 0, MOST_SKEW))
    try:
        oldest = began - skew
        deadline = began + datetime.timedelta(seconds=_between("deadline", params["deadline"], 1, MOST_DEADLINE))
    except OverflowError as error:
        raise BadInput(f"began_at: {params['began_at']!r} is out of range") from error
    keys = Keyring("environments", [(each["name"], each["keys"]) for each in environments])
    approver_keys = Keyring("approvers", [(each["name"], each["keys"]) for each in approvers])
    _separate(keys, approver_keys)
    return Policy(
        release=statements.release_name("release", params["release"]),
        model=statements.model_name("model", params["model"]),
        run=statements.run_name("run", params["run"]),
        began=began,
        oldest=oldest,
        deadline=deadline,
        skew=skew,
        vetoes={name: bool(each["veto"]) for name, each in sorted(zip(names, environments), key=lambda pair: pair[0])},
        clusters={
            name: tuple(
                sorted({statements.cluster_name("environments: clusters", cluster) for cluster in each["clusters"]})
            )
            for name, each in zip(names, environments)
        },
        keys=keys,
        quorum=params["quorum"],
        promote_to=statements.environment_name("promote_to", params["promote_to"]) if params["promote_to"] else "",
        approvals_required=params["approvals_required"],
        approver_keys=approver_keys,
        windows=tuple(window_of(number, window) for number, window in enumerate(params["freeze_windows"], 1)),
    )


# ---------------------------------------------------------------------------- what counts


class _Ignored(Exception):
    """It does not count: in one word, and for people."""

    def __init__(self, reason: str, explanation: str) -> None:
        super().__init__(explanation)
        self.reason = reason


S = t.TypeVar("S", Verdict, Approval)


@dataclasses.dataclass(frozen=True)
class Counted(t.Generic[S]):
    id: str
    payload: bytes
    statement: S


@dataclasses.dataclass(frozen=True)
class Ignored:
    """What does not count. C(claims) is who it says it is of, C(signed_by) who has signed it for certain."""

    kind: str
    id: str
    claims: str
    signed_by: str
    reason: str
    explanation: str


def _id(envelope: t.Any) -> str:
    text = json.dumps(envelope, sort_keys=True, default=str)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _sift(
    kind: str,
    envelopes: t.Iterable[t.Any],
    keyring: Keyring,
    speaker: str,
    count: t.Callable[[Json], S],
) -> tuple[list[Counted[S]], list[Ignored]]:
    """What counts by itself, and what is ignored with the reason. Both in an order of their own."""
    counted, ignored = [], []
    for name, envelope in sorted(((_id(envelope), envelope) for envelope in envelopes), key=lambda pair: pair[0]):
        opened, claims = None, ""
        try:
            opened = open_envelope(kind, envelope, keyring)
            claims = printable(str(opened.statement.get(speaker, "")))
            _proven(opened, claims)
            counted.append(Counted(name, opened.payload, count(opened.statement)))
        except (_Ignored, Unreadable) as error:
            reason = error.reason if isinstance(error, _Ignored) else "unreadable"
            ignored.append(Ignored(kind, name, claims, opened.signer if opened else "", reason, str(error)))
    return counted, ignored


def _proven(opened: Opened, claims: str) -> None:
    if not opened.signer:
        raise _Ignored(
            "forged",
            f"no key that is listed has signed it as it is: it was altered, or it is not of {claims or 'anybody'}, or "
            "their new key is not listed",
        )
    if claims != opened.signer:
        raise _Ignored("forged", f"it speaks for {claims or 'nobody'} and is signed with a key of {opened.signer}")


def _count_verdict(policy: Policy, statement: Json, now: datetime.datetime) -> Verdict:
    verdict = statements.read_verdict(statement)
    for what, told, wanted in (
        ("release", verdict.release, policy.release),
        ("model", verdict.model, policy.model),
        ("run", verdict.run, policy.run),
    ):
        if told != wanted:
            raise _Ignored("replayed", f"it is of {what} {printable(told)}, this is {wanted}")
    clusters = policy.clusters[verdict.environment]
    if clusters and verdict.cluster not in clusters:
        raise _Ignored(
            "replayed",
            f"it is of cluster {printable(verdict.cluster) or '(none)'}, and those are {', '.join(clusters)}",
        )
    made = written(verdict.made_at)
    if verdict.made_at < policy.oldest:
        raise _Ignored("replayed", f"it was made at {made}, before the run began at {written(policy.began)}")
    if verdict.made_at > policy.deadline:
        raise _Ignored("late", f"it was made at {made}, after the deadline {written(policy.deadline)}")
    if verdict.made_at > now + policy.skew:
        raise _Ignored(
            "early", f"it was made at {made}, which is still to come: it is {written(now)}; compare the clocks"
        )
    return verdict


def _count_approval(policy: Policy, statement: Json, now: datetime.datetime) -> Approval:
    approval = statements.read_approval(statement)
    for what, told, wanted in (
        ("release", approval.release, policy.release),
        ("environment", approval.environment, policy.promote_to),
    ):
        if told != wanted:
            raise _Ignored("replayed", f"it is for {what} {printable(told)}, this is {wanted or 'no promotion'}")
    if approval.approved_at > now + policy.skew:
        raise _Ignored(
            "early", f"it was given at {written(approval.approved_at)}, which is still to come; compare the clocks"
        )
    if approval.expires_at < now:
        raise _Ignored("late", f"it ended at {written(approval.expires_at)}; approve again")
    return approval


# ---------------------------------------------------------------------------- the votes


@dataclasses.dataclass(frozen=True)
class Vote:
    """Where one environment stands, and the verdicts that say so: one, or one of each of its clusters."""

    environment: str
    veto: bool
    state: str
    why: tuple[str, ...] = ()
    heard: tuple[Counted[Verdict], ...] = ()
    silent: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.environment} ({', '.join(self.silent)})" if self.silent and self.heard else self.environment

    def places(self) -> dict[str, Verdict]:
        """Each verdict by what to call where it was made."""
        return {
            f"{self.environment}/{each.statement.cluster}" if len(self.heard) > 1 else self.environment: each.statement
            for each in self.heard
        }

    def document(self) -> Json:
        return {
            "name": self.environment,
            "veto": self.veto,
            "state": self.state,
            "why": list(self.why),
            "verdicts": [
                {"id": each.id, "cluster": each.statement.cluster, "made_at": written(each.statement.made_at)}
                for each in self.heard
            ],
        }


# Of what the clusters of an environment say the first of these holds for all: it promotes if each of them does.
_WORST_FIRST = (CONTRADICTORY, REFUSE, SILENT, PROMOTE)


def _vote(
    name: str, veto: bool, clusters: t.Sequence[str], counted: t.Sequence[Counted[Verdict]]
) -> tuple[Vote, list[Ignored]]:
    own = [each for each in counted if each.statement.environment == name]
    spoke = sorted({each.statement.cluster for each in own})
    parts: dict[str, Vote] = {}
    ignored: list[Ignored] = []
    for cluster in clusters or spoke or [""]:
        theirs = [each for each in own if each.statement.cluster == cluster]
        parts[cluster], more = _part(name, veto, cluster, theirs)
        ignored += more
    if len(parts) == 1:
        return next(iter(parts.values())), ignored
    return Vote(
        name,
        veto,
        min((part.state for part in parts.values()), key=_WORST_FIRST.index),
        tuple(f"{cluster}: {why}" for cluster, part in parts.items() for why in part.why),
        tuple(each for part in parts.values() for each in part.heard),
        tuple(cluster for part in parts.values() for cluster in part.silent),
    ), ignored


def _part(name: str, veto: bool, cluster: str, own: t.Sequence[Counted[Verdict]]) -> tuple[Vote, list[Ignored]]:
    """One cluster of an environment, or the environment where it is one cluster."""
    if not own:
        return Vote(name, veto, SILENT, silent=(cluster,)), []
    different = len({each.payload for each in own})
    if different > 1:
        told = " and ".join(sorted({each.statement.decision for each in own}))
        why = f"{name} has signed {different} different verdicts of this run ({told}); none is believed"
        ignored = [Ignored("verdict", each.id, name, name, CONTRADICTORY, why) for each in own]
        return Vote(name, veto, CONTRADICTORY, (why,)), ignored
    first, *again = own
    ignored = [
        Ignored("verdict", each.id, name, name, "duplicate", f"the same verdict has come as {first.id}")
        for each in again
    ]
    reasons = tuple(printable(reason) for reason in first.statement.reasons())
    if first.statement.decision == PROMOTE and reasons:
        why = f"it says {PROMOTE}, and by its own gates it must not"
        return Vote(name, veto, CONTRADICTORY, (why, *reasons), (first,)), ignored
    return Vote(name, veto, first.statement.decision, reasons, (first,)), ignored


def _approvers(counted: t.Sequence[Counted[Approval]]) -> tuple[dict[str, Approval], list[Ignored]]:
    given: dict[str, Approval] = {}
    ignored = []
    # Of several of one person's the one that holds longest.
    for each in sorted(counted, key=lambda each: (each.statement.expires_at, each.id), reverse=True):
        who = each.statement.approver
        if who in given:
            ignored.append(Ignored("approval", each.id, who, who, "duplicate", f"{who} has approved already"))
        else:
            given[who] = each.statement
    return dict(sorted(given.items())), ignored


# ---------------------------------------------------------------------------- the decision


@dataclasses.dataclass(frozen=True)
class Decision:
    outcome: str
    reasons: tuple[str, ...]
    waiting_for: tuple[str, ...]
    votes: tuple[Vote, ...]
    ignored: tuple[Ignored, ...]
    approvals: t.Mapping[str, Approval]
    frozen: tuple[tuple[str, datetime.datetime], ...]

    def result(self) -> Json:
        verdicts = {place: verdict for vote in self.votes for place, verdict in vote.places().items()}
        promoting = [place for vote in self.votes if vote.state == PROMOTE for place in vote.places()]
        compared = comparison(verdicts, promoting)
        return {
            "outcome": self.outcome,
            "reasons": list(self.reasons),
            "waiting_for": list(self.waiting_for),
            "environments": [vote.document() for vote in self.votes],
            "ignored": [dataclasses.asdict(each) for each in self.ignored],
            "approvals": [
                {"approver": who, "expires_at": written(given.expires_at), "reason": given.reason}
                for who, given in self.approvals.items()
            ],
            "frozen": [{"name": name, "until": written(until)} for name, until in self.frozen],
            "comparison": compared,
            "report": [
                f"{self.outcome}: {self.reasons[0]}",
                *self.reasons[1:],
                *(f"ignored, {each.reason}: {each.kind} {each.id}: {each.explanation}" for each in self.ignored),
                *lines(compared),
            ],
        }


def _names(votes: t.Iterable[Vote]) -> str:
    return ", ".join(map(str, votes)) or "none"


def _by_votes(policy: Policy, votes: t.Sequence[Vote], now: datetime.datetime) -> tuple[str, list[str]]:
    """What the verdicts alone say."""
    promote = [vote for vote in votes if vote.state == PROMOTE]
    silent = [vote for vote in votes if vote.state == SILENT]
    against = [vote for vote in votes if vote.state in (REFUSE, CONTRADICTORY)]
    said = [f"{vote.environment}: {vote.state}{': ' + '; '.join(vote.why) if vote.why else ''}" for vote in against]
    vetoes = [vote for vote in against if vote.veto]
    if vetoes:
        return ROLLBACK, [f"veto of {_names(vetoes)}", *said]
    counts = f"{len(promote)} of {len(votes)} say promote ({_names(promote)}), {policy.quorum} are needed"
    if len(promote) + len(silent) < policy.quorum:
        return ROLLBACK, [
            f"{counts}, and of those that are still to be heard ({_names(silent)}) there are too few",
            *said,
        ]
    unheard = [vote for vote in silent if vote.veto]
    lacking = len(promote) < policy.quorum
    if not lacking and not unheard:
        return PROMOTE, [counts, *said]
    missing = silent if lacking else unheard
    holders = f"; {_names(unheard)} may refuse alone and must be heard" if unheard else ""
    if now > policy.deadline:
        over = f"the deadline {written(policy.deadline)} is over without a verdict of {_names(missing)}"
        return ROLLBACK, [f"{counts}; {over}{holders}", *said]
    return UNDECIDED, [f"{counts}; {_names(missing)} has until {written(policy.deadline)}{holders}", *said]


def decide(
    policy: Policy, verdicts: t.Sequence[t.Any], approvals: t.Sequence[t.Any], now: datetime.datetime
) -> Decision:
    """Raises BadInput if the run has not begun."""
    if policy.began > now + policy.skew:
        raise BadInput(
            f"began_at: {written(policy.began)} is still to come, as it is {written(now)}; give the time at which the "
            "run began, with its time zone, and compare the clocks"
        )
    counted, ignored = _sift(
        "verdict", verdicts, policy.keys, "environment", lambda statement: _count_verdict(policy, statement, now)
    )
    votes = []
    for name, veto in policy.vetoes.items():
        vote, more = _vote(name, veto, policy.clusters[name], counted)
        votes.append(vote)
        ignored += more
    approved, more = _sift(
        "approval",
        approvals,
        policy.approver_keys,
        "approver",
        lambda statement: _count_approval(policy, statement, now),
    )
    given, again = _approvers(approved)
    ignored += more + again
    ends = [(window.name, window.open_until(now)) for window in policy.windows]
    frozen = tuple((name, end) for name, end in ends if end is not None)

    outcome, reasons = _by_votes(policy, votes, now)
    waiting_for = ["verdicts"] if outcome == UNDECIDED else []
    if outcome == PROMOTE:
        if len(given) < policy.approvals_required:
            waiting_for.append("approvals")
            reasons.append(
                f"{len(given)} of {policy.approvals_required} approvals of {policy.release} for {policy.promote_to} "
                f"are there ({', '.join(given) or 'none'})"
            )
        if frozen:
            waiting_for.append("the end of a freeze")
            reasons += [f"frozen by {name} until {written(until)}" for name, until in frozen]
        if waiting_for:
            outcome = UNDECIDED
    return Decision(outcome, tuple(reasons), tuple(waiting_for), tuple(votes), tuple(ignored), given, frozen)
