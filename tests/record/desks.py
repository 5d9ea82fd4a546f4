"""A desk with workers' ends, for the tests of both sides."""

from __future__ import annotations

import socket
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from tests.record.samples import Events, settings

from doorward.record.desk import RecordDesk
from doorward.record.packets import first_number
from doorward.record.query import Query
from doorward.record.reader import read

PATIENCE_S: Final = 10.0


class Office:
    """One desk, the workers it admitted, and what it has told."""

    def __init__(self, home: Path, **options: Any) -> None:
        self.home = home
        self.events = Events()
        self.breaches: list[tuple[int, str]] = []
        self.connect = options.pop("connect", sqlite3.connect)
        self.desk = RecordDesk(settings(home, **options), on_event=self.events, connect=self.connect)

    def worker(self, start: int = 1) -> socket.socket:
        """The end of a worker: the `start`-th process that was started."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.settimeout(PATIENCE_S)
        self.desk.admit(ours, first_number(start), lambda why: self.breaches.append((start, why)))
        return theirs

    def connections(self) -> list[int]:
        """The numbers on disk, in their order."""
        return [r.connection for r in read(self.home / "doorward.db", Query(), newest_first=False)]


@contextmanager
def office(home: Path, **options: Any) -> Iterator[Office]:
    """A desk that works; closed afterwards, with nothing left open."""
    here = Office(home, **options)
    here.desk.start()
    try:
        yield here
    finally:
        here.desk.close()
