"""How much one client may ask for: connections at once, and connects a minute. No limit costs next to nothing."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from doorward.api.errors import ReplyHint
from doorward.engine.outcome import Refusal

if TYPE_CHECKING:
    from doorward.config.model import Limits

MINUTE_S: Final = 60.0
# Addresses counted within one minute.
ADDRESSES_MAX: Final = 100_000


class Admission:
    """Counts by client address. The rate is of a fixed minute, so twice as many may fit around its end."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._alive: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._minute = 0.0

    def enter(self, client_address: str, limits: Limits) -> Refusal | None:
        """One more connection of this client; a refusal if it is one too many. `leave` follows in either case."""
        self._alive[client_address] += 1
        if limits.connects_per_minute_per_client_max:
            most = limits.connects_per_minute_per_client_max
            if self._count_asked(client_address) > most:
                return _refusal("client_connect_rate", f"over {most} connects of this client within a minute")
        most = limits.connections_per_client_max
        if most and self._alive[client_address] > most:
            return _refusal("client_connections", f"over {most} connections of this client at once")
        return None

    def may_ask(self, client_address: str, limits: Limits) -> bool:
        """Whether this client may ask for one more thing within this minute that is no connection of its own."""
        most = limits.connects_per_minute_per_client_max
        return not most or self._count_asked(client_address) <= most

    def leave(self, client_address: str) -> None:
        """A connection of this client has ended."""
        self._alive[client_address] -= 1
        if not self._alive[client_address]:
            del self._alive[client_address]

    def _count_asked(self, client_address: str) -> int:
        """How often this client has asked within this minute; who finds the table full has asked too often."""
        now = self._clock()
        if now - self._minute >= MINUTE_S:
            self._minute = now
            self._asked.clear()
        if len(self._asked) >= ADDRESSES_MAX and client_address not in self._asked:
            return sys.maxsize
        self._asked[client_address] += 1
        return self._asked[client_address]


def _refusal(reason: str, detail: str) -> Refusal:
    return Refusal("deny", reason, ReplyHint.BUSY, None, detail)
