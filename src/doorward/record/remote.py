"""The store's writer in a worker: hands batches to the process that has the files, and waits until they are on disk.

To `RecordStore` it is a `Writer` whose disk is somebody else: what fails raises OSError, and the batch stays with the
store. A batch that was not confirmed in time is sent again under its number, and is on disk once all the same.
"""

from __future__ import annotations

import itertools
import socket
import time
from collections.abc import Sequence
from typing import Final

from doorward.record.model import Record
from doorward.record.packets import (
    RECEIPT_BYTES_MAX,
    BadPacket,
    packed,
    packed_rows,
    read_receipt,
)

# A disk that takes longer counts as one that fails: new connections are refused, if the policy says so.
ANSWER_TIMEOUT_S: Final = 10.0


class RemoteWriter:
    """See the module. For the store's thread alone; `sock` belongs to it."""

    def __init__(self, sock: socket.socket, timeout_s: float = ANSWER_TIMEOUT_S) -> None:
        self._sock = sock
        self._timeout_s = timeout_s
        self._questions = itertools.count(1)
        self._number = 0  # of the last batch that is on disk
        self._unconfirmed: tuple[bytes, int] | None = (
            None  # rows that were sent, and how many records they are
        )
        self._batch: Sequence[Record] = ()
        self._written = 0  # of this batch

    def open(self) -> None:
        """Ask whether records can be written. Raises OSError."""
        self._ask(0, b"\x90")  # no rows: an empty array

    def write(self, records: Sequence[Record]) -> None:
        """Have all of them written. Raises OSError; called again with the same records, it goes on where it was."""
        if records is not self._batch:
            assert self._unconfirmed is None, "a batch that was not written must be tried again"
            self._batch, self._written = records, 0
        while self._written < len(records):
            if self._unconfirmed is None:
                self._unconfirmed = packed_rows(self._batch[self._written :])
            rows, count = self._unconfirmed
            self._ask(self._number + 1, rows)
            self._number += 1
            self._written += count
            self._unconfirmed = None
        self._batch = ()

    def upkeep(self) -> None:
        """Hear of a log that cannot be written before there is a record for it. Raises OSError."""
        self.open()

    def rotate(self) -> None:
        """Nothing: who has the files looks after them."""

    def close(self) -> None:
        """Nobody writes any more. Idempotent."""
        self._sock.close()

    def _ask(self, number: int, rows: bytes) -> None:
        """Send, and wait for the answer to this and no earlier question. Raises OSError."""
        question = next(self._questions)
        deadline = time.monotonic() + self._timeout_s
        self._sock.settimeout(self._timeout_s)
        try:
            self._sock.send(packed(question, number, rows))
            while True:
                self._sock.settimeout(max(deadline - time.monotonic(), 0.001))
                receipt = read_receipt(self._sock.recv(RECEIPT_BYTES_MAX))
                if receipt.question == question:
                    break
        except TimeoutError:
            raise OSError(f"no answer within {self._timeout_s:g} s from the process that writes it") from None
        except (BadPacket, BrokenPipeError, ConnectionResetError):  # an empty packet is the end, too
            raise OSError("the process that writes it is gone") from None
        if receipt.failure is not None:
            raise OSError(receipt.failure)
