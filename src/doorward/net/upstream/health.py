"""How the upstreams fare: one that failed rests for a while, and is tried after the others meanwhile.

Only what an upstream did counts. That a destination cannot be reached says nothing about it, or any client could put
it to rest. Silence about a destination is in between: an upstream that has hung is silent about all of them, so it
counts once that many different ones in a row have met it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

REST_MIN_S: Final = 1.0
REST_MAX_S: Final = 60.0
SILENCES_MAX: Final = 3


class Health:
    """Of every upstream, by name. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._rests: dict[str, _Rest] = {}
        self._silences: dict[str, set[str]] = {}

    def resting(self, names: Sequence[str]) -> bool:
        """Whether one of these (the hops of a way) rests."""
        now = self._clock()
        return any(name in self._rests and now < self._rests[name].until for name in names)

    def trying(self, names: Sequence[str]) -> None:
        """Somebody tries these now. When a rest is over, one is enough to find out, and the others are spared."""
        now = self._clock()
        for name in names:
            rest = self._rests.get(name)
            if rest is not None and now >= rest.until:
                rest.until = now + rest.length_s
                rest.on_trial = True

    def well(self, names: Sequence[str]) -> None:
        """They have answered."""
        for name in names:
            self._rests.pop(name, None)
            self._silences.pop(name, None)

    def failed(self, name: str) -> None:
        """It could not be reached or used: it rests, twice as long as the last time, if it has not done well since."""
        now = self._clock()
        rest = self._rests.get(name)
        if rest is None:
            self._rests[name] = _Rest(now)
        elif rest.on_trial:
            rest.on_trial = False
            rest.length_s = min(2 * rest.length_s, REST_MAX_S)
            rest.until = now + rest.length_s
        # Else it rests already: others that were under way failed for the same reason.

    def silent(self, name: str, destination: str) -> None:
        """It broke off, or said nothing, when it was asked for this destination."""
        silences = self._silences.setdefault(name, set())
        silences.add(destination)
        if len(silences) >= SILENCES_MAX:
            silences.clear()
            self.failed(name)


class _Rest:
    """Of one upstream. `on_trial`: the rest was over, and somebody is finding out."""

    __slots__ = ("length_s", "on_trial", "until")

    def __init__(self, now: float) -> None:
        self.length_s = REST_MIN_S
        self.until = now + self.length_s
        self.on_trial = False
