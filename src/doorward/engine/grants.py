"""Grants: what filters have promised, until it is used up, expired, cancelled, or its parent or session has ended.

A promise is found by who asks and what for; nobody has made one in most firewalls, so that looking costs one test
of an empty table. Listening promises (a bind, a redirection) end what listens when they end.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import TYPE_CHECKING, Final, NamedTuple, Self, TypeVar

from doorward.api.contracts import GRANT_TIMEOUT_S
from doorward.api.errors import BadArgument, FilterFailed, OutOfResources, Side, Terminating
from doorward.api.events import EventKind
from doorward.api.filters import ClientKind, DataFilter
from doorward.engine.association import Way
from doorward.engine.chain import Attached
from doorward.engine.containment import contained
from doorward.engine.dispatch import HandlerFailed
from doorward.engine.judgement import is_leading_to
from doorward.engine.operation import Operation
from doorward.engine.udp.destination import AT_DESTINATION
from doorward.policy.address import canonical
from doorward.policy.guard import guard
from doorward.policy.model import Verdict

if TYPE_CHECKING:
    from doorward.api.contracts import Connection as ConnectionContract
    from doorward.api.contracts import Priority, TransportName
    from doorward.api.filters import SessionFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.session import Session
    from doorward.engine.target import Target
    from doorward.engine.udp.destination import Destination
    from doorward.policy.model import IPAddress

K = TypeVar("K", bound=Hashable)
P = TypeVar("P", bound="Promise")

TIMEOUT_S_MAX: Final = 24 * 3600.0
FACTORY_EVENTS: Final = frozenset(
    {EventKind.CONNECT, EventKind.UDP_DESTINATION, EventKind.BIND, EventKind.ACCEPT}
)


class Promise:
    """One grant; fulfils `api.Grant`. `on_end` is called once, when it ends however it ends."""

    def __init__(
        self,
        book: Grants,
        session: Session,
        way: Way,
        *,
        multiple: bool = False,
        timeout_s: float | None = GRANT_TIMEOUT_S,
        parent: Connection | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
    ) -> None:
        """Raises Terminating after the end of session or parent, OutOfResources, BadArgument."""
        if session.ended:
            raise Terminating("the session has ended")
        if parent is not None and (parent.end is not None or parent.killed_as is not None):
            raise Terminating("the parent connection has ended")
        if timeout_s is not None and not 0 < timeout_s <= TIMEOUT_S_MAX:
            raise BadArgument(f"a grant of {timeout_s:g} s; above 0 and up to {TIMEOUT_S_MAX:g} are possible")
        if timeout_s is None and parent is None:
            raise BadArgument("a grant without a timeout needs a parent that it ends with")
        book.expect_room(session)
        self.session = session
        self.way = way
        self.multiple = multiple
        self.parent = parent
        self.holder = holder
        self.context = context
        self.uses = 0
        self.active = True
        self.destination = _destination_at_work(parent)
        of = parent if self.destination is None else self.destination
        self.protocol = None if of is None else of.protocol
        self.socket_name: SocketName | None = None
        self.on_end: Callable[[], None] | None = None
        self._book = book
        self._timer = None if timeout_s is None else book.loop.call_later(timeout_s, self.cancel)
        session.promises.add(self)
        if parent is not None:
            parent.extra.promises.add(self)
        book.alive += 1

    def use(self) -> None:
        """It comes true once more; the last use ends it."""
        self.uses += 1
        if not self.multiple:
            self.cancel()

    def cancel(self) -> None:
        """See the contract."""
        if not self.active:
            return
        self.active = False
        if self._timer is not None:
            self._timer.cancel()
        self.session.promises.discard(self)
        if self.parent is not None:
            self.parent.extra.promises.discard(self)
        self._book.alive -= 1
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.cancel()


class ConnectPromise(Promise):
    """Leave to connect to one address and a few ports of it."""

    transport: TransportName
    address: IPAddress
    first_port: int
    last_port: int

    def covers(self, transport: TransportName, target: Target) -> bool:
        """Whether this is what was promised. By name means: by the name under which the parent's server was reached."""
        if transport != self.transport or not self.first_port <= target.port <= self.last_port:
            return False
        if target.address is not None:
            return target.address == self.address
        parent = self.parent
        return parent is not None and parent.peer == self.address and parent.target.host == target.host


class Making(NamedTuple):
    """Which events a factory's data filters are attached to, where, and who makes them. None means any."""

    event: EventKind
    address: str | None
    port: int | None
    priority: Priority | None
    factory: Callable[[], DataFilter]


class FactoryPromise(Promise):
    """A data filter for what is to come."""

    making: Making
    address: IPAddress | None

    def covers(self, kind: EventKind, address: IPAddress, port: int) -> bool:
        """Whether this event is one of those."""
        making = self.making
        return (
            making.event is kind
            and making.port in (None, port)
            and (self.address is None or self.address == address)
        )


class Offer(NamedTuple):
    """The terms of a promise; see `api.Session`."""

    multiple: bool
    timeout_s: float | None
    parent: Connection | None
    holder: SessionFilter | None
    context: object


class Ports(NamedTuple):
    """A run of ports, both ends included."""

    first: int
    last: int


def own(parent: ConnectionContract | None) -> Connection | None:
    """One of our connections as what it is. Raises BadArgument for anything else."""
    if parent is None or hasattr(parent, "engine"):
        return parent  # type: ignore[return-value]  # nothing else has an engine
    raise BadArgument("the parent is no connection of this firewall")


class Grants:
    """All promises of one engine."""

    def __init__(self, loop: asyncio.AbstractEventLoop, per_session_max: Callable[[], int]) -> None:
        self.loop = loop
        self.alive = 0
        self._per_session_max = per_session_max
        # By the session, or by the client address for those that any session of it may use.
        self._connects: dict[Session | IPAddress, dict[ConnectPromise, None]] = {}
        self._factories: dict[Session, dict[FactoryPromise, None]] = {}

    def expect_room(self, session: Session) -> None:
        """Raises OutOfResources."""
        most = self._per_session_max()
        if len(session.promises) >= most:
            raise OutOfResources(f"this session has {most} grants already", side=Side.OURS)

    def add_connect(self, promise: ConnectPromise, *, address_based: bool) -> None:
        """Let it be found."""
        key = promise.session.address if address_based else promise.session
        _enter(self._connects, key, promise)

    def add_factory(self, promise: FactoryPromise) -> None:
        """Let it be found."""
        _enter(self._factories, promise.session, promise)

    def promised(self, session: Session) -> bool:
        """Whether anything may be promised to who connects in this session's name."""
        return bool(self._factories or self._connects) and (
            session in self._factories or session in self._connects or session.address in self._connects
        )

    def connect(self, session: Session, transport: TransportName, target: Target) -> ConnectPromise | None:
        """The promise that allows this, oldest first; it is not used yet."""
        if not self._connects:
            return None
        for key in (session, session.address):
            for promise in self._connects.get(key, ()):
                if promise.covers(transport, target):
                    return promise
        return None

    def attach(
        self, connection: Connection, kind: EventKind, address: IPAddress, port: int
    ) -> list[Attached]:
        """What factories attach to this event, without anybody being asked. Raises HandlerFailed for one that fails."""
        if not self._factories:
            return []
        made: list[Attached] = []
        for promise in tuple(self._factories.get(connection.session, ())):
            if promise.active and promise.covers(kind, address, port):  # one factory may cancel another's
                promise.use()
                made.append(_make(connection, promise))
        return made


def _make(connection: Connection, promise: FactoryPromise) -> Attached:
    """A factory is filter code: under the watchdog, and contained."""
    factory, priority = promise.making.factory, promise.making.priority
    try:
        data_filter = connection.engine.watchdog.run(connection.holder, factory)
        if not isinstance(data_filter, DataFilter):
            raise FilterFailed(f"a factory made {type(data_filter).__name__}, which is no data filter")
        data_filter.context = promise.context
    except (Exception, asyncio.CancelledError) as error:
        name = getattr(factory, "__name__", type(factory).__name__)
        failed = HandlerFailed(contained(error), name, error)
        connection.verdicts.append(Verdict(name, "failed", failed.error.reason))
        raise failed from error
    place = data_filter.priority if priority is None else priority
    return Attached(place, data_filter, type(data_filter).__name__)


def promise_connect(
    session: Session,
    transport: TransportName,
    address: str,
    ports: Ports,
    offer: Offer,
    *,
    address_based: bool,
) -> Promise:
    """See `api.Session.allow_connect`."""
    promise = connect_promise(session, transport, address, ports, offer)
    session.engine.grants.add_connect(promise, address_based=address_based)
    return promise


def connect_promise(
    session: Session, transport: TransportName, address: str, ports: Ports, offer: Offer
) -> ConnectPromise:
    """One that nobody can find yet. Raises as `api.Session.allow_connect`."""
    parsed = _address(address)
    if transport not in ("tcp", "udp"):
        raise BadArgument(f"{transport!r:.80} is neither tcp nor udp")
    if not 0 < ports.first <= ports.last <= 65_535:
        raise BadArgument(f"{ports.first} to {ports.last} are no ports")
    grants = session.engine.grants
    parent = offer.parent
    if parent is None or parent.peer != parsed or parent.emulator is not None:  # whose peer may be invented
        guarded = guard(parsed, own=is_leading_to(parsed, session.engine.own_addresses.is_own))
        if guarded is not None:
            raise BadArgument(f"{address} is guarded ({guarded.label}), and not the parent's own peer")
    way = way_of(session, offer, transport, ports.first)
    promise = ConnectPromise(grants, session, way, **offer._asdict())
    promise.transport, promise.address = transport, parsed
    promise.first_port, promise.last_port = ports
    return promise


def promise_factory(session: Session, making: Making, offer: Offer) -> Promise:
    """See `api.Session.set_data_filter_factory`."""
    if making.event not in FACTORY_EVENTS:
        raise BadArgument(f"no data filter can be attached to {making.event}")
    address = None if making.address is None else _address(making.address)
    grants = session.engine.grants
    promise = FactoryPromise(
        grants, session, way_of(session, offer, "tcp", making.port or 0), **offer._asdict()
    )
    promise.making, promise.address = making, address
    grants.add_factory(promise)
    return promise


def way_of(session: Session, offer: Offer, transport: TransportName, port: int) -> Way:
    """A secondary connection is associated as its parent is, or that UDP destination of it; else as what it is."""
    destination, parent = _destination_at_work(offer.parent), offer.parent
    if destination is not None:
        return destination.way._replace(is_secondary=True)
    if parent is not None:
        return parent.way._replace(is_secondary=True)
    return Way(transport, port, None, ClientKind.FILTER, is_secondary=True)


def _destination_at_work(parent: Connection | None) -> Destination | None:
    """The UDP destination of the parent whose filter promises. Many may share a mapping, which is nothing by itself."""
    destination = AT_DESTINATION.get()
    if destination is None or parent is None or destination.mapping.connection is not parent:
        return None
    return destination


def _address(text: str) -> IPAddress:
    try:
        return canonical(ipaddress.ip_address(text))
    except ValueError:
        raise BadArgument(f"{text!r} is no address") from None


def _enter(table: dict[K, dict[P, None]], key: K, promise: P) -> None:
    """Until it ends."""
    table.setdefault(key, {})[promise] = None

    def forget() -> None:
        found = table[key]
        del found[promise]
        if not found:
            del table[key]

    promise.on_end = forget


def has_secondary(parent: Connection) -> bool:
    """Whether what was promised in its name goes on: a control connection is silent while a file is carried.

    Looks at every connection; to be asked when one has been silent for long.
    """
    return any(
        c.promise is not None and c.promise.parent is parent and c.operation is not Operation.BIND
        for c in parent.engine.connections.values()
    )


def cancel_all(promises: set[Promise]) -> None:
    """End what was promised in the name of something that has ended."""
    for promise in tuple(promises):
        promise.cancel()
