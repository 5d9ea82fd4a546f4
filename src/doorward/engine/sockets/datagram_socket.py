"""The UDP sockets that filters make for themselves, in a client's name or in the firewall's own.

Behind each is a mapping whose client is the filter: every destination of a session's socket is judged by policy,
and told to filters, once for as long as it is remembered. Who is spoken to may answer; who comes first is heard
only by a socket that was bound, if the IP filter admits it and, for a session's, policy as well (`udp-in`).
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from doorward.api.errors import (
    AlreadyExists,
    BadArgument,
    DoorwardError,
    NotConnected,
    NotSupported,
    Terminating,
)
from doorward.engine.judgement import inputs_of
from doorward.engine.operation import Operation
from doorward.engine.refusals import error_of
from doorward.engine.sockets.kept import CLOSED, RESET, Kept
from doorward.engine.system import allow_for_system
from doorward.engine.target import Target, checked_target
from doorward.engine.udp.held import Held
from doorward.engine.udp.mapping import Mapping
from doorward.engine.udp.opening import NOWHERE, open_mapping
from doorward.policy.address import canonical

if TYPE_CHECKING:
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.association import FilterEntry
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session
    from doorward.net.datagrams import SocketAddress


class DatagramHolding(Kept):
    """What one UDP socket of a filter's holds: its mapping, from the first call that needs one."""

    __slots__ = ("_one_at_a_time", "held")

    def __init__(
        self, engine: Engine, session: Session, system: str | None, made_by: FilterEntry | None
    ) -> None:
        """Raises OutOfResources."""
        super().__init__(engine, session, system, made_by)
        self.held: Held | None = None
        self._one_at_a_time = asyncio.Lock()

    async def mapping(self, bound: SocketName | None = None) -> Held:
        """Open it, at this local end. Raises AccessDenied if a filter denies it, LinkError kinds, AlreadyExists."""
        async with self._one_at_a_time:
            self.expect_alive()
            if self.held is None:
                self.held = await self._open(bound)
            elif bound is not None:
                raise AlreadyExists("the socket has its local end already")
            return self.held

    def expect_alive(self) -> None:
        """Raises Terminating."""
        if self.over:
            raise Terminating("the socket is closed")

    async def _open(self, bound: SocketName | None) -> Held:
        sides: list[Held] = []
        met: list[DoorwardError] = []

        def client(mapping: Mapping) -> Held:
            try:
                if bound is not None:
                    mapping.table.listen(mapping, *bound)
                    mapping.admits = self._admits
            except DoorwardError as error:
                met.append(error)
                raise
            mapping.connection.set_ip_filter(self.ip_filter)
            sides.append(Held(mapping))
            return sides[0]

        if self.system is None:
            asked_for = bound or ("", 0)
            opening = open_mapping(self.engine, self.session, self.origin, client, asked_for)
            connection, _ = await self.while_open(opening)
        else:
            origin, session = self.origin, self.session
            connection = self.engine.begin(session, NOWHERE, origin, Operation.UDP, "udp", limited=False)
            await self.engine.open(connection, _open_for_system(connection, self.system, client))
        if connection.refusal is not None:
            raise error_of(connection.refusal, met)
        self.expect_open(connection)
        self.sign(connection)
        self.connection = connection
        return sides[0]

    def _admits(self, where: SocketAddress) -> bool:
        """Whether somebody who comes first is heard."""
        connection = self.connection
        if connection is None or self.ip_filter is None:
            return False
        peer = canonical(ipaddress.ip_address(where[0].partition("%")[0]))
        if not self.ip_filter.includes(peer):
            return False
        if self.system is not None:
            return True
        session, target = self.session, Target(None, peer, connection.external_socket_name[1])
        is_own = self.engine.own_addresses.is_own
        inputs = inputs_of(session, target, session.user, time.time(), is_own, "udp-in")
        return self.engine.ruling.policy.judge(inputs).allowed


async def _open_for_system(
    connection: Connection, filter_name: str, client: Callable[[Mapping], Held]
) -> None:
    engine = connection.engine
    allow_for_system(engine, connection, filter_name)
    mapping = Mapping(connection, engine.udp, is_system=True)
    connection.extra.udp = connection.extra.listening = mapping
    engine.udp.enter(mapping)
    mapping.client = client(mapping)


class DatagramSocket:
    """See `api.NetworkSocket`, for UDP."""

    __slots__ = ("__weakref__", "_held", "_peer", "_shut", "_target")

    def __init__(self, held: DatagramHolding) -> None:
        self._held = held
        self._target: Target | None = None
        self._peer: SocketName | None = None  # of one that is connected
        self._shut = False

    def __del__(self) -> None:
        self._held.let_go()

    async def connect(self, host: str, port: int) -> None:
        """Have one peer, and hear nobody else. Nothing is sent. Raises as `NetworkSocket.connect`."""
        self._held.expect_alive()
        if self._target is not None:
            raise AlreadyExists("the socket is connected")
        self._target = target = checked_target(host, port)
        try:
            held = await self._held.mapping()
            self._peer = await held.reach(target)
        except BaseException:
            self._target = None
            raise

    async def bind(self, address: str, port: int) -> None:
        """See the contract; `""` is every address of both families."""
        if not 0 <= port <= 65_535:
            raise BadArgument(f"{port} is no port")
        if address:
            try:
                address = str(ipaddress.ip_address(address))
            except ValueError:
                raise BadArgument(f"{address!r} is no address") from None
        await self._held.mapping((address, port))

    async def listen(self, backlog: int = 128) -> NoReturn:
        """Raises NotSupported: a datagram needs nobody who listens."""
        raise NotSupported("UDP does not listen: bind, and set an IP filter")

    async def accept(self) -> NoReturn:
        """Raises NotSupported."""
        raise NotSupported("UDP does not accept: recv_from")

    async def recv_from(self, bytes_max: int | None = None) -> tuple[bytes, SocketName]:
        """See `api.Socket`. Raises NotConnected before anything was sent, bound or connected."""
        held = self._expect_held()
        while True:
            data, name = await held.recv_from()
            if self._peer is None or name == self._peer:
                return (data if bytes_max is None else data[:bytes_max]), name

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `api.Socket`."""
        return (await self.recv_from(bytes_max))[0]

    async def send_to(self, data: bytes | bytearray | memoryview, address: SocketName) -> None:
        """See `api.Socket`. What policy or a filter refuses is dropped, with one record for each destination."""
        self._expect_sendable()
        (await self._held.mapping()).send_to(data, address)

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `api.Socket`."""
        self._expect_sendable()
        if self._target is None or self._peer is None:
            raise NotConnected("send_to, or connect first")
        self._expect_held().send(data, self._target)

    async def shutdown(self, *, abortive: bool = False) -> None:
        """Send no more; nobody is told, since UDP has no end. Abortive: close."""
        self._shut = True
        if abortive:
            self._held.end(RESET)

    async def close(self, *, abortive: bool = False) -> None:
        """See `api.Socket`."""
        self._held.end(RESET if abortive else CLOSED)

    @property
    def socket_name(self) -> SocketName:
        """See the contract."""
        if self._held.connection is None:
            raise NotConnected("the socket has no end of its own yet")
        return self._held.connection.external_socket_name

    @property
    def peer_name(self) -> SocketName:
        """See the contract."""
        if self._peer is None:
            raise NotConnected("the socket is not connected")
        return self._peer

    def get_option(self, level: int, option: int) -> int:
        """Raises NotSupported: a mapping has a socket for each family, made when it is needed."""
        raise NotSupported("a UDP socket has no options")

    def set_option(self, level: int, option: int, value: int) -> None:
        """Raises NotSupported."""
        raise NotSupported("a UDP socket has no options")

    @property
    def ip_filter(self) -> IpFilter | None:
        """See the contract."""
        found = self._held.ip_filter
        return None if found is None else found.clone()

    def set_ip_filter(self, ip_filter: IpFilter | None) -> None:
        """See the contract. Who is left out is neither heard nor spoken to."""
        self._held.expect_alive()
        self._held.ip_filter = None if ip_filter is None else ip_filter.clone()
        if self._held.connection is not None:
            self._held.connection.set_ip_filter(ip_filter)

    def _expect_held(self) -> Held:
        self._held.expect_alive()
        if self._held.held is None:
            raise NotConnected("send_to, bind or connect first")
        return self._held.held

    def _expect_sendable(self) -> None:
        self._held.expect_alive()
        if self._shut:
            raise Terminating("send after shutdown")
