"""Rows of intervals against sets of numbers."""

from __future__ import annotations

from ipaddress import ip_network
from itertools import pairwise
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from doorward.packetfilter.intervals import Interval, common, of_networks, sweep, union, whole, without

LIMITS: Final = Interval(0, 30)
INTERVALS: Final = st.lists(
    st.tuples(st.integers(0, 30), st.integers(0, 30)).map(lambda ends: Interval(min(ends), max(ends))),
    max_size=6,
)


def numbers(row: object) -> set[int]:
    return {n for first, last in row for n in range(first, last + 1)}  # type: ignore[attr-defined]


@given(INTERVALS, INTERVALS)
def test_the_algebra_is_that_of_sets(left: list[Interval], right: list[Interval]) -> None:
    one, other = union(left), union(right)
    assert numbers(one) == numbers(left)
    assert all(a.last + 1 < b.first for a, b in pairwise(one))
    assert numbers(common(one, other)) == numbers(left) & numbers(right)
    assert numbers(without(one, other, LIMITS)) == numbers(left) - numbers(right)


@given(st.lists(INTERVALS, max_size=4))
def test_a_sweep_covers_everything_once_and_says_who_is_there(rows: list[list[Interval]]) -> None:
    pieces = list(sweep([(1 << at, union(row)) for at, row in enumerate(rows)], LIMITS))
    assert [n for piece, _ in pieces for n in range(piece.first, piece.last + 1)] == list(range(31))
    for piece, bits in pieces:
        for n in range(piece.first, piece.last + 1):
            assert bits == sum(1 << at for at, row in enumerate(rows) if n in numbers(row))
    assert all(a[1] != b[1] for a, b in pairwise(pieces))


def test_networks_of_the_other_version_do_not_count() -> None:
    networks = [ip_network("10.0.0.0/31"), ip_network("10.0.0.2/32"), ip_network("::/0")]
    assert of_networks(networks, 4) == (Interval(0x0A00_0000, 0x0A00_0002),)
    assert of_networks(networks, 6) == (whole(6),)
