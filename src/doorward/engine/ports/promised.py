"""Ports that a filter has promised to peers of its choice (`bind_for_client`): policy is not asked, filters are told.

Who arrives is led to an address of the client itself and to no other. A run of ports is had as a whole or not at all.
"""

from __future__ import annotations

import ipaddress
import time
from typing import TYPE_CHECKING, Final

from doorward.api.errors import (
    BadArgument,
    DoorwardError,
    NotConnected,
    Side,
    Terminating,
    UpstreamNoBind,
)
from doorward.api.events import EventKind
from doorward.api.filters import ClientKind
from doorward.engine.connecting import decision_of, expect_alive
from doorward.engine.extra import checked_name, client_name, copied_filter
from doorward.engine.grants import Promise, way_of
from doorward.engine.judgement import inputs_of
from doorward.engine.operation import Operation
from doorward.engine.origin import Origin
from doorward.engine.outcome import End
from doorward.engine.ports.admittance import Terms
from doorward.engine.ports.binding import arrives_at, stand, tell_bind
from doorward.engine.ports.free_port import reserve_run
from doorward.engine.ports.listening import GRANT_ENDED, Port
from doorward.engine.refusals import error_of, keeping
from doorward.engine.target import Target
from doorward.engine.udp.opening import admitted_by_filter, lead_to_client
from doorward.net.dial import dial

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from doorward.api.contracts import TransportName
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.grants import Offer
    from doorward.engine.ports.arrivals import Arrivals
    from doorward.engine.ports.wanted import Wanted
    from doorward.engine.session import Session
    from doorward.net.carrier import Carrier
    from doorward.net.datagrams import SocketAddress
    from doorward.net.reservation import Reservation
    from doorward.policy.model import Transport

ENTRY: Final = "filter"
# Ports of one run: RTP and its like take a few.
COUNT_MAX: Final = 64


async def bind_for_client(
    arrivals: Arrivals, session: Session, wanted: Wanted, offer: Offer
) -> list[Connection]:
    """See `api.Session.bind_for_client`."""
    session.expect_alive()
    check_wanted(session, wanted)
    address = listening_address(wanted, offer.parent)
    run = reserve_run(wanted.transport, address, wanted.port, wanted.ports)
    made: list[Connection] = []
    try:
        for index, reservation in enumerate(run):
            made.append(await _bind_one(arrivals, session, wanted, offer, index, reservation))
    except BaseException:
        for connection in made:
            connection.kill()
        raise
    finally:
        for reservation in run:
            reservation.close()
    return made


async def dial_client(connection: Connection) -> Carrier:
    """A leg to where the listening connection leads. Raises LinkError kinds."""
    engine, parent = connection.engine, connection.extra.parent
    assert parent is not None
    name = parent.extra.client_name
    assert name is not None, "nobody is led anywhere before it is known"
    timeout_s = connection.ruling.limits.connect_timeout_s
    leg, _ = await dial(engine.poller, (ipaddress.ip_address(name[0]),), name[1], timeout_s)
    leg.side = Side.INTERNAL
    return leg


def promise_bind(session: Session, transport: TransportName, number: int, offer: Offer) -> Promise:
    """The promise behind one port. Raises Terminating, OutOfResources, BadArgument."""
    way = way_of(session, offer, transport, number)
    return Promise(session.engine.grants, session, way, **offer._asdict())


def begin_promised(session: Session, promise: Promise, number: int, operation: Operation) -> Connection:
    """A connection that was promised; `Engine.open` must follow."""
    engine, parent = session.engine, promise.parent
    kind = ClientKind.FILTER if parent is None else parent.origin.kind
    entry, client_port = (ENTRY, 0) if parent is None else (parent.origin.entry, parent.origin.client_port)
    origin = Origin(entry, kind, session.client_address, client_port)
    target = Target(None, None, number)
    transport: TransportName = "udp" if operation is Operation.UDP else "tcp"
    connection = engine.begin(session, target, origin, operation, transport)
    inbound: Transport = "udp-in" if operation is Operation.UDP else "tcp-in"
    is_own = engine.own_addresses.is_own
    inputs = inputs_of(session, target, session.user, time.time(), is_own, inbound)
    connection.promise = promise
    connection.judged = decision_of(engine, promise, inputs)
    return connection


async def _bind_one(
    arrivals: Arrivals,
    session: Session,
    wanted: Wanted,
    offer: Offer,
    index: int,
    reservation: Reservation,
) -> Connection:
    """One port of the run. Raises what `bind_for_client` raises; nothing is left of it then."""
    engine, number, is_udp = session.engine, reservation.name[1], wanted.transport == "udp"
    promise = promise_bind(session, wanted.transport, number, offer)
    opened = False
    try:
        operation = Operation.UDP if is_udp else Operation.BIND
        connection = begin_promised(session, promise, number, operation)
        extra = connection.extra
        extra.leads_to_client, extra.full_proxy = True, wanted.full_proxy
        if wanted.client_address is not None:
            address, port = wanted.client_address
            extra.client_name = client_name(session, (address, port + index))
        extra.ip_filter = copied_filter(wanted.ip_filter)
        opening: Coroutine[Any, Any, None]
        if is_udp:
            opening = _stand_udp(engine, connection, promise, wanted, reservation)
        else:
            opening = _stand_tcp(arrivals, connection, promise, wanted, reservation)
        met: list[DoorwardError] = []
        await engine.open(connection, keeping(opening, met))
        if connection.refusal is not None:
            raise error_of(connection.refusal, met)
        listening = connection.extra.listening
        if isinstance(listening, Port):
            listening.start()
        opened = True
    finally:
        if not opened:
            promise.cancel()
    return connection


async def _stand_tcp(
    arrivals: Arrivals,
    connection: Connection,
    promise: Promise,
    wanted: Wanted,
    reservation: Reservation,
) -> None:
    terms = Terms(dial_client, multiple=promise.multiple, promise=promise)
    await stand(Port(arrivals, connection, terms), reservation, asked_for=(wanted.address, wanted.port))


async def _stand_udp(
    engine: Engine, connection: Connection, promise: Promise, wanted: Wanted, reservation: Reservation
) -> None:
    """Peers may send first as long as the promise is good; without `multiple`, one peer."""
    address, number = reservation.name
    arrives_at(connection, number)
    rule = connection.decision.rule
    connection.entries = connection.ruling.associations.of(connection.way, rule)
    if connection.entries and not await tell_bind(connection, (wanted.address, wanted.port)):
        return
    bound = ipaddress.ip_address(address)
    connection.attached += engine.grants.attach(connection, EventKind.BIND, bound, number)
    expect_alive(connection)
    if not promise.active:
        raise Terminating("the promise has ended")
    admitted = admitted_by_filter(connection)

    def admits(where: SocketAddress) -> bool:
        if not promise.active or not admitted(where):
            return False
        promise.use()
        return True

    reservation.close()
    lead_to_client(connection, address, number, admits)
    promise.on_end = lambda: _end_unused(engine, connection, promise)


def _end_unused(engine: Engine, connection: Connection, promise: Promise) -> None:
    """Nobody else may come; a mapping through which somebody has come goes on."""
    if not promise.uses:
        engine.ended(connection, End(GRANT_ENDED, Side.OURS))


def check_wanted(session: Session, wanted: Wanted) -> None:
    """Raises BadArgument."""
    copied_filter(wanted.ip_filter)
    if wanted.transport not in ("tcp", "udp"):
        raise BadArgument(f"{wanted.transport!r:.80} is neither tcp nor udp")
    if not 1 <= wanted.ports <= COUNT_MAX:
        raise BadArgument(f"{wanted.ports} ports; 1 to {COUNT_MAX} are possible at once")
    if not 0 <= wanted.port <= 65_536 - wanted.ports:
        raise BadArgument(f"{wanted.port} and the {wanted.ports - 1} above it are no ports")
    if wanted.client_address is not None:
        address, port = client_name(session, wanted.client_address)
        client_name(session, (address, port + wanted.ports - 1))


def listening_address(wanted: Wanted, parent: Connection | None) -> str:
    """Ours, on which to listen. Raises BadArgument, UpstreamNoBind."""
    if parent is not None and parent.extra.via is not None:
        detail = "the parent goes through it, and no upstream listens for us"
        raise UpstreamNoBind(detail, upstream=parent.extra.via)
    if wanted.address:
        return checked_name((wanted.address, 0))[0]
    if parent is None:
        return ""
    try:
        return parent.external_socket_name[0]
    except NotConnected:
        return ""
