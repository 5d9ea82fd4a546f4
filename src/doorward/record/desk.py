"""The one place where records of several workers are written: a thread that takes their batches and confirms them.

    worker ──batch──▶ desk ──▶ writer ──▶ files
           ◀─receipt─

Batches of a worker that has died are still read to the last. A worker that sends what is no batch of its own is heard
no more, and whoever owns it is told. While writing fails everybody who asks is told why, and keeps their records.
"""

from __future__ import annotations

import os
import selectors
import socket
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Final

from doorward.config.model import LogSettings
from doorward.record.database import Connect
from doorward.record.model import StoreError
from doorward.record.packets import PACKET_BYTES_MAX, BadPacket, Packet, read_packet, receipt
from doorward.record.tally import Tally
from doorward.record.writer import OnEvent, Writer

UPKEEP_INTERVAL_S: Final = 0.5
# While writing fails: how often it is tried by itself. Workers that have something to write try besides.
RETRY_INTERVAL_S: Final = 1.0


class _Sender:
    """One worker's end here."""

    def __init__(self, sock: socket.socket, first_id: int, on_breach: Callable[[str], None]) -> None:
        self.sock = sock
        self.first_id = first_id
        self.on_breach = on_breach
        self.number = 0  # of its last batch that is on disk


class RecordDesk:
    """See the module. Start it before workers are; `admit` and `close` are for the thread that made it."""

    def __init__(
        self,
        settings: LogSettings,
        *,
        on_event: OnEvent = lambda name, /, **fields: None,
        clock_us: Callable[[], int] = lambda: time.time_ns() // 1000,
        connect: Connect = sqlite3.connect,
    ) -> None:
        """`on_event` is called from the desk's thread and must not raise."""
        self._settings = settings
        self._writer = Writer(settings, on_event, clock_us, connect)
        self._selector = selectors.DefaultSelector()
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._newcomers: list[_Sender] = []
        self._lock = threading.Lock()
        self._senders = 0
        self._close_deadline_s: float | None = None  # monotonic, as the next one
        self._upkeep_at_s = 0.0
        self._thread: threading.Thread | None = None
        self.failure: str | None = None
        """Why records cannot be written at present; None while they can."""
        self.tally = Tally()

    def start(self) -> None:
        """Open the store and start the thread; waits for the disk.

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
            self.failure = str(error)
        self._thread = threading.Thread(target=self._run, name="records", daemon=True)
        self._thread.start()

    def admit(self, sock: socket.socket, first_id: int, on_breach: Callable[[str], None]) -> None:
        """Take batches of one more worker, whose numbers begin at `first_id`. `sock` belongs to the desk.

        `on_breach` is called from the desk's thread, once, with what was wrong.
        """
        sock.setblocking(False)
        with self._lock:
            self._newcomers.append(_Sender(sock, first_id, on_breach))
            if self._bell < 0:  # too late
                sock.close()
        self._ring()

    def close(self, timeout_s: float = 5.0) -> bool:
        """Take what is still under way from workers that have ended, and close the files. True if that was all.

        Waits so long at most. Harmless when repeated.
        """
        if self._thread is None:
            self._release()
            return True
        self._close_deadline_s = time.monotonic() + timeout_s
        self._ring()
        self._thread.join(timeout_s + 1.0)
        ended = not self._thread.is_alive()
        return ended and not self._senders

    def _ring(self) -> None:
        with self._lock:
            if self._bell >= 0:
                os.eventfd_write(self._bell, 1)

    def _run(self) -> None:
        try:
            while not self._over():
                for key, _ in self._selector.select(
                    UPKEEP_INTERVAL_S if self._close_deadline_s is None else 0.05
                ):
                    if key.data is None:
                        self._welcome()
                    else:
                        self._hear(key.data)
                self._upkeep_if_due()
        finally:
            self._writer.close()
            self._release()

    def _over(self) -> bool:
        if self._close_deadline_s is None:
            return False
        return (not self._senders and not self._newcomers) or time.monotonic() >= self._close_deadline_s

    def _welcome(self) -> None:
        os.eventfd_read(self._bell)
        with self._lock:
            newcomers, self._newcomers = self._newcomers, []
        for sender in newcomers:
            self._selector.register(sender.sock, selectors.EVENT_READ, sender)
            self._senders += 1

    def _hear(self, sender: _Sender) -> None:
        """One packet: the others get their turn."""
        try:
            # Whoever sends descriptors along has them closed by the kernel: no room is given for them.
            data = sender.sock.recv(PACKET_BYTES_MAX + 1)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._part_from(sender)
            return
        try:
            packet = read_packet(data, sender.first_id)
            if packet.number and packet.number not in (sender.number, sender.number + 1):
                raise BadPacket(f"batch {packet.number} after {sender.number}")
        except BadPacket as error:
            sender.on_breach(str(error))
            self._part_from(sender)
            return
        self._answer(sender, packet)

    def _answer(self, sender: _Sender, packet: Packet) -> None:
        failure = self.failure
        if packet.number == sender.number + 1:
            failure = self._attempt(lambda: self._writer.write(packet.rows))
            if failure is None:
                sender.number = packet.number
                self.tally.add(packet.rows)
        elif packet.number:
            failure = None  # sent again, and on disk since the first time
        try:
            sender.sock.send(receipt(packet.question, failure))
        except OSError:
            pass  # it has ended, or does not read: then it asks again

    def _upkeep_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._upkeep_at_s:
            failure = self._attempt(self._writer.upkeep)
            self._upkeep_at_s = now + (UPKEEP_INTERVAL_S if failure is None else RETRY_INTERVAL_S)

    def _attempt(self, action: Callable[[], None]) -> str | None:
        """Do something with the files; why it failed, or None. Any mistake of ours fails as a disk does."""
        try:
            action()
        except Exception as error:
            self.failure = str(error) or repr(error)
        else:
            self.failure = None
        return self.failure

    def _part_from(self, sender: _Sender) -> None:
        self._selector.unregister(sender.sock)
        sender.sock.close()
        self._senders -= 1

    def _release(self) -> None:
        """Close what is open. Only the thread does, or whoever never started it."""
        with self._lock:
            if self._bell < 0:
                return
            senders = [key.data for key in self._selector.get_map().values() if key.data is not None]
            for sender in (*senders, *self._newcomers):
                sender.sock.close()
            self._newcomers = []
            self._selector.close()
            os.close(self._bell)
            self._bell = -1
