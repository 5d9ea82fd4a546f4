"""Connecting from an address that is not ours: a client's own, so that the server sees who it is (`keep-source`).

The kernel allows it to who holds CAP_NET_ADMIN or CAP_NET_RAW, and what the server answers must be routed back here:
ip(7), IP_TRANSPARENT.
"""

from __future__ import annotations

import os
import socket
from typing import Final, NamedTuple

from doorward.api.errors import Side
from doorward.net.seam import translate

# linux/in.h and linux/in6.h: numbers that Python has no names for in every version.
IP_TRANSPARENT: Final = 19
IPV6_TRANSPARENT: Final = 75
IP_BIND_ADDRESS_NO_PORT: Final = 24


class Borrowed(NamedTuple):
    """A local end that belongs to somebody else; port 0 leaves the choice to the kernel. A `SocketName`, too."""

    address: str
    port: int = 0


def allow_borrowing(sock: socket.socket) -> None:
    """Let this socket be bound to any address. The port is chosen late, so that 28,000 for each server suffice.

    Raises OSError without the right.
    """
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
    sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)


def borrowed_datagrams(address: str) -> socket.socket:
    """A UDP socket on an address that is not ours, and a port of the kernel's choice.

    Raises LinkError kinds, OutOfResources; nothing is left then.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise translate(error.errno, Side.OURS) from None
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        allow_borrowing(sock)
        # Nobody connects it, so its port is chosen now.
        sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 0)
        sock.bind((address, 0))
    except OSError as error:
        sock.close()
        raise translate(error.errno, Side.OURS) from None
    return sock


def why_not(version: int) -> str:
    """What keeps us from borrowing addresses of this IP version; empty if nothing does."""
    try:
        with socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6) as sock:
            allow_borrowing(sock)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return ""
