"""What a UDP data filter holds: two sockets with a bounded queue each, and nothing that waits when it is full.

A datagram too many is dropped and counted, the newest first, as a network would.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypeAlias

from doorward.api.errors import BadArgument, DoorwardError, NotConnected, Terminating
from doorward.engine.extra import checked_name
from doorward.engine.udp.destination import socket_address
from doorward.policy.address import canonical

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName

OnSend: TypeAlias = Callable[[bytes, "SocketName"], None]

QUEUED_DATAGRAMS_MAX: Final = 256
QUEUED_BYTES_MAX: Final = 1024 * 1024
# What UDP over IPv4 can carry: 65,535 less the two headers (RFC 768, RFC 791).
PAYLOAD_BYTES_MAX: Final = 65_507


def checked_peer(name: SocketName) -> SocketName:
    """An address and port that a datagram can have as its far end, as we write them. Raises BadArgument."""
    return _checked_peer(tuple(name))


def checked_payload(data: bytes | bytearray | memoryview) -> bytes:
    """Raises BadArgument for more than a datagram can carry."""
    if len(data) > PAYLOAD_BYTES_MAX:
        raise BadArgument(f"a datagram of {len(data)} bytes, at most {PAYLOAD_BYTES_MAX}")
    return bytes(data)


@lru_cache(maxsize=1024)
def _checked_peer(name: SocketName) -> SocketName:
    address, port = checked_name(name)
    if not port:
        raise BadArgument("nobody has port 0")
    return socket_address(canonical(ipaddress.ip_address(address)), port)[:2]


class DatagramQueue:
    """Datagrams on their way to one reader, each with its far end."""

    __slots__ = ("_failure", "_items", "_reader", "_size", "dropped")

    def __init__(self) -> None:
        self._items: deque[tuple[bytes, SocketName]] = deque()
        self._size = 0
        self._failure: DoorwardError | None = None
        self._reader: asyncio.Future[None] | None = None
        self.dropped = 0

    def put(self, data: bytes, name: SocketName) -> bool:
        """Add one, or drop it if there is no room; whether it was added."""
        if (
            self._failure is not None
            or len(self._items) >= QUEUED_DATAGRAMS_MAX
            or self._size + len(data) > QUEUED_BYTES_MAX
        ):
            self.dropped += 1
            return False
        self._items.append((data, name))
        self._size += len(data)
        self._wake()
        return True

    async def get(self) -> tuple[bytes, SocketName]:
        """The oldest; waits for one. Raises what `fail` was given. A cancelled call has consumed nothing."""
        while not self._items:
            if self._failure is not None:
                raise self._failure
            if self._reader is not None:
                raise BadArgument("two tasks read one socket")
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        data, name = self._items.popleft()
        self._size -= len(data)
        return data, name

    def take_all(self) -> list[tuple[bytes, SocketName]]:
        """What is on its way, oldest first; the queue is empty then."""
        items = list(self._items)
        self._items.clear()
        self._size = 0
        return items

    def fail(self, error: DoorwardError) -> None:
        """From now on nothing comes in, and whoever waits meets this error. The first one stays."""
        if self._failure is None:
            self._failure = error
        self.take_all()
        self._wake()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)


class DatagramEnd:
    """One of the two sockets of a UDP data filter. See `api.Socket`; `peer` is its one far end, if it has one."""

    __slots__ = ("_on_send", "_peer", "_queue", "_shut")

    def __init__(self, queue: DatagramQueue, on_send: OnSend, peer: SocketName | None) -> None:
        self._queue = queue
        self._on_send = on_send
        self._peer = peer
        self._shut: DoorwardError | None = None

    async def recv_from(self, bytes_max: int | None = None) -> tuple[bytes, SocketName]:
        """See `api.Socket.recv_from`. Raises Terminating when the mapping, or this filter's time, is over."""
        data, name = await self._queue.get()
        return (data if bytes_max is None else data[:bytes_max]), name

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """The next datagram's payload."""
        return (await self.recv_from(bytes_max))[0]

    async def send_to(self, data: bytes | bytearray | memoryview, address: SocketName) -> None:
        """See `api.Socket.send_to`. What cannot be taken now is dropped; it never waits."""
        if self._shut is not None:
            raise self._shut
        self._on_send(checked_payload(data), checked_peer(address))

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """One datagram to, or as if from, the one peer. Raises NotConnected if there are several."""
        if self._peer is None:
            raise NotConnected("several peers: say which one, with send_to")
        await self.send_to(data, self._peer)

    async def shutdown(self, *, abortive: bool = False) -> None:
        """No more will be sent; nobody is told, since UDP has no end."""
        if self._shut is None:
            self._shut = Terminating("send after shutdown")

    async def close(self, *, abortive: bool = False) -> None:
        """Neither send nor receive. Idempotent."""
        self.end(Terminating("the socket is closed"))

    def end(self, error: DoorwardError) -> None:
        """Every later call raises this."""
        self._shut = error
        self._queue.fail(error)
