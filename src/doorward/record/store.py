"""The store of decision records, as the rest of the firewall sees it: append, and somebody else waits for the disk.

`append` puts the record into a queue in memory; one thread writes what has gathered every half second, or earlier when
much has. A killed process loses at most the last second. While writing fails the queue is kept up to its cap, writing
is tried again with growing pauses, and `failure` says why; what new connections meet then is not decided here.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final

from doorward.config.model import LogSettings
from doorward.record.database import Connect
from doorward.record.model import Record, StoreError
from doorward.record.tally import Tally
from doorward.record.writer import Batches, OnEvent, Writer

QUEUE_MAX: Final = 100_000
"""Records in memory; ten seconds at the highest rate we promise, some 100 MB."""
WAKE_COUNT: Final = 5_000
WRITE_INTERVAL_S: Final = 0.5
BATCH_MAX: Final = 10_000
"""Records in one transaction."""
RETRY_FIRST_S: Final = 0.5
RETRY_MAX_S: Final = 10.0
CLOSING_RETRY_S: Final = 0.1


class _Wish:
    """Wakes the thread; fulfilled when everything that was appended before it is on disk."""

    def __init__(self, *, rotate: bool = False) -> None:
        self.rotate = rotate
        self.fulfilled = threading.Event()


class RecordStore:
    """Start it before the loop runs; append from one thread only (the loop's)."""

    def __init__(
        self,
        settings: LogSettings,
        *,
        on_event: OnEvent = lambda name, /, **fields: None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        connect: Connect = sqlite3.connect,
        writer: Batches | None = None,
    ) -> None:
        """`on_event` is called from the store's thread and must not raise; `connect` stands in for sqlite3's.

        `writer` is for a process that does not write its records itself.
        """
        self._settings = settings
        self._on_event = on_event
        self._writer: Batches = writer or Writer(settings, on_event, clock_us, connect)
        self._waiting: deque[Record] = deque()
        self._in_hand: list[Record] = []  # taken out of the queue and not yet on disk; the thread's own
        self._cap = QUEUE_MAX
        self._refused = 0
        self._refused_told = 0
        self._abandoned = 0
        self._abandoned_told = 0
        # SimpleQueue.put never waits, so waking the thread costs the loop nothing.
        self._wishes: queue.SimpleQueue[_Wish] = queue.SimpleQueue()
        self._wanted: list[_Wish] = []  # wishes not fulfilled yet; the thread's own
        self._thread: threading.Thread | None = None
        self._close_deadline_s: float | None = None  # monotonic, as the next one
        self._retry_at_s = 0.0
        self._retry_pause_s = 0.0
        self.failure: str | None = None
        """Why records cannot be written at present; None while they can."""
        self.written = 0
        """Records on disk since the start."""
        self.tally = Tally()

    @property
    def healthy(self) -> bool:
        return self.failure is None

    @property
    def full(self) -> bool:
        """Whether the next record would be lost."""
        return self.waiting >= self._cap

    @property
    def waiting(self) -> int:
        """Records in memory only, roughly."""
        return len(self._waiting) + len(self._in_hand)

    @property
    def lost(self) -> int:
        """Records that never reached the disk: the queue was full, or closing ran out of time."""
        return self._refused + self._abandoned

    def start(self) -> None:
        """Open the store and start its thread. Waits for the disk; call it before the loop runs.

        Raises StoreInUse and StoreUnknown; any other trouble raises StoreError if `on_failure` is `closed`, and is
        retried later if it is `open`.
        """
        try:
            self._writer.open()
        except StoreError:
            self._writer.close()
            raise
        except (OSError, sqlite3.Error) as error:
            if self._settings.on_failure == "closed":
                self._writer.close()
                raise StoreError(f"cannot write the log {self._settings.path}: {error}") from error
            self._failed(error)
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def append(self, record: Record) -> None:
        """Take a record; well under a microsecond, never waits. A record that finds the queue full is lost."""
        count = len(self._waiting)
        if count + len(self._in_hand) >= self._cap:
            self._refused += 1
            return
        self._waiting.append(record)
        if count == WAKE_COUNT:
            self._wishes.put(_Wish())

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was appended is on disk; False if that took longer. Not for the loop's thread."""
        wish = _Wish()
        self._wishes.put(wish)
        return wish.fulfilled.wait(timeout_s)

    def rotate(self) -> None:
        """Have the current file ended and a new one begun soon. (One that was moved away is noticed without it.)"""
        self._wishes.put(_Wish(rotate=True))

    def close(self, timeout_s: float = 5.0) -> bool:
        """Write what is waiting and close the file; waits so long at most. True if every record is on disk.

        What could not be written counts as lost, which is told; so does what is appended later. Harmless when repeated.
        """
        self._cap = 0
        if self._thread is not None:
            self._close_deadline_s = time.monotonic() + timeout_s
            self._wishes.put(_Wish())
            self._thread.join(timeout_s)
        self._abandoned = self.waiting
        if self._abandoned > self._abandoned_told:
            self._on_event("records_lost", count=self._abandoned - self._abandoned_told)
            self._abandoned_told = self._abandoned
        return self._abandoned == 0

    def _run(self) -> None:
        try:
            while self._close_deadline_s is None:
                self._take_wish(WRITE_INTERVAL_S)
                if time.monotonic() >= self._retry_at_s:
                    self._turn()
            while not self._turn() and time.monotonic() < self._close_deadline_s:
                self._take_wish(CLOSING_RETRY_S)
        except BaseException as error:
            self.failure = f"the thread that writes the log ended: {error!r}"
            raise
        finally:
            self._writer.close()

    def _take_wish(self, timeout_s: float) -> None:
        try:
            self._wanted.append(self._wishes.get(timeout=timeout_s))
        except queue.Empty:
            pass

    def _turn(self) -> bool:
        """Write what waits now and look after the files; False if something went wrong."""
        wanted = list(self._wanted)
        try:
            self._write_waiting()
            if any(wish.rotate for wish in wanted):
                self._writer.rotate()
            self._writer.upkeep()
        except Exception as error:  # a mistake of ours among them: the records are kept and tried again
            self._failed(error)
            return False
        self._succeeded()
        del self._wanted[: len(wanted)]
        for wish in wanted:
            wish.fulfilled.set()
        return True

    def _write_waiting(self) -> None:
        left = self.waiting  # not what comes in meanwhile: it makes a better batch the next time
        while left > 0:
            if not self._in_hand:
                take = self._waiting.popleft
                self._in_hand = [take() for _ in range(min(left, BATCH_MAX))]
            self._writer.write(self._in_hand)
            self.written += len(self._in_hand)
            self.tally.add(self._in_hand)
            left -= len(self._in_hand)
            self._in_hand = []

    def _failed(self, error: Exception) -> None:
        reason = f"cannot write the log {self._settings.path}: {str(error) or repr(error)}"
        if self.failure is None:
            self._on_event("record_store_failed", error=reason, waiting=self.waiting)
        self.failure = reason
        self._retry_pause_s = min(max(2 * self._retry_pause_s, RETRY_FIRST_S), RETRY_MAX_S)
        self._retry_at_s = time.monotonic() + self._retry_pause_s
        self._tell_refused()

    def _succeeded(self) -> None:
        self._tell_refused()
        if self.failure is not None:
            self.failure = None
            self._on_event("record_store_recovered", lost=self.lost)
        self._retry_pause_s = 0.0

    def _tell_refused(self) -> None:
        refused = self._refused
        if refused > self._refused_told:
            self._on_event("records_lost", count=refused - self._refused_told)
            self._refused_told = refused
