"""A limited rate: bytes a second, with a second's worth at most saved up."""

from __future__ import annotations

from typing import Final

# Who is out of allowance sleeps until this much of a second's worth is there again.
STEP_S: Final = 0.05


class Allowance:
    """One direction's allowance. Times are the loop's, in seconds."""

    __slots__ = ("_at", "_bytes", "_bytes_per_second", "waiting")

    def __init__(self, bytes_per_second: int, now: float) -> None:
        self._bytes_per_second = bytes_per_second
        self._bytes = bytes_per_second * STEP_S
        self._at = now
        self.waiting = False  # somebody has a timer running and needs no second one

    def available(self, now: float) -> int:
        """Whole bytes that may pass now."""
        self._bytes += (now - self._at) * self._bytes_per_second
        self._bytes = min(self._bytes, float(self._bytes_per_second))
        self._at = now
        return max(0, int(self._bytes))

    def spend(self, count: int) -> None:
        """So many have passed; it may be overdrawn."""
        self._bytes -= count

    @property
    def wait_s(self) -> float:
        """How long until it is worth asking again."""
        return max(STEP_S, -self._bytes / self._bytes_per_second)
