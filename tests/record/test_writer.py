"""The row of files: begun, filled, ended, put aside, deleted."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.record.samples import DAY_US, NOON_US, Clock, Events, a_record, settings

from doorward.config.model import LogSettings
from doorward.record import files
from doorward.record.model import StoreInUse
from doorward.record.query import Query
from doorward.record.reader import read
from doorward.record.writer import UPKEEP_INTERVAL_US, Writer


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def begin(tmp_path: Path, events: Events, clock: Clock) -> Iterator[Callable[..., Writer]]:
    writers = []

    def begin(**changes: Any) -> Writer:
        writers.append(Writer(settings(tmp_path, **changes), events, clock))
        return writers[-1]

    yield begin
    for writer in writers:
        writer.close()


def connections(directory: Path) -> list[int]:
    return [record.connection for record in read(directory / "doorward.db", Query(), newest_first=False)]


def store_files(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir() if path.suffix == ".db")


def test_a_missing_directory_is_made_private(tmp_path: Path, begin: Callable[..., Writer]) -> None:
    begin(path=tmp_path / "var" / "doorward.db").open()
    assert stat.S_IMODE((tmp_path / "var").stat().st_mode) == 0o700


def test_a_full_file_is_ended_under_its_time_and_none_is_lost(
    tmp_path: Path, begin: Callable[..., Writer]
) -> None:
    writer = begin(file_bytes_max=100_000)
    for start in range(0, 3000, 500):
        writer.write([a_record(number) for number in range(start, start + 500)])
        writer.upkeep()
    assert len(store_files(tmp_path)) > 2
    assert store_files(tmp_path)[0] == "doorward-20261121T120000.000000Z.db"
    assert connections(tmp_path) == list(range(3000))


def test_numbers_grow_across_files_even_if_the_clock_is_set_back(
    tmp_path: Path, begin: Callable[..., Writer], clock: Clock
) -> None:
    writer = begin()
    for number in range(5):
        writer.write([a_record(number)])
        writer.rotate()
        clock.now_us -= 1_000_000
    assert len(files.archives(tmp_path / "doorward.db")) == 5
    assert connections(tmp_path) == list(range(5))


def test_an_empty_file_is_not_ended(tmp_path: Path, begin: Callable[..., Writer]) -> None:
    writer = begin()
    writer.rotate()
    assert store_files(tmp_path) == ["doorward.db"]


def test_a_new_day_begins_a_new_file_even_without_records(
    tmp_path: Path, begin: Callable[..., Writer], clock: Clock
) -> None:
    writer = begin()
    writer.write([a_record()])
    writer.upkeep()
    clock.now_us += DAY_US // 2
    writer.upkeep()
    assert len(store_files(tmp_path)) == 2


def test_the_log_stays_within_its_bound_while_it_is_written(
    tmp_path: Path, begin: Callable[..., Writer], clock: Clock, events: Events
) -> None:
    writer = begin(file_bytes_max=50_000, total_bytes_max=300_000)
    for start in range(0, 10_000, 200):
        writer.write([a_record(number) for number in range(start, start + 200)])
        writer.upkeep()
        clock.now_us += 1_000_000
        assert sum(path.stat().st_size for path in tmp_path.glob("*.db")) <= 300_000 + 100_000
    kept = connections(tmp_path)
    assert "record_file_deleted" in events.names
    assert kept == list(range(kept[0], 10_000))


def test_old_files_go_at_the_start_and_every_hour(
    tmp_path: Path, begin: Callable[..., Writer], clock: Clock
) -> None:
    old = files.archive_path(tmp_path / "doorward.db", NOON_US)
    writer = begin(keep_days=1)
    old.touch()
    clock.now_us = old.stat().st_mtime_ns // 1000 + DAY_US + 1
    writer.upkeep()
    assert not old.exists()
    old.touch()
    clock.now_us += DAY_US
    writer.upkeep()
    assert not old.exists()
    assert UPKEEP_INTERVAL_US < DAY_US


@pytest.mark.parametrize(
    "damage", [b"this is no database at all" * 100, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_a_damaged_file_is_put_aside_and_a_new_one_begun(
    tmp_path: Path, begin: Callable[..., Writer], events: Events, damage: bytes
) -> None:
    (tmp_path / "doorward.db").write_bytes(damage)
    writer = begin()
    writer.write([a_record(5)])
    (aside,) = tmp_path.glob("doorward.db.corrupt-*")
    assert aside.read_bytes() == damage
    assert events.names == ["record_file_corrupt"]
    assert events.told[0][1]["moved_to"] == str(aside)
    assert connections(tmp_path) == [5]


def test_a_file_damaged_while_it_is_written_costs_no_new_record(
    tmp_path: Path, begin: Callable[..., Writer], events: Events
) -> None:
    writer = begin()
    writer.write([a_record(number) for number in range(2000)])
    writer.close()
    with (tmp_path / "doorward.db").open("r+b") as file:
        file.seek(4096)
        file.write(b"\xff" * 400_000)
    writer.write([a_record(1)])
    assert events.names == ["record_file_corrupt"]
    assert connections(tmp_path) == [1]


def test_a_file_moved_away_by_hand_is_followed_by_a_new_one(
    tmp_path: Path, begin: Callable[..., Writer], events: Events
) -> None:
    writer = begin()
    writer.write([a_record(1)])
    (tmp_path / "doorward.db").rename(tmp_path / "taken.db")
    writer.write([a_record(2)])
    assert connections(tmp_path) == [2]
    with closing(sqlite3.connect(tmp_path / "taken.db")) as taken:
        assert taken.execute("SELECT connection FROM record").fetchall() == [(1,)]
    assert events.names == ["record_file_vanished"]


def test_a_deleted_directory_is_made_again(tmp_path: Path, begin: Callable[..., Writer]) -> None:
    directory = tmp_path / "var"
    writer = begin(path=directory / "doorward.db")
    writer.write([a_record(1)])
    shutil.rmtree(directory)
    writer.write([a_record(2)])
    assert connections(directory) == [2]


def test_a_second_process_is_refused_while_the_first_one_lives(
    begin: Callable[..., Writer], tmp_path: Path, events: Events, clock: Clock
) -> None:
    first, second = begin(), begin()
    first.open()
    with pytest.raises(StoreInUse):
        second.open()
    first.close()
    second.open()


def test_a_reader_delays_the_end_of_a_file_but_not_for_ever(
    tmp_path: Path, begin: Callable[..., Writer]
) -> None:
    writer = begin(file_bytes_max=100_000)
    writer.write([a_record(number) for number in range(500)])
    with closing(sqlite3.connect(tmp_path / "doorward.db")) as reader:
        reader.execute("SELECT count(*) FROM record").fetchone()
        writer.write([a_record(number) for number in range(500, 1000)])
        writer.upkeep()
        assert len(store_files(tmp_path)) == 1
        writer.write([a_record(number) for number in range(1000, 2000)])
        writer.upkeep()
        assert len(store_files(tmp_path)) == 2
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (2000,)
    assert connections(tmp_path) == list(range(2000))


def test_what_cannot_be_deleted_is_told_and_stops_nothing(
    tmp_path: Path, begin: Callable[..., Writer], clock: Clock, events: Events
) -> None:
    stubborn = files.archive_path(tmp_path / "doorward.db", NOON_US)
    stubborn.mkdir()
    (stubborn / "inside").touch()
    writer = begin(keep_days=1)
    clock.now_us = stubborn.stat().st_mtime_ns // 1000 + 2 * DAY_US
    writer.upkeep()
    assert events.names == ["record_file_not_deleted"]


def test_a_closed_store_leaves_one_plain_file_and_opens_again(
    tmp_path: Path, begin: Callable[..., Writer]
) -> None:
    chosen: LogSettings = settings(tmp_path)
    writer = begin()
    writer.write([a_record(1)])
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["doorward.db", "doorward.db.lock"]
    writer.write([a_record(2)])
    assert [record.connection for record in read(chosen.path, Query())] == [2, 1]
