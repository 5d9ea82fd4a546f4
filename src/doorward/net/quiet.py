"""Notices that nothing has moved for a while, without work on the path of the bytes: counters are compared."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

# Counters are looked at this many times within the limit, so quiet ends at most a quarter late.
LOOKS: Final = 4


class QuietWatch:
    """Calls `on_quiet` once when `moved()` has not changed for `quiet_s`; never if that is 0.

    When `has_reason()` at that moment, it is quiet for a reason, and the watch goes on for as long again.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        quiet_s: float,
        moved: Callable[[], int],
        on_quiet: Callable[[], None],
        has_reason: Callable[[], bool] | None = None,
    ) -> None:
        self._loop = loop
        self._step_s = quiet_s / LOOKS
        self._moved = moved
        self._on_quiet = on_quiet
        self._has_reason = has_reason
        self._seen = moved()
        self._quiet = 0
        self._timer = loop.call_later(self._step_s, self._look) if quiet_s else None

    def stop(self) -> None:
        """Stop looking. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        seen = self._moved()
        self._quiet = self._quiet + 1 if seen == self._seen else 0
        self._seen = seen
        if self._quiet >= LOOKS:
            if self._has_reason is None or not self._has_reason():
                self._timer = None
                self._on_quiet()
                return
            self._quiet = 0
        self._timer = self._loop.call_later(self._step_s, self._look)
