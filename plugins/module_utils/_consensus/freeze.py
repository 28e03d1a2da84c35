# Copyright (c) 2026, bitnet.devops contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freeze windows: when nothing is promoted, in the local time of a zone."""

from __future__ import annotations

import dataclasses
import datetime
import re
import typing as t
import zoneinfo

from .signing import BadInput

WEEKDAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
WEEK = datetime.timedelta(days=7)
_WEEKLY = re.compile(f"({'|'.join(WEEKDAYS)}) ([01][0-9]|2[0-3]):([0-5][0-9])")

Bound = t.Union[datetime.datetime, datetime.timedelta]  # a date and time, or what has passed since Monday 0:00


@dataclasses.dataclass(frozen=True)
class Window:
    name: str
    start: Bound
    end: Bound
    zone: zoneinfo.ZoneInfo

    def open_until(self, now: datetime.datetime) -> datetime.datetime | None:
        """When it ends, if C(now) is in it. The end itself is outside."""
        for start, end in self._spans(now):
            first = min(start.replace(tzinfo=self.zone, fold=fold).astimezone(now.tzinfo) for fold in (0, 1))
            last = max(end.replace(tzinfo=self.zone, fold=fold).astimezone(now.tzinfo) for fold in (0, 1))
            # An hour that the clocks show twice, or not at all, belongs to the window.
            if first <= now < last:
                return last
        return None

    def _spans(self, now: datetime.datetime) -> list[tuple[datetime.datetime, datetime.datetime]]:
        if isinstance(self.start, datetime.datetime) and isinstance(self.end, datetime.datetime):
            return [(self.start, self.end)]
        start, end = t.cast("tuple[datetime.timedelta, datetime.timedelta]", (self.start, self.end))
        today = now.astimezone(self.zone).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        monday = today - datetime.timedelta(days=today.weekday())
        lasts = (end - start) % WEEK
        return [(monday + start - WEEK, monday + start - WEEK + lasts), (monday + start, monday + start + lasts)]


def _bound(option: str, text: str) -> Bound:
    weekly = _WEEKLY.fullmatch(text.strip().lower())
    if weekly:
        day, hour, minute = weekly.groups()
        return datetime.timedelta(days=WEEKDAYS.index(day), hours=int(hour), minutes=int(minute))
    try:
        if ":" not in text:  # a day alone: as an end it may be meant to its end, and something would pass
            raise ValueError("no time of the day")
        when = datetime.datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise BadInput(
            f"{option}: {text!r} is neither a date and time, as 2026-12-23 18:00, nor weekly, as fri 16:00"
        ) from error
    if when.tzinfo is not None:
        raise BadInput(f"{option}: {text!r} has an offset, but its zone is named by timezone; leave the offset out")
    if not 1900 < when.year < 9000:
        raise BadInput(f"{option}: the year {when.year} is out of range")
    return when


def window_of(number: int, given: t.Mapping[str, str]) -> Window:
    where = f"freeze_windows: entry {number} ({given['name']})"
    start, end = _bound(f"{where}, from", given["from"]), _bound(f"{where}, until", given["until"])
    if type(start) is not type(end):
        raise BadInput(
            f"{where}: from {given['from']!r} and until {given['until']!r} must both be dates or both weekly"
        )
    if start == end or (isinstance(start, datetime.datetime) and start > t.cast(datetime.datetime, end)):
        raise BadInput(f"{where}: until {given['until']!r} does not come after from {given['from']!r}")
    try:
        zone = zoneinfo.ZoneInfo(given["timezone"])
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise BadInput(
            f"{where}: timezone {given['timezone']!r} is not known here; give a name such as Europe/Berlin or UTC, "
            "and see that the package tzdata is installed"
        ) from error
    return Window(given["name"], start, end, zone)
