# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freeze windows in the local time of a zone, over changes of its clocks and the end of the week."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.bitnet.devops.plugins.module_utils._consensus.freeze import window_of
from ansible_collections.bitnet.devops.plugins.module_utils._consensus.signing import BadInput
from hypothesis import given, settings
from hypothesis import strategies as st

HOLIDAYS = {"name": "holidays", "from": "2026-12-23 18:00", "until": "2027-01-02 08:00", "timezone": "Europe/Berlin"}
WEEKEND = {"name": "weekend", "from": "fri 16:00", "until": "mon 08:00", "timezone": "Europe/Berlin"}


def utc(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(f"{text}+00:00")


def until(window, now: str) -> str | None:
    end = window_of(1, window).open_until(utc(now))
    return end.strftime("%Y-%m-%d %H:%M") if end else None


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        ("2026-12-23 16:59:59", None),
        ("2026-12-23 17:00", "2027-01-02 07:00"),
        ("2027-01-02 06:59:59", "2027-01-02 07:00"),
        ("2027-01-02 07:00", None),
        ("2025-12-24 12:00", None),
    ],
)
def test_a_window_between_two_dates(now, ends):
    assert until(HOLIDAYS, now) == ends


@pytest.mark.parametrize(
    ("now", "ends"),
    [
        ("2026-11-27 14:59:59", None),  # Friday, 15:59:59 in Berlin
        ("2026-11-27 15:00", "2026-11-30 07:00"),
        ("2026-11-29 12:00", "2026-11-30 07:00"),
        ("2026-11-29 23:30", "2026-11-30 07:00"),  # Monday already in Berlin, Sunday here
        ("2026-11-30 06:59:59", "2026-11-30 07:00"),
        ("2026-11-30 07:00", None),
        ("2026-10-25 12:00", "2026-10-26 07:00"),  # the clocks went back that morning
        ("2026-10-23 13:59", None),
        ("2026-10-23 14:00", "2026-10-26 07:00"),
    ],
)
def test_a_weekly_window_over_the_end_of_the_week(now, ends):
    assert until(WEEKEND, now) == ends


def test_the_week_begins_when_it_does_in_the_zone():
    early = {**WEEKEND, "from": "mon 00:00", "until": "mon 08:00"}
    assert until(early, "2026-11-29 23:30") == "2026-11-30 07:00", "Sunday here"
    assert until(early, "2026-11-29 22:59") is None


def test_the_same_wall_time_is_another_moment_in_another_zone():
    tokyo = {**WEEKEND, "timezone": "Asia/Tokyo"}
    assert until(tokyo, "2026-11-27 06:59") is None
    assert until(tokyo, "2026-11-27 07:00") == "2026-11-29 23:00"


def test_an_hour_that_is_there_twice_is_in_the_window_both_times():
    # Europe/Berlin, 25 October 2026: 02:00 to 03:00 comes twice, from 0:00 and from 1:00 UTC.
    ending = {**HOLIDAYS, "from": "2026-10-24 18:00", "until": "2026-10-25 02:30"}
    assert until(ending, "2026-10-25 01:29") == "2026-10-25 01:30"
    beginning = {**HOLIDAYS, "from": "2026-10-25 02:30", "until": "2026-10-25 06:00"}
    assert until(beginning, "2026-10-25 00:30") == "2026-10-25 05:00"
    assert until(beginning, "2026-10-25 00:29") is None


def test_a_time_that_is_not_there_makes_the_window_longer():
    # Europe/Berlin, 29 March 2026: from 02:00 (1:00 UTC) the clocks show 03:00.
    missing = {**HOLIDAYS, "from": "2026-03-29 02:30", "until": "2026-03-29 02:45"}
    assert until(missing, "2026-03-29 00:30") == "2026-03-29 01:45"


def test_times_as_yaml_gives_them():
    assert until({**HOLIDAYS, "from": "2026-12-23 00:00:00", "until": "2026-12-24T00:00:00"}, "2026-12-23 12:00")


WEEKLY = st.builds(
    lambda day, minute: f"{day} {minute // 60:02}:{minute % 60:02}",
    st.sampled_from(("mon", "tue", "wed", "thu", "fri", "sat", "sun")),
    st.integers(0, 1439),
)


@settings(deadline=None)  # the machine may be busy
@given(WEEKLY, WEEKLY, st.datetimes(datetime.datetime(2020, 1, 1), datetime.datetime(2030, 1, 1)))
def test_a_weekly_window_and_its_complement_share_the_week(start, end, moment):
    """In a zone whose clocks never change, each moment is in exactly one of the two."""
    if start == end:
        return
    now = moment.replace(tzinfo=datetime.timezone.utc)
    there = {"name": "", "from": start, "until": end, "timezone": "Asia/Kolkata"}
    back = {"name": "", "from": end, "until": start, "timezone": "Asia/Kolkata"}
    ends = [window_of(1, window).open_until(now) for window in (there, back)]
    assert sum(each is not None for each in ends) == 1
    [last] = [each for each in ends if each is not None]
    assert now < last <= now + datetime.timedelta(days=7)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"from": "friday"}, "(holidays), from: 'friday' is neither a date and time"),
        ({"from": "fri 16:00"}, "must both be dates or both weekly"),
        ({"from": "fri 16:00", "until": "fri 16:00"}, "until 'fri 16:00' does not come after from 'fri 16:00'"),
        ({"until": "2026-12-01 08:00"}, "does not come after"),
        # Whoever writes a day as the end may mean all of it, and something would pass then.
        ({"until": "2026-12-26"}, "(holidays), until: '2026-12-26' is neither a date and time, as 2026-12-23 18:00"),
        ({"from": "2026-12-23"}, "(holidays), from: '2026-12-23' is neither a date and time"),
        ({"from": "fri 24:00"}, "neither a date"),
        ({"until": "2027-01-02T08:00+01:00"}, "has an offset, but its zone is named by timezone"),
        ({"until": "9999-12-31 23:59"}, "the year 9999 is out of range"),
        ({"timezone": "Europe/Bonn"}, "timezone 'Europe/Bonn' is not known here; give a name such as Europe/Berlin"),
        ({"timezone": "../../etc/passwd"}, "is not known here"),
        ({"timezone": "Europe"}, "is not known here"),
        ({"timezone": ""}, "is not known here"),
        ({"timezone": "CEST\0"}, "is not known here"),
    ],
)
def test_bad_windows_are_refused_by_name(change, says):
    with pytest.raises(BadInput) as refused:
        window_of(2, {**HOLIDAYS, **change})
    assert "freeze_windows: entry 2 (holidays)" in str(refused.value)
    assert says in str(refused.value)
