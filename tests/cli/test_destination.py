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
    target, found, transport = parse_destination(text)
    assert transport == "tcp"
    try:
        assert (target.address, target.host) == (ip_address(host), None)
    except ValueError:
        assert (target.address, target.host) == (None, host)
    assert (target.port, found) == (port, application)


@pytest.mark.parametrize(
    "text",
    ["", "a.test", "tcp://a.test", "tcp://:80", "tcp://a.test:0", "http://a.test:0", "tcp://a.test:65536",
     "tcp://a.test:x", "tcp://a b:80", "tcp://bücher.test:80", "tcp://[::1:80",
     "udp://a.test", "udp://a.test:0", "tcp-in://a.test:5000", "tcp-in://192.0.2.1", "tcp-in://*", "tcp-in://:5000",
     "tcp-in://*.test:80", "udp-in://*:65536", "tcp://*:80", "sctp-in://*:80",
     "gopher://a.test:70", "::1:80", "tcp://::1:80", "tcp://1.2.3.4.5:80", "tcp://\x1b[31m:80"],
)  # fmt: skip
def test_what_is_no_destination_is_a_sentence(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        parse_destination(text)


@given(st.text())
def test_any_text_is_a_destination_or_a_sentence(text: str) -> None:
    try:
        target, _, transport = parse_destination(text)
    except ValueError:
        return
    assert (0 if transport.endswith("-in") else 1) <= target.port <= 65_535


@pytest.mark.parametrize(
    "text",
    ["udp://a.test:53", "udp://192.0.2.1:53", "tcp-in://192.0.2.1:5000", "udp-in://[2001:db8::1]:0",
     "tcp-in://*:5000", "udp-in://*:0", "tcp://a.test:1"],
)  # fmt: skip
def test_a_transport_is_part_of_a_destination(text: str) -> None:
    destination = parse_destination(text)
    assert destination.transport == text.partition(":")[0]
    assert str(destination) == text
    assert (destination.target.host, destination.target.address) == (None, None) or "*" not in text


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
