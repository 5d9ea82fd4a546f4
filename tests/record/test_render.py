"""Records as text that a terminal, a person and a program can trust."""

from __future__ import annotations

import json
from datetime import UTC, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import to_builtins
from tests.record.samples import NOON_US, a_record, everywhere

from doorward.record import render
from doorward.record.schema import COLUMNS


def test_a_line_reads_from_left_to_right() -> None:
    record = a_record(5, time_us=NOON_US + 123_456)
    text = "2026-11-21 12:00:00.123 allow rule kim 192.168.1.5 → api.example.org:443 https 1.2k 45k 1.2s eof/internal"
    assert render.line(record, zone=UTC).split() == text.split()


def test_the_titles_stand_over_their_columns() -> None:
    header, line = render.header(), render.line(a_record(), zone=UTC)
    for title, cell in (
        ("action", "allow"),
        ("user", "kim"),
        ("→ to", "→ api"),
        ("duration", "1.2s"),
        ("end", "eof"),
    ):
        assert header.index(title) == line.index(cell)


def test_what_is_not_known_is_a_dash() -> None:
    bare = a_record(user=None, host=None, address=None, protocol=None, end=None, ended_by=None, port=0)
    cells = render.line(bare, zone=UTC).split()
    assert cells[4] == "-"
    assert cells[7:9] == ["-:0", "tcp"]
    assert cells[-1] == "-"


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({}, "→ api.example.org:443"),
        ({"operation": None}, "→ api.example.org:443"),
        ({"via": "corp"}, "→ api.example.org:443 via corp"),
        ({"operation": "bind", "host": None, "address": None, "port": 4711}, "bind port 4711"),
        ({"operation": "bind", "host": None, "port": 4711}, "bind port 4711 for 203.0.113.7"),
        ({"operation": "bind", "port": 0}, "bind for api.example.org"),
        ({"operation": "accept", "host": None}, "accept from 203.0.113.7:443"),
        ({"operation": "accept", "host": None, "address": "2001:db8::7"}, "accept from [2001:db8::7]:443"),
        ({"operation": "udp", "host": None, "address": None, "port": 4711}, "udp port 4711"),
        ({"operation": "udp", "port": 0}, "udp"),
        ({"operation": "destination", "port": 53}, "udp → api.example.org:53"),
        ({"operation": "destination", "port": 53, "via": "corp"}, "udp → api.example.org:53 via corp"),
        ({"operation": "resolve", "port": 53}, "name api.example.org"),
        ({"operation": "resolve", "port": 53, "host": None, "address": "::1"}, "name ::1"),
        ({"operation": "bind", "host": "a b", "port": 1}, 'bind port 1 for "a b"'),
        ({"via": "x → y"}, '→ api.example.org:443 via "x → y"'),
        ({"operation": "\x1b[2J", "via": "\x1b[2J"}, "→ api.example.org:443 via \\x1b[2J"),
    ],
)
def test_a_line_says_what_it_was_about(changes: dict[str, Any], shown: str) -> None:
    record = a_record(**changes)
    assert render.purpose(record) == shown
    assert shown in render.line(record, zone=UTC)


@given(
    st.sampled_from(["bind", "accept", "udp", "destination", "resolve", "connect"]),
    st.text(st.characters(), max_size=60),
)
def test_no_text_can_break_out_of_what_a_line_is_about(operation: str, text: str) -> None:
    shown = render.purpose(a_record(**(everywhere(text) | {"operation": operation})))
    assert shown.isprintable()
    bare = render.purpose(a_record(operation=operation, via="x"))
    if operation != "udp":
        assert shown.split(" ", 1)[0] == bare.split(" ", 1)[0]


def test_an_ipv6_target_stands_in_brackets() -> None:
    assert render.target(a_record(host=None, address="2001:db8::7")) == "[2001:db8::7]:443"


def test_times_are_shown_in_the_zone_that_was_asked_for() -> None:
    assert render.time_text(NOON_US, timezone(timedelta(hours=9))) == "2026-11-21 21:00:00.000"
    assert render.time_text(2**63 - 1, UTC) == f"{2**63 - 1}us"


@pytest.mark.parametrize("action", ["allow", "deny", "fail"])
def test_colour_is_added_to_the_action_only_if_asked(action: str) -> None:
    record = a_record(action=action)
    plain = render.line(record, zone=UTC)
    coloured = render.line(record, zone=UTC, colour=True)
    assert "\x1b" not in plain
    assert coloured.count("\x1b") == 2
    assert f"m{action}\x1b[0m" in coloured
    assert coloured.replace("\x1b[0m", "").replace(coloured[coloured.index("\x1b") :][:5], "") == plain


@given(st.text(st.characters(), max_size=60))
def test_no_text_can_break_out_of_its_column(text: str) -> None:
    record = a_record(**everywhere(text))
    for shown in (render.line(record, zone=UTC), render.header()):
        assert shown.isprintable()
    line = render.line(a_record(user=text), zone=UTC)
    before, after = line.split("192.168.1.5", 1) if "192.168.1.5" not in text else ("", "")
    assert before.count('"') % 2 == 0 or '\\"' in before
    assert '"' not in after


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("kim", "kim"),
        (None, "-"),
        ("-", '"-"'),
        ("", '""'),
        ("a b", '"a b"'),
        ('a"b', '"a\\"b"'),
        ("a\nb", "a\\x0ab"),
        ("\x1b[2J", "\\x1b[2J"),
        ("\u202e", "\\u202e"),
        ("x" * 300, '"' + "x" * 200 + '… (100 more)"'),
    ],
)
def test_words_are_escaped_and_quoted(text: str | None, shown: str) -> None:
    assert render.word(text) == shown


@given(st.text(st.characters(), max_size=60))
def test_the_wide_form_has_every_field_on_one_line_each(text: str) -> None:
    lines = render.wide(a_record(**everywhere(text)), zone=UTC).split("\n")
    assert [line.split()[0] for line in lines] == list(COLUMNS)
    assert all(line.isprintable() for line in lines)


@given(st.text(st.characters(), max_size=60))
def test_json_is_printable_ascii_and_keeps_the_text(text: str) -> None:
    record = a_record(**everywhere(text))
    line = render.json_line(record)
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == to_builtins(record)


@pytest.mark.parametrize(
    ("size", "shown"),
    [(0, "0"), (1023, "1023"), (1024, "1.0k"), (45_678, "45k"), (2**20 - 1, "1.0M"), (2**63 - 1, "8192P")],
)
def test_sizes_are_short(size: int, shown: str) -> None:
    assert render.size_text(size) == shown


@pytest.mark.parametrize(
    ("duration_us", "shown"),
    [
        (0, "0us"), (999, "999us"), (12_345, "12ms"), (3_400_000, "3.4s"), (59_999_999, "59s"),
        (320_000_000, "5m20s"), (11_100_000_000, "3h05m"),
    ],
)  # fmt: skip
def test_durations_are_short(duration_us: int, shown: str) -> None:
    assert render.duration_text(duration_us) == shown
