"""What the destination of a caught TCP connection was before it was caught.

With TPROXY it has not been changed: getsockname(2) tells it. After a redirect connection tracking knows it.
Source: linux/netfilter_ipv4.h, linux/netfilter_ipv6/ip6_tables.h (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST).
"""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING, Final

from doorward.net.caught_datagrams import name_of

if TYPE_CHECKING:
    from doorward.policy.model import IPAddress

_ORIGINAL_DST: Final = 80  # of both families
_SOCKADDR_IN_BYTES: Final = 16
_SOCKADDR_IN6_BYTES: Final = 28


def left_as_it_was(sock: socket.socket) -> tuple[IPAddress, int]:
    """The destination of a connection that TPROXY has brought. Raises OSError if it is gone."""
    name = sock.getsockname()
    return ipaddress.ip_address(name[0].partition("%")[0]), name[1]


def before_redirect(sock: socket.socket) -> tuple[IPAddress, int]:
    """The destination of a redirected connection; of one that was not redirected, the address that it came to.

    Raises OSError if it is gone.
    """
    try:
        if sock.family == socket.AF_INET6:
            told = sock.getsockopt(socket.IPPROTO_IPV6, _ORIGINAL_DST, _SOCKADDR_IN6_BYTES)
        else:
            told = sock.getsockopt(socket.IPPROTO_IP, _ORIGINAL_DST, _SOCKADDR_IN_BYTES)
    except OSError:
        return left_as_it_was(sock)  # connection tracking does not know it
    return name_of(told[2:])  # without the family
