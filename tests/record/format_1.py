"""Files as they were written in format 1: the statements of that time, not today's."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

from tests.record.samples import NOON_US

from doorward.record.model import Record

COLUMNS = (
    *("time_us", "session", "connection", "entry", "action", "reason", "rule", "policy", "user", "process"),
    *("client_address", "client_port", "host", "address", "port", "transport", "protocol", "connect_us"),
    *("duration_us", "bytes_sent", "bytes_received", "end", "ended_by", "filters", "detail"),
)
CREATE = """
CREATE TABLE record (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  time_us INTEGER, session INTEGER, connection INTEGER,
  entry TEXT, action TEXT, reason TEXT,
  rule TEXT, policy TEXT, user TEXT, process TEXT,
  client_address TEXT, client_port INTEGER,
  host TEXT, address TEXT, port INTEGER, transport TEXT, protocol TEXT,
  connect_us INTEGER, duration_us INTEGER, bytes_sent INTEGER, bytes_received INTEGER,
  "end" TEXT, ended_by TEXT, filters TEXT, detail TEXT
)"""


def write(path: Path, records: Iterable[Record], *, first_id: int = NOON_US) -> None:
    """A file of format 1 with these records."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute(CREATE)
        connection.execute("INSERT INTO sqlite_sequence VALUES ('record', ?)", (first_id - 1,))
        connection.execute(f"PRAGMA application_id = {0x446F6F72}")
        connection.execute("PRAGMA user_version = 1")
        for record in records:
            names, marks = ", ".join(f'"{name}"' for name in COLUMNS), ", ".join("?" * len(COLUMNS))
            values = [getattr(record, name) for name in COLUMNS]
            connection.execute(f"INSERT INTO record ({names}) VALUES ({marks})", values)  # noqa: S608
        connection.execute("COMMIT")
