"""UDP sockets under the poller: datagrams are handed over at once, in the turn in which they are found.

No task, no future and no copy for a datagram: every socket of a loop receives into one buffer, which is the owner's
for the length of one call. What the kernel cannot take now is dropped and counted, as a network would; nothing is
queued here. Nothing that a peer or a router says (ICMP) ends a socket.

One system call a datagram is what this costs, on purpose: recvmmsg and sendmmsg through ctypes were measured and
gain a tenth, since four fifths of the time is the kernel's own (bench/README.md). Where there is native code a socket
may be lent to it (native_datagrams.py), which sends what belongs together in one piece; its owner sees no difference.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from doorward.api.errors import AddressInUse, Side
from doorward.net.poller import READ, Poller
from doorward.net.seam import translate

if TYPE_CHECKING:
    from doorward.net.native_datagrams import Courier, Losses

# What recvfrom gives and sendto takes: (host, port), for IPv6 (host, port, 0, 0) with a numeric host.
SocketAddress: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
# The datagram is valid until the call returns; who wants to keep it makes a copy.
OnDatagram: TypeAlias = Callable[[memoryview, SocketAddress], None]

# The largest that UDP can carry is 65,507 bytes over IPv4 and 65,527 over IPv6.
DATAGRAM_BYTES_MAX: Final = 65_535
# Datagrams taken from one socket in one turn: enough to be worth the turn, few enough that others are not kept waiting.
TURN_DATAGRAMS_MAX: Final = 64
# A burst waits in the kernel while we are busy: four times what most systems give, and no more than they allow.
BURST_BUFFER_BYTES: Final = 1024 * 1024

# Every address of this machine, by IP version.
ANY_ADDRESS: Final = {4: "0.0.0.0", 6: "::"}

_NOT_TO_BE_HAD: Final = frozenset({errno.EADDRINUSE, errno.EADDRNOTAVAIL, errno.EACCES})
_WOULD_WAIT: Final = frozenset({errno.EAGAIN, errno.ENOBUFS})
_NO_SOCKET: Final = frozenset({errno.EBADF, errno.ENOTSOCK, errno.EINVAL})


class Inbox:
    """What the UDP sockets of one loop share: the poller, the buffer into which they receive, and a courier if any."""

    __slots__ = ("buffer", "courier", "poller", "view")

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.buffer = bytearray(DATAGRAM_BYTES_MAX)
        self.view = memoryview(self.buffer)
        self.courier: Courier | None = None


class DatagramSocket:
    """One bound UDP socket. `failure` is the last refusal's errno: no route, a packet filter, a datagram too large."""

    __slots__ = ("_again", "_dropped", "_failed", "_fd", "_inbox", "_lent", "_on_datagram", "_socket", "_unheard",
                 "failure", "name")  # fmt: skip

    def __init__(self, inbox: Inbox, sock: socket.socket, on_datagram: OnDatagram) -> None:
        """Takes over a bound, non-blocking socket; receives after `start`."""
        self._inbox = inbox
        self._socket = sock
        self._fd = sock.fileno()
        self._on_datagram = on_datagram
        self._again: asyncio.Handle | None = None
        self.name: tuple[str, int] = sock.getsockname()[:2]
        self.failure = 0
        self._dropped = self._failed = self._unheard = 0
        self._lent = 0  # the number that it has with the courier

    @property
    def open(self) -> bool:
        return self._fd >= 0

    @property
    def dropped(self) -> int:
        """What was not sent for want of room in the kernel."""
        return self._dropped + self._lost.dropped if self._lent else self._dropped

    @property
    def failed(self) -> int:
        """What the kernel has refused to send."""
        return self._failed + self._lost.failed if self._lent else self._failed

    @property
    def unheard(self) -> int:
        """What was received by the courier and could not be handed up in time."""
        return self._unheard + self._lost.unheard if self._lent else self._unheard

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return 6 if self._socket.family == socket.AF_INET6 else 4

    def start(self) -> None:
        """Begin to receive. Raises OutOfResources when the kernel watches no more descriptors; it is closed then."""
        try:
            self._inbox.poller.watch(self._fd, self)
        except OSError as error:
            self._end()
            raise translate(error.errno, Side.OURS) from None

    def send(self, data: memoryview | bytes | bytearray, address: SocketAddress) -> bool:
        """Send one datagram; False if it was dropped, which is then counted. Never raises, never waits."""
        try:
            self._socket.sendto(data, address)
        except OSError as error:
            self._not_sent(error.errno or 0)
            return False
        return True

    def ready(self, fd: int, events: int) -> None:
        """An edge: hand over what is there, until it is empty or the turn is over."""
        if not events & READ:
            return
        receive, on_datagram = self._socket.recvfrom_into, self._on_datagram
        buffer, view = self._inbox.buffer, self._inbox.view
        for _ in range(TURN_DATAGRAMS_MAX):
            try:
                size, address = receive(buffer)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_SOCKET:
                    return  # closed by what it had received, or an edge of its number's last owner
                continue  # what a router said of an earlier datagram: it is told once, and gone
            try:
                on_datagram(view[:size], address)
            except Exception as error:  # our own bug: it costs this datagram, and not the socket
                self._not_handled(error)
        if self._fd >= 0 and self._again is None:
            self._again = self._inbox.poller.loop.call_soon(self._go_on)

    def lend(self) -> int:
        """Let the courier receive here; the number that this socket has there, 0 if there is no courier or no room.

        Not while a datagram that was received here is being dealt with: see `Courier.soon`.
        """
        if self._lent or self._fd < 0 or self._inbox.courier is None:
            return self._lent
        self._lent = self._inbox.courier.open(self._fd, self)
        if self._lent:
            self._inbox.poller.unwatch(self._fd)
            self._rest()
        return self._lent

    def take_back(self) -> None:
        """Receive here again, after what the courier has received and not handed up. Idempotent."""
        if not self._lent:
            return
        try:
            self._inbox.poller.watch(self._fd, self)
        except OSError:
            return  # no room for a watch: the courier goes on, and hands everything up
        self._part(hand_up=True)

    def handed(self, payload: bytes, address: SocketAddress) -> None:
        """A datagram that the courier has received here."""
        if self._fd >= 0:
            self._tell(memoryview(payload), address)

    def raise_receive_buffer(self, size: int = BURST_BUFFER_BYTES) -> None:
        """Ask for room for a burst; the kernel cuts it to net.core.rmem_max."""
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
        except OSError:
            pass  # the room it has is enough to work with

    def close(self) -> None:
        """Idempotent; what waits in the kernel is lost."""
        if self._fd >= 0:
            self._part(hand_up=False)
            self._inbox.poller.unwatch(self._fd)
            self._end()

    def _end(self) -> None:
        self._rest()
        self._fd = -1
        self._socket.close()

    def _go_on(self) -> None:
        """The next turn: the edge is spent, so nobody else would tell of what is left."""
        self._again = None
        self.ready(self._fd, READ)

    def _rest(self) -> None:
        """The next turn is somebody else's."""
        if self._again is not None:
            self._again.cancel()
            self._again = None

    def _part(self, *, hand_up: bool) -> None:
        """From the courier, if it has this."""
        courier, lent, self._lent = self._inbox.courier, self._lent, 0
        if lent and courier is not None:
            losses = courier.release(lent, hand_up=hand_up)
            self._dropped += losses.dropped
            self._failed += losses.failed
            self._unheard += losses.unheard
            self.failure = losses.failure or self.failure

    @property
    def _lost(self) -> Losses:
        """By the courier."""
        assert self._inbox.courier is not None
        return self._inbox.courier.losses(self._lent)

    def _tell(self, payload: memoryview, address: SocketAddress) -> None:
        try:
            self._on_datagram(payload, address)
        except Exception as error:
            self._not_handled(error)

    def _not_handled(self, error: Exception) -> None:
        context = {"message": "a datagram could not be handled", "exception": error}
        self._inbox.poller.loop.call_exception_handler(context)

    def _not_sent(self, number: int) -> None:
        if number in _WOULD_WAIT:
            self._dropped += 1
        else:
            self._failed += 1
            self.failure = number


def has_ipv6() -> bool:
    """Whether this machine has that family at all."""
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError as error:
        return error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL)
    return True


def open_datagrams(
    inbox: Inbox, host: str, port: int, on_datagram: OnDatagram, *, buffer_bytes: int = 0
) -> DatagramSocket:
    """A socket bound to this address and receiving. Port 0 lets the kernel choose; IPv6 is IPv6 alone.

    `buffer_bytes` raises the receive buffer, within what the system allows. Raises AddressInUse for a port that is
    taken or an address that is not ours, LinkError kinds, OutOfResources; nothing is left then.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise translate(error.errno, Side.OURS) from None
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        datagrams = DatagramSocket(inbox, sock, on_datagram)
    except OSError as error:
        sock.close()
        if error.errno in _NOT_TO_BE_HAD and port:
            raise AddressInUse(f"{host} port {port}: {error.strerror}", side=Side.OURS) from None
        raise translate(error.errno, Side.OURS) from None
    if buffer_bytes:
        datagrams.raise_receive_buffer(buffer_bytes)
    datagrams.start()
    return datagrams
