"""Events handed to an application filter as the engine hands them, and what it made of each."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from doorward.api.errors import AccessDenied, Side
from doorward.api.events import AcceptEvent, BindEvent, EventKind, UdpDestinationEvent
from doorward.engine.connecting import granted
from doorward.engine.dispatch import dispatch, dispatch_connect, dispatch_established
from doorward.engine.extra import checked_name
from doorward.engine.lookup import look_up_address, look_up_name
from doorward.engine.operation import Operation
from doorward.engine.outcome import End
from doorward.engine.ports.binding import tell_bind, tell_listen
from doorward.engine.target import Target, target_of
from doorward.testing.destination import ScriptedDestination, ScriptedMapping
from doorward.testing.ground import Ground, as_raised
from doorward.testing.peer import ConversationBroken
from doorward.testing.promises import OUR_NAME, arrived, stand
from doorward.testing.results import Asked, notes_of

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.filters import DataFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.association import FilterEntry
    from doorward.engine.chain import Attached
    from doorward.engine.connection import Connection
    from doorward.engine.session import Session


class Server(NamedTuple):
    """Whom the client of a harness wants to reach."""

    host: str | None
    address: str
    port: int
    protocol: str | None

    @property
    def target(self) -> Target:
        """As a client asks for it."""
        return target_of(self.host or self.address, self.port)


class Asking:
    """One filter, in force alone, in the name of one session."""

    def __init__(self, ground: Ground, session: Session, server: Server, entry: FilterEntry) -> None:
        self._ground = ground
        self._session = session
        self._server = server
        self._entry = entry

    async def connect(self) -> Asked:
        """`on_connect`. A promise that fits is used, and the connection is secondary then."""
        self._expect_interest(EventKind.CONNECT)
        connection = self._make(self._server.target, Operation.CONNECT)
        promise = self._ground.grants.connect(self._session, "tcp", self._server.target)
        if promise is not None:
            judged = granted(self._ground, connection, promise)
            connection.judged, connection.addresses = judged.decision, judged.addresses
        address = ipaddress.ip_address(self._server.address)
        connection.addresses = {address: connection.decision}
        with as_raised():
            await dispatch_connect(connection)
            if connection.denied is None:
                connection.attached += self._ground.grants.attach(
                    connection, EventKind.CONNECT, address, self._server.port
                )
        return await self._told(connection)

    async def bind(self, transport: TransportName, address: str, port: int) -> Asked:
        """`on_bind`, and `on_listen` if it stands then."""
        self._expect_interest(EventKind.BIND)
        if transport == "udp":
            return await self._bind_udp(address, port)
        connection = self._make(Target(None, None, port), Operation.BIND)
        ports = self._ground.ports
        name = OUR_NAME[0], ports.free("tcp", OUR_NAME[0], port)
        ports.open_here(connection, "tcp", name)
        with as_raised():
            if await tell_bind(connection, (address, port)):
                if connection.extra.bind_emulator is None:
                    connection.extra.socket_name = name
                await tell_listen(connection)
        return await self._told(connection)

    async def accept(self, remote: SocketName, listening: Connection | None) -> Asked:
        """`on_accept`; without a listening connection, on a port that the client has open."""
        self._expect_interest(EventKind.ACCEPT)
        remote = checked_name(remote)
        if listening is None:
            listening = self._listening()
        address = ipaddress.ip_address(remote[0])
        inputs = listening.decision.inputs._replace(address=address)
        connection = arrived(self._ground, listening, remote, listening.decision._replace(inputs=inputs))
        connection.entries, connection.protocol = (self._entry,), listening.protocol
        connection.promise = listening.promise
        local = connection.external_socket_name
        event = AcceptEvent(
            connection, listening, remote, local, connection.protocol, connection.is_secondary
        )
        with as_raised():
            await dispatch(connection, EventKind.ACCEPT, event)
            if connection.denied is None:
                here = ipaddress.ip_address(local[0])
                grants = self._ground.grants
                connection.attached += grants.attach(connection, EventKind.ACCEPT, here, local[1])
        return await self._told(connection)

    async def udp_destination(self) -> Asked:
        """`on_udp_destination`, for the harness's server."""
        self._expect_interest(EventKind.UDP_DESTINATION)
        connection, mapping = self._mapping()
        host, address, port, protocol = self._server
        destination = ScriptedDestination(connection, host, address, port)
        event = UdpDestinationEvent(connection, destination, protocol, connection.is_secondary)
        grants, kind = self._ground.grants, EventKind.UDP_DESTINATION
        with as_raised():
            destination.attached += grants.attach(connection, kind, ipaddress.ip_address(address), port)
            await dispatch(connection, kind, event, destination)
        asked = await self._told(connection, mapping)
        return replace(asked, denied=destination.denied, attached=_filters(destination.attached))

    async def resolve(self, name: str | None, address: str | None) -> Asked:
        """`on_resolve`, before and after the look-up."""
        self._expect_interest(EventKind.RESOLVE)
        try:
            if name is not None:
                found = await look_up_name(self._ground, self._session, None, name)
                results = tuple(map(str, found))
            else:
                assert address is not None, "a name or an address"
                results = await look_up_address(self._ground, self._session, address)
        except AccessDenied as error:
            await self._ground.settle()
            return Asked(denied=error.reason)
        return Asked(results=results)

    async def established(self, connection: Connection | None) -> Asked:
        """`on_established`, for a filter that hears of every connection."""
        self._expect_interest(EventKind.ESTABLISHED)
        connection = connection or self._make(self._server.target, Operation.CONNECT)
        connection.entries = (self._joined(connection),)
        stand(connection, ipaddress.ip_address(self._server.address))
        with as_raised():
            await dispatch_established(connection)
        return await self._told(connection)

    async def terminating(self, connection: Connection | None, sent: int, received: int, end: str) -> Asked:
        """`on_terminating`. The connection has ended then, and what was promised for it with it."""
        connection = connection or self._make(self._server.target, Operation.CONNECT)
        connection.joined.setdefault(self._joined(connection), self._session.filter_of(self._entry))
        connection.bytes_sent, connection.bytes_received = sent, received
        connection.opened = True
        self._ground.ended(connection, End(end, Side.OURS))
        return await self._told(connection)

    async def _bind_udp(self, address: str, port: int) -> Asked:
        connection, mapping = self._mapping()
        event = BindEvent(connection, "udp", address, port, connection.protocol, connection.is_secondary)
        with as_raised():
            await dispatch(connection, EventKind.BIND, event)
        return await self._told(connection, mapping)

    def _make(self, target: Target, operation: Operation, transport: TransportName = "tcp") -> Connection:
        return self._ground.make(self._session, target, operation, transport, self._server.protocol)

    def _mapping(self) -> tuple[Connection, ScriptedMapping]:
        connection = self._make(Target(None, None, 0), Operation.UDP, "udp")
        mapping = connection.extra.udp = ScriptedMapping(connection, OUR_NAME)
        return connection, mapping

    def _listening(self) -> Connection:
        ports = self._ground.ports
        name = OUR_NAME[0], ports.free("tcp", OUR_NAME[0], 0)
        connection = self._make(Target(None, None, name[1]), Operation.BIND)
        ports.open_here(connection, "tcp", name)
        connection.extra.socket_name, connection.opened = name, True
        return connection

    def _joined(self, connection: Connection) -> FilterEntry:
        """The filter as it has joined this connection, perhaps with other settings; else as it is in force."""
        of = self._entry.application_filter
        return next((entry for entry in connection.joined if entry.application_filter is of), self._entry)

    async def _told(self, connection: Connection, mapping: ScriptedMapping | None = None) -> Asked:
        """What came of it. Raises what the filter raised meanwhile."""
        await self._ground.settle()
        peers = {} if mapping is None else mapping.peers
        return Asked(
            connection.denied,
            _filters(connection.attached),
            None if connection.emulator is None else connection.emulator.data_filter,
            notes_of(connection),
            {name: _filters(peer.attached) for name, peer in peers.items()},
            maybe_connection=connection,
        )

    def _expect_interest(self, kind: EventKind) -> None:
        """A filter that has not said so would never hear of it. Raises ConversationBroken."""
        events = self._entry.interest.events
        if kind not in events:
            known = ", ".join(sorted(events))
            raise ConversationBroken(f"the interest of {self._entry.name} names {known}, and not {kind}")


def _filters(attached: Sequence[Attached]) -> tuple[DataFilter, ...]:
    """In the order of their priorities."""
    return tuple(item.data_filter for item in sorted(attached, key=lambda item: item.priority))
