"""Conditions as they are typed, and the records that they find."""

from __future__ import annotations

import contextlib
from datetime import UTC, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.record.samples import NOON_US, Clock, Events, a_record, settings

from doorward.record.model import Record
from doorward.record.query import INTEGER_MAX, BadCondition, Query, parse_conditions
from doorward.record.reader import read
from doorward.record.writer import Writer

HOUR_US = 3_600_000_000
RECORDS = [
    a_record(
        1,
        time_us=NOON_US - 2 * HOUR_US,
        user=None,
        bytes_sent=0,
        bytes_received=2 * 2**20,
        connect_us=250_000,
        operation="accept",
        parent=5,
    ),
    a_record(
        2,
        time_us=NOON_US,
        action="deny",
        reason="no_rule",
        host="WWW.example.org".lower(),
        port=80,
        rule=None,
    ),
    a_record(3, client_address="10.1.2.3", host=None, address="2001:db8::7", user="O'Neil; --", port=22),
    a_record(4, client_address="not an address", host="example.org", address=None, action="fail", end=None),
    a_record(5, host="a.b.example.org", address="198.51.100.9", rule="100% _wild_", duration_us=90_000_000),
    a_record(
        6, host="evil\x00.example.org", address="10.0.0.1", detail="Said: GO AWAY", session=9, via="corp"
    ),
]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chosen = settings(tmp_path_factory.mktemp("log"))
    writer = Writer(chosen, Events(), Clock())
    writer.write(RECORDS)
    writer.close()
    return chosen.path


def parse(*words: str) -> Query:
    return parse_conditions(words, now_us=NOON_US + HOUR_US, zone=UTC)


def found(store: Path, *words: str) -> list[int]:
    return [record.connection for record in read(store, parse(*words), newest_first=False)]


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("", [1, 2, 3, 4, 5, 6]),
        ("action=deny", [2]),
        ("action!=allow", [2, 4]),
        ("user=kim", [2, 4, 5, 6]),
        ("user!=kim", [1, 3]),
        ("user=", [1]),
        ("user=O'Neil; --", [3]),
        ("rule~FETCH", [1, 3, 4, 6]),
        ("rule~%", [5]),
        ("rule~_", [5]),
        ("rule!~fetch", [2, 5]),
        ("detail~go away", [6]),
        ("reason=no_rule", [2]),
        ("host=example.org", [4]),
        ("host=EXAMPLE.org.", [4]),
        ("host=*.example.org", [1, 2, 5, 6]),
        ("host=.example.org", [1, 2, 4, 5, 6]),
        ("host!=*.example.org", [3, 4]),
        ("host=*", [1, 2, 4, 5, 6]),
        ("host=", [3]),
        ("host~b.ex", [5]),
        ("client=10.0.0.0/8", [3]),
        ("client!=10.0.0.0/8", [1, 2, 4, 5, 6]),
        ("client=192.168.1.5", [1, 2, 5, 6]),
        ("to=198.51.100.0/24", [5]),
        ("to=2001:db8::/32", [3]),
        ("to=127.1", []),
        ("to=10.1", [6]),
        ("to=example.org", [4]),
        ("to=*.b.example.org", [5]),
        ("to!=.example.org", [3]),
        ("address=", [4]),
        ("port=80", [2]),
        ("port!=443", [2, 3]),
        ("port<=80", [2, 3]),
        ("port<80", [3]),
        ("client-port=40000", [1, 2, 3, 4, 5, 6]),
        ("session=9", [6]),
        ("bytes>1m", [1]),
        ("bytes<=1m", [2, 3, 4, 5, 6]),
        ("bytes_sent=0b", [1]),
        ("bytes-received>=2MiB", [1]),
        ("duration>1m", [5]),
        ("duration>=1m30s", [5]),
        ("connect>200ms", [1]),
        ("end=", [4]),
        ("operation=accept", [1]),
        ("operation!=accept", [2, 3, 4, 5, 6]),
        ("operation~CONN", [2, 3, 4, 5, 6]),
        ("operation=", []),
        ("parent=5", [1]),
        ("parent>4", [1]),
        ("parent=", [2, 3, 4, 5, 6]),
        ("parent!=", [1]),
        ("via=corp", [6]),
        ("via=", [1, 2, 3, 4, 5]),
        ("since=2h", [2, 3, 4, 5, 6]),
        ("until=2h", [1]),
        ("since=2026-11-21T12:00", [2, 3, 4, 5, 6]),
        ("since=2026-11-21T13:00+01:00 until=2026-11-21T12:00:00", [2]),
        ("until=2026-11-20", []),
        ("action=deny user=kim since=1h", [2]),
        ("rule=engineers fetch code action=allow port=443", [1, 6]),
        ("rule='engineers fetch code' action=fail", [4]),
        ('  rule="engineers fetch code"   port=22 ', [3]),
        ("action=allow action=deny", []),
    ],
)
def test_conditions_find_what_they_say(store: Path, typed: str, expected: list[int]) -> None:
    assert found(store, typed) == expected


def test_words_may_come_apart_or_joined(store: Path) -> None:
    assert found(store, "action=allow", "port=443 host=*.example.org") == [1, 5, 6]


def test_a_quoted_value_may_look_like_a_condition() -> None:
    assert parse('detail="port=80 a>b" port=22').parameters == ("port=80 a>b", 22)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("usre=kim", "there is no field 'usre'; did you mean 'user'?"),
        ("qqq=1", "there is no field 'qqq'; the fields are action, address"),
        ("action=denied", "there is no action 'denied'; did you mean 'deny'?"),
        ("action=zzz", "there is no action 'zzz'; the actions are allow, deny, fail"),
        ("operation=conect", "there is no operation 'conect'; did you mean 'connect'?"),
        ("operation=zzz", "the operations are connect, bind, accept, udp, destination, resolve"),
        ("parent=kim", "parent is a number, not 'kim'"),
        ("parent>", "parent is a number, not ''"),
        ("deny", "'deny' is not a condition; write it like action=deny"),
        ("=x", "'=x' is not a condition"),
        ("port=https", "port is a number, not 'https'"),
        ("port=٤", "port is a number"),
        ("port~8", "port~ has no meaning; use one of port=, port!="),
        ("user>kim", "user> has no meaning; use one of user=, user!=, user~, user!~"),
        ("client=lan", "client is an address or a range like 10.0.0.0/8, not 'lan'"),
        ("host=a b", "host~text finds any text"),
        ("to=", ""),
        ("bytes>1x", "bytes is a size like 500, 20k or 1m, not '1x'"),
        ("duration>1", "duration is a time like 200ms, 10s or 1h30m, not '1'"),
        ("since=yesterday", "since is a time like 1h, 2d, 2026-11-20"),
        ("since=1h30", "since is a time like 1h"),
        ("since>1h", "since> has no meaning; use one of since="),
        ("since=0001-01-01T00:00+23:00", ""),
        ("user=\ud800", "the value of user is not valid text"),
        ("user=" + "x" * 10_001, "longer than 10000 characters"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(typed: str, message: str) -> None:
    if not message:
        parse(typed)  # odd, but not a mistake
        return
    with pytest.raises(BadCondition) as caught:
        parse(typed)
    assert message in str(caught.value)


def test_numbers_stay_within_what_the_store_can_compare() -> None:
    assert (
        parse("port=9999999999999999999", "bytes>9999999t", "duration>99999999999999w").parameters
        == (INTEGER_MAX,) * 3
    )
    assert parse("since=9999999999999w").since_us == 0


def test_a_time_without_offset_is_read_in_the_given_zone() -> None:
    there = timezone(timedelta(hours=9))
    query = parse_conditions(["since=2026-11-21T21:00"], now_us=0, zone=there)
    assert query.since_us == NOON_US
    assert parse_conditions(["since=2026-11-21T12:00Z"], now_us=0).since_us == NOON_US


def test_the_latest_since_decides_which_files_are_opened() -> None:
    assert parse("since=1h since=30m").since_us == NOON_US + HOUR_US // 2


@given(st.lists(st.text(max_size=40), max_size=3))
def test_whatever_is_typed_is_understood_or_refused(words: list[str]) -> None:
    with contextlib.suppress(BadCondition):
        parse(*words)


FIELD = st.sampled_from(
    ["action", "user", "host", "to", "client", "port", "bytes", "since", "rule", "duration"]
)
OPERATOR = st.sampled_from(["=", "!=", "~", "!~", ">", "<", ">=", "<="])


@given(FIELD, OPERATOR, st.text(max_size=30))
def test_no_text_of_the_operator_reaches_the_statement(field: str, operator: str, value: str) -> None:
    marked = f"'; DROP TABLE record; -- {value}"
    try:
        query = parse(f"{field}{operator}{marked}")
    except BadCondition:
        return
    assert "DROP" not in query.sql
    assert query.sql.count("?") == len(query.parameters)


def test_records_of_the_sample_are_all_kept(store: Path) -> None:
    assert list(read(store, Query(), newest_first=False)) == RECORDS
    assert all(isinstance(record, Record) for record in RECORDS)
