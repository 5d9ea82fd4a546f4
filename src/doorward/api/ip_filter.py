"""A set of addresses that may be the peer: ranges of IPv4 and IPv6, with the algebra of sets.

An empty filter admits nobody. An IPv4 address in its IPv6 clothes (::ffff:a.b.c.d) is that IPv4 address.
"""

from __future__ import annotations

import ipaddress
from bisect import bisect_right
from typing import Final, TypeAlias

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
# First and last address of a range, as numbers, both included.
Range: TypeAlias = tuple[int, int]

_LAST: Final = {4: 2**32 - 1, 6: 2**128 - 1}


class IpFilter:
    """Mutable, like a set. What is given to a connection or a socket is copied there.

    Ranges are written `192.0.2.1`, `192.0.2.0/24`, `192.0.2.1-192.0.2.9`, the same in IPv6. Each call that takes
    one raises ValueError for anything else.
    """

    __slots__ = ("_ranges",)

    def __init__(self, *ranges: str) -> None:
        self._ranges: dict[int, list[Range]] = {4: [], 6: []}
        for text in ranges:
            self.include_range(text)

    @classmethod
    def everybody(cls) -> IpFilter:
        """Every address there is."""
        return cls("0.0.0.0/0", "::/0")

    def include_range(self, text: str) -> None:
        """Add a range."""
        version, added = parse_range(text)
        self._ranges[version] = _union([*self._ranges[version], added])

    def exclude_range(self, text: str) -> None:
        """Take a range out."""
        version, removed = parse_range(text)
        self._ranges[version] = _difference(self._ranges[version], [removed])

    def include_filter(self, other: IpFilter) -> None:
        """Add everything that `other` admits."""
        for version, ranges in other._ranges.items():
            self._ranges[version] = _union([*self._ranges[version], *ranges])

    def exclude_filter(self, other: IpFilter) -> None:
        """Take out everything that `other` admits."""
        for version, ranges in other._ranges.items():
            self._ranges[version] = _difference(self._ranges[version], ranges)

    def includes(self, address: str | IPAddress) -> bool:
        """Whether this peer is admitted. Raises ValueError for what is no address."""
        version, number = _number(address)
        ranges = self._ranges[version]
        at = bisect_right(ranges, (number, _LAST[version])) - 1
        return at >= 0 and ranges[at][0] <= number <= ranges[at][1]

    def clone(self) -> IpFilter:
        """An independent copy."""
        copy = IpFilter()
        copy._ranges = {version: list(ranges) for version, ranges in self._ranges.items()}
        return copy

    def __bool__(self) -> bool:
        """Whether anybody is admitted."""
        return any(self._ranges.values())

    def __contains__(self, address: str | IPAddress) -> bool:
        return self.includes(address)

    def __eq__(self, other: object) -> bool:
        return self._ranges == other._ranges if isinstance(other, IpFilter) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"IpFilter({', '.join(map(repr, self.ranges))})"

    @property
    def ranges(self) -> tuple[str, ...]:
        """What is admitted, in order, as the fewest ranges: IPv4 first."""
        return tuple(_written(version, found) for version in (4, 6) for found in self._ranges[version])


def parse_range(text: str) -> tuple[int, Range]:
    """IP version and range. Raises ValueError."""
    if "/" in text:
        network = ipaddress.ip_network(text)
        if network.version == 6 and network.prefixlen >= 96:  # an IPv4 network may hide in there
            first, last = map(_number, (network[0], network[-1]))
            return first[0], (first[1], last[1])
        return network.version, (int(network.network_address), int(network.broadcast_address))
    before, dash, after = text.partition("-")
    version, first_number = _number(before)
    other_version, last_number = _number(after) if dash else (version, first_number)
    if version != other_version or last_number < first_number:
        raise ValueError(f'"{text}" is no range of addresses: its ends are out of order or of two kinds')
    return version, (first_number, last_number)


def _number(address: str | IPAddress) -> tuple[int, int]:
    found = ipaddress.ip_address(address.partition("%")[0]) if isinstance(address, str) else address
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        found = found.ipv4_mapped
    return found.version, int(found)


def _union(ranges: list[Range]) -> list[Range]:
    """Sorted, disjoint, not even touching: so two filters are equal exactly if they admit the same."""
    joined: list[Range] = []
    for first, last in sorted(ranges):
        if joined and first <= joined[-1][1] + 1:
            joined[-1] = (joined[-1][0], max(joined[-1][1], last))
        else:
            joined.append((first, last))
    return joined


def _difference(ranges: list[Range], removed: list[Range]) -> list[Range]:
    left = ranges
    for gap_first, gap_last in removed:
        left = [
            part
            for first, last in left
            for part in ((first, min(last, gap_first - 1)), (max(first, gap_last + 1), last))
            if part[0] <= part[1]
        ]
    return _union(left)


def _written(version: int, found: Range) -> str:
    kind = ipaddress.IPv4Address if version == 4 else ipaddress.IPv6Address
    first, last = kind(found[0]), kind(found[1])
    return str(first) if first == last else f"{first}-{last}"
