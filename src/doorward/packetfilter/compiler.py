"""From policy to table: a tree of look-ups by source, port and destination that says what the policy says, or "up".

Each field is swept once for the entries that are still in the running, and the first that matches decides; if it
matches maybe, or if anybody but the kernel has a part in what it allows (a filter, a route to an upstream), the flow
comes up. So the kernel never says yes or no where `Policy.judge` could say anything else, whatever the name, user,
field or hour. The field that tells the entries apart best is asked first, so that few ways lead to the same entry.

The one exception are addresses of this machine, where nothing comes up but `Capture.up`: what is not allowed for
certain is refused. A table has limits; what would pass them comes up, and is counted (`Table.left_out`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, TypeAlias, get_args

from doorward.packetfilter.entries import OWN_ADDRESS_REFUSED, Entry, Interest, View, entries_of
from doorward.packetfilter.intervals import Interval, Row, sweep, whole
from doorward.packetfilter.model import Capture, Entrance, Field, Outcome, Table, Transport, Version
from doorward.packetfilter.planting import UP, Planting
from doorward.packetfilter.shapes import EVERY_PORT, disguises, ground
from doorward.policy.evaluation import Policy
from doorward.policy.routes import Routes

__all__ = ["Interest", "compile_table"]

_NO_ROUTES: Final = Routes()
_DENSE: Final = 64

# Who is in the running: four times an entry's place, plus 1 if it matches for certain, 2 if maybe, 3 if not known yet.
Codes: TypeAlias = tuple[int, ...]
_CERTAIN, _MAYBE, _EITHER = 1, 2, 3


def compile_table(
    policy: Policy, capture: Capture, routes: Routes = _NO_ROUTES, interests: Sequence[Interest] = ()
) -> Table:
    """The table for one policy; pure, and the same for the same policy. Takes seconds for ten thousand rules."""
    planting = Planting()
    entrances = []
    for own in (True, False):
        for version in get_args(Version):
            for transport in get_args(Transport):
                guarded = View(version, transport, own, ground(version, own=own))
                entries = entries_of(guarded, capture, policy, routes, interests)
                target = _Tree(planting, guarded, entries).plant()
                if not own:
                    entries = entries_of(guarded._replace(base=None), capture, policy, routes, interests)
                    target = _apart(planting, guarded, target, _Tree(planting, guarded, entries).plant())
                entrances.append(Entrance(version, transport, own, target))
    return Table(
        revision=policy.revision,
        capture=capture,
        steps=tuple(planting.steps),
        outcomes=tuple(planting.outcomes),
        entrances=tuple(entrances),
        left_out=planting.left_out,
    )


def _apart(planting: Planting, view: View, guarded: int, open_: int) -> int:
    """One target for both kinds of destinations; those in disguise come up, and so do sources in disguise."""
    assert view.base is not None
    hidden = disguises(view.version)
    rows = [(1, view.base.all), (2, hidden)]
    targets = {0: open_, 1: guarded, 2: planting.up, 3: planting.up}
    pieces = ((piece, targets[bits]) for piece, bits in sweep(rows, whole(view.version)))
    target = planting.step("destination", view.version, pieces, planting.up)
    rows = [(1, hidden)]
    pieces = ((piece, planting.up if bits else target) for piece, bits in sweep(rows, whole(view.version)))
    return planting.step("source", view.version, pieces, planting.up)


class _Tree:
    """One tree, and what of it is planted already."""

    def __init__(self, planting: Planting, view: View, entries: Sequence[Entry]) -> None:
        self._planting = planting
        self._view = view
        self._entries = entries
        self._limits: dict[Field, Interval] = {
            "source": whole(view.version),
            "port": EVERY_PORT,
            "destination": whole(view.version),
        }
        self._unsettled = planting.outcome(OWN_ADDRESS_REFUSED if view.own else UP)
        self._planted: dict[tuple[int, Codes], int] = {}

    def plant(self) -> int:
        """The target where it begins; once."""
        everybody = tuple(4 * place + _EITHER for place in range(len(self._entries)))

        def weight(field: Field) -> int:
            rows, _ = self._rows(field, everybody)
            return sum(bits.bit_count() for _, bits in sweep(rows, self._limits[field]))

        self._order = sorted(get_args(Field), key=weight)
        return self._planted_from(0, everybody)

    def _planted_from(self, depth: int, codes: Codes) -> int:
        key = (depth, codes)
        if key not in self._planted:
            self._planted[key] = (
                self._outcome(codes) if depth == len(self._order) else self._step(depth, codes)
            )
        return self._planted[key]

    def _step(self, depth: int, codes: Codes) -> int:
        if not self._planting.may_look_at(len(codes)):
            return self._unsettled
        field = self._order[depth]
        pieces = [(piece, self._planted_from(depth + 1, left)) for piece, left in self._swept(field, codes)]
        return self._planting.step(field, self._view.version, pieces, self._unsettled)

    def _swept(self, field: Field, codes: Codes) -> Iterator[tuple[Interval, Codes]]:
        """Every value of one field, with who is left there."""
        rows, left = self._rows(field, codes)
        for piece, bits in sweep(rows, self._limits[field]):
            yield piece, tuple(left[place] for place in _places(bits))

    def _rows(self, field: Field, codes: Codes) -> tuple[list[tuple[int, Row]], list[int]]:
        """What to sweep, and the code that each bit stands for, by its place."""
        rows: list[tuple[int, Row]] = []
        left: list[int] = []
        for code in codes:
            shape = self._entries[code >> 2].shape
            if field == "destination":
                rows += ((1 << len(left), shape.certain), (2 << len(left), shape.maybe))
                left += (code - _MAYBE, code - _CERTAIN)
            else:
                rows.append((1 << len(left), shape.sources if field == "source" else shape.ports))
                left.append(code)
        return rows, left

    def _outcome(self, codes: Codes) -> int:
        outcome = self._decided(codes)
        return self._unsettled if outcome is None else self._planting.outcome(outcome, self._unsettled)

    def _decided(self, codes: Codes) -> Outcome | None:
        """The first match, if it is certain; an allowed flow has to pass whoever comes after the rules."""
        allowed: Outcome | None = None
        has_route = False
        for code in codes:
            entry, is_maybe = self._entries[code >> 2], code & _MAYBE
            if allowed is None:
                if is_maybe:
                    return None
                if entry.says.action != "allow":
                    return entry.says
                allowed = entry.says
            elif entry.kind == "filter" and allowed.rule not in entry.off:
                return UP
            elif entry.kind == "route" and not has_route:
                if is_maybe or entry.says.action != "allow":
                    return UP
                has_route = True
        assert allowed is not None, "the last rule matches everything"
        return allowed


def _places(bits: int) -> Iterator[int]:
    """The places of the bits that are set, ascending."""
    if bits.bit_count() > _DENSE:
        for place, digit in enumerate(reversed(f"{bits:b}")):
            if digit == "1":
                yield place
        return
    while bits:
        lowest = bits & -bits
        yield lowest.bit_length() - 1
        bits ^= lowest
