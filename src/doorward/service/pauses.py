"""How long to wait before something that died is started again: at once, and longer the faster it dies."""

from __future__ import annotations

from typing import Final

FIRST_S: Final = 0.5
MAX_S: Final = 15.0
# What has lived so long has nothing to do with the deaths before.
HEALTHY_S: Final = 30.0


class Pauses:
    """Of one thing."""

    def __init__(self) -> None:
        self._next_s = 0.0

    def after(self, lived_s: float) -> float:
        """The pause, in seconds, after it has lived so long."""
        if lived_s >= HEALTHY_S:
            self._next_s = 0.0
        pause_s = self._next_s
        self._next_s = min(max(2 * pause_s, FIRST_S), MAX_S)
        return pause_s
