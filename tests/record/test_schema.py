"""The table and its version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import astuple
from tests.record import format_1
from tests.record.samples import a_record

from doorward.record import schema
from doorward.record.model import StoreUnknown

COLUMNS_OF = "SELECT name, type, \"notnull\", dflt_value, pk FROM pragma_table_info('record')"
PATH = Path("/var/log/doorward.db")


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as connection:
        yield connection


def test_the_columns_are_the_fields_of_a_record_in_their_order(connection: sqlite3.Connection) -> None:
    schema.create(connection, 1)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(record)")]
    assert columns == ["id", *schema.COLUMNS]


def test_a_record_comes_back_as_it_went(connection: sqlite3.Connection) -> None:
    schema.create(connection, 1)
    written = a_record(host=None, connect_us=None, detail="a\x00b")
    connection.execute(schema.insertion(1), astuple(written))
    row = connection.execute(f"SELECT {schema.COLUMN_LIST} FROM record").fetchone()  # noqa: S608 - a constant
    assert schema.record_from(row) == written


def test_numbers_begin_where_they_are_told_to(connection: sqlite3.Connection) -> None:
    schema.create(connection, 1000)
    connection.execute(schema.insertion(2), astuple(a_record()) * 2)
    assert connection.execute("SELECT id FROM record").fetchall() == [(1000,), (1001,)]


def test_an_empty_database_and_our_own_are_fine(connection: sqlite3.Connection) -> None:
    assert schema.version_of(connection, PATH) == 0
    schema.create(connection, 1)
    assert schema.version_of(connection, PATH) == schema.VERSION


@pytest.mark.parametrize("version", [schema.VERSION + 1, 2**31 - 1, 0, -1])
def test_any_other_version_is_refused_with_both_numbers(connection: sqlite3.Connection, version: int) -> None:
    schema.create(connection, 1)
    connection.execute(f"PRAGMA user_version = {version}")
    told = rf"doorward\.db has format {version}; this Doorward knows formats up to {schema.VERSION}"
    with pytest.raises(StoreUnknown, match=told):
        schema.version_of(connection, PATH)


def test_somebody_elses_database_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreUnknown, match="not a log of Doorward's"):
        schema.version_of(connection, PATH)


def test_an_upgraded_file_has_the_same_table_as_a_new_one(
    connection: sqlite3.Connection, tmp_path: Path
) -> None:
    schema.create(connection, 1)
    format_1.write(tmp_path / "old.db", [a_record()])
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as old:
        schema.upgrade(old)
        assert schema.version_of(old, PATH) == schema.VERSION
        assert old.execute(COLUMNS_OF).fetchall() == connection.execute(COLUMNS_OF).fetchall()


@pytest.mark.parametrize("upgraded", [False, True])
def test_a_record_of_format_1_has_the_values_that_the_new_fields_have_by_themselves(
    tmp_path: Path, upgraded: bool
) -> None:
    written = a_record()
    format_1.write(tmp_path / "old.db", [written])
    with closing(sqlite3.connect(tmp_path / "old.db", isolation_level=None)) as old:
        if upgraded:
            schema.upgrade(old)
        source = schema.source(schema.version_of(old, PATH))
        row = old.execute(f"SELECT {schema.COLUMN_LIST} FROM {source}").fetchone()  # noqa: S608 - constants
    assert schema.record_from(row) == written


def test_a_page_of_an_old_file_is_found_by_its_number_and_not_by_searching(tmp_path: Path) -> None:
    format_1.write(tmp_path / "old.db", [a_record()])
    with closing(sqlite3.connect(tmp_path / "old.db")) as old:
        plan = old.execute(
            f"EXPLAIN QUERY PLAN SELECT {schema.COLUMN_LIST} FROM {schema.source(1)} WHERE id > 5 ORDER BY id"  # noqa: S608
        ).fetchall()
    assert [step[3] for step in plan] == ["SEARCH record USING INTEGER PRIMARY KEY (rowid>?)"]
