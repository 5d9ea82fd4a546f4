"""The machine's own addresses, read from /proc (proc(5): net/fib_trie, net/if_inet6), remembered for a moment.

A client must not reach the firewall's own services by one of its addresses, so every local address counts, also
whole local ranges such as 127.0.0.0/8 or an `ip route add local`. Where /proc has no such tables (some containers),
the kernel is asked about each address: what a socket can be bound to is ours.
"""

from __future__ import annotations

import errno
import ipaddress
import re
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final

from doorward.policy.model import IPAddress, IPNetwork

REMEMBERED_S: Final = 2.0

_PREFIX: Final = re.compile(r"\|-- (\d+\.\d+\.\d+\.\d+)$")
_NOT_OURS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_LOCAL: Final = re.compile(r"/(\d+) host LOCAL$")


class OwnAddresses:
    """Answers `is_own`. When /proc cannot be read, the last answer stands; without one, the kernel is asked."""

    def __init__(self, clock: Callable[[], float], proc: Path = Path("/proc/net")) -> None:
        self._clock = clock
        self._proc = proc
        self._expires = float("-inf")
        self._was_read = False
        self._hosts: frozenset[IPAddress] = frozenset()
        self._ranges: tuple[IPNetwork, ...] = ()

    def is_own(self, address: IPAddress) -> bool:
        """Whether a connection to this address would end on this machine."""
        now = self._clock()
        if now >= self._expires:
            self._read()
            self._expires = now + REMEMBERED_S
        if not self._was_read:
            return can_be_bound(address)
        return address in self._hosts or any(
            address.version == own.version and address in own for own in self._ranges
        )

    def _read(self) -> None:
        try:
            found = local_ipv4((self._proc / "fib_trie").read_text("ascii"))
            found += self._read_ipv6()
        except OSError:  # out of descriptors, say: half an answer would open the other half
            return
        self._was_read = True
        self._hosts = frozenset(n.network_address for n in found if n.num_addresses == 1)
        self._ranges = tuple(n for n in found if n.num_addresses > 1)

    def _read_ipv6(self) -> list[IPNetwork]:
        try:
            return local_ipv6((self._proc / "if_inet6").read_text("ascii"))
        except FileNotFoundError:  # a machine without IPv6
            return []


def can_be_bound(address: IPAddress) -> bool:
    """Whether a socket can have this address; when in doubt (out of descriptors, say) it counts as ours."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as sock:
            sock.bind((str(address), 0))
    except OSError as error:
        return error.errno not in _NOT_OURS
    return True


def local_ipv4(fib_trie: str) -> list[IPNetwork]:
    """Every `host LOCAL` entry of a fib_trie: the prefix stands on the `|--` line before it.

    But for a route that has every address of the world end here, in a table that only some packets see: by that,
    traffic is led to a transparent firewall (docs/gateway.md), and no address becomes one of ours.
    """
    found: dict[IPNetwork, None] = {}
    prefix, is_special = "", False
    for line in fib_trie.splitlines():
        if line and not line[0].isspace():
            is_special = line.startswith("Id ")
        elif match := _PREFIX.search(line):
            prefix = match[1]
        elif (match := _LOCAL.search(line)) and prefix and not (is_special and match[1] == "0"):
            found[ipaddress.IPv4Network(f"{prefix}/{match[1]}", strict=False)] = None
    return list(found)


def local_ipv6(if_inet6: str) -> list[IPNetwork]:
    """Every address of an if_inet6: 32 hex digits first on the line."""
    return [ipaddress.IPv6Network(int(line.split()[0], 16)) for line in if_inet6.splitlines() if line.strip()]
