"""Networks: their text, sets of addresses, and which rules an address meets.

A set is a sorted row of whole-number intervals; an index is one dictionary for each prefix length that
occurs, so that a look-up costs at most 33 (IPv4) or 129 (IPv6) probes and usually three. Both take an
address as it is: whoever wants its disguises judged as well asks for each of `address.forms`.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)
from typing import Final

from doorward.policy.model import IPAddress, IPNetwork

TEXT_LENGTH_MAX: Final = 100  # two IPv6 addresses and a dash, with room

_PREFIX_LENGTH = re.compile(r"[0-9]{1,3}")
_MAPPED = IPv6Network("::ffff:0:0/96")


def parse_network(text: str) -> tuple[IPNetwork, ...]:
    """The networks that one entry of a policy stands for.

    A network `10.0.0.0/8`, an address `10.0.0.1` (one /32 or /128), or a range `10.0.0.1-10.0.0.9`, both ends
    included (as many networks as it takes). A mapped IPv6 network comes back as the IPv4 network that it is.
    Raises ValueError with a sentence for whoever wrote the policy.
    """
    text = text.strip()
    if len(text) > TEXT_LENGTH_MAX:
        raise ValueError("too long for a network")
    if "%" in text:
        raise ValueError("a zone (%) cannot stand in a policy")
    if "-" in text:
        found = _parse_range(text)
    elif "/" in text:
        found = (_parse_prefix(text),)
    else:
        address = _parse_address(text)
        found = (ip_network(address),)
    return tuple(map(_unmapped, found))


def _parse_address(text: str) -> IPAddress:
    try:
        return ip_address(text)
    except ValueError:
        raise ValueError(
            "not an address or network; write 192.0.2.1, 192.0.2.0/24, 192.0.2.1-192.0.2.9 or 2001:db8::/32"
        ) from None


def _parse_range(text: str) -> tuple[IPNetwork, ...]:
    first, last = (_parse_address(part.strip()) for part in text.split("-", 1))
    if isinstance(first, IPv4Address) and isinstance(last, IPv4Address):
        if first > last:
            raise ValueError(f"the range ends before it begins; did you mean {last}-{first}?")
        return tuple(summarize_address_range(first, last))
    if isinstance(first, IPv6Address) and isinstance(last, IPv6Address):
        if first > last:
            raise ValueError(f"the range ends before it begins; did you mean {last}-{first}?")
        return tuple(summarize_address_range(first, last))
    raise ValueError("a range cannot begin in IPv4 and end in IPv6")


def _parse_prefix(text: str) -> IPNetwork:
    base, _, length = text.partition("/")
    address = _parse_address(base)
    if _PREFIX_LENGTH.fullmatch(length) is None or int(length) > address.max_prefixlen:
        raise ValueError(f"the prefix length must be a number from 0 to {address.max_prefixlen}")
    network = ip_network((address, int(length)), strict=False)
    if network.network_address != address:
        raise ValueError(f"host bits are set; did you mean {network} or the address {address}?")
    return network


def _unmapped(network: IPNetwork) -> IPNetwork:
    """Addresses are judged in their IPv4 form, so a mapped network would never match as it stands."""
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.subnet_of(_MAPPED):
        return IPv4Network((int(network.network_address) & 0xFFFF_FFFF, network.prefixlen - 96))
    return network


class AddressSet:
    """The addresses of many networks; `in` costs one bisection."""

    def __init__(self, networks: Iterable[IPNetwork]) -> None:
        networks = tuple(networks)
        self._ipv4 = _bounds([network for network in networks if network.version == 4])
        self._ipv6 = _bounds([network for network in networks if network.version == 6])

    def __contains__(self, address: IPAddress) -> bool:
        bounds = self._ipv4 if address.version == 4 else self._ipv6
        return bisect_right(bounds, int(address)) % 2 == 1


def _bounds(networks: list[IPNetwork]) -> list[int]:
    """Where membership begins and ends, alternating: merged intervals, each end excluded."""
    bounds: list[int] = []
    for start, end in sorted(
        (int(n.network_address), int(n.network_address) + n.num_addresses) for n in networks
    ):
        if bounds and start <= bounds[-1]:
            bounds[-1] = max(bounds[-1], end)
        else:
            bounds += (start, end)
    return bounds


class PrefixIndex:
    """Which numbers belong to the prefixes that a value of `width` bits begins with."""

    def __init__(self, width: int, entries: Iterable[tuple[int, int, int]]) -> None:
        """`entries`: a value, how many of its leading bits count, and the number; in any order."""
        tables: dict[int, dict[int, list[int]]] = {}
        for value, length, number in sorted(set(entries), key=lambda entry: entry[2]):
            table = tables.setdefault(length, {})
            table.setdefault(value >> (width - length), []).append(number)
        self._tables = tuple((length, width - length, tables[length]) for length in sorted(tables))

    def __bool__(self) -> bool:
        return bool(self._tables)

    def runs(self, value: int, length_min: int = 0) -> list[list[int]]:
        """Ascending lists of numbers, one for each prefix of at least `length_min` bits; read only."""
        found = []
        for length, shift, table in self._tables:
            if length >= length_min:
                numbers = table.get(value >> shift)
                if numbers is not None:
                    found.append(numbers)
        return found


class NetworkIndex:
    """Which numbered rules an address meets; the cost of a look-up does not grow with their count."""

    def __init__(self, pairs: Iterable[tuple[IPNetwork, int]]) -> None:
        entries: dict[int, list[tuple[int, int, int]]] = {4: [], 6: []}
        for network, number in pairs:
            entries[network.version].append((int(network.network_address), network.prefixlen, number))
        self._ipv4 = PrefixIndex(32, entries[4])
        self._ipv6 = PrefixIndex(128, entries[6])

    def __bool__(self) -> bool:
        return bool(self._ipv4) or bool(self._ipv6)

    def lookup(self, forms: Sequence[IPAddress]) -> list[int]:
        """The numbers of the rules with a network that holds any of `forms`, ascending, each once."""
        return sorted({number for form in forms for run in self.runs(form) for number in run})

    def runs(self, address: IPAddress, length_min: int = 0) -> list[list[int]]:
        """The same for one address, as ascending lists; only networks of at least `length_min` bits count."""
        index = self._ipv4 if address.version == 4 else self._ipv6
        return index.runs(int(address), length_min)
