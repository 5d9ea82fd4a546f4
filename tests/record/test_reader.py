"""Reading a store that is being written, rotated, thinned out, or not there."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.record import format_1
from tests.record.samples import DAY_US, NOON_US, Clock, Events, a_record, everywhere, settings

from doorward.record import files, reader, schema
from doorward.record.model import StoreError, StoreMissing, StoreUnknown
from doorward.record.query import Query, parse_conditions
from doorward.record.reader import PAGE_ROWS, follow, read
from doorward.record.writer import Writer

ALL = Query()


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


def write(writer: Writer, *connections: int) -> None:
    writer.write([a_record(number) for number in connections])


def query(*words: str) -> Query:
    return parse_conditions(words, now_us=NOON_US)


def numbers(path: Path, **options: Any) -> list[int]:
    return [record.connection for record in read(path, ALL, **options)]


def test_records_come_newest_first_or_oldest_first_over_all_files(writer: Writer, path: Path) -> None:
    for number in range(5):
        write(writer, 2 * number, 2 * number + 1)
        writer.rotate()
    write(writer, 10)
    assert numbers(path) == list(range(10, -1, -1))
    assert numbers(path, newest_first=False) == list(range(11))
    assert numbers(path, limit=3) == [10, 9, 8]
    assert numbers(path, limit=3, newest_first=False) == [0, 1, 2]
    assert numbers(path, limit=0) == []


def test_more_than_a_page_comes_whole_across_files(writer: Writer, path: Path) -> None:
    count = 2 * PAGE_ROWS + 500
    for start in range(0, count, 500):
        write(writer, *range(start, start + 500))
        writer.rotate()
    assert numbers(path, newest_first=False) == list(range(count))
    assert numbers(path, limit=PAGE_ROWS + 700) == list(range(count - 1, count - PAGE_ROWS - 701, -1))


def test_a_file_that_ends_between_two_pages_changes_nothing(writer: Writer, path: Path) -> None:
    count = 3 * PAGE_ROWS
    write(writer, *range(count))
    records = read(path, ALL)
    seen = [next(records).connection for _ in range(10)]
    writer.rotate()
    write(writer, count)
    seen += [record.connection for record in records]
    assert seen == list(range(count - 1, -1, -1))


def test_a_file_that_ends_within_a_page_is_not_passed_over(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer, 1, 2, 3)
    original = reader._rows_of_file

    def rotate_first(file: Path, page: Any) -> list[Any]:
        monkeypatch.setattr(reader, "_rows_of_file", original)
        writer.rotate()
        write(writer, 4)
        return original(file, page)

    monkeypatch.setattr(reader, "_rows_of_file", rotate_first)
    assert numbers(path, newest_first=False) == [1, 2, 3, 4]


def test_a_store_that_never_stands_still_is_an_error_and_not_a_loop(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(writer, 0)
    original = reader._rows_of_file

    def always_rotate(file: Path, page: Any) -> list[Any]:
        if file == path:
            write(writer, 1)
            writer.rotate()
        return original(file, page)

    monkeypatch.setattr(reader, "_rows_of_file", always_rotate)
    with pytest.raises(StoreError, match="changes faster than it can be read"):
        numbers(path)


def test_files_that_are_deleted_meanwhile_are_left_out(writer: Writer, path: Path) -> None:
    write(writer, *range(PAGE_ROWS))
    writer.rotate()
    write(writer, *range(PAGE_ROWS, 2 * PAGE_ROWS))
    records = read(path, ALL)
    seen = [next(records).connection]
    files.delete(files.archives(path)[0].path)
    seen += [record.connection for record in records]
    assert seen == list(range(2 * PAGE_ROWS - 1, PAGE_ROWS - 1, -1))


def test_files_older_than_since_are_not_opened(writer: Writer, path: Path) -> None:
    write(writer, 1)
    writer.rotate()
    (archive,) = files.archives(path)
    archive.path.write_bytes(b"unreadable")
    now_us = archive.path.stat().st_mtime_ns // 1000 + 2 * DAY_US
    write(writer, 2)
    recent = parse_conditions(["since=1d"], now_us=now_us)
    assert list(read(path, recent)) == []
    with pytest.raises(StoreError, match=r"cannot read the log .*not a database"):
        numbers(path)


def test_a_missing_store_is_told_at_once(path: Path, tmp_path: Path) -> None:
    for missing in (path, tmp_path / "nowhere" / "doorward.db"):
        with pytest.raises(StoreMissing, match="there is no log at"):
            read(missing, ALL)
        with pytest.raises(StoreMissing, match="there is no log at"):
            follow(missing, ALL)
    assert list(tmp_path.iterdir()) == []


def test_archives_alone_can_be_read(writer: Writer, path: Path) -> None:
    write(writer, 1)
    writer.rotate()
    writer.close()
    path.unlink()
    assert numbers(path) == [1]


def test_reading_makes_no_file_and_changes_none(writer: Writer, path: Path, tmp_path: Path) -> None:
    write(writer, 1)
    writer.rotate()
    write(writer, 2)
    writer.close()
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()}
    assert numbers(path) == [2, 1]
    assert {entry.name: entry.read_bytes() for entry in tmp_path.iterdir()} == before


def test_a_copied_file_is_read_without_making_files_beside_it(
    writer: Writer, path: Path, tmp_path: Path
) -> None:
    write(writer, 1)
    (tmp_path / "copies").mkdir()
    copy = tmp_path / "copies" / "doorward.db"
    with closing(sqlite3.connect(copy)) as target, closing(sqlite3.connect(path)) as source:
        source.backup(target)
        target.execute("PRAGMA journal_mode = WAL")
    assert numbers(copy) == [1]
    assert [entry.name for entry in copy.parent.iterdir()] == ["doorward.db"]


def test_a_reader_that_is_paused_keeps_nobody_from_ending_the_file(writer: Writer, path: Path) -> None:
    write(writer, *range(2 * PAGE_ROWS))
    records = read(path, ALL)
    next(records)
    writer.rotate()
    assert len(files.archives(path)) == 1
    assert len(list(records)) == 2 * PAGE_ROWS - 1


def test_a_newer_version_is_an_error(writer: Writer, path: Path) -> None:
    write(writer, 1)
    writer.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 5")
    with pytest.raises(StoreUnknown, match="format 5"):
        numbers(path)


def test_text_that_is_not_utf_8_does_not_end_the_reading(writer: Writer, path: Path) -> None:
    write(writer, 1)
    writer.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE record SET host = CAST(x'61ff62' AS TEXT)")
        connection.commit()
    assert [record.host for record in read(path, ALL)] == ["a\ufffdb"]


def test_hostile_text_in_every_field_comes_back_and_can_be_filtered(writer: Writer, path: Path) -> None:
    hostile = "\x1b[2J\x00\u202e'; --"
    record = a_record(1, **everywhere(hostile))
    writer.write([record])
    assert list(read(path, query("host=*.example.org", "client=10.0.0.0/8"))) == []
    assert list(read(path, query("host!=*.example.org", "client!=10.0.0.0/8", "rule~'; --"))) == [record]


def test_a_path_with_special_characters_is_read(tmp_path: Path) -> None:
    chosen = settings(tmp_path, path=tmp_path / "a ?b=c#%41&mode=rw.db")
    writer = Writer(chosen, Events(), Clock())
    write(writer, 1)
    assert numbers(chosen.path) == [1]
    writer.close()


def script(*steps: Callable[[], object]) -> Callable[[float], bool]:
    """Stands in for waiting: one step each time, and the end after the last."""
    left = list(steps)

    def wait(seconds: float) -> bool:
        assert seconds == reader.FOLLOW_INTERVAL_S
        if not left:
            return False
        left.pop(0)()
        return True

    return wait


def test_follow_yields_the_last_ones_and_then_new_ones_across_rotation(writer: Writer, path: Path) -> None:
    write(writer, 1, 2, 3)

    def fill_two_files() -> None:
        write(writer, 6)
        writer.rotate()
        write(writer, 7)
        writer.rotate()
        write(writer, 8)

    wait = script(
        lambda: write(writer, 4), lambda: None, writer.rotate, lambda: write(writer, 5), fill_two_files
    )
    assert [record.connection for record in follow(path, ALL, backlog=2, wait=wait)] == [2, 3, 4, 5, 6, 7, 8]


def test_follow_shows_only_what_matches(writer: Writer, path: Path) -> None:
    write(writer, 1)
    wait = script(lambda: write(writer, 2, 3), lambda: write(writer, 4))
    found = follow(path, query("connection=3"), backlog=10, wait=wait)
    assert [record.connection for record in found] == [3]


def test_follow_survives_a_restart_and_a_damaged_file(writer: Writer, path: Path, clock: Clock) -> None:
    write(writer, *range(100))

    def restart() -> None:
        writer.close()
        write(writer, 100)

    def damage() -> None:
        writer.close()
        path.write_bytes(b"damage" * 1000)
        clock.now_us += 1_000_000
        write(writer, 101)

    wait = script(restart, damage)
    assert [record.connection for record in follow(path, ALL, wait=wait)] == [100, 101]


def test_follow_begins_with_an_empty_store(writer: Writer, path: Path) -> None:
    writer.open()
    wait = script(lambda: write(writer, 1))
    assert [record.connection for record in follow(path, ALL, backlog=5, wait=wait)] == [1]


def test_files_of_both_formats_are_one_log(path: Path, clock: Clock) -> None:
    """An archive and the current file come from before; the current one is continued, and another one begun."""
    format_1.write(files.archive_path(path, NOON_US), [a_record(1), a_record(2)])
    format_1.write(path, [a_record(3)], first_id=NOON_US + 10)
    assert numbers(path, newest_first=False) == [1, 2, 3]
    clock.now_us += 1_000_000
    writer = Writer(settings(path.parent), Events(), clock)
    accepted = a_record(4, operation="accept", parent=3, via="corp")
    writer.write([accepted])
    writer.rotate()
    writer.write([a_record(5, operation=None)])
    everything = [a_record(1), a_record(2), a_record(3), accepted, a_record(5, operation=None)]
    assert list(read(path, ALL, newest_first=False)) == everything
    assert list(read(path, ALL)) == everything[::-1]
    for words, found in (
        ("operation=connect", [1, 2, 3]),
        ("operation!=connect", [4, 5]),
        ("operation=", [5]),
        ("parent=3", [4]),
        ("parent=", [1, 2, 3, 5]),
        ("via!=corp", [1, 2, 3, 5]),
    ):
        assert [r.connection for r in read(path, query(words), newest_first=False)] == found
    writer.close()


def test_reading_a_file_of_format_1_leaves_it_as_it_is(path: Path, tmp_path: Path) -> None:
    format_1.write(path, [a_record(1)])
    before = path.read_bytes()
    assert numbers(path) == [1]
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_gets_another_format_while_it_is_read_is_read_in_one_of_them(
    writer: Writer, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    format_1.write(path, [a_record(1)])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        held = sqlite3.connect(path)  # so that the file is one that is being written to
        held.execute("SELECT 1 FROM record").fetchone()
    original = schema.source

    def upgrade_first(version: int) -> str:
        monkeypatch.setattr(schema, "source", original)
        writer.write([a_record(2, operation="bind")])
        return original(version)

    monkeypatch.setattr(schema, "source", upgrade_first)
    assert numbers(path) == [1]
    assert numbers(path) == [2, 1]
    held.close()


def test_follow_goes_on_when_a_newer_doorward_takes_over_the_file(path: Path) -> None:
    format_1.write(path, [a_record(1)])
    writer = Writer(settings(path.parent), Events(), Clock())
    wait = script(lambda: write(writer, 2), writer.rotate, lambda: write(writer, 3))
    assert [record.connection for record in follow(path, ALL, backlog=5, wait=wait)] == [1, 2, 3]
    writer.close()
