"""UDP sockets that receive what was meant for others, with the address that it was meant for (TPROXY).

As `net/datagrams`: handed over at once, into the loop's one buffer, nothing queued. Source: ip(7), ipv6(7),
Documentation/networking/tproxy.rst of Linux.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from doorward.api.errors import Side
from doorward.net.datagrams import BURST_BUFFER_BYTES, TURN_DATAGRAMS_MAX
from doorward.net.poller import READ
from doorward.net.seam import translate

if TYPE_CHECKING:
    from doorward.net.datagrams import Inbox, SocketAddress
    from doorward.policy.model import IPAddress

# As it comes with a datagram: a `sockaddr` without its family, cheap to compare and to look up.
MeantFor: TypeAlias = bytes
# The datagram is valid until the call returns; who wants to keep it makes a copy.
OnCaught: TypeAlias = Callable[[memoryview, "SocketAddress", MeantFor], None]

_IP_ORIGDSTADDR: Final = 20
_IPV6_ORIGDSTADDR: Final = 74
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(28)
# Without its family, a `sockaddr_in` is port, address, padding; a `sockaddr_in6` port, flow, address, scope.
_IPV6_BYTES: Final = 26


class CaughtDatagrams:
    """One such socket. `nameless` counts datagrams that came without their destination, which no kernel sends."""

    __slots__ = ("_again", "_fd", "_inbox", "_kind", "_on_caught", "_socket", "nameless")

    def __init__(self, inbox: Inbox, sock: socket.socket, on_caught: OnCaught) -> None:
        """Takes over a bound, non-blocking socket that tells original destinations; receives after `start`."""
        self._inbox = inbox
        self._socket = sock
        self._fd = sock.fileno()
        self._on_caught = on_caught
        self._again: asyncio.Handle | None = None
        is_ipv6 = sock.family == socket.AF_INET6
        self._kind = (
            (socket.IPPROTO_IPV6, _IPV6_ORIGDSTADDR) if is_ipv6 else (socket.IPPROTO_IP, _IP_ORIGDSTADDR)
        )
        self.nameless = 0

    def start(self) -> None:
        """Begin to receive. Raises OutOfResources when the kernel watches no more descriptors; it is closed then."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BURST_BUFFER_BYTES)
            self._inbox.poller.watch(self._fd, self)
        except OSError as error:
            self._fd = -1
            self._socket.close()
            raise translate(error.errno, Side.OURS) from None

    def ready(self, fd: int, events: int) -> None:
        """An edge: hand over what is there, until it is empty or the turn is over."""
        if not events & READ:
            return
        receive, on_caught, kind = self._socket.recvmsg_into, self._on_caught, self._kind
        buffers, view = [self._inbox.buffer], self._inbox.view
        for _ in range(TURN_DATAGRAMS_MAX):
            if self._fd < 0:
                return  # closed by what it had received
            try:
                size, ancillary, _, source = receive(buffers, _ANCILLARY_BYTES)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # what a router said of an earlier datagram: it is told once, and gone
            if len(ancillary) != 1 or ancillary[0][:2] != kind:
                self.nameless += 1
                continue
            try:
                on_caught(view[:size], source, ancillary[0][2][2:])
            except Exception as error:  # our own bug: it costs this datagram, and not the socket
                context = {"message": "a datagram could not be handled", "exception": error}
                self._inbox.poller.loop.call_exception_handler(context)
        if self._fd >= 0 and self._again is None:
            self._again = self._inbox.poller.loop.call_soon(self._go_on)

    def close(self) -> None:
        """Idempotent; what waits in the kernel is lost."""
        if self._fd >= 0:
            self._inbox.poller.unwatch(self._fd)
            self._fd = -1
            self._socket.close()
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _go_on(self) -> None:
        """The next turn: the edge is spent, so nobody else would tell of what is left."""
        self._again = None
        self.ready(self._fd, READ)


def as_caught(host: str, port: int) -> MeantFor:
    """The same address as it would come with a datagram."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if address.version == 6:
        return struct.pack(">HI16sI", port, 0, address.packed, 0)
    return struct.pack(">H4s8x", port, address.packed)


def name_of(meant_for: MeantFor) -> tuple[IPAddress, int]:
    """The address and port that a datagram was meant for."""
    port = int.from_bytes(meant_for[:2], "big")
    if len(meant_for) >= _IPV6_BYTES:
        return ipaddress.IPv6Address(meant_for[6:22]), port
    return ipaddress.IPv4Address(meant_for[2:6]), port
