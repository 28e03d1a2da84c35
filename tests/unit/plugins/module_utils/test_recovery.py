# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due, what is wrong, and what a restore takes, of what pgBackRest says."""

from __future__ import annotations

import json
from datetime import datetime, timezone

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._recovery import info, plan, restoring, wal
from ansible_collections.bitnet.devops.plugins.module_utils._recovery.client import Done, Pgbackrest, Place, Seen
from ansible_collections.bitnet.devops.plugins.module_utils._recovery.errors import RecoveryError

HOUR, DAY = 3600, 86400
NOW = 1_795_770_000
RULES = plan.Rules(full=7 * DAY, diff=DAY, any=HOUR)


def backup(kind="full", stop=NOW - HOUR, segment=3, repo=1, line=1, errors=False, database=1):
    name = wal.Numbering().name(line, segment)
    position = f"0/{segment:X}000028"
    return info.Backup(
        label=f"{kind}-{repo}-{stop}",
        type=kind,
        repo=repo,
        database=database,
        start=stop - 60,
        stop=stop,
        wal_start=name,
        wal_stop=name,
        lsn_start=position,
        lsn_stop=f"0/{segment:X}000100",
        size=1000,
        copied=1000,
        repo_size=10,
        repo_copied=10,
        references=(),
        page_errors=errors,
    )


def archive(first=1, last=9, line=1, came=lambda number: NOW - 1000 + number * 60, without=()):
    names = {
        wal.Numbering().name(line, number): came(number) for number in range(first, last + 1) if number not in without
    }
    return wal.Archive(names)


def stanza(*backups, repositories=1):
    keys = range(1, repositories + 1)
    known = tuple(info.Repository(key, 0, "ok", "aes-256-cbc") for key in keys)
    return info.Stanza("main", known, backups, {(key, 1): "15-1" for key in keys}, dict.fromkeys(keys, 1), False)


def segment(number, line=1):
    return wal.Numbering().name(line, number)


# What is due


def test_the_first_is_full_whatever_is_asked_for():
    for wanted in ("auto", "full", "diff", "incr"):
        assert plan.due([], wanted, RULES, NOW).type == "full"


@pytest.mark.parametrize(
    "ages, expected",
    [
        ({"full": 7 * DAY}, "full"),
        ({"full": 2 * DAY}, "diff"),
        ({"full": 2 * DAY, "diff": 2 * HOUR}, "incr"),
        ({"full": 2 * DAY, "diff": 2 * HOUR, "incr": HOUR - 1}, None),
        ({"full": HOUR - 1}, None),
        ({"full": HOUR}, "incr"),
        ({"full": 8 * DAY, "incr": 1}, "full"),
    ],
)
def test_what_is_due_follows_from_the_ages(ages, expected):
    found = [backup(kind, NOW - age) for kind, age in ages.items()]
    assert plan.due(sorted(found, key=lambda each: each.stop), "auto", RULES, NOW).type == expected


def test_a_type_that_is_asked_for_is_measured_by_itself_and_better_ones():
    found = [backup("full", NOW - 2 * DAY), backup("incr", NOW - 60)]
    within = plan.Rules(HOUR, HOUR, HOUR)
    assert plan.due(found, "full", within, NOW).type == "full"
    assert plan.due(found, "diff", within, NOW).type == "diff"
    assert plan.due(found, "incr", within, NOW).type is None
    assert "is 2.0 d old (60.0 m are allowed)" in plan.due(found, "diff", within, NOW).why


# The names of WAL


@pytest.mark.parametrize("size", [1 << 20, 16 << 20, 64 << 20, 1 << 30])
def test_numbers_and_names_belong_together(size):
    numbers = wal.Numbering(size)
    for number in (0, 1, (1 << 32) // size - 1, (1 << 32) // size, 5 * (1 << 32) // size + 3):
        assert numbers.number(numbers.name(7, number)) == number
    assert wal.Numbering().name(1, 256) == "000000010000000100000000"


def test_the_size_of_a_segment_follows_from_what_is_known():
    assert wal.numbering([("000000010000000000000003", "0/3000028")]).size == 16 << 20
    assert wal.numbering([("000000010000000000000003", "0/C000028")]).size == 64 << 20
    with pytest.raises(RecoveryError, match="no size of a WAL segment fits"):
        wal.numbering([("000000010000000000000003", "0/C000028"), ("000000010000000000000003", "0/3000028")])


def test_a_listing_is_read_and_what_is_no_segment_is_left():
    name = segment(4)
    entries = {
        ".": {"type": "path"},
        "0000000100000000": {"type": "path"},
        f"0000000100000000/{name}-{'a' * 40}.zst": {"type": "file", "size": 1, "time": 77},
        f"0000000100000000/{name}-{'b' * 40}": {"type": "file", "size": 1, "time": 78},
        f"0000000100000000/{name}.00000028.backup": {"type": "file", "size": 1, "time": 99},
        f"0000000100000000/{segment(5)}.partial-{'a' * 40}.zst": {"type": "file", "size": 1, "time": 99},
        "00000002.history": {"type": "file", "size": 1, "time": 99},
    }
    assert wal.listing(json.dumps(entries), "archive/main/15-1") == ({name: 78}, ["archive/main/15-1/00000002.history"])
    assert wal.listing("", "x") == ({}, [])
    with pytest.raises(RecoveryError, match="did not answer with JSON"):
        wal.listing("{", "x")


def test_neighbours_are_said_as_a_range():
    numbers = wal.Numbering()
    names = [segment(3), segment(4), segment(5), segment(7)]
    assert wal.ranges(names, numbers) == f"{segment(3)} to {segment(5)}, {segment(7)}"
    assert wal.ranges([segment(number) for number in range(0, 20, 2)], numbers).endswith(" and 5 more")


# What a restore takes


def test_the_newest_backup_and_all_wal_are_taken():
    old, new = backup(stop=NOW - 2 * DAY, segment=2), backup("incr", stop=NOW - HOUR, segment=5)
    found = plan.restore(stanza(old, new), {1: archive()}, plan.Target())
    assert (found.backup, found.first, found.last, found.segments) == (new, segment(5), segment(9), 5)


def at(seconds):
    return plan.Target(datetime.fromtimestamp(seconds, timezone.utc))


def test_a_moment_takes_the_backup_before_it_and_wal_to_just_behind_it():
    old, new = backup(stop=NOW - 900, segment=2), backup(stop=NOW - 650, segment=5)
    # Segment 7 came at NOW - 580, segment 8 at NOW - 520.
    assert plan.restore(stanza(old, new), {1: archive()}, at(NOW - 570)).last == segment(8)
    earlier = plan.restore(stanza(old, new), {1: archive()}, at(NOW - 700))
    assert (earlier.backup, earlier.first, earlier.last) == (old, segment(2), segment(6))


def test_moments_that_cannot_be_reached_are_refused_with_the_way_out():
    found = stanza(backup(stop=NOW - 650, segment=5))
    with pytest.raises(RecoveryError, match=r"is before the end of the oldest backup full-1-\d+, 2026-.*later moment"):
        plan.restore(found, {1: archive()}, at(NOW - 650))
    with pytest.raises(RecoveryError, match=r"no WAL is archived from after .* \(the newest came at .*pg_switch_wal"):
        plan.restore(found, {1: archive()}, at(NOW - 460))


def test_a_missing_segment_is_named_and_a_moment_before_it_can_be_had():
    found, gap = stanza(backup(stop=NOW - 900, segment=2)), {1: archive(without=(6, 7))}
    with pytest.raises(
        RecoveryError, match=rf"the archive lacks {segment(6)} to {segment(7)}: .*give a target_time before"
    ):
        plan.restore(found, gap, plan.Target())
    assert plan.restore(found, gap, at(NOW - 720)).last == segment(5)
    with pytest.raises(RecoveryError, match=rf"the archive lacks {segment(2)}: .*cannot be restored without it"):
        plan.restore(found, {1: archive(without=(2,))}, plan.Target())


def test_a_gap_before_the_newest_backup_does_no_harm_and_one_behind_it_leads_to_no_older_one():
    old, new = backup(stop=NOW - 900, segment=2), backup(stop=NOW - 650, segment=6)
    assert plan.restore(stanza(old, new), {1: archive(without=(4,))}, plan.Target()).backup == new
    with pytest.raises(RecoveryError, match=f"lacks {segment(8)}: from the backup {new.label}"):
        plan.restore(stanza(old, new), {1: archive(without=(8,))}, plan.Target())


def test_a_second_repository_fills_the_gap_of_the_first():
    found = stanza(backup(stop=NOW - 900, segment=2), repositories=2)
    archives = {1: archive(without=(5,)), 2: archive(first=4)}
    taken = plan.restore(found, archives, plan.Target())
    assert taken.segments == 8 and taken.only is None


def test_wal_is_taken_from_one_repository_alone_where_another_does_not_answer():
    dead = info.Repository(2, 99, "[HostConnectError] unable to connect", "none")
    found = stanza(backup(stop=NOW - 900, segment=2))
    found = info.Stanza("main", (*found.repositories, dead), found.backups, found.archives, found.databases, False)
    assert plan.restore(found, {1: archive()}, plan.Target()).only == 1


def test_a_backup_with_damaged_pages_is_the_last_choice():
    sound, damaged = backup(stop=NOW - 900, segment=2), backup(stop=NOW - 650, segment=6, errors=True)
    assert plan.restore(stanza(sound, damaged), {1: archive()}, plan.Target()).backup == sound
    assert plan.restore(stanza(damaged), {1: archive()}, plan.Target()).backup == damaged


def test_backups_of_a_cluster_before_an_upgrade_are_not_taken():
    older = backup(database=1)
    found = info.Stanza("main", stanza().repositories, (older,), {(1, 2): "16-2"}, {1: 2}, False)
    with pytest.raises(RecoveryError, match="stanza main has no backup"):
        plan.restore(found, {1: archive()}, plan.Target())


def test_sets_and_repositories_that_are_not_there_are_refused():
    found = stanza(backup())
    with pytest.raises(RecoveryError, match=r"set: there is no backup 'x'; there are full-1-"):
        plan.restore(found, {1: archive()}, plan.Target(), "x")
    with pytest.raises(RecoveryError, match="repo: the configuration has no repository 3; it has 1"):
        plan.restore(found, {1: archive()}, plan.Target(), None, 3)


def two_timelines(left):
    both = archive(1, 6)
    both.segments.update(archive(left >> 24, 9, line=2).segments)
    both.branches[2] = ((1, left),)
    return both


def test_a_later_timeline_is_followed_from_where_it_branched():
    found = stanza(backup(stop=NOW - 900, segment=2))
    taken = plan.restore(found, {1: two_timelines(0x5000100)}, plan.Target())
    assert (taken.first, taken.last, taken.segments) == (segment(2), segment(9, 2), 8)
    stays = plan.restore(found, {1: two_timelines(0x5000100)}, plan.Target(timeline="1"))
    assert (stays.last, stays.segments) == (segment(6), 5)


def test_a_backup_that_ended_behind_the_branch_does_not_lead_to_the_new_timeline():
    behind = stanza(backup(stop=NOW - 700, segment=6))
    with pytest.raises(RecoveryError, match=r"timeline 2 does not come from the backup .*give target_timeline: 1"):
        plan.restore(behind, {1: two_timelines(0x5000100)}, plan.Target())


def test_a_segment_is_missing_where_a_timeline_begins():
    broken = two_timelines(0x5000100)
    del broken.segments[segment(5, 2)]
    with pytest.raises(RecoveryError, match=f"the archive lacks {segment(5, 2)}"):
        plan.restore(stanza(backup(stop=NOW - 900, segment=2)), {1: broken}, plan.Target())


def test_a_history_file_is_read():
    assert wal.branches("1\t0/5000100\tno recovery target specified\n\n2\t1/A0\tx\n") == (
        (1, 0x5000100),
        (2, 0x1000000A0),
    )


@pytest.mark.parametrize(
    "text, utc",
    [
        ("2026-11-27 09:30:00+00", "2026-11-27 09:30:00.000000+00"),
        ("2026-11-27T09:30:00Z", "2026-11-27 09:30:00.000000+00"),
        ("2026-11-27 10:30:00.25+01:00", "2026-11-27 09:30:00.250000+00"),
        ("2026-11-27 05:00 -0430", "2026-11-27 09:30:00.000000+00"),
    ],
)
def test_moments(text, utc):
    assert plan.target(text, None, "latest").text() == utc


@pytest.mark.parametrize(
    "text", ["2026-11-27 09:30:00", "yesterday", "2026-13-01 00:00:00Z", "2026-11-27 09:30:00Z; x"]
)
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(RecoveryError, match=r"target_time: "):
        plan.target(text, None, "latest")


@pytest.mark.parametrize(
    "time, name, line", [("2026-11-27 09:30Z", "x", "latest"), (None, "x\n", "latest"), (None, None, "-1")]
)
def test_targets_that_cannot_be_are_refused(time, name, line):
    with pytest.raises(RecoveryError, match=r"target_"):
        plan.target(time, name, line)


# What is wrong


def test_nothing_is_wrong_with_what_is_well():
    found = plan.state(stanza(backup(segment=3)), {1: archive()}, 600, DAY, NOW - 400)
    assert found.problems == [] and found.newest == segment(9) and found.age == 60


def test_each_thing_that_is_wrong_is_said():
    found = plan.state(
        stanza(backup(stop=NOW - 2 * DAY, segment=3, errors=True)), {1: archive(without=(5,))}, 60, DAY, NOW
    )
    texts = ["came 7.7 m ago, and 60 s are allowed (rpo)", "is 2.0 d old, and 24.0 h are allowed", "wrong checksum"]
    texts.append(f"it lacks the WAL {segment(5)}")
    assert len(found.problems) == len(texts)
    assert all(text in problem for text, problem in zip(texts, found.problems))
    assert plan.state(stanza(), {1: wal.Archive()}, 60, DAY, NOW).problems == [
        "repository 1: it has no WAL at all: look at archive_mode and archive_command of PostgreSQL",
        "repository 1: it has no backup",
    ]
    assert (
        plan.state(stanza(repositories=0), {}, 60, DAY, NOW)
        .problems[0]
        .startswith("the configuration names no repository")
    )


@pytest.mark.parametrize(
    "code, message, cipher, says",
    [
        (1, "missing stanza path", "none", "'pgbackrest --stanza=main stanza-create' makes it"),
        (
            99,
            "[FormatError] key/value found outside of section at line 1: \x1b]0;\xff",
            "aes-256-cbc",
            "cannot be decrypted",
        ),
        (99, "[CryptoError] cipher header invalid", "none", "it is encrypted and the configuration gives no cipher"),
        (
            99,
            "[HostConnectError] unable to connect to 'x'\x1b[2J",
            "none",
            "cannot be used: [HostConnectError] unable to connect",
        ),
    ],
)
def test_a_repository_that_cannot_be_used_says_why(code, message, cipher, says):
    problem = info.Repository(1, code, message, cipher).problem("main")
    assert says in problem and problem.isprintable()


def test_answers_that_are_none_are_refused():
    for text in ("", "{}", "[1]", '[{"name": "main"}]'):
        with pytest.raises(RecoveryError):
            info.parse(text, "main")
    with pytest.raises(RecoveryError, match="stanza: pgBackRest does not know 'main'"):
        info.parse("[]", "main")


def test_the_error_of_pgbackrest_is_found_among_its_words():
    done = Done(29, "", "WARN: x\nERROR: [082]: WAL was not archived\n       HINT: look\n\x1b[2Jlast")
    assert done.said() == "[082] WAL was not archived HINT: look"
    assert Done(1, "", "\n".join("abcdefgh")).said() == "d e f g h"


# Where a restore may write

DATA = Seen(real="/data/main", folder=True, full=True, data=True)
MARK = {"label": "x", "request": {"target": "latest"}}


@pytest.mark.parametrize(
    "seen, delta, overwrite, expected",
    [
        (Seen("/data/new"), False, False, []),
        (Seen("/data/new", folder=True), False, False, []),
        (Seen("/data/new", folder=True, full=True, unfinished=True), False, False, ["--delta"]),
        (Seen("/data/new", folder=True, full=True, data=True, mark=MARK), True, False, ["--delta"]),
        (DATA, True, True, ["--delta"]),
        (DATA, False, True, ["--delta"]),
        (Seen("/data/new", other=True), True, True, "is there and no folder"),
        (Seen("/data/new", folder=True, full=True), True, True, "something that is no cluster's data"),
        (DATA, True, False, "the database's own data.*overwrite_data: true"),
        (Seen("/data/main", folder=True, full=True, data=True, mark=MARK), True, False, "the database's own data"),
        (Seen("/data/other", folder=True, full=True, data=True), True, False, "was not restored by this module"),
        (Seen("/data/new", folder=True, full=True, data=True, mark=MARK), False, False, "delta: true"),
        (Seen("/data/main", folder=True, full=True, data=True, pid="7"), True, True, "names process 7"),
        (Seen("/data/new", folder=True, full=True, unfinished=True, pid="7"), True, True, "names process 7"),
    ],
)
def test_nothing_is_overwritten_without_a_word(seen, delta, overwrite, expected):
    if isinstance(expected, list):
        assert restoring.permit("/path", seen, DATA, delta, overwrite) == expected
    else:
        with pytest.raises(RecoveryError, match=expected):
            restoring.permit("/path", seen, DATA, delta, overwrite)


@pytest.mark.parametrize("path", ["relative", "/", "/data", "/a/../b", "/a/b/", "/a/b\nc", "/a/b c", "/a/$(x)", ""])
def test_paths_that_no_restore_may_write_to(path):
    with pytest.raises(RecoveryError, match="path: "):
        restoring.checked_path(path)


def test_the_same_again_is_nothing_to_do():
    request = restoring.Request("main", plan.Target(), None, None, ())
    done = Seen("/x", folder=True, full=True, data=True, mark={"request": request.mark()})
    assert restoring.is_done(done, request, False) and not restoring.is_done(done, request, True)
    assert not restoring.is_done(done, restoring.Request("main", plan.Target(name="x"), None, None, ()), False)
    assert not restoring.is_done(Seen("/x"), request, False)


def test_a_disk_that_is_too_small_is_said_before():
    taken = plan.Plan(backup(), plan.Target(), segment(1), segment(2), 2)
    restoring.require_room("/x", Seen("/x", free=1100), taken, ())
    with pytest.raises(RecoveryError, match="path: /x has 0 MiB free"):
        restoring.require_room("/x", Seen("/x", free=1099), taken, ())


@pytest.mark.parametrize("only", [None, 2])
@pytest.mark.parametrize("in_place", [True, False])
def test_a_copy_keeps_away_from_the_living_database(in_place, only):
    pgbackrest = Pgbackrest(Place([], 5), "main", "/etc/pgbackrest")
    taken = plan.Plan(backup(), plan.Target(name="here"), segment(1), segment(2), 2, only)
    told = restoring.options(pgbackrest, taken, "/srv/copy", in_place=in_place, databases=["a", "b"], action="pause")
    for option in ("--pg1-path=/srv/copy", "--type=name", "--target=here", "--target-action=pause", "--db-include=b"):
        assert option in told
    (command,) = [option for option in told if "restore_command=" in option] or [""]
    assert ("--archive-mode=off" in told) is ("--spool-path=/srv/copy.spool" in told) is (not in_place)
    assert ("--no-archive-async" in command) is (not in_place) and ("--repo=2" in command) is (only == 2)
    assert command == "" or command.endswith(' archive-get %f "%p"')
