# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a declaration may say, what the store makes of it, and how a rotation goes."""

from __future__ import annotations

import copy
import datetime
import json
import re

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._secrets import consumers, declaration, store
from ansible_collections.bitnet.devops.plugins.module_utils._secrets.declaration import BadInput, declared

NOW = datetime.datetime(2026, 11, 27, 9, 0, tzinfo=datetime.timezone.utc)
LATER = NOW + datetime.timedelta(days=90)
GIVEN = "a-password-of-our-own"
WANTED = declared(
    {"postgresql": {"rotate_days": "90"}, "redis": None, "smtp": {"kind": "password", "consumers": ["mailer"]}}
)


def given(source="sops", **values):
    return {name: {"value": value, "source": source} for name, value in values.items()}


@pytest.fixture
def kept():
    after, said = store.plan(
        store.empty("staging"), WANTED, given(postgresql=GIVEN), {"redis": "found-by-the-role"}, NOW
    )
    assert said == ["postgresql: sops", "redis: found", "smtp: generated"]
    return after


# ---------------------------------------------------------------------------- the declaration


def test_what_is_left_out():
    found = declared({"smtp-relay": {"kind": "token"}})["smtp-relay"]
    assert (found.length, found.sources, found.environment) == (48, declaration.SOURCES, "BITNET_SECRET_SMTP_RELAY")
    assert (found.consumers, found.rotate_days, found.rotation, found.in_swarm) == ((), 0, "services", True)
    assert declared({"redis": {}})["redis"].kind == "password"
    assert [WANTED[name].rotation for name in ("postgresql", "redis", "smtp")] == ["login", "", "services"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ([], "bitnet_secrets is list: give a dictionary"),
        ({"Smtp": {"kind": "key"}}, "'Smtp' is no name: give up to 32 small letters"),
        ({"../x": {"kind": "key"}}, "'../x' is no name"),
        ({"x\n": {"kind": "key"}}, "is no name"),
        ({7: {"kind": "key"}}, "'7' is no name"),
        ({"smtp": GIVEN}, "bitnet_secrets.smtp is str: give a dictionary of kind"),
        ({"smtp": {}}, "bitnet_secrets.smtp.kind is None: give one of password, token, key"),
        ({"smtp": {"kind": ["key"]}}, "smtp.kind is ['key']: give one of"),
        ({"redis": {"kind": "key"}}, "redis.kind is 'key': what roles know as redis is a password"),
        ({"smtp": {"kind": "key", "value": GIVEN}}, "bitnet_secrets.smtp has value, which is not known"),
        ({"smtp": {"kind": "key", "length": "x"}}, "smtp.length is 'x': give a whole number from 32 to 256"),
        ({"smtp": {"kind": "token", "length": 15}}, "smtp.length is 15: give a whole number from 16 to 256"),
        ({"smtp": {"kind": "key", "length": True}}, "smtp.length is True"),
        ({"smtp": {"kind": "key", "rotate_days": -1}}, "smtp.rotate_days is -1: give a whole number from 0 to 3650"),
        ({"smtp": {"kind": "key", "rotate_days": "9" * 5000}}, "smtp.rotate_days is"),
        ({"smtp": {"kind": "key", "sources": "sops"}}, "smtp.sources is 'sops': give a list of names"),
        ({"smtp": {"kind": "key", "sources": []}}, "smtp.sources is []: name one or more of variable, sops"),
        ({"smtp": {"kind": "key", "sources": ["vault"]}}, "smtp.sources is ['vault']"),
        ({"smtp": {"kind": "key", "sources": ["sops", "sops"]}}, "name each once"),
        ({"smtp": {"kind": "key", "sources": ["generated", "sops"]}}, "nothing can come after it"),
        ({"smtp": {"kind": "key", "environment": "A=B"}}, "smtp.environment is 'A=B': give the name of a variable"),
        ({"smtp": {"kind": "key", "consumers": ["--all"]}}, "smtp.consumers has '--all': give names of services"),
        ({"redis": {"consumers": ["mailer"]}}, "redis.consumers is ['mailer']: a role knows who needs redis"),
        ({"redis": {"rotate_days": 90}}, "redis.rotate_days is 90: redis cannot have two values that hold at once"),
        ({"pgbouncer": {"rotate_days": "7"}}, "pgbouncer.rotate_days is 7: pgbouncer cannot have two values"),
        ({"probe": {}}, "probe.kind is None"),  # swarm_rollout has one of its own, which is no secret of an environment
        ({"secret-x": {"kind": "key"}}, "'secret-x' has the word secret between its dashes"),
        ({"b-secret": {"kind": "key"}}, "'b-secret' has the word secret between its dashes"),
    ],
)
def test_what_cannot_be_declared(value, says):
    with pytest.raises(BadInput) as error:
        declared(value)
    assert says in str(error.value) and GIVEN not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("smtp", "fifteen-letters"),
        ("smtp", "with a blank in it"),
        ("smtp", "quoted\"'password"),
        ("smtp", 1234567890123456),
    ],
)
def test_a_value_that_is_none_of_its_kind_is_not_shown(name, value):
    with pytest.raises(BadInput, match=r"bitnet_secrets.smtp: smtp in the file bitnet_secrets_sops_file has") as error:
        store.plan(store.empty("staging"), WANTED, given(**{name: value}), {}, NOW)
    assert str(value) not in str(error.value)


# ---------------------------------------------------------------------------- what is kept


def test_a_second_run_changes_nothing(kept):
    again, said = store.plan(kept, WANTED, given(postgresql=GIVEN), {"redis": "another-of-the-role"}, LATER)
    assert (again, said) == (kept, [])
    # Not even when its source is gone.
    assert store.plan(kept, WANTED, {}, {}, LATER) == (kept, [])


def test_it_is_read_again_as_it_was_written(kept):
    assert store.read(store.text_of(kept), "staging", "store.json") == kept
    assert kept["serial"] == 1


def test_generated_ones_have_their_length_and_differ():
    wanted = declared({name: {"kind": "key", "length": 64} for name in ("a", "b")})
    after, _said = store.plan(store.empty("staging"), wanted, {}, {}, NOW)
    values = [store.current(after["secrets"][name])["value"] for name in ("a", "b")]
    assert values[0] != values[1] and all(re.fullmatch("[A-Za-z0-9]{64}", value) for value in values)


def test_the_name_of_a_version_cannot_be_guessed_from_its_value(kept):
    other = store.empty("staging")
    assert kept["secrets"]["postgresql"]["current"] == store.identity(kept["key"], GIVEN)
    assert store.identity(kept["key"], GIVEN) != store.identity(other["key"], GIVEN)


def test_without_any_value_it_says_where_it_looked():
    wanted = declared({"smtp": {"kind": "password", "sources": ["sops", "environment"]}})
    with pytest.raises(BadInput) as error:
        store.plan(store.empty("staging"), wanted, {}, {}, NOW)
    for part in ("bitnet_secrets.smtp", "bitnet_secrets_sops_file", "BITNET_SECRET_SMTP", "add generated"):
        assert part in str(error.value)


def test_another_value_of_a_source_is_taken_only_where_no_rotation_is_known(kept):
    new = given(postgresql=GIVEN + "2", redis=GIVEN + "3", smtp=GIVEN + "4")
    after, said = store.plan(kept, WANTED, new, {}, LATER)
    assert said == ["redis: another value of sops"]
    assert store.current(after["secrets"]["redis"])["value"] == GIVEN + "3"
    assert after["secrets"]["postgresql"] == kept["secrets"]["postgresql"]
    assert store.waiting(after, WANTED, new) == ["postgresql", "smtp"]
    assert after["forgotten"]["redis"] == [kept["secrets"]["redis"]["current"]]


LISTED = {"schema": 1, "serial": 1, "key": "k" * 48, "revealed": [], "secrets": {}, "forgotten": {}}
NO_CURRENT = {"a": {"versions": [], "current": "x", "phase": ""}}


@pytest.mark.parametrize(
    "text",
    ["", "no json", "[]", "{}", "[" * 100_000, json.dumps({**LISTED, "key": "short"}),
     json.dumps({**LISTED, "secrets": NO_CURRENT}), json.dumps({**LISTED, "serial": "1"}),
     json.dumps({**LISTED, "forgotten": {"a": "x"}})],
)  # fmt: skip
def test_what_is_no_store_is_not_made_anew(text):
    with pytest.raises(BadInput, match=r"^store.json is no store of secrets\. Move it away"):
        store.read(text, "staging", "store.json")


def test_stores_of_others_are_refused(kept):
    with pytest.raises(BadInput, match=r"is the store of the environment 'staging', not of 'production'"):
        store.read(store.text_of(kept), "production", "store.json")
    with pytest.raises(BadInput, match="has the schema '2', and this collection knows 1"):
        store.read(json.dumps({**kept, "schema": 2}), "staging", "store.json")


def test_the_newest_store_counts(kept):
    newer = {**kept, "serial": 7}
    assert store.newest({}) is None
    assert store.newest({"one": kept, "two": newer, "three": copy.deepcopy(newer)}) == newer
    with pytest.raises(BadInput, match=r"of two, three|of three, two"):
        store.newest({"one": kept, "two": newer, "three": {**newer, "key": "other"}})


def goes_on(kept, seen, make_anew=False, **values):
    return store.goes_on(kept, seen, WANTED, given(**values), make_anew=make_anew, environment="staging")


def rotated(kept, name="smtp"):
    state = store.begin(kept, WANTED[name], {}, LATER)
    for phase in store.PHASES[1:]:
        state = store.advance(state, WANTED[name], phase, LATER)
    return store.finish(state, WANTED[name])


def test_a_store_goes_on_that_is_the_one_the_swarm_knows_or_came_after_it(kept):
    assert goes_on(kept, {}) == (kept, [])
    seen = json.loads(json.dumps(store.index(kept)))  # as it has been through a config
    assert goes_on(kept, seen) == (kept, [])
    # A run that was killed before it wrote the index, at every step of a rotation and after it.
    for later in (rotated(kept), store.begin(kept, WANTED["smtp"], {}, LATER)):
        assert goes_on(later, seen) == (later, [])
    replaced, _said = store.plan(kept, WANTED, given(redis="another-of-its-source"), {}, LATER)
    assert goes_on(replaced, seen) == (replaced, [])
    values = [one["value"] for entry in kept["secrets"].values() for one in entry["versions"]] + [kept["key"]]
    assert not [value for value in values if value in json.dumps(seen)]


def test_a_manager_that_was_away_brings_nothing_back(kept):
    newer = rotated(kept)
    with pytest.raises(BadInput, match=r"\(serial 1\) is older than what the Swarm knows \(serial 7\): its manager"):
        goes_on(kept, store.index(newer))
    # Nor does one that has written since, however high its serial has become.
    late = declared({"late": {"kind": "key"}, **dict.fromkeys(("redis", "postgresql"))})
    apart, _said = store.plan({**kept, "serial": 8}, late, {}, {}, LATER)
    with pytest.raises(BadInput, match=r"has not come of what the Swarm knows \(serial 7; smtp\): two runs wrote"):
        goes_on(apart, store.index(newer))
    with pytest.raises(BadInput, match=r"\(serial 7; the same values\)"):
        goes_on({**newer, "revealed": [{}]}, store.index(newer))
    # Not even a source's own value makes it the newest.
    with pytest.raises(BadInput, match="is older than"):
        goes_on(kept, store.index(newer), smtp=GIVEN + "2")


def test_what_is_lost_is_made_anew_by_a_word_only(kept):
    seen = store.index(kept)
    with pytest.raises(BadInput, match=r"secrets_make_anew is false, .* has the values of postgresql, redis, smtp,"):
        goes_on(None, seen)
    with pytest.raises(BadInput, match=r"has the values of redis, which"):
        goes_on(None, {**seen, "versions": {"redis": "x", "another": "y"}})
    # What sources give is not made anew.
    after, said = goes_on(None, seen, postgresql=GIVEN, redis=GIVEN, smtp=GIVEN)
    assert (after["secrets"], after["serial"], said) == ({}, kept["serial"], [])
    after, said = goes_on(None, seen, make_anew=True)
    assert (after["secrets"], after["serial"], said) == ({}, kept["serial"], [])
    # Its secret in the Swarm may go.
    assert store.forgotten(after, WANTED, "bitnet-staging-secret")["bitnet-staging-secret-smtp"] == [
        f"bitnet-staging-secret-smtp-{seen['versions']['smtp']}"
    ]


def test_an_older_store_goes_on_without_what_has_changed_since(kept):
    newer = rotated(kept)
    after, said = goes_on(kept, store.index(newer), make_anew=True)
    assert said == ["store: made the newest, without smtp"] and after["serial"] == newer["serial"]
    assert sorted(after["secrets"]) == ["postgresql", "redis"]
    assert after["forgotten"]["smtp"] == [kept["secrets"]["smtp"]["current"], newer["secrets"]["smtp"]["current"]]
    # One that had only prepared what is current now has it as a value that nobody uses yet.
    half = store.begin(kept, WANTED["smtp"], {}, LATER)
    seen = {**store.index(half), "serial": 5}
    seen["versions"] = {**seen["versions"], "smtp": half["secrets"]["smtp"]["next"]}
    assert "smtp" not in goes_on(half, seen, make_anew=True)[0]["secrets"]


@pytest.mark.parametrize("seen", [{"serial": 1}, {"serial": "x", "digest": "", "versions": {}}, {"versions": [1]}])
def test_an_index_of_somebody_else_is_no_permission(kept, seen):
    with pytest.raises(BadInput, match=r"does not say what bitnet.devops.secrets writes there"):
        goes_on(kept, seen)


def test_when_each_is_due(kept):
    assert store.due(kept, WANTED, NOW) == [
        {"name": "postgresql", "due_at": "2027-02-25T09:00:00Z", "overdue": False, "phase": "", "rotates": True}
    ]
    assert store.due(kept, WANTED, LATER)[0]["overdue"]


def test_what_roles_read(kept):
    files = store.files(kept, WANTED)
    assert files["database/postgresql"] == GIVEN + "\n" and files["database/redis"] == "found-by-the-role\n"
    assert json.loads(files["database/logins"]) == {"current": 0, "passwords": [GIVEN, ""]}
    assert len(files) == 3
    smtp = kept["secrets"]["smtp"]["current"]
    assert store.in_swarm(kept, WANTED, "bitnet-staging") == {"bitnet-staging-smtp": f"bitnet-staging-smtp-{smtp}"}


def test_a_summary_shows_no_value(kept):
    after = store.begin(kept, WANTED["postgresql"], given(postgresql=GIVEN + "2"), LATER)
    values = [one["value"] for entry in after["secrets"].values() for one in entry["versions"]] + [after["key"]]
    assert len(values) == 5 and not [value for value in values if value in json.dumps(store.summary(after))]


# ---------------------------------------------------------------------------- rotation


def passwords(kept):
    return json.loads(store.files(kept, WANTED)["database/logins"])["passwords"]


def test_a_rotation_of_the_login_from_beginning_to_end(kept):
    secret = WANTED["postgresql"]
    prepared = store.begin(kept, secret, given(postgresql="another-one-of-its-source"), LATER)
    new = store.version(prepared["secrets"]["postgresql"], "next")["value"]
    assert new != GIVEN and passwords(prepared) == [GIVEN, ""]
    both = store.advance(prepared, secret, "both_valid", LATER)
    assert passwords(both) == [GIVEN, new]
    assert store.files(both, WANTED)["database/postgresql"] == new + "\n"
    moving = store.advance(both, secret, "moving", LATER)
    verified = store.advance(moving, secret, "verified", LATER)
    assert passwords(verified) == [GIVEN, new]
    withdrawn = store.advance(verified, secret, "withdrawn", LATER)
    assert passwords(withdrawn) == ["", new]
    ended = store.finish(withdrawn, secret)
    assert GIVEN not in store.text_of(ended) and ended["serial"] == kept["serial"] + 6
    assert ended["secrets"]["postgresql"]["phase"] == ""
    assert store.due(ended, WANTED, LATER)[0]["due_at"] == "2027-05-26T09:00:00Z"
    # And the next one goes back to the first login.
    assert ended["forgotten"]["postgresql"] == [kept["secrets"]["postgresql"]["current"]]
    # Even with its first value, which is then no forgotten one.
    again = store.advance(store.begin(ended, secret, given(postgresql=GIVEN), LATER), secret, "both_valid", LATER)
    assert again["forgotten"]["postgresql"] == []
    assert [bool(one) for one in passwords(again)] == [True, True] and passwords(again)[1] == new


def test_a_run_that_was_killed_goes_on(kept):
    secret = WANTED["smtp"]
    state = store.begin(kept, secret, {}, NOW)
    for number, phase in enumerate(store.PHASES[1:], 1):
        assert store.begin(state, secret, given(smtp=GIVEN), LATER) is state  # the value that was prepared stays
        for before in store.PHASES[1:number]:
            assert store.advance(state, secret, before, LATER) is state
        state = store.advance(state, secret, phase, LATER)
        # A play of all secrets in between disturbs nothing.
        assert store.plan(state, WANTED, {}, {}, LATER) == (state, [])
        assert store.read(store.text_of(state), "staging", "store.json") == state
    ended = store.finish(state, secret)
    assert store.finish(ended, secret) is ended


def test_no_phase_is_left_out(kept):
    secret = WANTED["smtp"]
    with pytest.raises(BadInput, match="smtp is not being rotated, so it cannot become moving"):
        store.advance(kept, secret, "moving", NOW)
    prepared = store.begin(kept, secret, {}, NOW)
    with pytest.raises(BadInput, match="is prepared and cannot become verified before it was both_valid"):
        store.advance(prepared, secret, "verified", NOW)
    with pytest.raises(BadInput, match="only what is withdrawn can be forgotten"):
        store.finish(prepared, secret)


def test_a_given_value_must_be_a_new_one(kept):
    secret = WANTED["postgresql"]
    with pytest.raises(BadInput, match=r"bitnet_secrets_sops_file still has the current value of postgresql") as error:
        store.begin(kept, secret, given(postgresql=GIVEN), NOW)
    assert GIVEN not in str(error.value)
    prepared = store.begin(kept, secret, given(postgresql=GIVEN + "2"), NOW)
    assert store.version(prepared["secrets"]["postgresql"], "next")["value"] == GIVEN + "2"


def test_what_cannot_be_rotated_says_the_way_out(kept):
    with pytest.raises(BadInput, match=r"redis cannot have two values that hold at once. Give another one in a source"):
        store.begin(kept, WANTED["redis"], {}, NOW)
    with pytest.raises(BadInput, match=r"postgresql has come from postgresql in the file bitnet_secrets_sops_file"):
        store.begin(kept, WANTED["postgresql"], {}, NOW)  # whoever gives it would not know the new one
    generated = declared({"postgresql": {"sources": ["generated"]}})["postgresql"]
    assert store.begin(kept, generated, {}, NOW)["secrets"]["postgresql"]["phase"] == "prepared"
    only = declared({"smtp": {"kind": "password", "sources": ["sops"]}})["smtp"]
    with pytest.raises(BadInput, match=r"bitnet_secrets.smtp: none of its sources has a value"):
        store.begin(kept, only, {}, NOW)
    with pytest.raises(BadInput, match="late is declared and not kept yet"):
        store.begin(kept, declared({"late": {"kind": "key"}})["late"], {}, NOW)


def test_what_was_revealed_is_due_until_it_is_rotated(kept):
    secret = WANTED["smtp"]
    revealed = store.reveal(kept, secret, "alice", "the mailer is down", NOW)
    assert store.due(revealed, WANTED, NOW)[0] == {
        "name": "smtp", "due_at": "2026-11-27T09:00:00Z", "overdue": True, "phase": "", "rotates": True
    }  # fmt: skip
    redis = store.reveal(kept, WANTED["redis"], "alice", "why", NOW)
    assert {one["name"]: one["rotates"] for one in store.due(redis, WANTED, NOW)}["redis"] is False
    after = store.advance(store.begin(revealed, secret, {}, LATER), secret, "both_valid", LATER)
    assert [one["name"] for one in store.due(after, WANTED, NOW)] == ["postgresql"]
    [note] = after["revealed"]
    assert (note["by"], note["reason"], note["name"]) == ("alice", "the mailer is down", "smtp")
    for by, reason in (("", "why"), ("alice", " "), ("alice", "x" * 501)):
        with pytest.raises(BadInput, match="say who needs the value, and why"):
            store.reveal(kept, secret, by, reason, NOW)


# ---------------------------------------------------------------------------- services


def spec(*names):
    secrets = [{"SecretName": name, "SecretID": f"id-of-{name}", "File": {"Name": "it", "Mode": 256}} for name in names]
    return {"Name": "mailer", "TaskTemplate": {"ContainerSpec": {"Image": "it", "Secrets": secrets}}}


def test_a_service_moves_with_everything_else_as_it_was():
    before = spec("smtp-1", "other-1")
    after = consumers.moved(before, {"smtp-1", "smtp-2"}, "smtp-2", "new-id")
    assert before == spec("smtp-1", "other-1")
    assert consumers.versions_of(before, {"smtp-1", "smtp-2"}) == ["smtp-1"]
    assert consumers.references(after) == [
        {"SecretName": "smtp-2", "SecretID": "new-id", "File": {"Name": "it", "Mode": 256}},
        consumers.references(before)[1],
    ]
    assert consumers.references({"TaskTemplate": {}}) == []
