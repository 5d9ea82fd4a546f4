"""Datagrams in native code, on this loop: a thin dress for `doorward_native.Datagrams`.

A socket is lent to a thread that never waits for Python. It moves what belongs to a flow from socket to socket; what
does not is handed up here, in the order in which it came, and reaches whoever would have received it. So nobody has
to know which of the two has received a datagram.

What was handed up is dealt with before anything else is done to sockets and flows (`soon`): then no datagram that
comes later can pass one that came earlier. This module imports without the native package; `make_courier` says
whether there is one.
"""

from __future__ import annotations

import asyncio
import math
import os
import socket
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from doorward.net import native_relay
from doorward.net.poller import Poller

if TYPE_CHECKING:
    import doorward_native as native

    from doorward.net.datagrams import SocketAddress
else:
    try:
        import doorward_native as native
    except ImportError:  # not built, or built for another machine
        native = None

_IPV4_BYTES: Final = 4
_NOTHING: Final = (0, 0, -math.inf)


class Losses(NamedTuple):
    """What one socket has lost: no room in the kernel, refused by it (`failure`: errno), not handed up in time."""

    dropped: int = 0
    failed: int = 0
    failure: int = 0
    unheard: int = 0


class Carried(NamedTuple):
    """Payload bytes that a flow has carried from the client and to it, and the loop's time of the last of them.

    One that has ended carries nothing, and has been silent for ever.
    """

    bytes_sent: int
    bytes_received: int
    last: float


class Receiver(Protocol):
    """Whose socket is lent."""

    def handed(self, payload: bytes, address: SocketAddress) -> None:
        """A datagram of the socket's that belongs to no flow."""
        ...


class Courier:
    """One thread, and what it hands up. Bytes and descriptors only: it knows no mapping."""

    def __init__(self, poller: Poller) -> None:
        """Raises OSError when descriptors or threads have run out, with nothing left behind."""
        self._loop = poller.loop
        self._started = poller.loop.time()
        self._native = native.Datagrams()
        self._receivers: dict[int, Receiver] = {}
        self._hand: deque[tuple[Receiver, SocketAddress, bytes]] = deque()
        self._soon: list[Callable[[], None]] = []
        self._work: asyncio.Handle | None = None
        try:
            self._loop.add_reader(self._native.fileno(), self._hear)
        except OSError:
            self._native.close()
            raise

    def __len__(self) -> int:
        """Sockets lent."""
        return len(self._native)

    def open(self, fd: int, receiver: Receiver) -> int:
        """Receive on this socket from now on; its number, or 0 when there is no room. Its owner may send meanwhile."""
        try:
            socket_id = self._native.open(os.dup(fd))
        except OSError:
            return 0
        self._receivers[socket_id] = receiver
        return socket_id

    def release(self, socket_id: int, *, hand_up: bool) -> Losses:
        """Receive there no more; its flows have ended. What waits is handed up before anything that comes later."""
        receiver = self._receivers.pop(socket_id, None)
        released = self._native.release(socket_id)
        if released is None or receiver is None:
            return Losses()
        waiting, losses = released
        if hand_up and waiting:
            self._hand.extend((receiver, _address(handed), handed[3]) for handed in waiting)
            self._work_soon()
        return Losses._make(losses)

    def losses(self, socket_id: int) -> Losses:
        """What was lost at this socket so far."""
        return Losses._make(self._native.losses(socket_id) or Losses())

    def flow(
        self,
        inner_id: int,
        client: SocketAddress,
        header: bytes,
        outer_id: int,
        peer: SocketAddress,
        answer_header: bytes,
    ) -> int:
        """From now on datagrams flow between the client and the peer; the flow's number, 0 if that cannot be.

        The client's begin with `header`, which the peer does not get; the client's answers get `answer_header`. To be
        called from `soon`.
        """
        if "%" in client[0] or "%" in peer[0]:
            return 0  # an interface belongs to the address; Python knows it, the thread does not
        ends = inner_id, _packed(client), header, outer_id, _packed(peer), answer_header
        return self._native.flow(*ends) or 0

    def end(self, flow: int) -> Carried:
        """What belongs to this flow is handed up from now on."""
        return self._carried(self._native.end(flow))

    def counts(self, flow: int) -> Carried:
        """So far."""
        return self._carried(self._native.counts(flow))

    def soon(self, act: Callable[[], None]) -> None:
        """Call this when no datagram that was received is still to be dealt with."""
        self._soon.append(act)
        self._work_soon()

    def close(self) -> None:
        """End the thread; every socket is its owner's alone again. Idempotent."""
        if (bell := self._native.fileno()) >= 0:
            self._loop.remove_reader(bell)
        self._native.close()
        self._receivers.clear()
        self._hand.clear()
        self._soon.clear()
        if self._work is not None:
            self._work.cancel()
            self._work = None

    def _carried(self, told: tuple[int, int, float] | None) -> Carried:
        bytes_sent, bytes_received, since_start_s = told or _NOTHING
        return Carried(bytes_sent, bytes_received, self._started + since_start_s)

    def _work_soon(self) -> None:
        if self._work is None:
            self._work = self._loop.call_soon(self._deal)

    def _hear(self) -> None:
        """The bell has rung."""
        self._deal()
        for socket_id, handed in self._native.take():
            receiver = self._receivers.get(socket_id)
            if receiver is not None:
                self._hand.append((receiver, _address(handed), handed[3]))
        self._deal()

    def _deal(self) -> None:
        """With all that is in hand, and then with what was waiting for that."""
        if self._work is not None:
            self._work.cancel()
            self._work = None
        while self._hand:
            receiver, address, payload = self._hand.popleft()
            receiver.handed(payload, address)
        acts, self._soon = self._soon, []
        for act in acts:
            try:
                act()
            except Exception as error:  # our own bug: what was to flow is handed up instead
                context = {"message": "datagrams could not be lent", "exception": error}
                self._loop.call_exception_handler(context)


def is_available() -> bool:
    """Is there a native package of our version that moves datagrams?"""
    return native_relay.is_available() and hasattr(native, "Datagrams")


def make_courier(poller: Poller) -> Courier | None:
    """The one there is, or None. Raises OSError when it cannot start: descriptors or threads have run out."""
    return Courier(poller) if is_available() else None


def _packed(address: SocketAddress) -> tuple[bytes, int]:
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    return socket.inet_pton(family, address[0]), address[1]


def _address(handed: tuple[bytes, int, int, Any]) -> SocketAddress:
    """As `recvfrom` gives it."""
    packed, port, scope, _ = handed
    if len(packed) == _IPV4_BYTES:
        return socket.inet_ntop(socket.AF_INET, packed), port
    host = socket.inet_ntop(socket.AF_INET6, packed)
    if not scope:
        return host, port, 0, 0
    try:
        host = f"{host}%{socket.if_indextoname(scope)}"
    except OSError:
        host = f"{host}%{scope}"  # the interface went meanwhile
    return host, port, 0, scope
