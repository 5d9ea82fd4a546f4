"""How often the kernel decided by itself, summed over all the tables that were in force since the service began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from doorward.packetfilter.model import Table

_OTHERS: Final = ("up", "unanswered", "opened", "spoofed", "invalid", "outside")


class KernelCounts:
    """Flows by `allow: RULE`, `deny: RULE` or `deny: REASON`, and packets by the counters that every table has.

    Each counts packets that begin a flow; UDP counts again until it is answered.
    """

    def __init__(self) -> None:
        self._sum: Counter[str] = Counter()

    def add(self, table: Table | None, packets: Mapping[str, int]) -> None:
        """The last word of a table that is about to be replaced."""
        self._sum.update(_named(table, packets))

    def with_those_of(self, table: Table | None, packets: Mapping[str, int]) -> dict[str, int]:
        """All of it, with the counters of the table in force; what never happened is left out."""
        whole = self._sum.copy()
        whole.update(_named(table, packets))
        return dict(sorted(whole.items()))


def _named(table: Table | None, packets: Mapping[str, int]) -> Counter[str]:
    found: Counter[str] = Counter()
    if table is None:
        return found
    for name in _OTHERS:
        found[name] += packets.get(name, 0)
    for place, outcome in enumerate(table.outcomes):
        if outcome.action != "up":
            found[f"{outcome.action}: {outcome.rule or outcome.reason}"] += packets.get(f"o{place}", 0)
    return +found
