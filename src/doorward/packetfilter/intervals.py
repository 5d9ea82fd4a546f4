"""Rows of intervals: ascending, disjoint, both ends included. What networks and ports become before they are swept."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple, TypeAlias

from doorward.policy.model import IPNetwork


class Interval(NamedTuple):
    """Values `first` to `last`, both included."""

    first: int
    last: int


Row: TypeAlias = tuple[Interval, ...]

LAST: Final = {4: 2**32 - 1, 6: 2**128 - 1}


def whole(version: int) -> Interval:
    """Every address of one IP version."""
    return Interval(0, LAST[version])


def of_networks(networks: Iterable[IPNetwork], version: int) -> Row:
    """The addresses of those networks that are of this IP version."""
    return union(
        Interval(int(network.network_address), int(network.broadcast_address))
        for network in networks
        if network.version == version
    )


def union(intervals: Iterable[Interval]) -> Row:
    """In order, those that touch made one."""
    joined: list[Interval] = []
    for first, last in sorted(intervals):
        if joined and first <= joined[-1].last + 1:
            joined[-1] = Interval(joined[-1].first, max(joined[-1].last, last))
        else:
            joined.append(Interval(first, last))
    return tuple(joined)


def common(left: Sequence[Interval], right: Sequence[Interval]) -> Row:
    """What lies in both rows."""
    found: list[Interval] = []
    one = other = 0
    while one < len(left) and other < len(right):
        first = max(left[one].first, right[other].first)
        last = min(left[one].last, right[other].last)
        if first <= last:
            found.append(Interval(first, last))
        if left[one].last < right[other].last:
            one += 1
        else:
            other += 1
    return tuple(found)


def without(row: Sequence[Interval], taken: Sequence[Interval], limits: Interval) -> Row:
    """What lies in the row and not in `taken`, a row, too; both lie within `limits`."""
    gaps: list[Interval] = []
    start = limits.first
    for first, last in taken:
        if start < first:
            gaps.append(Interval(start, first - 1))
        start = last + 1
    if start <= limits.last:
        gaps.append(Interval(start, limits.last))
    return common(row, gaps)


def sweep(rows: Iterable[tuple[int, Iterable[Interval]]], limits: Interval) -> Iterator[tuple[Interval, int]]:
    """All of `limits` in order, cut wherever a row begins or ends, each piece with the bits of the rows it lies in.

    `rows`: a bit (a power of two) and its row, within `limits`. Neighbouring pieces never have the same bits.
    """
    edges: dict[int, int] = {}
    for bit, row in rows:
        for first, last in row:
            edges[first] = edges.get(first, 0) ^ bit
            edges[last + 1] = edges.get(last + 1, 0) ^ bit
    edges.pop(limits.last + 1, None)
    start, inside = limits.first, edges.pop(limits.first, 0)
    for place in sorted(edges):
        if edges[place]:
            yield Interval(start, place - 1), inside
            start, inside = place, inside ^ edges[place]
    yield Interval(start, limits.last), inside
