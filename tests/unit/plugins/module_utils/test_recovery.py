# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is due, what is wrong, and what a restore takes, of what pgBackRest says."""

from __future__ import annotations

import json
from dataclasses import replace
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


def test_a_clock_that_jumped_ahead_is_said_and_makes_a_backup_due():
    found = plan.due([backup(stop=NOW + DAY)], "auto", RULES, NOW)
    assert found.type == "full" and "is dated 24.0 h ahead of now" in found.why
    assert plan.due([backup(stop=NOW + 5)], "auto", RULES, NOW).type is None
    # The newest is what ends last in the WAL, whatever its time says.
    jumped = stanza(backup(stop=NOW + DAY, segment=3), backup("incr", stop=NOW - HOUR, segment=5))
    assert [each.type for each in jumped.current()] == ["full", "incr"]
    ahead = archive(came=lambda number: NOW + DAY if number == 4 else NOW - 1000 + number * 60)
    assert plan.state(jumped, {1: ahead}, 600, DAY, NOW - 400).newest == segment(9)
    ahead.segments[segment(9)] = NOW + DAY
    state = plan.state(stanza(backup(stop=NOW + DAY)), {1: ahead}, 60, DAY, NOW)
    assert len(state.problems) == 2 and all("ahead of now" in problem for problem in state.problems)


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


def test_a_gap_in_one_repository_leads_to_the_backup_of_another_that_has_all_and_is_not_filled_from_there():
    first, second = backup(stop=NOW - 850, segment=3), backup(stop=NOW - 900, segment=2, repo=2)
    archives = {1: archive(without=(5,)), 2: archive()}
    taken = plan.restore(stanza(first, second, repositories=2), archives, plan.Target())
    assert taken.backup == second and taken.segments == 8 and f"lacks {segment(5)}" in taken.warnings[0]
    for alone in (stanza(first, repositories=2), stanza(first, second, repositories=2)):
        with pytest.raises(RecoveryError, match=f"the archive lacks {segment(5)}"):
            plan.restore(alone, archives, plan.Target(), repo=1)


def test_a_backup_with_damaged_pages_is_the_last_choice_and_that_is_said():
    sound, damaged = backup(stop=NOW - 900, segment=2), backup(stop=NOW - 650, segment=6, errors=True)
    taken = plan.restore(stanza(sound, damaged), {1: archive()}, plan.Target())
    assert taken.backup == sound
    assert [text for text in taken.warnings if f"{damaged.label} is newer and not taken: pages" in text]
    taken = plan.restore(stanza(damaged), {1: archive()}, plan.Target())
    assert taken.backup == damaged and "no sound backup leads to the target" in taken.warnings[0]
    later = plan.restore(stanza(backup(segment=3, errors=True), backup(segment=6)), {1: archive()}, plan.Target())
    assert later.warnings == ()


def test_a_restore_point_takes_a_backup_from_before_it_and_ends_in_its_segment():
    old, new = backup(stop=NOW - 900, segment=2), backup(stop=NOW - 650, segment=5)

    def point(position: int) -> plan.Target:
        return plan.Target(name="x", position=position)

    earlier = plan.restore(stanza(old, new), {1: archive()}, point(0x50000FF))
    assert (earlier.backup, earlier.last) == (old, segment(5))
    assert plan.restore(stanza(old, new), {1: archive()}, point(0x5000100)).backup == new
    with pytest.raises(RecoveryError, match="set: there is no such backup from before the restore point"):
        plan.restore(stanza(old, new), {1: archive()}, point(0x5000000), new.label)


def test_wal_that_is_missing_behind_the_assumed_end_is_said():
    # All of it came late and at once, so that nothing tells which segment is of which time.
    found, late = stanza(backup(stop=NOW - 900, segment=2)), archive(came=lambda number: NOW - 500, without=(6,))
    taken = plan.restore(found, {1: late}, at(NOW - 700))
    assert taken.last == segment(2) and f"the archive lacks {segment(6)}" in taken.warnings[0]
    assert plan.restore(found, {1: archive()}, at(NOW - 700)).warnings == ()


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


def test_a_moment_that_two_timelines_have_is_refused_until_one_is_given():
    # Timeline 1 was left in segment 5, and goes on to 6, which came at NOW - 640. The first of timeline 2 is later.
    both = two_timelines(0x5000100)
    for number in range(5, 10):
        both.segments[segment(number, 2)] = NOW + 60 * number
    found = stanza(backup(stop=NOW - 900, segment=2))
    with pytest.raises(RecoveryError, match=r"may be of timeline 1, .* give target_timeline, 1 .* or 2"):
        plan.restore(found, {1: both}, at(NOW - 670))
    given = plan.Target(datetime.fromtimestamp(NOW - 670, timezone.utc), timeline="1")
    assert plan.restore(found, {1: both}, given).last == segment(6)
    assert plan.restore(found, {1: both}, at(NOW + 310)).last == segment(6, 2)
    # What was promoted at the end of its WAL leaves no doubt.
    for number in (5, 6):
        del both.segments[segment(number)]
    assert plan.restore(found, {1: both}, at(NOW - 670)).last == segment(5, 2)


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
    assert plan.target(text, "latest").text() == utc


@pytest.mark.parametrize(
    "text", ["2026-11-27 09:30:00", "yesterday", "2026-13-01 00:00:00Z", "2026-11-27 09:30:00Z; x"]
)
def test_what_is_no_moment_is_refused(text):
    with pytest.raises(RecoveryError, match=r"target_time: "):
        plan.target(text, "latest")


@pytest.mark.parametrize("line", ["-1", "0", "x", "", "1\n"])
def test_timelines_that_cannot_be_are_refused(line):
    with pytest.raises(RecoveryError, match=r"target_timeline: .* is neither latest nor the number"):
        plan.target(None, line)


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


def test_a_backup_of_which_the_repository_s_size_is_not_said():
    answer = {
        "label": "20261127-030004F", "type": "full", "error": False, "database": {"repo-key": 1, "id": 1},
        "archive": {"start": segment(3), "stop": segment(3)}, "lsn": {"start": "0/3000028", "stop": "0/3000100"},
        "timestamp": {"start": 1, "stop": 2}, "info": {"size": 9, "delta": 9, "repository": {"delta": 3}},
    }  # fmt: skip
    stanza_ = {"name": "main", "status": {}, "repo": [], "db": [], "archive": [], "backup": [answer]}
    (found,) = info.parse(json.dumps([stanza_]), "main").backups
    assert found.repo_size is None and found.repo_copied == 3


def test_the_error_of_pgbackrest_is_found_among_its_words():
    done = Done(29, "", "WARN: x\nERROR: [082]: WAL was not archived\n       HINT: look\n\x1b[2Jlast")
    assert done.said() == "[082] WAL was not archived HINT: look"
    assert Done(1, "", "\n".join("abcdefgh")).said() == "d e f g h"


# Where a restore may write

DATA = Seen(real="/data/main", folder=True, full=True, data=True)
MARK = {"label": "x", "request": {"target": "latest"}, "identity": "7-1"}
COPY = Seen("/data/new", identity="7-1", folder=True, full=True, data=True, mark=MARK)
SPACES = Seen("/data/new.tablespaces")


@pytest.mark.parametrize(
    "seen, delta, overwrite, expected",
    [
        (Seen("/data/new"), False, False, []),
        (Seen("/data/new", folder=True), False, False, []),
        (Seen("/data/new", folder=True, full=True, unfinished=True), False, False, ["--delta"]),
        (COPY, True, False, ["--delta"]),
        (DATA, True, True, ["--delta"]),
        (DATA, False, True, ["--delta"]),
        (replace(COPY, held=True, unfinished=True), True, True, "another restore is at work"),
        (Seen("/data/new", other=True), True, True, "is there and no folder"),
        (Seen("/data/new", folder=True, full=True), True, True, "something that is no cluster's data"),
        (DATA, True, False, "the database's own data.*overwrite_data: true"),
        (replace(COPY, real="/data/main"), True, False, "the database's own data"),
        (replace(COPY, identity="of a cluster that came there later"), True, False, "was not restored by this module"),
        (Seen("/data/other", folder=True, full=True, data=True), True, False, "was not restored by this module"),
        (COPY, False, False, "remove this one and /data/new.tablespaces, .*delta: true"),
        (Seen("/data/main", folder=True, full=True, data=True, pid="7"), True, True, "names process 7"),
        (Seen("/data/new", folder=True, full=True, unfinished=True, pid="7"), True, True, "names process 7"),
    ],
)
def test_nothing_is_overwritten_without_a_word(seen, delta, overwrite, expected):
    if isinstance(expected, list):
        assert restoring.permit("/path", seen, DATA, SPACES, delta=delta, overwrite=overwrite) == expected
    else:
        with pytest.raises(RecoveryError, match=expected):
            restoring.permit("/path", seen, DATA, SPACES, delta=delta, overwrite=overwrite)


def test_tablespaces_of_an_earlier_restore_are_named_before_pgbackrest_fails_on_them():
    left = replace(SPACES, folder=True, full=True)
    with pytest.raises(RecoveryError, match=r"path: /data/new.tablespaces is not empty"):
        restoring.permit("/data/new", Seen("/data/new"), DATA, left, delta=False, overwrite=False)
    # In place they are where they were.
    assert restoring.permit("/data/main", Seen("/data/main"), DATA, left, delta=False, overwrite=False) == []


@pytest.mark.parametrize("path", ["relative", "/", "/data", "/a/../b", "/a/b/", "/a/b\nc", "/a/b c", "/a/$b", ""])
def test_paths_that_no_restore_may_write_to(path):
    with pytest.raises(RecoveryError, match="path: "):
        restoring.checked_path(path)


def test_the_same_again_is_nothing_to_do_until_there_is_more_or_it_was_started():
    request = restoring.Request("main", plan.Target(), None, None, (), "promote")
    taken = plan.Plan(backup(), plan.Target(), segment(1), segment(2), 2, 0)
    mark = {"request": request.mark(), "identity": "7-1", "last": segment(2)}
    done = Seen("/x", identity="7-1", folder=True, full=True, data=True, unstarted=True, mark=mark)
    assert restoring.is_done(done, request, taken)
    assert not restoring.is_done(done, replace(request, databases=("x",)), taken)
    assert not restoring.is_done(done, replace(request, action="pause"), taken)
    assert not restoring.is_done(done, request, replace(taken, last=segment(3)))
    for other in ({"unstarted": False}, {"unfinished": True}, {"identity": "8-1"}, {"pid": "7"}, {"mark": None}):
        assert not restoring.is_done(replace(done, **other), request, taken)


def test_a_copy_takes_nothing_that_is_the_living_database_s():
    taken = plan.Plan(backup(repo=2), plan.Target(), segment(1), segment(2), 2, 0)
    pgbackrest = Pgbackrest(Place([], 5), "main", "/etc/pgbackrest")
    copy = restoring.options(pgbackrest, taken, "/data/new", in_place=False)
    assert "--spool-path=/data/new.spool" in copy and "--archive-mode=off" in copy
    (command,) = [each for each in copy if each.startswith("--recovery-option=restore_command=")]
    assert " --repo=2 " in command and " --no-archive-async " in command
    in_place = restoring.options(pgbackrest, taken, "/data/main", in_place=True)
    assert [each for each in in_place if "spool" in each or "restore_command" in each or "archive-mode" in each] == []


def test_a_disk_that_is_too_small_is_said_before():
    taken = plan.Plan(backup(), plan.Target(), segment(1), segment(2), 2, 0)
    restoring.require_room("/x", Seen("/x", free=1100), taken, ())
    with pytest.raises(RecoveryError, match="path: /x has 0 MiB free"):
        restoring.require_room("/x", Seen("/x", free=1099), taken, ())
