"""One database file, open for writing: batches go in whole or not at all.

Rows are inserted up to 256 at a time by one statement with many parameters. The interpreter's lock is then given up and
fought for once per statement and not once per row (as `executemany` would), which is what a busy event loop beside us
feels; and nothing is turned into JSON and parsed again, which costs four times as much.

SQLite in WAL mode with synchronous=NORMAL: what was committed survives the process being killed at any moment; a loss
of power may take the last seconds, never the file (https://www.sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, TypeAlias

from msgspec.structs import astuple

from doorward.record import schema
from doorward.record.model import Record

Connect: TypeAlias = Callable[..., sqlite3.Connection]

ROWS_PER_STATEMENT_MAX: Final = 256
"""A power of two. Preparing 256 rows' parameters keeps the interpreter's lock for about a quarter millisecond."""
ROW_BYTES_MAX: Final = 65_536
CLIPPED_CHARACTERS_MAX: Final = 800
"""What is kept of each text of a record that is too large: 18 texts of 3,200 bytes still fit into a row."""
BUSY_TIMEOUT_S: Final = 1.0
INTEGER_MAX: Final = 2**63 - 1

_UNSTORABLE: Final = (
    UnicodeError,  # a lone surrogate
    OverflowError,  # more than 64 bits
    sqlite3.DataError,  # a row over ROW_BYTES_MAX
    sqlite3.InterfaceError,  # these two: a value that is neither text nor number
    sqlite3.ProgrammingError,
)


class Database:
    """Not for use by two threads at once, though it need not be the thread that opened it."""

    def __init__(self, path: Path, first_id: int, connect: Connect = sqlite3.connect) -> None:
        """Open `path`, or begin it (mode 0600) with the record number `first_id`.

        Raises StoreUnknown, OSError, sqlite3.Error; nothing stays open then.
        """
        self._path = path
        _make_private(path)
        self._connection = connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self.first_id: int = self._prepare(first_id)
            self.next_id: int = self._next_id()
            self._status = path.stat()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self, first_id: int) -> int:
        """Settings, version and table; gives the number of the file's first record."""
        connection = self._connection
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, ROW_BYTES_MAX)
        version = schema.version_of(connection, self._path)
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise sqlite3.OperationalError(
                f"this file system cannot hold a log that is read while written: {mode}"
            )
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA journal_size_limit = {4 * 2**20}")
        if version == 0:
            schema.create(connection, first_id)
        elif version < schema.VERSION:
            schema.upgrade(connection)
        (begun,) = connection.execute("SELECT min(id) FROM record").fetchone()
        return int(begun) if begun is not None else self._next_id()

    def _next_id(self) -> int:
        (used,) = self._connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'record'").fetchone()
        return int(used) + 1

    @property
    def is_empty(self) -> bool:
        return self.next_id == self.first_id

    @property
    def size_bytes(self) -> int:
        """What the file has grown to, or will have when the write-ahead log is merged. Raises sqlite3.Error."""
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        (page_bytes,) = self._connection.execute("PRAGMA page_size").fetchone()
        return int(pages) * int(page_bytes)

    def is_in_place(self) -> bool:
        """Whether the path still leads to this file: somebody may have moved or deleted it."""
        try:
            return os.path.samestat(self._status, self._path.stat())
        except OSError:
            return False

    def insert(self, records: Sequence[Record]) -> int:
        """Write all the records in one transaction; gives how many had to be mended to be storable.

        Raises sqlite3.Error; nothing of the batch is in the file then. (A disk that fails while it confirms may leave
        the batch written all the same.)
        """
        rows = [astuple(record) for record in records]
        mended = 0
        try:
            self._transact(rows)
        except _UNSTORABLE:
            storable = [mend(row) for row in rows]
            mended = sum(before != after for before, after in zip(rows, storable, strict=True))
            self._transact(storable)
        self.next_id += len(rows)
        return mended

    def _transact(self, rows: Sequence[tuple[Any, ...]]) -> None:
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            start = 0
            while start < len(rows):
                # Sizes are powers of two, so that nine prepared statements serve every batch.
                count = min(ROWS_PER_STATEMENT_MAX, 1 << (len(rows) - start).bit_length() - 1)
                execute(_INSERTIONS[count], tuple(chain.from_iterable(rows[start : start + count])))
                start += count
            execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                self._connection.rollback()
            raise

    def seal(self, *, insist: bool = False) -> bool:
        """Close the file for good, as one plain file that can be read without making others beside it.

        Somebody reading it at this moment prevents that: the answer is False and the file stays open; with `insist`
        it is closed as it is. Raises sqlite3.Error.
        """
        try:
            self._connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            if not insist:
                return False
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)")
        self._connection.close()
        return True

    def close(self) -> None:
        """Close the file, whatever state it is in; what was written is safe in any case."""
        try:
            # Closing does this too, but not for a file that was moved; its records would stay behind.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error:
            pass  # the WAL stays beside the file, and whoever opens that next finds it
        try:
            self._connection.close()
        except sqlite3.Error:
            pass  # closing merges the write-ahead log if it can; the next opening does it otherwise


def _make_private(path: Path) -> None:
    """Begin a new file with mode 0600; what SQLite makes beside it gets the same. An old file keeps its mode."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        pass


def mend(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The row with every value in a form that SQLite takes; equal to it if nothing was wrong."""
    mended = tuple(_mend_value(value) for value in row)
    if sum(len(value.encode()) for value in mended if isinstance(value, str)) > ROW_BYTES_MAX // 2:
        mended = tuple(
            value[:CLIPPED_CHARACTERS_MAX] if isinstance(value, str) else value for value in mended
        )
    return mended


def _mend_value(value: object) -> str | int | None:
    if value is None:
        return None
    if isinstance(value, int):
        return max(-INTEGER_MAX, min(value, INTEGER_MAX))
    return str(value).encode("utf-8", "backslashreplace").decode("utf-8")


_INSERTIONS: Final = {
    1 << power: schema.insertion(1 << power) for power in range(ROWS_PER_STATEMENT_MAX.bit_length())
}
