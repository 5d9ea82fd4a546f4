"""An IP filter behaves like the set of the addresses that it admits, whatever is added and taken away."""

from __future__ import annotations

import ipaddress
from typing import Final, TypeAlias

import pytest
from hypothesis import given
from hypothesis import strategies as st

from doorward.api import IpFilter
from doorward.api.ip_filter import IPAddress, parse_range

# The corners of both families, where counting goes wrong.
STARTS: Final = (
    ipaddress.ip_address("0.0.0.0"),
    ipaddress.ip_address("10.0.0.0"),
    ipaddress.ip_address("255.255.255.240"),
    ipaddress.ip_address("::"),
    ipaddress.ip_address("2001:db8::"),
    ipaddress.ip_address("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fff0"),
)
RUN: Final = 16
UNIVERSE: Final = frozenset(start + offset for start in STARTS for offset in range(RUN))
Addresses: TypeAlias = frozenset[IPAddress]


@st.composite
def ranges(draw: st.DrawFn) -> tuple[str, Addresses]:
    """A range as it is written, and what it stands for."""
    start = draw(st.sampled_from(STARTS))
    bits = draw(st.integers(0, 4))
    if draw(st.booleans()):
        first = draw(st.integers(0, (RUN >> bits) - 1)) << bits
        return f"{start + first}/{start.max_prefixlen - bits}", _run(start, first, first + (1 << bits) - 1)
    first, last = sorted(draw(st.tuples(st.integers(0, RUN - 1), st.integers(0, RUN - 1))))
    text = str(start + first) if first == last else f"{start + first}-{start + last}"
    return text, _run(start, first, last)


def _run(start: IPAddress, first: int, last: int) -> Addresses:
    return frozenset(start + offset for offset in range(first, last + 1))


@st.composite
def filters(draw: st.DrawFn) -> tuple[IpFilter, Addresses]:
    """A filter that came about step by step, and what it should admit."""
    made, admitted = IpFilter(), frozenset[IPAddress]()
    for adding, (text, addresses) in draw(st.lists(st.tuples(st.booleans(), ranges()), max_size=8)):
        if adding:
            made.include_range(text)
            admitted |= addresses
        else:
            made.exclude_range(text)
            admitted -= addresses
    return made, admitted


def admits(ip_filter: IpFilter) -> Addresses:
    return frozenset(address for address in UNIVERSE if ip_filter.includes(address))


@given(filters())
def test_ranges_are_added_and_taken_out_as_sets_are(made: tuple[IpFilter, Addresses]) -> None:
    ip_filter, admitted = made
    assert admits(ip_filter) == admitted
    assert bool(ip_filter) is bool(admitted)


@given(filters(), filters())
def test_filters_are_added_and_taken_out_as_sets_are(
    one: tuple[IpFilter, Addresses], other: tuple[IpFilter, Addresses]
) -> None:
    both, left = one[0].clone(), one[0].clone()
    both.include_filter(other[0])
    left.exclude_filter(other[0])
    assert admits(both) == one[1] | other[1]
    assert admits(left) == one[1] - other[1]
    assert (admits(one[0]), admits(other[0])) == (one[1], other[1])


@given(filters(), filters())
def test_two_filters_are_equal_exactly_if_they_admit_the_same(
    one: tuple[IpFilter, Addresses], other: tuple[IpFilter, Addresses]
) -> None:
    assert (one[0] == other[0]) is (one[1] == other[1])


@given(filters())
def test_what_a_filter_says_of_itself_makes_the_same_filter_again(made: tuple[IpFilter, Addresses]) -> None:
    ip_filter, _ = made
    assert IpFilter(*ip_filter.ranges) == ip_filter
    for before, after in zip(ip_filter.ranges, ip_filter.ranges[1:], strict=False):
        version, (_, last) = parse_range(before)
        assert parse_range(after)[0] > version or parse_range(after)[1][0] > last + 1


@given(filters(), ranges())
def test_a_copy_and_its_original_go_their_own_ways(
    made: tuple[IpFilter, Addresses], change: tuple[str, Addresses]
) -> None:
    ip_filter, admitted = made
    copy = ip_filter.clone()
    copy.include_range(change[0])
    ip_filter.exclude_range(change[0])
    assert admits(copy) == admitted | change[1]
    assert admits(ip_filter) == admitted - change[1]


def test_an_empty_filter_admits_nobody_and_everybody_is_everybody() -> None:
    nobody, everybody = IpFilter(), IpFilter.everybody()
    assert not nobody
    assert not admits(nobody)
    assert admits(everybody) == UNIVERSE
    everybody.exclude_filter(everybody)
    assert everybody == nobody


def test_an_ipv4_address_in_ipv6_clothes_is_that_address() -> None:
    ip_filter = IpFilter("192.0.2.0/30", "::ffff:198.51.100.0/127", "::ffff:203.0.113.1-::ffff:203.0.113.2")
    assert "::ffff:192.0.2.3" in ip_filter
    assert ipaddress.ip_address("::ffff:192.0.2.4") not in ip_filter
    assert ip_filter.ranges == (
        "192.0.2.0-192.0.2.3",
        "198.51.100.0-198.51.100.1",
        "203.0.113.1-203.0.113.2",
    )
    assert "::ffff:192.0.2.3" not in IpFilter("::/0")
    assert "::c000:203" not in ip_filter


def test_an_interface_behind_an_address_does_not_matter() -> None:
    assert "fe80::1%eth0" in IpFilter("fe80::1")
    assert "fe80::1" in IpFilter("fe80::1%eth1")


@pytest.mark.parametrize(
    "text",
    ["", "a", "192.0.2.1-", "-192.0.2.1", "192.0.2.2-192.0.2.1", "192.0.2.1-2001:db8::1", "192.0.2.1/24",
     "192.0.2.0/33", "2001:db8::/129", "192.0.2.1-192.0.2.2-192.0.2.3", " 192.0.2.1", "192.0.2.1\n", "192.0.2.01",
     "::-::ffff:192.0.2.1", "3221225985", "192.0.2.0/24-192.0.3.0/24"],
)  # fmt: skip
def test_what_is_no_range_is_refused_and_changes_nothing(text: str) -> None:
    ip_filter = IpFilter("192.0.2.9")
    for call in (ip_filter.include_range, ip_filter.exclude_range):
        with pytest.raises(ValueError):  # noqa: PT011 - each says it in its own words
            call(text)
    assert ip_filter.ranges == ("192.0.2.9",)


@given(st.text(max_size=30))
def test_any_text_is_a_range_or_a_value_error(text: str) -> None:
    try:
        version, (first, last) = parse_range(text)
    except ValueError:
        return
    assert 0 <= first <= last < 2 ** (32 if version == 4 else 128)


def test_what_is_no_address_is_not_simply_refused_entry() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - the library's words
        IpFilter.everybody().includes("example.org")


def test_a_filter_is_shown_with_what_it_admits_and_cannot_be_a_key() -> None:
    ip_filter = IpFilter("192.0.2.2", "192.0.2.1", "2001:db8::/127")
    assert repr(ip_filter) == "IpFilter('192.0.2.1-192.0.2.2', '2001:db8::-2001:db8::1')"
    assert ip_filter != "192.0.2.1"
    with pytest.raises(TypeError):
        hash(ip_filter)
