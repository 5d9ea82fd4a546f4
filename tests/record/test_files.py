"""Names, order and removal of the store's files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.record.samples import DAY_US, NOON_US, settings

from doorward.record import files


def make(path: Path, size: int = 1000, changed_us: int = NOON_US) -> Path:
    path.write_bytes(b"x" * size)
    os.utime(path, ns=(changed_us * 1000, changed_us * 1000))
    return path


@given(st.integers(0, 253_402_300_799_999_999))
def test_the_name_of_an_archive_tells_its_first_record(first_id: int) -> None:
    name = files.archive_path(Path("/var/log/doorward.db"), first_id).name
    assert files._time_us(name.removeprefix("doorward-").removesuffix(".db")) == first_id


def test_an_archive_is_named_after_its_time() -> None:
    assert files.archive_path(Path("/x/doorward.db"), NOON_US) == Path(
        "/x/doorward-20261121T120000.000000Z.db"
    )


def test_archives_come_oldest_first_and_nothing_else_is_taken_for_one(tmp_path: Path) -> None:
    path = tmp_path / "doorward.db"
    for first_id in (NOON_US + 2, NOON_US, NOON_US + 1):
        make(files.archive_path(path, first_id))
    for stranger in (
        *(
            "doorward.db",
            "doorward-copy.db",
            "doorward-20261121T120000.000000Z.db-wal",
            "other-20261121T120000.000000Z.db",
        ),
        "doorward-20269921T120000.000000Z.db",
    ):
        make(tmp_path / stranger)
    assert [archive.first_id - NOON_US for archive in files.archives(path)] == [0, 1, 2]


def test_a_missing_directory_is_an_error_for_whoever_lists_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.archives(tmp_path / "gone" / "doorward.db")


def test_a_database_moves_with_what_is_beside_it(tmp_path: Path) -> None:
    source, target = tmp_path / "a.db", tmp_path / "b.db"
    for suffix in ("", "-wal", "-shm"):
        make(Path(f"{source}{suffix}"))
    files.move(source, target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.db", "b.db-shm", "b.db-wal"]


def test_the_oldest_go_until_the_rest_leaves_room_for_one_full_file(tmp_path: Path) -> None:
    chosen = settings(tmp_path, file_bytes_max=1000, total_bytes_max=3000)
    paths = [
        make(files.archive_path(chosen.path, NOON_US + number), changed_us=NOON_US + number)
        for number in range(5)
    ]
    assert files.expired(chosen, NOON_US) == paths[:3]


def test_a_file_goes_when_its_youngest_record_is_too_old(tmp_path: Path) -> None:
    chosen = settings(tmp_path, keep_days=2)
    old = make(files.archive_path(chosen.path, NOON_US), changed_us=NOON_US)
    make(files.archive_path(chosen.path, NOON_US + 1), changed_us=NOON_US + DAY_US)
    assert files.expired(chosen, NOON_US + 2 * DAY_US) == []
    assert files.expired(chosen, NOON_US + 2 * DAY_US + 1) == [old]


def test_damaged_files_count_and_go_as_well(tmp_path: Path) -> None:
    chosen = settings(tmp_path, file_bytes_max=1000, total_bytes_max=2000)
    damaged = make(files.corrupt_path(chosen.path, NOON_US), size=5000, changed_us=NOON_US)
    make(files.archive_path(chosen.path, NOON_US), changed_us=NOON_US + 1)
    assert files.expired(chosen, NOON_US) == [damaged]


def test_deleting_takes_what_is_beside_it_and_forgives_what_is_gone(tmp_path: Path) -> None:
    path = make(tmp_path / "a.db")
    make(tmp_path / "a.db-wal")
    files.delete(path)
    files.delete(path)
    assert list(tmp_path.iterdir()) == []
