"""One file, written in whole batches."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.record import format_1
from tests.record.samples import NOON_US, TEXT_FIELDS, a_record, everywhere

from doorward.record import schema
from doorward.record.database import ROWS_PER_STATEMENT_MAX, Database
from doorward.record.model import StoreUnknown
from doorward.record.query import Query
from doorward.record.reader import read


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "doorward.db", NOON_US)
    yield database
    database.close()


def values(path: Path, column: str) -> list[Any]:
    with closing(sqlite3.connect(path)) as connection:
        return [row[0] for row in connection.execute(f"SELECT {column} FROM record ORDER BY id")]  # noqa: S608


@pytest.mark.parametrize("count", [0, 1, 2, 3, 255, ROWS_PER_STATEMENT_MAX, 257, 1000])
def test_a_batch_of_any_size_arrives_whole_and_in_order(
    database: Database, tmp_path: Path, count: int
) -> None:
    assert database.insert([a_record(number) for number in range(count)]) == 0
    assert values(tmp_path / "doorward.db", "connection") == list(range(count))
    assert values(tmp_path / "doorward.db", "id") == list(range(NOON_US, NOON_US + count))
    assert database.next_id == NOON_US + count
    assert database.is_empty == (count == 0)


def test_a_file_goes_on_counting_when_it_is_opened_again(tmp_path: Path) -> None:
    for _ in range(2):
        database = Database(tmp_path / "doorward.db", NOON_US)
        database.insert([a_record(), a_record()])
        assert database.first_id == NOON_US
        database.close()
    assert values(tmp_path / "doorward.db", "id") == list(range(NOON_US, NOON_US + 4))


def test_the_file_and_what_is_beside_it_are_private_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        database = Database(tmp_path / "doorward.db", NOON_US)
        database.insert([a_record()])
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
        database.close()
    finally:
        os.umask(before)
    assert modes == {"doorward.db": 0o600, "doorward.db-wal": 0o600, "doorward.db-shm": 0o600}


@hypothesis_settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None
)
@given(st.text(st.characters(), max_size=50))
@example("'; DROP TABLE record; --")
@example("a\x00b")
@example("\x1b]0;title\x07\u202e\u0085")
def test_hostile_text_is_kept_as_it_is_in_every_field(database: Database, tmp_path: Path, text: str) -> None:
    database.insert([a_record(**everywhere(text))])
    expected = text.encode("utf-8", "backslashreplace").decode()
    for column in TEXT_FIELDS:
        assert values(tmp_path / "doorward.db", f'"{column}"')[-1] == expected


@pytest.mark.parametrize(
    ("column", "hostile", "kept"),
    [
        ("host", "\ud800.example.org", "\\ud800.example.org"),
        ("bytes_sent", 2**64, 2**63 - 1),
        ("detail", "x" * 100_000, "x" * 800),
        ("detail", "\U0001f600" * 100_000, "\U0001f600" * 800),
    ],
)
def test_a_record_that_cannot_be_stored_is_mended_and_takes_no_other_with_it(
    database: Database, tmp_path: Path, column: str, hostile: Any, kept: Any
) -> None:
    batch = [a_record(1), a_record(2, **{column: hostile}), a_record(3)]
    assert database.insert(batch) == 1
    assert values(tmp_path / "doorward.db", "connection") == [1, 2, 3]
    assert values(tmp_path / "doorward.db", column)[1] == kept


def test_a_record_at_its_worst_in_every_field_can_be_mended(database: Database) -> None:
    worst = "\U0001f600" * 70_000
    assert database.insert([a_record(**everywhere(worst))]) == 1


class FailingConnection(sqlite3.Connection):
    """Fails at the second statement that inserts."""

    insertions = 0

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        if sql.startswith("INSERT INTO record"):
            self.insertions += 1
            if self.insertions == 2:
                raise sqlite3.OperationalError("database or disk is full")
        return super().execute(sql, parameters)


def test_nothing_of_a_batch_stays_when_it_fails_half_way(tmp_path: Path) -> None:
    database = Database(
        tmp_path / "doorward.db", NOON_US, lambda *args, **kwargs: FailingConnection(*args, **kwargs)
    )
    with pytest.raises(sqlite3.OperationalError, match="full"):
        database.insert([a_record() for _ in range(300)])
    assert values(tmp_path / "doorward.db", "id") == []
    database.insert([a_record()])
    assert values(tmp_path / "doorward.db", "id") == [NOON_US]
    database.close()


def test_a_sealed_file_is_plain_and_alone(database: Database, tmp_path: Path) -> None:
    database.insert([a_record()])
    assert database.seal()
    assert [path.name for path in tmp_path.iterdir()] == ["doorward.db"]
    assert values(tmp_path / "doorward.db", "id") == [NOON_US]


def test_a_file_that_somebody_reads_is_sealed_only_on_insistence(database: Database, tmp_path: Path) -> None:
    database.insert([a_record()])
    with closing(sqlite3.connect(tmp_path / "doorward.db")) as reader:
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (1,)
        assert database.seal() is False
        database.insert([a_record()])
        assert database.seal(insist=True) is True
        assert reader.execute("SELECT count(*) FROM record").fetchone() == (2,)


def test_the_size_grows_with_what_is_written(database: Database) -> None:
    before = database.size_bytes
    database.insert([a_record(number) for number in range(1000)])
    assert database.size_bytes > before + 100_000


def test_a_file_that_was_moved_or_replaced_is_noticed(database: Database, tmp_path: Path) -> None:
    assert database.is_in_place()
    (tmp_path / "doorward.db").rename(tmp_path / "moved.db")
    assert not database.is_in_place()
    (tmp_path / "doorward.db").touch()
    assert not database.is_in_place()


def test_a_database_of_somebody_else_is_left_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "recipes.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    before = path.read_bytes()
    with pytest.raises(StoreUnknown):
        Database(path, NOON_US)
    assert path.read_bytes() == before


def test_a_file_of_format_1_goes_on_with_what_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "doorward.db"
    format_1.write(path, [a_record(1), a_record(2)])
    database = Database(path, NOON_US + 1000)
    assert (database.first_id, database.next_id) == (NOON_US, NOON_US + 2)
    database.insert([a_record(3, operation="accept", parent=2, via="corp")])
    database.close()
    assert values(path, "id") == [NOON_US, NOON_US + 1, NOON_US + 2]
    assert values(path, "operation") == ["connect", "connect", "accept"]
    assert values(path, "parent") == [None, None, 2]
    assert values(path, "via") == [None, None, "corp"]


class Camera(sqlite3.Connection):
    """Keeps what a process that is killed at this moment leaves on disk; a moment is before each statement."""

    path: Path
    images: list[Path]

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        image = self.path.with_name(f"killed-{len(self.images)}")
        image.mkdir()
        for file in self.path.parent.glob(self.path.name + "*"):
            shutil.copy(file, image)
        self.images.append(image / self.path.name)
        return super().execute(sql, parameters)


def test_a_process_killed_at_any_moment_of_the_upgrade_leaves_a_file_that_is_read_and_goes_on(
    tmp_path: Path,
) -> None:
    path = tmp_path / "doorward.db"
    old, new = [a_record(1), a_record(2)], a_record(3, operation="bind", parent=1)
    format_1.write(path, old)
    images: list[Path] = []

    def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = sqlite3.connect(*arguments, factory=Camera, **options)
        connection.path, connection.images = path, images
        return connection

    Database(path, NOON_US, connect).close()
    versions = set()
    for image in images:
        with closing(sqlite3.connect(image)) as connection:
            versions.add(connection.execute("PRAGMA user_version").fetchone()[0])
        assert list(read(image, Query(), newest_first=False)) == old
        database = Database(image, NOON_US)
        database.insert([new])
        database.close()
        assert list(read(image, Query(), newest_first=False)) == [*old, new]
    assert len(images) > 10
    assert versions == {1, schema.VERSION}


def test_an_upgrade_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "doorward.db"
    format_1.write(path, [a_record(1)])

    class Full(sqlite3.Connection):
        def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
            if "via" in sql:
                raise sqlite3.OperationalError("database or disk is full")
            return super().execute(sql, parameters)

    with pytest.raises(sqlite3.OperationalError, match="full"):
        Database(path, NOON_US, lambda *args, **kwargs: sqlite3.connect(*args, factory=Full, **kwargs))
    assert list(read(path, Query())) == [a_record(1)]
    Database(path, NOON_US).close()
    assert list(read(path, Query())) == [a_record(1)]
