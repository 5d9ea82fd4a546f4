"""Whether what a launcher has handed over is what it says: sockets of one network that is not ours, where they catch.

Whoever may hand over is of our own user, or root, and could as well end us: these are checks against mistakes, and
against programs that are captured already and want out by this way.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from doorward.capture.sockets import (
    IP_RECVORIGDSTADDR,
    IPV6_RECVORIGDSTADDR,
    IPV6_TRANSPARENT,
    Place,
    place_of,
)
from doorward.service.join_messages import BadPacket, close_all

if TYPE_CHECKING:
    from doorward.service.join_messages import Wanted

_NETNS_COOKIE: Final = 71  # asm-generic/socket.h; Linux 5.14
_CREDENTIALS: Final = struct.Struct("3i")
_ROOT: Final = 0
_WHAT: Final = {
    "tcp": (socket.SOCK_STREAM, {4: socket.IPPROTO_TCP, 6: socket.IPPROTO_TCP}),
    "udp": (socket.SOCK_DGRAM, {4: socket.IPPROTO_UDP, 6: socket.IPPROTO_UDP}),
    "icmp": (socket.SOCK_RAW, {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}),
}
_FAMILY: Final = {4: socket.AF_INET, 6: socket.AF_INET6}
_TRANSPARENT: Final = {
    4: (socket.IPPROTO_IP, socket.IP_TRANSPARENT),
    6: (socket.IPPROTO_IPV6, IPV6_TRANSPARENT),
}
_ORIGINAL: Final = {
    4: (socket.IPPROTO_IP, IP_RECVORIGDSTADDR),
    6: (socket.IPPROTO_IPV6, IPV6_RECVORIGDSTADDR),
}


class Given(dict[Place, socket.socket]):
    """What was handed over: the sockets by their places, and the helper's channel."""

    channel: socket.socket

    def close(self) -> None:
        """All of them."""
        self.channel.close()
        for sock in self.values():
            sock.close()


def checked_peer(sock: socket.socket) -> int:
    """The user on the other side of an accepted connection. Raises BadPacket if that may not hand anything over."""
    try:
        _, user, _ = _CREDENTIALS.unpack(
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
        # The kernel makes our end in the network of the one who connects.
        theirs, ours = network_of(sock), own_network()
    except OSError as error:
        raise BadPacket(
            f"this kernel does not tell networks apart, which takes Linux 5.14 ({error.strerror})"
        ) from None
    if user not in (os.getuid(), _ROOT):
        raise BadPacket("it runs as another user")
    if theirs != ours:
        raise BadPacket("it is in another network than this firewall, behind another one for instance")
    return int(user)


def taken(wanted: Wanted, descriptors: Sequence[int]) -> Given:
    """The sockets, non-blocking, as wanted. Raises BadPacket; the descriptors are closed then."""
    left = list(descriptors)
    given = Given()
    made: list[socket.socket] = []
    try:
        if len(left) != len(wanted.places) + 1 or len(set(wanted.places)) != len(wanted.places):
            raise BadPacket(f"{len(left)} descriptors for {len(wanted.places)} places")
        while left:
            made.append(socket.socket(fileno=left[0]))  # it owns the descriptor only once it stands
            left.pop(0)
        given.channel = made.pop()
        given.update(zip(map(place_of, wanted.places), made, strict=True))
        _check(given)
        for sock in (given.channel, *made):
            sock.setblocking(False)
            sock.set_inheritable(False)
    except (OSError, ValueError, BadPacket) as error:
        close_all(left)
        for sock in made:
            sock.close()
        if hasattr(given, "channel"):
            given.channel.close()
        raise BadPacket(str(error)) from None
    return given


def network_of(sock: socket.socket) -> bytes:
    """Which network namespace a socket is of. Raises OSError before Linux 5.14."""
    return sock.getsockopt(socket.SOL_SOCKET, _NETNS_COOKIE, 8)


def own_network() -> bytes:
    """The one that this process makes sockets in. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        return network_of(sock)


def _check(given: Given) -> None:
    """Raises BadPacket, OSError."""
    ours = own_network()
    channel = given.channel
    if (channel.family, channel.type) != (socket.AF_UNIX, socket.SOCK_SEQPACKET) or network_of(
        channel
    ) != ours:
        raise BadPacket("the last descriptor is no helper's channel")
    channel.getpeername()  # it is connected
    networks = {network_of(sock) for sock in given.values()}
    if len(networks) != 1 or ours in networks:
        raise BadPacket("the sockets are not of one network apart from ours")
    if not any(place.is_catching and place.kind == "tcp" for place in given):
        raise BadPacket("nothing catches")
    for place, sock in given.items():
        if (why := _mistake(place, sock)) is not None:
            raise BadPacket(f"{place}: {why}")


def _mistake(place: Place, sock: socket.socket) -> str | None:
    """What is wrong with a socket for this place; None if nothing is. Raises OSError."""
    kind, protocols = _WHAT[place.kind]
    if (sock.family, sock.type, sock.proto) != (_FAMILY[place.version], kind, protocols[place.version]):
        return "another kind of socket"
    if _is_connected(sock):
        return "it is connected"
    if place.kind == "icmp":
        return None
    if sock.getsockname()[:2] != (place.host, place.port):
        return "it is bound elsewhere"
    listens = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    if bool(listens) != (place.kind == "tcp"):
        return "it does not listen"
    if place.is_catching:
        wanted = [_TRANSPARENT[place.version]] + ([_ORIGINAL[place.version]] if place.kind == "udp" else [])
        if not all(sock.getsockopt(*option) for option in wanted):
            return "it does not catch"
    return None


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True
