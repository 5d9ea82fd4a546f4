"""What a session that asks for names has: its memory, and how much it may ask. Made at its first query, not before."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Final

from doorward.engine.names.memory import Memory

# A browser that starts asks for some hundred names at once, each for both kinds of addresses.
BURST_QUERIES: Final = 1000
QUERIES_PER_SECOND: Final = 100.0
# Of one session. A name that hangs holds a thread of the resolver, of which there are 32 for everybody.
LOOKUPS_MAX: Final = 16
# Queries that are being answered or wait for their turn.
WAITING_MAX: Final = 256
# The same of all sessions together: sources of datagrams can be invented, and each is a session.
WAITING_OF_ALL_MAX: Final = 4096
# A client asks for A and AAAA, and again: one refusal, one record.
SAME_REFUSAL_S: Final = 5.0
REFUSALS_MAX: Final = 1024


class NamesAsked:
    """Of one session. Times are of a clock that runs evenly."""

    __slots__ = ("_refusals", "_tokens", "_tokens_s", "memory", "turns", "waiting")

    def __init__(self, now_s: float) -> None:
        self.memory = Memory()
        self.turns = asyncio.Semaphore(LOOKUPS_MAX)
        self.waiting = 0
        self._tokens = float(BURST_QUERIES)
        self._tokens_s = now_s
        self._refusals: OrderedDict[tuple[str, str], float] = OrderedDict()

    def may_ask(self, now_s: float) -> bool:
        """Whether one more query is taken; who asks too fast, or waits for too many answers, is refused."""
        self._tokens = min(BURST_QUERIES, self._tokens + (now_s - self._tokens_s) * QUERIES_PER_SECOND)
        self._tokens_s = now_s
        if self._tokens < 1 or self.waiting >= WAITING_MAX:
            return False
        self._tokens -= 1
        return True

    def is_new_refusal(self, name: str, reason: str, now_s: float) -> bool:
        """Whether this has to go on record: it has not within the last seconds."""
        last_s = self._refusals.get((name, reason))
        if last_s is not None and now_s - last_s < SAME_REFUSAL_S:
            return False
        self._refusals[name, reason] = now_s
        self._refusals.move_to_end((name, reason))
        if len(self._refusals) > REFUSALS_MAX:
            self._refusals.popitem(last=False)
        return True
