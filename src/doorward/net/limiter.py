"""Byte and rate limits of one leg whose bytes Python carries: the same that the relay holds its pairs to.

Each direction by itself. A limited leg waits before it reads or writes, never after, so that a cancelled call
has moved nothing.
"""

from __future__ import annotations

import asyncio

from doorward.api.errors import ByteLimitReached, Side
from doorward.net.allowance import Allowance
from doorward.net.relay import Limits


class Limiter:
    """One direction of one leg."""

    __slots__ = ("_allowance", "_bytes_max", "_loop", "_moved")

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self._loop = loop
        self._bytes_max = limits.bytes_max
        self._moved = 0
        rate = limits.bytes_per_second
        self._allowance = Allowance(rate, loop.time()) if rate else None

    async def ready(self) -> None:
        """Wait until some bytes may move."""
        if self._allowance is None:
            return
        while not self._allowance.available(self._loop.time()):  # noqa: ASYNC110 - time is all there is to wait for
            await asyncio.sleep(self._allowance.wait_s)

    def spend(self, count: int) -> None:
        """So many bytes have moved. Raises ByteLimitReached when they were too many."""
        self._moved += count
        if self._allowance is not None:
            self._allowance.spend(count)
        if self._bytes_max and self._moved > self._bytes_max:
            raise ByteLimitReached(f"over {self._bytes_max} bytes in one direction", side=Side.OURS)


class LegLimits:
    """Both directions."""

    __slots__ = ("receiving", "sending")

    def __init__(self, loop: asyncio.AbstractEventLoop, limits: Limits) -> None:
        self.receiving = Limiter(loop, limits)
        self.sending = Limiter(loop, limits)
