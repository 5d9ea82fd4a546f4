"""Keeps the row of files: opens, fills, ends and deletes them, and puts a damaged one aside.

It waits for nobody, starts no thread and keeps no records: a batch that could not be written stays with whoever brought
it (`store.py`). After any failure the file is closed; the next batch opens it again, and makes it again if need be. A
file is ended when it passes `file_bytes_max` and on every new UTC day, so that `keep_days` also holds on a quiet day.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from doorward.config.model import LogSettings
from doorward.record import files
from doorward.record.database import Connect, Database
from doorward.record.lock import StoreLock
from doorward.record.model import Record

UPKEEP_INTERVAL_US: Final = 3600 * 1_000_000
"""How often a log into which nothing is written looks at the calendar."""
T = TypeVar("T")
_DAMAGED: Final = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class OnEvent(Protocol):
    """Told about what operators should know; called from the store's thread, must not raise."""

    def __call__(self, name: str, /, **fields: object) -> None: ...


class Batches(Protocol):
    """Where a store's batches go: into files here (`Writer`), or to the process that has the files."""

    def open(self) -> None:
        """See `Writer.open`."""
        ...

    def write(self, records: Sequence[Record]) -> None:
        """See `Writer.write`."""
        ...

    def upkeep(self) -> None:
        """See `Writer.upkeep`."""
        ...

    def rotate(self) -> None:
        """See `Writer.rotate`."""
        ...

    def close(self) -> None:
        """See `Writer.close`."""
        ...


class Writer:
    """Writes batches into the current file, and keeps the files: new ones, full ones, old ones, broken ones."""

    def __init__(
        self,
        settings: LogSettings,
        on_event: OnEvent,
        clock_us: Callable[[], int],
        connect: Connect = sqlite3.connect,
    ) -> None:
        self._settings = settings
        self._path = settings.path
        self._on_event = on_event
        self._clock_us = clock_us
        self._connect = connect
        self._lock = StoreLock(settings.path)
        self._database: Database | None = None
        self._next_id = 0  # no new file may begin below it, even if the clock was set back
        self._upkeep_due_us = 0

    def open(self) -> None:
        """Have the current file open. Raises StoreInUse, StoreUnknown, OSError, sqlite3.Error."""
        self._attempt(lambda database: None)

    def write(self, records: Sequence[Record]) -> None:
        """Write all of them, or none and raise StoreError, OSError or sqlite3.Error."""
        mended = self._attempt(lambda database: database.insert(records))
        if mended:
            self._on_event("records_mended", count=mended)

    def upkeep(self) -> None:
        """End the file if it is full or of yesterday, delete what is too old; to be called after writing, and when
        nothing is written. Cheap when nothing is due. Raises StoreError, OSError, sqlite3.Error; no record is lost.
        """
        if self._database is None or self._clock_us() >= self._upkeep_due_us:
            self._attempt(lambda database: None)
            self._delete_expired()
        self._rotate_if_due()

    def rotate(self) -> None:
        """End the current file and begin a new one, unless it is empty. Raises as `upkeep` does."""
        self._attempt(lambda database: None)
        self._rotate(insist=False)

    def close(self) -> None:
        """Leave the current file as a plain file for readers, and let other processes have the store."""
        if self._database is not None:
            try:
                self._database.seal(insist=True)
            except sqlite3.Error:
                self._database.close()
            self._database = None
        self._lock.release()

    def _attempt(self, action: Callable[[Database], T]) -> T:
        """Do something with the open file; once more with a new one if it turns out to be damaged."""
        try:
            return self._guarded(action)
        except sqlite3.DatabaseError as error:
            if _code(error) not in _DAMAGED:
                raise
            self._put_aside(error)
        return self._guarded(action)

    def _guarded(self, action: Callable[[Database], T]) -> T:
        try:
            database = self._opened()
            answer = action(database)
        except BaseException:
            self._let_go()
            raise
        self._next_id = max(self._next_id, database.next_id)
        return answer

    def _opened(self) -> Database:
        if self._database is not None:
            if self._database.is_in_place():
                return self._database
            self._on_event("record_file_vanished", path=str(self._path))
            self._let_go()
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.hold()
        self._database = Database(self._path, max(self._clock_us(), self._next_id), self._connect)
        self._upkeep_due_us = 0
        return self._database

    def _let_go(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _put_aside(self, error: sqlite3.Error) -> None:
        target = files.corrupt_path(self._path, self._clock_us())
        files.move(self._path, target)
        self._on_event("record_file_corrupt", path=str(self._path), moved_to=str(target), error=str(error))

    def _rotate_if_due(self) -> None:
        database = self._database
        if database is None:
            return
        size_bytes = database.size_bytes
        if size_bytes >= self._settings.file_bytes_max:
            # Somebody who never stops reading must not make the log grow without bound.
            self._rotate(insist=size_bytes >= 2 * self._settings.file_bytes_max)
        elif database.first_id // files.DAY_US < self._clock_us() // files.DAY_US:
            self._rotate(insist=False)

    def _rotate(self, *, insist: bool) -> None:
        database = self._database
        if database is None or database.is_empty:
            return
        try:
            if not database.seal(insist=insist):
                return  # somebody is reading; the next batch tries again
            self._database = None
            files.move(self._path, files.archive_path(self._path, database.first_id))
        except BaseException:
            self._let_go()
            raise
        self._attempt(lambda database: None)
        self._delete_expired()

    def _delete_expired(self) -> None:
        self._upkeep_due_us = self._clock_us() + UPKEEP_INTERVAL_US
        for path in files.expired(self._settings, self._clock_us()):
            try:
                files.delete(path)
            except OSError as error:
                self._on_event("record_file_not_deleted", path=str(path), error=str(error))
            else:
                self._on_event("record_file_deleted", path=str(path))


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code; 0 if the error is not SQLite's own."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF
