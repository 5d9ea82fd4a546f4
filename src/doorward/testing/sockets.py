"""Network sockets of filters, in memory: the test holds the far end of each.

Each call is legal where it is legal in the product. A connect meets a server that the test has announced; a peer
arrives when the test says so; a datagram waits in a list.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NoReturn

from doorward.api.errors import (
    AccessDenied,
    AlreadyExists,
    BadArgument,
    NotConnected,
    NotSupported,
    OutOfResources,
    Terminating,
)
from doorward.engine.connecting import NOT_ADMITTED
from doorward.engine.extra import checked_name
from doorward.engine.joint import JointEnd, joint
from doorward.engine.sockets.network_socket import BACKLOG_MAX
from doorward.engine.sockets.socket_options import checked, expect_readable
from doorward.engine.target import checked_target
from doorward.engine.udp.ends import DatagramEnd, DatagramQueue, checked_peer
from doorward.net.carrier import StreamOnly
from doorward.policy.evaluation import RULE_DENY
from doorward.testing.promises import OUR_NAME

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.session import Session
    from doorward.testing.ground import Ground


class _Own:
    """What sockets of both kinds have in common."""

    transport: TransportName

    def __init__(self, ground: Ground, session: Session | None) -> None:
        """`session` is None for the firewall's own: policy is not asked."""
        self.session = session
        self.closed = False
        self._ground = ground
        self._ip_filter: IpFilter | None = None
        self._name: SocketName | None = None
        self._peer: SocketName | None = None

    @property
    def socket_name(self) -> SocketName:
        """See `api.NetworkSocket`."""
        if self._name is None:
            raise NotConnected("the socket has no end of its own yet")
        return self._name

    @property
    def peer_name(self) -> SocketName:
        """See `api.NetworkSocket`."""
        if self._peer is None:
            raise NotConnected("the socket is not connected")
        return self._peer

    @property
    def ip_filter(self) -> IpFilter | None:
        """See `api.NetworkSocket`."""
        return None if self._ip_filter is None else self._ip_filter.clone()

    def set_ip_filter(self, ip_filter: IpFilter | None) -> None:
        """See `api.NetworkSocket`."""
        self._expect_alive()
        self._ip_filter = None if ip_filter is None else ip_filter.clone()

    async def bind(self, address: str, port: int) -> None:
        """See `api.NetworkSocket`."""
        self._expect_alive()
        if self._name is not None:
            raise AlreadyExists("the socket has its local end already")
        here = checked_name((address or OUR_NAME[0], port))[0]
        ports = self._ground.ports
        self._name = here, ports.free(self.transport, here, port)
        ports.take(self.transport, self._name, lambda: self.closed)

    async def _allowed(self, host: str, port: int) -> SocketName:
        """Where that is. Raises AccessDenied if policy says no, NameNotFound, BadArgument."""
        target = checked_target(host, port)
        name = str(target.host or target.address)
        ground = self._ground
        if self.session is not None and not ground.allows(f"{self.transport}/{port}", name, port):
            raise AccessDenied(RULE_DENY)
        address = target.address or (await ground.resolver.resolve(name))[0]
        if self._ip_filter is not None and not self._ip_filter.includes(address):
            raise AccessDenied(NOT_ADMITTED)
        return str(address), port

    def _expect_alive(self) -> None:
        if self.closed or (self.session is not None and self.session.ended):
            raise Terminating("the socket is closed")


class ScriptedSocket(_Own, StreamOnly):
    """See `api.NetworkSocket`, for TCP."""

    transport: TransportName = "tcp"

    def __init__(self, ground: Ground, session: Session | None) -> None:
        super().__init__(ground, session)
        self._end: JointEnd | None = None
        self._arrived: asyncio.Queue[ScriptedSocket | None] | None = None  # None: nobody comes any more
        self._backlog = 0
        self._options: dict[tuple[int, int], int] = {}

    async def connect(self, host: str, port: int) -> None:
        """See `api.NetworkSocket`."""
        self._expect_fresh()
        peer = await self._allowed(host, port)
        self._end = self._ground.dial(host, port)
        self._peer, self._name = peer, self._name or OUR_NAME

    async def listen(self, backlog: int = 128) -> None:
        """See `api.NetworkSocket`."""
        self._expect_fresh()
        if self._name is None:
            raise NotSupported("bind it first")
        if not 0 < backlog <= BACKLOG_MAX:
            raise BadArgument(f"a backlog of {backlog}; 1 to {BACKLOG_MAX} are possible")
        self._arrived, self._backlog = asyncio.Queue(), backlog

    def arrive(self, peer: SocketName) -> JointEnd:
        """A peer comes, for the filter to accept; this is the peer's end. Raises AccessDenied if it may not come,
        OutOfResources if too many wait.
        """
        self._expect_alive()
        assert self._arrived is not None, "the filter's socket does not listen"
        peer = checked_name(peer)
        if self._ip_filter is None or not self._ip_filter.includes(peer[0]):
            raise AccessDenied(NOT_ADMITTED)
        if self._arrived.qsize() >= self._backlog:
            raise OutOfResources(f"{self._backlog} peers wait already")
        made = ScriptedSocket(self._ground, self.session)
        made._end, far = joint()
        made._peer, made._name = peer, self._name
        self._arrived.put_nowait(made)
        return far

    async def accept(self) -> ScriptedSocket:
        """See `api.NetworkSocket`."""
        self._expect_alive()
        if self._arrived is None:
            raise NotSupported("the socket does not listen")
        accepted = await self._arrived.get()
        if accepted is None:
            self._arrived.put_nowait(None)
            raise Terminating("the socket is closed")
        return accepted

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `api.Socket`."""
        return await self._connected.recv(bytes_max)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `api.Socket`."""
        await self._connected.send(data)

    async def shutdown(self, *, abortive: bool = False) -> None:
        """See `api.Socket`."""
        await self._connected.shutdown(abortive=abortive)

    async def close(self, *, abortive: bool = False) -> None:
        """See `api.Socket`. Who was not accepted is reset."""
        self.closed = True
        if self._end is not None:
            self._end.close_now(abortive=abortive)
        if self._arrived is not None:
            while not self._arrived.empty():
                waiting = self._arrived.get_nowait()
                if waiting is not None:
                    await waiting.close(abortive=True)
            self._arrived.put_nowait(None)

    def get_option(self, level: int, option: int) -> int:
        """See `api.NetworkSocket`: what was set."""
        expect_readable((level, option))
        try:
            return self._options[level, option]
        except KeyError:
            raise NotConnected("the socket has no wire, and this was not set") from None

    def set_option(self, level: int, option: int, value: int) -> None:
        """See `api.NetworkSocket`."""
        checked((level, option), value)
        self._options[level, option] = value

    @property
    def _connected(self) -> JointEnd:
        self._expect_alive()
        if self._arrived is not None:
            raise NotSupported("the socket listens: accept")
        if self._end is None:
            raise NotConnected("the socket is not connected")
        return self._end

    def _expect_fresh(self) -> None:
        self._expect_alive()
        if self._arrived is not None:
            raise NotSupported("the socket listens")
        if self._end is not None:
            raise AlreadyExists("the socket is connected")


class ScriptedDatagramSocket(_Own):
    """See `api.NetworkSocket`, for UDP. `datagrams` is what the filter has sent, each with its far end."""

    transport: TransportName = "udp"

    def __init__(self, ground: Ground, session: Session | None) -> None:
        super().__init__(ground, session)
        self.datagrams: list[tuple[bytes, SocketName]] = []
        self._queue = DatagramQueue()
        self._end = DatagramEnd(self._queue, self._sent, None)

    def arrive(self, data: bytes, peer: SocketName) -> None:
        """A datagram comes in; who is left out by the IP filter, or is not the one peer, is not heard."""
        name = checked_peer(peer)
        admitted = self._ip_filter is None or self._ip_filter.includes(name[0])
        if admitted and not self.closed and self._peer in (None, name):
            self._queue.put(data, name)

    async def connect(self, host: str, port: int) -> None:
        """See `api.NetworkSocket`."""
        self._expect_alive()
        if self._peer is not None:
            raise AlreadyExists("the socket is connected")
        self._peer = await self._allowed(host, port)
        self._name = self._name or OUR_NAME
        self._end = DatagramEnd(self._queue, self._sent, self._peer)

    async def listen(self, backlog: int = 128) -> NoReturn:
        """Raises NotSupported: a datagram needs nobody who listens."""
        raise NotSupported("UDP does not listen: bind, and set an IP filter")

    async def accept(self) -> NoReturn:
        """Raises NotSupported."""
        raise NotSupported("UDP does not accept: recv_from")

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `api.Socket`."""
        self._expect_held()
        return await self._end.recv(bytes_max)

    async def recv_from(self, bytes_max: int | None = None) -> tuple[bytes, SocketName]:
        """See `api.Socket`."""
        self._expect_held()
        return await self._end.recv_from(bytes_max)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `api.Socket`."""
        self._expect_alive()
        await self._end.send(data)

    async def send_to(self, data: bytes | bytearray | memoryview, address: SocketName) -> None:
        """See `api.Socket`."""
        self._expect_alive()
        await self._end.send_to(data, address)

    async def shutdown(self, *, abortive: bool = False) -> None:
        """See `api.Socket`."""
        await self._end.shutdown(abortive=abortive)

    async def close(self, *, abortive: bool = False) -> None:
        """See `api.Socket`."""
        self.closed = True
        self._end.end(Terminating("the socket is closed"))

    def get_option(self, level: int, option: int) -> int:
        """Raises NotSupported."""
        raise NotSupported("a UDP socket has no options")

    def set_option(self, level: int, option: int, value: int) -> None:
        """Raises NotSupported."""
        raise NotSupported("a UDP socket has no options")

    def _sent(self, data: bytes, name: SocketName) -> None:
        """What policy or the IP filter refuses is dropped."""
        self._name = self._name or OUR_NAME
        address, port = name
        allowed = self.session is None or self._ground.allows(f"udp/{port}", address, port)
        if allowed and (self._ip_filter is None or self._ip_filter.includes(address)):
            self.datagrams.append((data, name))

    def _expect_held(self) -> None:
        self._expect_alive()
        if self._name is None:
            raise NotConnected("send_to, bind or connect first")
