"""How many records said what, and how many bytes they tell of: counted a batch at a time, away from connections."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from operator import attrgetter

from doorward.record.model import Record

_action = attrgetter("action")
_bytes_sent = attrgetter("bytes_sent")
_bytes_received = attrgetter("bytes_received")


class Tally:
    """Of records that have reached the disk. A UDP mapping tells of its destinations' bytes, which are not added."""

    def __init__(self) -> None:
        self._actions: Counter[str] = Counter()
        self.bytes_sent = 0
        self.bytes_received = 0

    @property
    def records(self) -> int:
        return self._actions.total()

    @property
    def allowed(self) -> int:
        return self._actions["allow"]

    @property
    def denied(self) -> int:
        return self._actions["deny"]

    @property
    def failed(self) -> int:
        return self._actions["fail"]

    def add(self, records: Sequence[Record]) -> None:
        """Count a batch."""
        self._actions.update(map(_action, records))
        carried = [record for record in records if record.operation != "destination"]
        self.bytes_sent += sum(map(_bytes_sent, carried))
        self.bytes_received += sum(map(_bytes_received, carried))
