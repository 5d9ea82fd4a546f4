"""The table and its version."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import astuple
from tests.record.samples import a_record

from doorward.record import schema
from doorward.record.model import StoreUnknown

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
    schema.check_version(connection, PATH)
    schema.create(connection, 1)
    schema.check_version(connection, PATH)


def test_a_newer_version_is_refused_with_both_numbers(connection: sqlite3.Connection) -> None:
    schema.create(connection, 1)
    connection.execute("PRAGMA user_version = 9")
    with pytest.raises(StoreUnknown, match=r"doorward\.db has format 9; this Doorward knows formats up to 1"):
        schema.check_version(connection, PATH)


def test_somebody_elses_database_is_refused(connection: sqlite3.Connection) -> None:
    connection.execute("CREATE TABLE recipes (name TEXT)")
    with pytest.raises(StoreUnknown, match="not a log of Doorward's"):
        schema.check_version(connection, PATH)
