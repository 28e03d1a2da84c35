# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The decision: what must hold for all verdicts, then the cases that people ask for by name."""

from __future__ import annotations

import base64
import contextlib
import copy
import dataclasses
import datetime
import json
from typing import Any

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._consensus import signing
from ansible_collections.bitnet.devops.plugins.module_utils._consensus.decision import decide, policy_of
from ansible_collections.bitnet.devops.plugins.module_utils._consensus.signing import BadInput
from cryptography.hazmat.primitives import serialization
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import consensus_world as world
from tests.unit.consensus_world import AFTER, BEGAN, DEADLINE, SKEW, SOON

NAMES = ("another", "development", "production", "staging")
UNTIMED = settings(deadline=None)  # the machine may be busy
STANDS = ("promote", "refuse", "silent", "signed both", "signed two promotes", "against its gates")


def of_stand(name: str, stand: str) -> list[dict[str, Any]]:
    return {
        "promote": lambda: [world.verdict(name)],
        "refuse": lambda: [world.verdict(name, "refuse")],
        "silent": lambda: [],
        "signed both": lambda: [world.verdict(name), world.verdict(name, "refuse")],
        "signed two promotes": lambda: [world.verdict(name), world.verdict(name, made_at=BEGAN)],
        "against its gates": lambda: [world.verdict(name, gates=(world.GOOD_GATE, world.BAD_GATE))],
    }[stand]()


@dataclasses.dataclass(frozen=True)
class Case:
    policy: Any
    stands: dict[str, str]
    verdicts: list[dict[str, Any]]
    now: datetime.datetime

    def decided(self, *more: Any) -> Any:
        return decide(self.policy, [*self.verdicts, *more], [], self.now)

    def of(self, *stands: str) -> list[str]:
        return [name for name, stand in self.stands.items() if stand in stands]


@st.composite
def cases(draw) -> Case:
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    vetoes = {name: draw(st.booleans()) for name in names}
    # More promotes than all else: the interesting part is near the quorum.
    stands = {name: draw(st.sampled_from(("promote", "promote", "promote", "silent", *STANDS))) for name in names}
    policy = world.policy(vetoes, draw(st.integers(1, len(names))))
    verdicts = [envelope for name, stand in stands.items() for envelope in of_stand(name, stand)]
    return Case(policy, stands, verdicts, draw(st.sampled_from((SOON, DEADLINE, AFTER))))


# ---------------------------------------------------------------------------- for all verdicts


@UNTIMED
@given(cases(), st.data())
def test_the_order_of_verdicts_does_not_matter(case, data):
    noise = [world.noise(kind, "staging")[0] for kind in ("late", "another run", "signed by a stranger")]
    came = [*case.verdicts, *case.verdicts[:2], *noise]
    shuffled = data.draw(st.permutations(came))
    assert (
        decide(case.policy, shuffled, [], case.now).result() == decide(case.policy, list(came), [], case.now).result()
    )


@UNTIMED
@given(
    cases(),
    st.lists(st.tuples(st.sampled_from(list(world.NOISE)), st.sampled_from(NAMES[1:])), min_size=1, unique=True),
)
def test_what_does_not_count_changes_nothing_and_is_named(case, kinds):
    alone = case.decided()
    came = [world.noise(kind, name) for kind, name in kinds if name in case.stands]
    noisy = case.decided(*(envelope for envelope, _why in came))
    assert (noisy.outcome, noisy.reasons, noisy.votes) == (alone.outcome, alone.reasons, alone.votes)
    named = sorted(ignored.reason for ignored in noisy.ignored)
    assert named == sorted([*(ignored.reason for ignored in alone.ignored), *(why for _envelope, why in came)])


@pytest.mark.parametrize("kind", world.NOISE)
@pytest.mark.parametrize("now", [SOON, AFTER])
def test_each_kind_of_what_does_not_count(kind, now):
    """Where a verdict of staging would decide."""
    policy = world.policy({"another": False, "production": False, "staging": True}, 2)
    came = [world.verdict("another"), world.verdict("production")]
    alone = decide(policy, came, [], now)
    assert alone.outcome == ("undecided" if now == SOON else "rollback")
    envelope, reason = world.noise(kind, "staging")
    noisy = decide(policy, [envelope, *came], [], now)
    assert (noisy.outcome, noisy.reasons, noisy.votes) == (alone.outcome, alone.reasons, alone.votes)
    [ignored] = noisy.ignored
    assert (ignored.kind, ignored.reason) == ("verdict", reason)
    assert ignored.explanation


@UNTIMED
@given(cases(), st.data())
def test_a_verdict_that_comes_again_changes_nothing(case, data):
    alone = case.decided()
    again = data.draw(st.lists(st.sampled_from(case.verdicts), max_size=4)) if case.verdicts else []
    twice = case.decided(*copy.deepcopy(again))
    assert (twice.outcome, twice.votes) == (alone.outcome, alone.votes)
    assert len(twice.ignored) == len(alone.ignored) + len(again)


@UNTIMED
@given(cases(), st.data())
def test_a_veto_always_wins(case, data):
    holders = [name for name, veto in case.policy.vetoes.items() if veto]
    refused = {"refuse", "signed both", "signed two promotes", "against its gates"}
    decided = case.decided()
    if any(case.stands[name] in refused for name in holders):
        assert decided.outcome == "rollback"
        assert decided.reasons[0].startswith("veto of ")
    elif holders:
        # Whatever the others say: let one holder refuse in place of what it says.
        holder = data.draw(st.sampled_from(holders))
        others = [envelope for name in case.stands if name != holder for envelope in of_stand(name, case.stands[name])]
        assert decide(case.policy, [*others, world.verdict(holder, "refuse")], [], case.now).outcome == "rollback"


@UNTIMED
@given(cases())
def test_fewer_promotes_than_the_quorum_never_promote(case):
    promotes = len(case.of("promote"))
    decided = case.decided()
    if promotes < case.policy.quorum:
        assert decided.outcome != "promote"
    if decided.outcome == "promote":
        assert promotes >= case.policy.quorum
        assert all(case.stands[name] == "promote" for name, veto in case.policy.vetoes.items() if veto)


@UNTIMED
@given(cases())
def test_a_release_is_given_up_only_for_a_reason(case):
    decided = case.decided()
    holders = [name for name, veto in case.policy.vetoes.items() if veto]
    vetoed = any(case.stands[name] not in ("promote", "silent") for name in holders)
    out_of_reach = len(case.of("promote", "silent")) < case.policy.quorum
    expired = case.now > DEADLINE
    if decided.outcome == "rollback":
        assert vetoed or out_of_reach or (expired and case.of("silent"))
    elif not expired and not case.of("silent"):
        assert decided.outcome == "promote"


@UNTIMED
@given(cases())
def test_nobody_is_waited_for_after_the_deadline(case):
    decided = case.decided()
    if case.now > DEADLINE:
        assert decided.outcome in ("promote", "rollback")
    if decided.outcome == "undecided":
        assert decided.waiting_for == ("verdicts",) and case.of("silent")


@UNTIMED
@given(cases(), st.booleans(), st.booleans())
def test_nothing_passes_without_approvals_or_in_a_freeze(case, approved, frozen):
    window = {"name": "november", "from": "2026-11-01 00:00", "until": "2026-12-01 00:00", "timezone": "Europe/Berlin"}
    policy = world.policy(
        dict(case.policy.vetoes),
        case.policy.quorum,
        approvals_required=1,
        approvers=[{"name": "alice", "keys": [world.public("alice")]}],
        freeze_windows=[window] if frozen else [],
    )
    decided = decide(policy, case.verdicts, [world.approval("alice")] if approved else [], case.now)
    by_verdicts = case.decided().outcome
    if by_verdicts == "promote":
        assert decided.outcome == ("promote" if approved and not frozen else "undecided")
        assert decided.waiting_for == (() if approved else ("approvals",)) + (
            ("the end of a freeze",) if frozen else ()
        )
    else:
        assert decided.outcome == by_verdicts, "neither keeps a rollback away"


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda part: st.lists(part) | st.dictionaries(st.text(), part),
    max_leaves=5,
)


@UNTIMED
@given(cases(), ANYTHING, ANYTHING)
def test_no_rubbish_breaks_it(case, rubbish, more):
    alone = case.decided()
    envelope = {"payloadType": world.verdict("staging")["payloadType"], "payload": rubbish, "signatures": more}
    decided = case.decided(rubbish, envelope)
    assert (decided.outcome, decided.votes) == (alone.outcome, alone.votes)
    assert {"unreadable"} == {each.reason for each in decided.ignored} - {each.reason for each in alone.ignored}


def test_envelopes_count_as_text_too():
    """So that what lies in an environment is parsed here only, where it can do no harm."""
    people = [{"name": "alice", "keys": [world.public("alice")]}]
    policy = world.policy({"staging": False}, 1, approvers=people, approvals_required=1)
    said, approved = json.dumps(world.verdict("staging"), indent=1), json.dumps(world.approval("alice"))
    decided = decide(policy, [said, world.verdict("staging")], [approved], SOON)
    assert decided.outcome == "promote"
    assert [each.reason for each in decided.ignored] == ["duplicate"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no envelope"),
        ("rubbish", "no envelope"),
        ("null", "no envelope"),
        ('"text"', "no envelope"),
        ("[" * 100000, "no envelope"),
        ('{"a":' * 100000, "no envelope"),
        ("9" * 10000, "no envelope"),
        ('"\\ud800"', "no envelope"),
        (" " * 1000000, "larger than 262144 bytes"),
    ],
)
def test_a_text_that_is_no_envelope_does_no_harm(text, says):
    decided = decide(world.policy({"staging": False}, 1), [text, world.verdict("staging")], [], SOON)
    assert decided.outcome == "promote"
    [ignored] = decided.ignored
    assert ignored.reason == "unreadable"
    assert says in ignored.explanation


@UNTIMED
@given(cases(), st.sampled_from(sorted(world.said("staging").document())), ANYTHING)
def test_no_rubbish_that_is_signed_breaks_it(case, field, rubbish):
    """Whoever holds a key of an environment can sign anything."""
    document = {**world.said("development").document(), field: rubbish}
    try:
        envelope = signing.seal("verdict", document, world.key("development"))
    except ValueError:  # no JSON: infinite, or not a number
        return
    decided = case.decided(envelope)
    assert decided.outcome in ("promote", "rollback", "undecided")
    assert decided.result()["report"]


@pytest.mark.parametrize("signature", ["", "AAAA", "A" * 86 + "==", "A" * 200])
def test_a_signature_that_is_none_is_forged(signature):
    envelope = {**world.verdict("staging"), "signatures": [{"sig": signature}]}
    [ignored] = decide(world.policy({"staging": False}, 1), [envelope], [], SOON).ignored
    assert (ignored.reason, ignored.claims, ignored.signed_by) == ("forged", "staging", "")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"signatures": []}, "no envelope of one signature"),
        ({"signatures": [{"sig": ""}, {"sig": ""}]}, "no envelope of one signature"),
        ({"payload": "A" * 400000}, "larger than 262144 bytes"),
        ({"payload": "bm8="}, "no JSON"),
        ({"payload": "MQ=="}, "no JSON object"),
        ({"payloadType": "text/plain"}, "payloadType is not application/vnd.bitnet.devops.verdict+json"),
    ],
)
def test_what_is_no_envelope_says_what_it_lacks(change, says):
    [ignored] = decide(world.policy({"staging": False}, 1), [{**world.verdict("staging"), **change}], [], SOON).ignored
    assert ignored.reason == "unreadable"
    assert says in ignored.explanation


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"schema": 2}, "its schema is 2, this collection knows 1"),
        ({"schema": True}, "its schema is True"),
        ({"decision": "maybe"}, "neither promote nor refuse"),
        ({"gates": [1]}, "entry of gates is no dict"),
        ({"gates": [{**world.GOOD_GATE, "required": 1}]}, "its required is no bool"),
        ({"made_at": "2026-11-26T10:30:00"}, "its made_at is no time"),
        ({"failure": None}, "its failure is no str"),
        ({"figures": {"half": "\ud800"}}, "no JSON"),
        ({"figures": {"much": 1e999}}, "no JSON"),
        ({"binding": json.loads('{"a":' * 30 + "1" + "}" * 30)}, "at most 20 levels"),
    ],
)
def test_a_statement_that_is_signed_and_none_says_what_it_lacks(change, says):
    document = {**world.said("staging").document(), **change}
    payload = json.dumps(document).encode()
    signature = world.key("staging").sign(signing._message("verdict", payload))
    envelope = {
        "payloadType": world.verdict("staging")["payloadType"],
        "payload": base64.b64encode(payload).decode(),
        "signatures": [{"sig": base64.b64encode(signature).decode()}],
    }
    [ignored] = decide(world.policy({"staging": False}, 1), [envelope], [], SOON).ignored
    assert ignored.reason == "unreadable"
    assert says in ignored.explanation


# ---------------------------------------------------------------------------- by name

THREE = {"development": False, "staging": False, "production": True}


def test_two_of_three_with_the_veto_holder_promote_at_once():
    policy = world.policy(THREE, 2)
    decided = decide(policy, [world.verdict("production"), world.verdict("staging")], [], SOON)
    assert (decided.outcome, decided.waiting_for) == ("promote", ())
    assert decided.reasons == ("2 of 3 say promote (production, staging), 2 are needed",)


def test_the_veto_holder_is_awaited_until_the_deadline():
    policy = world.policy(THREE, 2)
    came = [world.verdict("development"), world.verdict("staging")]
    waiting = decide(policy, came, [], DEADLINE)
    assert (waiting.outcome, waiting.waiting_for) == ("undecided", ("verdicts",))
    assert "production has until 2026-11-26T11:00:00.000000Z" in waiting.reasons[0]
    over = decide(policy, came, [], AFTER)
    assert over.outcome == "rollback"
    assert "production may refuse alone and must be heard" in over.reasons[0]


def test_a_missing_verdict_is_named_when_the_quorum_fails():
    policy = world.policy(dict.fromkeys(THREE, False), 2)
    over = decide(policy, [world.verdict("staging")], [], AFTER)
    assert over.outcome == "rollback"
    assert over.reasons[0].endswith("is over without a verdict of development, production")


def test_a_refusal_without_veto_leaves_the_rest_a_quorum():
    policy = world.policy(THREE, 2)
    came = [world.verdict("production"), world.verdict("staging"), world.verdict("development", "refuse")]
    decided = decide(policy, came, [], SOON)
    assert decided.outcome == "promote"
    assert decided.reasons[1] == "development: refuse: gate compare: fail (3 of 20 requests failed)"


def test_who_lies_is_named():
    policy = world.policy(THREE, 2)
    lie = world.verdict("production", signer="staging")
    stranger = world.verdict("production", signer="mallory")
    decided = decide(policy, [world.verdict("development"), world.verdict("staging"), lie, stranger], [], SOON)
    assert decided.outcome == "undecided", "production has not spoken"
    by_signer = {each.signed_by: each for each in decided.ignored}
    assert by_signer["staging"].claims == by_signer[""].claims == "production"
    assert by_signer["staging"].explanation == "it speaks for production and is signed with a key of staging"
    assert {each.reason for each in decided.ignored} == {"forged"}


def test_who_contradicts_itself_is_named_and_not_believed():
    policy = world.policy(dict.fromkeys(THREE, False), 3)
    came = [world.verdict(name) for name in THREE]
    assert decide(policy, came, [], SOON).outcome == "promote"
    decided = decide(policy, [*came, world.verdict("staging", "refuse")], [], SOON)
    assert decided.outcome == "rollback"
    assert "staging has signed 2 different verdicts of this run (promote and refuse)" in decided.reasons[1]
    assert [each.reason for each in decided.ignored] == ["contradictory", "contradictory"]


def test_a_promise_against_ones_own_gates_is_not_believed():
    policy = world.policy({"staging": False}, 1)
    for gates in ((), (world.BAD_GATE,), ({**world.GOOD_GATE, "required": False},)):
        decided = decide(policy, [world.verdict("staging", gates=gates)], [], SOON)
        assert decided.outcome == "rollback"
        assert decided.votes[0].state == "contradictory"
    decided = decide(policy, [world.verdict("staging", failure="no memory")], [], SOON)
    assert decided.votes[0].why == ("it says promote, and by its own gates it must not", "it failed: no memory")


def test_times_are_taken_to_the_second():
    policy = world.policy({"staging": False}, 1)
    second = datetime.timedelta(seconds=1)
    for made, now, reason in (
        (DEADLINE, AFTER, None),
        (DEADLINE + second, AFTER, "late"),
        (BEGAN - SKEW, SOON, None),
        (BEGAN - SKEW - second, SOON, "replayed"),
        (SOON + SKEW, SOON, None),
        (SOON + SKEW + second, SOON, "early"),
    ):
        ignored = decide(policy, [world.verdict("staging", made_at=made)], [], now).ignored
        assert [each.reason for each in ignored] == ([reason] if reason else []), (made, now)


def test_an_environment_may_have_an_old_and_a_new_key():
    options = world.params({"staging": False}, 1)
    options["environments"][0]["keys"].append(world.public("staging, new") + " root@host")
    for signer in ("staging", "staging, new"):
        assert decide(policy_of(options), [world.verdict("staging", signer=signer)], [], SOON).outcome == "promote"
    both = [world.verdict("staging", signer=signer) for signer in ("staging", "staging, new")]
    assert [each.reason for each in decide(policy_of(options), both, [], SOON).ignored] == ["duplicate"]


# ---------------------------------------------------------------------------- approvals


def approving(**more):
    people = [{"name": name, "keys": [world.public(name)]} for name in ("alice", "bob")]
    return world.policy({"staging": False}, 1, **{"approvals_required": 2, "approvers": people, **more})


@pytest.mark.parametrize(
    ("second", "reason", "says"),
    [
        (world.approval("bob", release=world.OTHER_RELEASE), "replayed", "it is for release aaaaaaaaaaaa"),
        (world.approval("bob", environment="staging"), "replayed", "it is for environment staging, this is production"),
        (world.approval("bob", signer="alice"), "forged", "speaks for bob and is signed with a key of alice"),
        (world.approval("bob", signer="mallory"), "forged", "no key that is listed"),
        (world.altered(world.approval("alice"), approver="bob"), "forged", "no key that is listed"),
        (world.approval("carol"), "forged", "no key that is listed"),
        (world.approval("bob", expires_at=SOON - SKEW), "late", "approve again"),
        (world.approval("bob", approved_at=AFTER), "early", "compare the clocks"),
        (world.approval("alice", reason="again"), "duplicate", "alice has approved already"),
        (world.verdict("staging"), "unreadable", "its payloadType is not"),
    ],
)
def test_an_approval_that_does_not_count_is_named_and_awaited(second, reason, says):
    decided = decide(approving(), [world.verdict("staging")], [world.approval("alice"), second], SOON)
    assert (decided.outcome, decided.waiting_for) == ("undecided", ("approvals",))
    [ignored] = decided.ignored
    assert (ignored.kind, ignored.reason) == ("approval", reason)
    assert says in ignored.explanation
    assert decided.reasons[-1] == "1 of 2 approvals of 1c7ff3ec1f0c for production are there (alice)"
    good = [world.approval("bob"), second, world.approval("alice")]
    assert decide(approving(), [world.verdict("staging")], good, SOON).outcome == "promote"


def test_what_waits_for_approval_outlives_the_deadline():
    decided = decide(approving(), [world.verdict("staging")], [], AFTER)
    assert (decided.outcome, decided.waiting_for) == ("undecided", ("approvals",))


# ---------------------------------------------------------------------------- policies that are none


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"quorum": 0}, "quorum: 0 is not between 1 and 3"),
        ({"quorum": 4}, "quorum: 4 is not between 1 and 3, the number of environments"),
        ({"environments": []}, "environments: it is empty"),
        (
            {"environments": [{"name": "../up", "keys": [], "clusters": [], "veto": False}]},
            "environments: '../up' is no name",
        ),
        (
            {"environments": [{"name": "staging", "keys": [], "clusters": [], "veto": True}], "quorum": 1},
            "staging has no keys",
        ),
        ({"release": "latest"}, "release: 'latest' is no release id of 12 hexadecimal digits"),
        ({"release": "1c7ff3ec1f0c\n"}, "is no release id"),
        ({"model": "abc"}, "model: 'abc' is no SHA-256"),
        ({"run": "7"}, "run: '7' is no id of a run; give 8 to 64 letters"),
        ({"began_at": "2026-11-26T10:00:00"}, "began_at: '2026-11-26T10:00:00' is no time (it names no time zone)"),
        ({"began_at": "yesterday"}, "began_at: 'yesterday' is no time"),
        ({"began_at": "9999-12-31T23:00:00Z", "deadline": 86400.0}, "is out of range"),
        ({"began_at": "0001-01-01T00:00:00+12:00"}, "out of range"),
        ({"began_at": "0001-01-01T00:00:00Z"}, "out of range"),
        ({"deadline": 0.0}, "deadline: 0 is not between 1 and"),
        ({"deadline": float("nan")}, "deadline: nan is not between"),
        ({"clock_skew": -1.0}, "clock_skew: -1 is not between"),
        ({"approvals_required": 1}, "approvals_required: 1 is not between 0 and 0, the number of approvers"),
        ({"promote_to": "Production"}, "promote_to: 'Production' is no name"),
        ({"approvers": [{"name": "a b", "keys": []}]}, "approvers: 'a b' is no name"),
    ],
)
def test_bad_options_are_refused_by_name(change, says):
    with pytest.raises(BadInput) as refused:
        policy_of({**world.params(THREE, 2), **change})
    assert says in str(refused.value)


def test_names_and_keys_are_one_environments_only():
    options = world.params(THREE, 2)
    options["environments"].append(options["environments"][0])
    with pytest.raises(BadInput, match="development is listed twice"):
        policy_of(options)
    options["environments"][-1] = {
        "name": "dev",
        "keys": [world.public("development") + " again"],
        "clusters": [],
        "veto": False,
    }
    with pytest.raises(BadInput, match="development and dev have the same key 'ssh-ed25519 "):
        policy_of(options)


def test_who_judges_with_a_key_does_not_approve_with_it():
    """Else whoever is root in an environment approves what that environment judged."""
    people = [{"name": "alice", "keys": [world.public("alice"), world.public("staging") + " alice@staging"]}]
    with pytest.raises(BadInput, match="approvers: alice and environment staging have a key in common"):
        world.policy(THREE, 2, approvers=people)


def test_an_entry_of_keys_is_one_key():
    """OpenSSH's format would take the first line and be silent about the rest."""
    options = world.params({"staging": False}, 1)
    options["environments"][0]["keys"] = [world.public("staging") + "\n" + world.public("staging, new") + "\n"]
    with pytest.raises(BadInput, match=r"environments: a key of staging: .* is no Ed25519 public key"):
        policy_of(options)
    options["environments"][0]["keys"] = [world.public("staging") + "\n"]
    assert policy_of(options)


def test_a_private_key_in_the_place_of_a_public_one_is_not_shown():
    secret = world.key("staging").private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    options = world.params({"staging": False}, 1)
    options["environments"][0]["keys"] = [secret.decode()]
    with pytest.raises(BadInput) as refused:
        policy_of(options)
    assert "'-----BEGIN PRIVATE K' is no Ed25519 public key" in str(refused.value)
    assert secret.decode().splitlines()[1][:8] not in str(refused.value)


def test_a_run_that_begins_later_is_not_blamed_on_the_verdicts():
    for began, refused in ((SOON + SKEW, False), (SOON + SKEW + datetime.timedelta(seconds=1), True)):
        policy = world.policy({"staging": False}, 1, began_at=began.isoformat())
        with pytest.raises(BadInput, match=r"began_at: .* is still to come") if refused else contextlib.nullcontext():
            decide(policy, [world.verdict("staging")], [], SOON)


def test_an_approval_needs_to_say_for_where():
    people = [{"name": "alice", "keys": [world.public("alice")]}]
    with pytest.raises(BadInput, match="promote_to: it is empty"):
        world.policy(THREE, 2, approvers=people, approvals_required=1, promote_to="")


def test_without_environments_approvals_and_freezes_decide_alone():
    needs = {"approvers": [{"name": "alice", "keys": [world.public("alice")]}], "approvals_required": 1}
    policy = world.policy({}, 0, **needs)
    assert decide(policy, [], [], world.SOON).waiting_for == ("approvals",)
    assert decide(policy, [], [world.approval("alice")], world.SOON).outcome == "promote"
    assert decide(policy, [], [world.approval("alice", signer="mallory")], world.SOON).outcome == "undecided"


# ---------------------------------------------------------------------------- several clusters of one environment


def of_clusters(*clusters, veto=False, quorum=2):
    options = world.params({"production": veto, "staging": False}, quorum)
    options["environments"][0]["clusters"] = list(clusters)
    return policy_of(options)


def east_west(east, west, **more):
    return [
        world.verdict("staging"),
        world.verdict("production", east, cluster="east"),
        *([world.verdict("production", west, cluster="west", **more)] if west else []),
    ]


@pytest.mark.parametrize(
    ("east", "west", "now", "outcome", "state"),
    [
        ("promote", "promote", world.SOON, "promote", "promote"),
        ("promote", "refuse", world.SOON, "rollback", "refuse"),
        ("promote", "", world.SOON, "undecided", "silent"),
        ("promote", "", world.AFTER, "rollback", "silent"),
        ("refuse", "", world.SOON, "rollback", "refuse"),
    ],
)
def test_an_environment_promotes_if_each_of_its_clusters_does(east, west, now, outcome, state):
    verdicts = east_west(east, west)
    for order in (verdicts, verdicts[::-1]):
        decided = decide(of_clusters("east", "west"), order, [], now)
        assert (decided.outcome, decided.votes[0].state, decided.ignored) == (outcome, state, ())


def test_a_silent_cluster_is_named_and_one_that_is_not_listed_does_not_count():
    policy = of_clusters("east", "west")
    decided = decide(policy, east_west("promote", ""), [], world.SOON)
    assert "production (west) has until" in decided.reasons[0]
    assert "; production has until" in decide(policy, [world.verdict("staging")], [], world.SOON).reasons[0]
    stray = [*east_west("promote", ""), world.verdict("production", cluster="north"), world.verdict("production")]
    strayed = decide(policy, stray, [], world.SOON)
    assert strayed.votes == decided.votes
    assert [each.reason for each in strayed.ignored] == ["replayed", "replayed"]
    assert any("it is of cluster north, and those are east, west" in each.explanation for each in strayed.ignored)


def test_one_cluster_that_contradicts_itself_takes_its_environment_along():
    verdicts = [*east_west("promote", "promote"), world.verdict("production", "refuse", cluster="east")]
    decided = decide(of_clusters("east", "west", veto=True, quorum=1), verdicts, [], world.SOON)
    assert (decided.outcome, decided.votes[0].state) == ("rollback", "contradictory")
    assert "east: production has signed 2 different verdicts" in decided.votes[0].why[0]


def test_without_a_list_those_that_spoke_are_all_and_are_compared_by_cluster():
    decided = decide(of_clusters(), east_west("promote", "promote", binding={"replicas": 3}), [], world.SOON)
    assert decided.outcome == "promote"
    result = decided.result()
    assert set(result["comparison"]["bindings"]) == {"production/east", "production/west", "staging"}
    assert [each["cluster"] for each in result["environments"][0]["verdicts"]] == ["east", "west"]
    refused = decide(of_clusters(), east_west("promote", "refuse"), [], world.SOON)
    assert (refused.outcome, refused.votes[0].state) == ("rollback", "refuse")
    assert refused.votes[0].why[0].startswith("west: gate compare: fail")
