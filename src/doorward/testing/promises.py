"""What filters have promised in a session's name: each call, as it was asked for, for the test to look at and use.

The promises themselves are the engine's, with its checks, caps and timers. What listens for them listens nowhere: a
peer arrives when the test says so.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from doorward.api.errors import AccessDenied, NotSupported, Side
from doorward.api.filters import ClientKind
from doorward.engine.connecting import NOT_ADMITTED, granted
from doorward.engine.dispatch import HandlerFailed, dispatch_established, tell_holder
from doorward.engine.extra import checked_name
from doorward.engine.grants import ConnectPromise, FactoryPromise, Grants
from doorward.engine.operation import Operation
from doorward.engine.origin import Origin
from doorward.engine.outcome import End
from doorward.engine.ports.listening import BIND_CLOSED, BIND_USED, Port
from doorward.engine.target import Target
from doorward.policy.address import canonical

if TYPE_CHECKING:
    from doorward.api.events import EventKind
    from doorward.api.filters import DataFilter
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.grants import Promise
    from doorward.policy.model import Decision, IPAddress

Call: TypeAlias = Literal[
    "allow_connect",
    "bind_for_client",
    "retroactive_allow_bind",
    "redirect_connections",
    "emulate_client_bind",
    "set_data_filter_factory",
]
# Our end of what goes out.
OUR_NAME: Final = ("192.0.2.254", 40_000)


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """One promise.

    call                      address, port                       leads_to               peers
    allow_connect             where the client may connect        -                      -
    bind_for_client           where we would listen               the client's address   who may come
    retroactive_allow_bind    the port that was open before       -                      who may come
    redirect_connections      where we would listen               the target             -
    emulate_client_bind       what the client is told             the client's address   -
    set_data_filter_factory   where, "" and 0 for anywhere        -                      -

    `grant` is what the filter was given (its `multiple`, `parent`, `holder` and `context` tell the terms); None for
    an emulated bind. `connection` is the one that listens, where one does.
    """

    call: Call
    grant: Promise | None
    address: str
    port: int
    last_port: int = 0
    transport: Literal["tcp", "udp"] = "tcp"
    target: SocketName | None = None
    admitted: IpFilter | None = None
    connection: Connection | None = None
    event: EventKind | None = None
    factory: Callable[[], DataFilter] | None = None

    @property
    def leads_to(self) -> SocketName | None:
        """See the table; None while it has not been said."""
        return self.target if self.connection is None else self.connection.extra.client_name

    @property
    def peers(self) -> IpFilter | None:
        """See the table; None for nobody."""
        if self.admitted is not None or self.connection is None:
            return self.admitted
        return self.connection.ip_filter

    @property
    def active(self) -> bool:
        """Whether it is still open."""
        if self.grant is not None:
            return self.grant.active
        return self.connection is not None and self.connection.end is None

    def expire(self) -> None:
        """Its time is over."""
        if self.grant is not None:
            self.grant.cancel()
        elif self.connection is not None:
            self.connection.kill()

    async def use(self, peer: SocketName | None = None) -> Connection:
        """Somebody comes through: the client where it is to connect, `peer` where it is to arrive.

        The filter that holds the promise is told. Raises AccessDenied for who may not, and what that filter raises.
        """
        try:
            if isinstance(self.grant, ConnectPromise):
                return await self._connect(self.grant)
            if self.grant is not None and peer is not None and self.connection is not None:
                return await self._arrive(self.grant, self.connection, checked_name(peer))
        except HandlerFailed as failed:
            raise failed.cause from None
        raise NotSupported(f"this is not how {self.call} is used; where a peer arrives, say which")

    async def _connect(self, promise: ConnectPromise) -> Connection:
        if not promise.active:
            raise _closed(promise)
        session = promise.session
        target = Target(None, promise.address, promise.first_port)
        connection = session.engine.begin(session, target, _origin(promise))
        judged = granted(session.engine, connection, promise)
        connection.judged, connection.addresses = judged.decision, judged.addresses
        stand(connection, promise.address)
        await dispatch_established(connection)
        return connection

    async def _arrive(self, promise: Promise, listening: Connection, peer: SocketName) -> Connection:
        if self.call == "bind_for_client" and not promise.active:
            raise _closed(promise)
        port = listening.extra.listening
        if not isinstance(port, Port):
            return await self._datagram(promise, listening, peer)
        leave = port.admittance.leave_for(canonical(ipaddress.ip_address(peer[0])), self.port)
        if leave is None or not leave.decision.allowed or leave.promise is None:
            raise AccessDenied(NOT_ADMITTED)
        connection = arrived(listening.engine, listening, peer, leave.decision)
        connection.promise = leave.promise
        port.taken = True
        leave.promise.use()
        if not port.terms.multiple:
            listening.engine.ended(listening, End("closed", Side.OURS))
        await dispatch_established(connection)
        return connection

    async def _datagram(self, promise: Promise, mapping: Connection, peer: SocketName) -> Connection:
        """The mapping itself is what comes of it."""
        ip_filter = mapping.ip_filter
        if ip_filter is None or peer[0] not in ip_filter:
            raise AccessDenied(NOT_ADMITTED)
        promise.use()
        if promise.holder is not None:
            await tell_holder(mapping, promise.holder, promise.context, promise.session)
        return mapping


class RecordingGrants(Grants):
    """The engine's, and a list of all that was ever given, oldest first."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine.poller.loop, lambda: engine.ruling.limits.grants_max_per_session)
        self.given: list[Given] = []

    def add_connect(self, promise: ConnectPromise, *, address_based: bool) -> None:
        """See `Grants`."""
        super().add_connect(promise, address_based=address_based)
        place = str(promise.address), promise.first_port, promise.last_port
        self.given.append(Given("allow_connect", promise, *place, promise.transport))

    def add_factory(self, promise: FactoryPromise) -> None:
        """See `Grants`."""
        super().add_factory(promise)
        event, address, port, _, factory = promise.making
        given = Given(
            "set_data_filter_factory", promise, address or "", port or 0, event=event, factory=factory
        )
        self.given.append(given)


def arrived(engine: Engine, listening: Connection, peer: SocketName, decision: Decision) -> Connection:
    """A peer has come to a port that a client has open; its name was checked."""
    address = canonical(ipaddress.ip_address(peer[0]))
    name = listening.external_socket_name
    target = Target(None, address, name[1])
    connection = engine.begin(listening.session, target, listening.origin, Operation.ACCEPT)
    connection.judged = decision
    extra = connection.extra
    extra.peer_name, extra.parent, extra.socket_name = peer, listening, name
    extra.full_proxy = listening.extra.leads_to_client
    connection.peer, connection.opened = address, True
    return connection


def stand(connection: Connection, peer: IPAddress) -> None:
    """Both legs are there."""
    connection.peer, connection.opened = peer, True
    if connection.extra.socket_name is None:
        connection.extra.socket_name = OUR_NAME


def _origin(promise: Promise) -> Origin:
    if promise.parent is not None:
        return promise.parent.origin
    return Origin("filter", ClientKind.FILTER, promise.session.client_address, 0)


def _closed(promise: Promise) -> AccessDenied:
    return AccessDenied(BIND_USED if promise.uses else BIND_CLOSED)
