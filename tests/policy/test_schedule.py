from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.policy.model import MINUTES_PER_WEEK, Window
from doorward.policy.schedule import DAYS, contains, minute_of_week, parse_days, parse_hours, parse_schedule

DAY = 1440


def at(day: str, hours: int, minutes: int = 0) -> int:
    return DAYS.index(day) * DAY + hours * 60 + minutes


@pytest.mark.parametrize(
    ("text", "days"),
    [
        ("sat", (5,)),
        ("mon-fri", (0, 1, 2, 3, 4)),
        ("fri-mon", (4, 5, 6, 0)),
        ("Mon - Sun", (0, 1, 2, 3, 4, 5, 6)),
        ("sun-sun", (6,)),
        ("tue-mon", (1, 2, 3, 4, 5, 6, 0)),
    ],
)
def test_days_are_one_day_or_a_stretch_that_may_pass_sunday(text: str, days: tuple[int, ...]) -> None:
    assert parse_days(text) == days


@pytest.mark.parametrize(
    "text", ["", "-", "mon-", "-fri", "mon-fri-sun", "monday", "1", "mon,tue", "x" * 9999]
)
def test_what_is_no_day_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a day"):
        parse_days(text)


def test_a_day_written_in_full_is_told_the_short_form() -> None:
    with pytest.raises(ValueError, match="did you mean mon"):
        parse_days("mond")


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("07:00-18:00", (420, 1080)),
        ("22:00-06:00", (1320, 1800)),
        ("00:00-24:00", (0, 1440)),
        ("23:59-00:00", (1439, 1440)),
        ("12:00-11:59", (720, 2159)),
    ],
)
def test_hours_may_pass_midnight(text: str, hours: tuple[int, int]) -> None:
    assert parse_hours(text) == hours


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7:00-18:00",
        "07:00",
        "07:00-07:00",
        "24:00-06:00",
        "00:00-24:01",
        "07:60-18:00",
        "07:00-99:00",
        "\u0660\u0667:00-18:00",
    ],
)
def test_what_are_no_hours_is_refused_with_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"hour|begin"):
        parse_hours(text)


def test_office_hours_are_open_from_their_first_minute_until_before_their_last() -> None:
    office = parse_schedule(["mon-fri"], ["07:00-18:00"])
    assert contains(office, at("mon", 7))
    assert not contains(office, at("mon", 6, 59))
    assert contains(office, at("fri", 17, 59))
    assert not contains(office, at("fri", 18))
    assert not contains(office, at("sat", 12))


def test_a_night_belongs_to_the_day_on_which_it_begins_even_over_the_weeks_end() -> None:
    night = parse_schedule(["sun"], ["22:00-06:00"])
    assert contains(night, at("sun", 22))
    assert contains(night, at("mon", 5, 59))
    assert not contains(night, at("mon", 6))
    assert not contains(night, at("sun", 5))


def test_an_empty_list_does_not_restrict_and_whole_days_are_one_window() -> None:
    assert parse_schedule([], []) == (Window(0, MINUTES_PER_WEEK),)
    assert parse_schedule([], ["00:00-24:00"]) == (Window(0, MINUTES_PER_WEEK),)
    assert parse_schedule(["mon-tue"], []) == (Window(0, 2 * DAY),)


@given(
    st.lists(st.sampled_from(["mon", "wed-fri", "sat-mon", "sun"]), max_size=3),
    st.lists(st.sampled_from(["07:00-18:00", "22:00-06:00", "17:00-23:00", "12:00-11:59"]), max_size=3),
    st.integers(0, MINUTES_PER_WEEK - 1),
)
def test_merged_windows_hold_the_minutes_of_each_day_and_hours(
    days: list[str], hours: list[str], minute: int
) -> None:
    starts = {day for text in days for day in parse_days(text)} if days else set(range(7))
    spans = [parse_hours(text) for text in hours] or [(0, DAY)]
    expected = any(
        (minute - day * DAY - start) % MINUTES_PER_WEEK < end - start
        for day in starts
        for start, end in spans
    )
    assert contains(parse_schedule(days, hours), minute) is expected


def test_the_week_begins_on_monday_at_midnight() -> None:
    assert minute_of_week(datetime(2024, 1, 1, 0, 0, 59, tzinfo=UTC)) == 0  # a Monday
    assert minute_of_week(datetime(2024, 1, 7, 23, 59, tzinfo=UTC)) == MINUTES_PER_WEEK - 1
