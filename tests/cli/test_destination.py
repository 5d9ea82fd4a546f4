from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.cli.destination import parse_destination, parse_moment

ZONE = timezone(timedelta(hours=2))
WEDNESDAY = datetime(2026, 11, 18, 15, 30, 20, tzinfo=ZONE)


@pytest.mark.parametrize(
    ("text", "host", "port", "application"),
    [
        ("tcp://a.test:1", "a.test", 1, None),
        ("a.test:443", "a.test", 443, None),
        ("A.Test.:443", "a.test", 443, None),
        ("http://a.test/path?q", "a.test", 80, "http"),
        ("http://a.test:8080", "a.test", 8080, "http"),
        ("https://a.test/", "a.test", 443, None),
        ("ssh://git@a.test", "a.test", 22, None),
        ("tcp://127.0.0.1:80", "127.0.0.1", 80, None),
        ("tcp://127.1:80", "127.0.0.1", 80, None),
        ("tcp://[::1]:80", "::1", 80, None),
        ("http://[2001:db8::1]/", "2001:db8::1", 80, "http"),
        ("[::ffff:127.0.0.1]:80", "127.0.0.1", 80, None),
    ],
)
def test_a_destination_as_people_write_it(text: str, host: str, port: int, application: str | None) -> None:
    target, found = parse_destination(text)
    try:
        assert (target.address, target.host) == (ip_address(host), None)
    except ValueError:
        assert (target.address, target.host) == (None, host)
    assert (target.port, found) == (port, application)


@pytest.mark.parametrize(
    "text",
    ["", "a.test", "tcp://a.test", "tcp://:80", "tcp://a.test:0", "http://a.test:0", "tcp://a.test:65536",
     "tcp://a.test:x", "tcp://a b:80", "tcp://bücher.test:80", "tcp://[::1:80", "udp://a.test:53",
     "gopher://a.test:70", "::1:80", "tcp://::1:80", "tcp://1.2.3.4.5:80", "tcp://\x1b[31m:80"],
)  # fmt: skip
def test_what_is_no_destination_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_destination(text)


@given(st.text())
def test_any_text_is_a_destination_or_a_sentence(text: str) -> None:
    try:
        target, _ = parse_destination(text)
    except ValueError:
        return
    assert 1 <= target.port <= 65_535


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        (None, WEDNESDAY),
        ("10:00", datetime(2026, 11, 18, 10, tzinfo=ZONE)),
        ("fri 10:00", datetime(2026, 11, 20, 10, tzinfo=ZONE)),
        ("MON 00:05", datetime(2026, 11, 16, 0, 5, tzinfo=ZONE)),
        ("2026-11-20T10:00", datetime(2026, 11, 20, 10, tzinfo=ZONE)),
        ("2026-11-20 10:00", datetime(2026, 11, 20, 10, tzinfo=ZONE)),
        ("2026-11-20T10:00+00:00", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20", datetime(2026, 11, 20, tzinfo=ZONE)),
    ],
)
def test_a_moment_as_people_write_it(text: str | None, moment: datetime) -> None:
    assert parse_moment(text, WEDNESDAY) == moment


@pytest.mark.parametrize(
    "text",
    ["", " ", "25:00", "24:00", "10:60", "foo 10:00", "mon-fri 10:00", "yesterday", "10", "a b c", ":"],
)
def test_what_is_no_moment_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_moment(text, WEDNESDAY)


@given(st.text())
def test_any_text_is_a_moment_or_a_sentence(text: str) -> None:
    try:
        assert parse_moment(text, WEDNESDAY).tzinfo is not None
    except ValueError:
        pass
