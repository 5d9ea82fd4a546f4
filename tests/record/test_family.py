"""What came of a connection, found by its number alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.record import format_1
from tests.record.samples import DAY_US, NOON_US, Clock, Events, a_record, settings

from doorward.record import family
from doorward.record.family import of_family
from doorward.record.model import Record, StoreError, StoreMissing
from doorward.record.query import Query, parse_conditions
from doorward.record.reader import follow, read
from doorward.record.writer import Writer


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def writer(tmp_path: Path, clock: Clock) -> Iterator[Writer]:
    writer = Writer(settings(tmp_path), Events(), clock)
    yield writer
    writer.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "doorward.db"


def an_ftp_session(begun_us: int = NOON_US) -> list[Record]:
    """Control connection 5, the bind 7 that it promised, the peer 8 that arrived there, in the order of their ends."""
    return [
        a_record(4, time_us=begun_us),
        a_record(8, time_us=begun_us + 30, operation="accept", parent=7),
        a_record(6, time_us=begun_us + 15),
        a_record(7, time_us=begun_us + 20, operation="bind", parent=5, action="deny"),
        a_record(5, time_us=begun_us + 10),
        a_record(9, time_us=begun_us + 40),
    ]


def found(path: Path, number: int, *words: str) -> list[int]:
    query = of_family(path, number, parse_conditions(words, now_us=NOON_US + DAY_US))
    return [record.connection for record in read(path, query, newest_first=False)]


def test_children_of_children_are_found_in_whatever_order_they_ended(writer: Writer, path: Path) -> None:
    writer.write(an_ftp_session())
    assert found(path, 5) == [8, 7, 5]
    assert found(path, 7) == [8, 7]
    assert found(path, 9) == [9]
    assert found(path, 77) == []


def test_a_family_is_found_across_files_and_formats(writer: Writer, path: Path) -> None:
    format_1.write(path, [a_record(5)])
    for record in an_ftp_session(NOON_US + 100):
        writer.write([record])
        writer.rotate()
    assert found(path, 5) == [8, 7, 5]


def test_the_destinations_of_a_mapping_have_its_number(writer: Writer, path: Path) -> None:
    destination = a_record(5, operation="destination", time_us=NOON_US + 20)
    promised = a_record(5, operation="destination", parent=5, time_us=NOON_US + 30)
    mapping = a_record(5, operation="udp", time_us=NOON_US + 10)
    records = [destination, mapping, promised]
    writer.write([a_record(5, operation="udp", time_us=NOON_US - 1000), *records])
    query = of_family(path, 5, Query())
    assert list(read(path, query, newest_first=False)) == records


def test_a_connection_of_an_earlier_start_with_the_same_number_is_another(writer: Writer, path: Path) -> None:
    writer.write(an_ftp_session(NOON_US))
    writer.write([a_record(5, time_us=NOON_US + DAY_US // 2), a_record(6, time_us=NOON_US + DAY_US // 2 + 1)])
    assert found(path, 5) == [5]
    assert found(path, 5, "until=2026-11-21T12:01Z") == [8, 7, 5]
    assert found(path, 7, "since=13h") == []


def test_conditions_choose_among_the_family_and_do_not_hide_who_leads_to_it(
    writer: Writer, path: Path
) -> None:
    writer.write(an_ftp_session())
    assert found(path, 5, "operation=accept") == [8]
    assert found(path, 5, "action=deny") == [7]


def test_a_connection_that_is_alive_and_not_on_record_yet_has_a_family(writer: Writer, path: Path) -> None:
    writer.write(an_ftp_session()[:4])
    assert found(path, 5) == [8, 7]


def test_peers_turned_away_are_children_but_other_nobodies_are_not(writer: Writer, path: Path) -> None:
    turned_away = a_record(0, operation="accept", parent=7, reason="peer_not_admitted", time_us=NOON_US + 25)
    somebody = a_record(0, operation=None, reason="bad_credentials", time_us=NOON_US + 26)
    writer.write([somebody, turned_away, *an_ftp_session(), somebody])
    assert found(path, 5) == [0, 8, 7, 5]
    assert found(path, 7) == [0, 8, 7]


def test_a_child_that_ends_later_is_followed(writer: Writer, path: Path) -> None:
    writer.write([a_record(5)])
    steps = iter([a_record(6), a_record(7, parent=5), None])

    def wait(seconds: float) -> bool:
        record = next(steps)
        if record is not None:
            writer.write([record])
        return record is not None

    followed = follow(path, of_family(path, 5, Query()), backlog=5, wait=wait)
    assert [record.connection for record in followed] == [5, 7]


def test_records_that_are_each_other_s_parents_end_the_search(writer: Writer, path: Path) -> None:
    writer.write([a_record(5, parent=6), a_record(6, parent=5), a_record(7, parent=7)])
    assert found(path, 5) == [5, 6]
    assert found(path, 7) == [7]


def test_a_family_of_the_largest_size_is_found_and_a_larger_one_is_told(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(family, "FAMILY_MAX", 4)
    writer.write([a_record(n, parent=5 if n > 5 else None) for n in range(5, 9)])
    assert found(path, 5) == [5, 6, 7, 8]
    writer.write([a_record(9, parent=5)])
    with pytest.raises(StoreError, match="more than 4 connections came of connection 5; parent=5 shows"):
        found(path, 5)


def test_the_largest_size_is_one_that_sqlite_takes(writer: Writer, path: Path) -> None:
    count = family.FAMILY_MAX
    writer.write([a_record(5), *(a_record(n, parent=5) for n in range(6, 5 + count))])
    assert len(found(path, 5)) == count


def test_without_a_store_that_is_said(path: Path) -> None:
    with pytest.raises(StoreMissing):
        of_family(path, 5, Query())
