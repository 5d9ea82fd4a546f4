"""The socket options that a filter may touch: how a wire behaves, never where it leads or who may use it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final, TypeAlias

from doorward.api.errors import BadArgument, NotSupported

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doorward.net.leg import Leg

Option: TypeAlias = tuple[int, int]

SETTABLE: Final[frozenset[Option]] = frozenset(
    {
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE),
        (socket.SOL_SOCKET, socket.SO_RCVBUF),
        (socket.SOL_SOCKET, socket.SO_SNDBUF),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        (socket.IPPROTO_IP, socket.IP_TOS),
        (socket.IPPROTO_IP, socket.IP_TTL),
        (socket.IPPROTO_IPV6, socket.IPV6_TCLASS),
        (socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    }
)
READABLE: Final = SETTABLE | {
    (socket.SOL_SOCKET, socket.SO_DOMAIN),
    (socket.SOL_SOCKET, socket.SO_TYPE),
    (socket.SOL_SOCKET, socket.SO_PROTOCOL),
    (socket.IPPROTO_TCP, socket.TCP_MAXSEG),
}
# Buffers beyond this are the operator's to allow, by the kernel's own limits.
BUFFER_BYTES_MAX: Final = 4 * 1024 * 1024
_BUFFERS: Final = frozenset({(socket.SOL_SOCKET, socket.SO_RCVBUF), (socket.SOL_SOCKET, socket.SO_SNDBUF)})


def checked(option: Option, value: int) -> None:
    """Raises NotSupported for what a filter may not set, BadArgument for a value that nobody can mean."""
    if option not in SETTABLE:
        raise NotSupported(f"option {option[1]} of level {option[0]} is not a filter's to set")
    most = BUFFER_BYTES_MAX if option in _BUFFERS else 2**31 - 1
    if not -1 <= value <= most:
        raise BadArgument(f"{value} for option {option[1]} of level {option[0]}; up to {most} is possible")


def expect_readable(option: Option) -> None:
    """Raises NotSupported."""
    if option not in READABLE:
        raise NotSupported(f"option {option[1]} of level {option[0]} is no plain option")


def apply(leg: Leg, options: Mapping[Option, int]) -> None:
    """What was kept for this leg; what is not for its family is left out."""
    for option, value in options.items():
        try:
            leg.set_option(*option, value)
        except NotSupported:
            continue  # a hop limit of the other family, or the peer has gone: there is nothing to be told
