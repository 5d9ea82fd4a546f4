"""The sockets that catch what a program sends, and those that answer it. To be made inside its namespace.

    TCP    IP_TRANSPARENT, listening: of what is accepted, getsockname(2) is the original destination
    UDP    IP_TRANSPARENT and IP_RECVORIGDSTADDR: the original destination comes with each datagram
    ICMP   raw: to say that a datagram was refused

Source: ip(7), ipv6(7), Documentation/networking/tproxy.rst of Linux.
"""

from __future__ import annotations

import socket
from typing import Final, Literal, NamedTuple, TypeAlias

from doorward.capture.addresses import OWN, PORT

Kind: TypeAlias = Literal["tcp", "udp", "icmp"]

IPV6_TRANSPARENT: Final = 75
IP_RECVORIGDSTADDR: Final = 20
IPV6_RECVORIGDSTADDR: Final = 74
_TYPE: Final[dict[Kind, int]] = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM, "icmp": socket.SOCK_RAW}
_ICMP: Final = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_TRANSPARENT: Final = {
    4: (socket.IPPROTO_IP, socket.IP_TRANSPARENT),
    6: (socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
}
_ORIGINAL_DESTINATION: Final = {
    4: (socket.IPPROTO_IP, IP_RECVORIGDSTADDR),
    6: (socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR),
}
# A program may open as many at once as it likes; the kernel cuts this to net.core.somaxconn.
BACKLOG: Final = 4096
_PORT_MAX: Final = 65_535


class Place(NamedTuple):
    """What a socket is and where it is bound."""

    kind: Kind
    host: str
    port: int

    @property
    def version(self) -> int:
        """Of IP."""
        return 6 if ":" in self.host else 4

    @property
    def is_catching(self) -> bool:
        """Whether the packet filter leads traffic there."""
        return self.port == PORT and self.host in OWN.values()

    def __str__(self) -> str:
        return f"{self.kind},{self.host},{self.port}"


def place_of(text: str) -> Place:
    """What `str` of a place was. Raises ValueError."""
    kind, host, port = text.split(",")
    for known in _TYPE:
        if kind == known and 0 <= int(port) <= _PORT_MAX:
            return Place(known, host, int(port))
    raise ValueError(f"no place: {text}")


def catching(kind: Kind, version: int) -> socket.socket:
    """A socket to which the packet filter leads everything of its kind. Raises OSError."""
    return _bound(Place(kind, OWN[version], PORT), transparent=True, original=kind == "udp")


def refusing(version: int) -> socket.socket:
    """A socket that tells programs in this namespace what was refused; nobody reads from it. Raises OSError."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    sock = socket.socket(family, _TYPE["icmp"] | socket.SOCK_NONBLOCK, _ICMP[version])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)  # what the kernel gives at least
    return sock


def answering(host: str, port: int) -> socket.socket:
    """A UDP socket whose datagrams come from there. Raises OSError."""
    return _bound(Place("udp", host, port), transparent=True, original=False)


def local(place: Place) -> socket.socket:
    """A socket on an address of the program's own, which is never caught. Raises OSError."""
    return _bound(place, transparent=False, original=False)


def _bound(place: Place, *, transparent: bool, original: bool) -> socket.socket:
    family = socket.AF_INET6 if place.version == 6 else socket.AF_INET
    sock = socket.socket(family, _TYPE[place.kind] | socket.SOCK_NONBLOCK)
    try:
        if place.version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if transparent:
            sock.setsockopt(*_TRANSPARENT[place.version], 1)
        if original:
            sock.setsockopt(*_ORIGINAL_DESTINATION[place.version], 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((place.host, place.port))
        if place.kind == "tcp":
            sock.listen(BACKLOG)  # now, so that nobody who comes before the firewall is turned away
    except OSError:
        sock.close()
        raise
    return sock
