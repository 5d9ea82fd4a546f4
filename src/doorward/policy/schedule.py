"""Schedules: days and hours in words, as windows of the week in minutes.

Knows no clock and no time zone: the caller says what time it is, in the local time that the policy means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import datetime
from difflib import get_close_matches
from typing import Final

from doorward.policy.model import MINUTES_PER_WEEK, Window

MINUTES_PER_DAY: Final = 24 * 60
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_HOURS = re.compile(r"([0-9]{2}):([0-9]{2})-([0-9]{2}):([0-9]{2})")


def parse_days(text: str) -> tuple[int, ...]:
    """Days of the week, Monday 0: `sat` is one, `mon-fri` five, `fri-mon` four (it passes the week's end).

    Raises ValueError with a sentence for whoever wrote the policy.
    """
    first, dash, last = text.lower().partition("-")
    begin = _parse_day(first)
    end = _parse_day(last) if dash else begin
    return tuple((begin + offset) % 7 for offset in range((end - begin) % 7 + 1))


def _parse_day(word: str) -> int:
    word = word.strip()
    if word in DAYS:
        return DAYS.index(word)
    close = get_close_matches(word[:20], DAYS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"days are {', '.join(DAYS)}"
    raise ValueError(f"not a day or a stretch of days like mon-fri; {hint}")


def parse_hours(text: str) -> tuple[int, int]:
    """Minutes from a day's midnight: `07:00-18:00` is (420, 1080); the end is not part of it.

    `22:00-06:00` passes midnight: it ends on the next day, at 1800. Raises ValueError with a sentence.
    """
    match = _HOURS.fullmatch(text.strip())
    if match is None:
        raise ValueError("hours are written like 07:00-18:00")
    start_hour, start_minute, end_hour, end_minute = map(int, match.groups())
    start, end = start_hour * 60 + start_minute, end_hour * 60 + end_minute
    if start_minute > 59 or end_minute > 59:
        raise ValueError("an hour has 60 minutes")
    if start >= MINUTES_PER_DAY or end > MINUTES_PER_DAY:
        raise ValueError("hours begin from 00:00 to 23:59 and end from 00:00 to 24:00")
    if start == end:
        raise ValueError("begin and end are the same; write 00:00-24:00 for the whole day")
    return start, end if end > start else end + MINUTES_PER_DAY


def parse_schedule(days: Sequence[str], hours: Sequence[str]) -> tuple[Window, ...]:
    """The windows of a schedule: each of `hours` on each of `days`; an empty list does not restrict.

    Hours that pass midnight belong to the day on which they begin. Raises ValueError with a sentence.
    """
    chosen_days = sorted({day for text in days for day in parse_days(text)}) if days else range(7)
    spans = [parse_hours(text) for text in hours] if hours else [(0, MINUTES_PER_DAY)]
    return _merged(
        Window(day * MINUTES_PER_DAY + start, day * MINUTES_PER_DAY + end)
        for day in chosen_days
        for start, end in spans
    )


def _merged(windows: Iterable[Window]) -> tuple[Window, ...]:
    """The same minutes in as few windows as can be, in order."""
    merged: list[Window] = []
    for window in sorted(windows):
        if merged and window.start <= merged[-1].end:
            merged[-1] = Window(merged[-1].start, max(merged[-1].end, window.end))
        else:
            merged.append(window)
    return tuple(merged)


def minute_of_week(moment: datetime) -> int:
    """Whole minutes since Monday 00:00, 0 to 10,079, in the moment's own time zone."""
    return moment.weekday() * MINUTES_PER_DAY + moment.hour * 60 + moment.minute


def contains(windows: Iterable[Window], minute: int) -> bool:
    """Whether a minute of the week lies in one of the windows; one that passes the week's end wraps."""
    return any(start <= minute < end or minute + MINUTES_PER_WEEK < end for start, end in windows)
