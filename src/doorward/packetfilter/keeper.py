"""What the helper keeps: the table, who has what open until when, and what was counted. It alone speaks to the kernel.

An element that two have open ends with the second of them. The kernel ends each by itself when its lease is over; what
is remembered here only serves to put openings into a new table, and to close those of a service that has gone.
"""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Final

from doorward.packetfilter import orders
from doorward.packetfilter.messages import ELEMENTS_MAX, Opening
from doorward.packetfilter.model import FAMILY, TABLE, Element, Table
from doorward.packetfilter.nft import Nft, NftRefused
from doorward.packetfilter.words import Json
from doorward.packetfilter.writing import lay_out

_LIST_COUNTERS: Final[Json] = {"list": {"counters": {"family": FAMILY, "table": TABLE}}}

Leases = dict[Element, float]


class Keeper:
    """The owner of `table inet doorward`. Every method may raise NftRefused; then nothing has changed."""

    def __init__(
        self, nft: Nft, clock: Callable[[], float] = time.monotonic, *, renews: bool | None = None
    ) -> None:
        """`renews`: the kernel prolongs an element that is added again, as Linux does from 6.12 on."""
        self._renews = _kernel() >= (6, 12) if renews is None else renews
        self.table: Table | None = None
        self._nft = nft
        self._clock = clock
        self._leases: dict[Hashable, Leases] = {}

    def begin(self) -> None:
        """Take over the table that is there, if one is: it stays in force, but nothing is open in it."""
        with contextlib.suppress(NftRefused):
            self._nft.run(orders.FLUSH)

    def load(self, holder: Hashable, table: Table, openings: Iterable[Opening]) -> None:
        """This table in place of any other, with these openings of the holder's and those of others."""
        leases = {**self._leases, holder: self._until(openings)}
        left = self._left(leases)
        self._nft.run([*orders.load(lay_out(table)), *orders.open_elements(list(left.items()))])
        self.table, self._leases = table, leases

    def change(self, holder: Hashable, opened: Iterable[Opening], closed: Iterable[Element]) -> list[Element]:
        """Open and prolong some, close others; what could not be opened, because it overlaps something, is returned."""
        mine = self._leases.setdefault(holder, {})
        new = self._until(opened)
        if len(mine.keys() | new.keys()) > ELEMENTS_MAX:
            raise NftRefused(f"more than {ELEMENTS_MAX} elements at a time")
        ended = [element for element in closed if mine.pop(element, None) is not None]
        gone = [element for element in ended if element not in new and not self._is_held(element)]
        refused: list[Element] = []
        try:
            self._nft.run([*orders.close_elements(gone), *self._opened(new)])
        except NftRefused:
            if gone:
                self._nft.run(orders.close_elements(gone))
            for element in tuple(new):
                try:
                    self._nft.run(self._opened({element: new[element]}))
                except NftRefused:
                    refused.append(element)
                    del new[element]
        mine.update(new)
        return refused

    def forget(self, holder: Hashable) -> None:
        """The holder has gone: nothing of it stays open."""
        mine = self._leases.pop(holder, {})
        gone = [element for element in mine if not self._is_held(element)]
        if gone:
            self._nft.run(orders.close_elements(gone))

    def counters(self) -> dict[str, int]:
        """Packets by counter; empty without a table."""
        try:
            found = self._nft.run([_LIST_COUNTERS])
        except NftRefused:
            return {}
        counters = [thing["counter"] for thing in found if "counter" in thing]
        return {c["name"]: c["packets"] for c in counters if (c["family"], c["table"]) == (FAMILY, TABLE)}

    def _opened(self, leases: Leases) -> list[Json]:
        """What opens these, or prolongs them."""
        known = {} if self._renews else {e: until for e, until in leases.items() if self._is_held(e)}
        new = {element: until for element, until in leases.items() if element not in known}
        return [
            *orders.open_elements(self._timed(new)),
            *orders.open_elements(self._timed(known), anew=True),
        ]

    def _until(self, openings: Iterable[Opening]) -> Leases:
        now = self._clock()
        return {opening.element: now + opening.lease_s for opening in openings}

    def _timed(self, leases: Leases) -> list[tuple[Element, float]]:
        now = self._clock()
        return [(element, until - now) for element, until in leases.items()]

    def _left(self, leases: dict[Hashable, Leases]) -> Leases:
        """Seconds that each element still has, whoever holds it longest."""
        now = self._clock()
        left: dict[Element, float] = {}
        for of_one in leases.values():
            for element, until in tuple(of_one.items()):
                if until <= now:
                    del of_one[element]
                else:
                    left[element] = max(left.get(element, 0.0), until - now)
        return left

    def _is_held(self, element: Element) -> bool:
        now = self._clock()
        return any(leases.get(element, now) > now for leases in self._leases.values())


def _kernel() -> tuple[int, int]:
    """Its version; (0, 0) if it has an unusual one."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (0, 0) if found is None else (int(found[1]), int(found[2]))
