"""The table that records are kept in, and how a record becomes a row of it and back.

The columns are the record's fields under the same names. A row's `id` grows from record to record, across files too: a
new file begins counting at the microsecond it was begun, and no firewall makes a million records a second. There is no
index: records are written thousands of times more often than they are looked for, and a whole file is searched in about
a second.

Format 1 had no `operation`, `parent` and `via`. A file of that format is given them before it is written to again, in
one transaction that touches no row; a finished one stays as it is, and is read as if it had them, with the values that
the fields have by themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from msgspec.structs import fields

from doorward.record.model import Record, StoreUnknown

APPLICATION_ID: Final = 0x446F_6F72  # "Door"; file(1) and we can tell whose database it is
VERSION: Final = 2
COLUMNS: Final = tuple(field.name for field in fields(Record))

_ADDED_IN_2: Final = ("operation TEXT DEFAULT 'connect'", "parent INTEGER", "via TEXT")
_FORMAT_1: Final = "(SELECT *, 'connect' AS operation, NULL AS parent, NULL AS via FROM record)"
CREATE: Final = f"""
CREATE TABLE record (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time_us INTEGER, session INTEGER, connection INTEGER,
  entry TEXT, action TEXT, reason TEXT,
  rule TEXT, policy TEXT, user TEXT, process TEXT,
  client_address TEXT, client_port INTEGER,
  host TEXT, address TEXT, port INTEGER, transport TEXT, protocol TEXT,
  connect_us INTEGER, duration_us INTEGER, bytes_sent INTEGER, bytes_received INTEGER,
  "end" TEXT, ended_by TEXT, filters TEXT, detail TEXT,
  {", ".join(_ADDED_IN_2)}
)"""

COLUMN_LIST: Final = ", ".join(f'"{column}"' for column in COLUMNS)
_ROW: Final = f"({', '.join('?' * len(COLUMNS))})"


def insertion(count: int) -> str:
    """The statement that inserts `count` rows at once."""
    return f"INSERT INTO record ({COLUMN_LIST}) VALUES {', '.join([_ROW] * count)}"  # noqa: S608 - constants only


def version_of(connection: sqlite3.Connection, path: Path) -> int:
    """The format of our own database; 0 for an empty one. Raises StoreUnknown for any other, sqlite3.Error."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if application or version or tables:
            raise StoreUnknown(f"{path} is a database, but not a log of Doorward's")
        return 0
    if not 0 < version <= VERSION:
        raise StoreUnknown(
            f"the log {path} has format {version}; this Doorward knows formats up to {VERSION}: "
            "use a newer one, or move the file away"
        )
    return int(version)


def create(connection: sqlite3.Connection, first_id: int) -> None:
    """Make the table in an empty database; its first row will be `first_id`. One transaction. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(CREATE)
    # AUTOINCREMENT's own table says what was used last.
    connection.execute("INSERT INTO sqlite_sequence VALUES ('record', ?)", (first_id - 1,))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def upgrade(connection: sqlite3.Connection) -> None:
    """Bring a database of format 1 to the present one. One transaction, whatever its size. Raises sqlite3.Error."""
    connection.execute("BEGIN IMMEDIATE")
    for column in _ADDED_IN_2:
        connection.execute(f"ALTER TABLE record ADD COLUMN {column}")
    connection.execute(f"PRAGMA user_version = {VERSION}")
    connection.execute("COMMIT")


def source(version: int) -> str:
    """What to select from, to find every column in a database of this format."""
    return _FORMAT_1 if version == 1 else "record"


def record_from(row: Sequence[Any]) -> Record:
    """A record from a row of COLUMN_LIST."""
    return Record(**dict(zip(COLUMNS, row, strict=True)))
