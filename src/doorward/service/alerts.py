"""Alerts of one filter: something that an operator should look at, and cannot be made to look away from by repetition.

One line a minute for each name; what comes between is counted, and told with the next line or at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

MINUTE_S: Final = 60.0
# Names of one filter within a minute. Whoever needs more has put into the name what belongs into a field.
NAMES_MAX: Final = 64
NAME_CHARACTERS_MAX: Final = 100
OTHERS: Final = "other_alerts"


class _Name:
    """What was said under one name within the last minute. `fields` are those of the last one that was not told."""

    def __init__(self, told_at: float) -> None:
        self.told_at = told_at
        self.untold = 0


class Alerts:
    """See the module. `clock` counts seconds."""

    def __init__(self, filter_name: str, log: Any, clock: Callable[[], float]) -> None:
        self._filter = filter_name
        self._log = log
        self._clock = clock
        self._names: dict[str, _Name] = {}

    def alert(self, name: str, fields: dict[str, object]) -> None:
        """Tell it or count it. Never raises for what a field holds."""
        now = self._clock()
        name = self._admitted(str(name)[:NAME_CHARACTERS_MAX], now)
        known = self._names.get(name)
        if known is not None and now - known.told_at < MINUTE_S:
            known.untold += 1
            return
        untold = 0 if known is None else known.untold
        self._names[name] = _Name(now)
        self._tell(name, untold, fields)

    def close(self) -> None:
        """The filter has left: tell what was counted."""
        for name, known in self._names.items():
            if known.untold:
                self._tell(name, known.untold, {})
        self._names.clear()

    def _admitted(self, name: str, now: float) -> str:
        """The name, or that of all the others when there are too many."""
        if name in self._names or len(self._names) < NAMES_MAX:
            return name
        for old in [n for n, known in self._names.items() if now - known.told_at >= MINUTE_S]:
            known = self._names.pop(old)
            if known.untold:
                self._tell(old, known.untold, {})
        return name if len(self._names) < NAMES_MAX else OTHERS

    def _tell(self, name: str, untold: int, fields: dict[str, object]) -> None:
        if untold:
            fields = {**fields, "not_told": untold}
        self._log.warning("alert", **{**plain(fields), "filter": self._filter, "alert": name})


def plain(fields: dict[str, object]) -> dict[str, object]:
    """Fields as a log line may have them: a name that the line needs itself gets an underscore."""
    return {f"{key}_" if key in RESERVED else key: value for key, value in fields.items()}


RESERVED: Final = frozenset({"event", "level", "timestamp", "filter", "alert", "worker"})
