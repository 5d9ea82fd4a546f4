"""A clock that stands still until it is told to go on. Call it where `loop.time` or `time.monotonic` would be."""

from __future__ import annotations


class Clock:
    """Seconds, beginning at `now_s`."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        """Time passes. It never goes back: raises ValueError for less than nothing."""
        if seconds < 0:
            raise ValueError("a clock does not go back")
        self.now_s += seconds
