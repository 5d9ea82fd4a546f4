"""From a client's wish for a port to one that is open: a free port, policy, the filters, and then it listens.

    name looked up ─▶ port taken ─▶ judged ─▶ on_bind ─▶ listens (or a filter emulates) ─▶ on_listen

Policy is asked about each peer that was announced; if none was, whether there could be any, and each is judged when it
arrives. What policy refuses for want of a rule may still be bound provisionally, with nobody admitted: for a peer
that this session is connected to already, if a filter that takes part in that connection may promise it (FTP's
active mode).
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.errors import AddressInUse, FilterFailed, NameNotFound, ReplyHint, Side
from doorward.api.events import BindEvent, EventKind, ListenEvent
from doorward.api.ip_filter import IpFilter
from doorward.engine.connecting import expect_alive, was_denied
from doorward.engine.dispatch import HandlerFailed, dispatch
from doorward.engine.judgement import inputs_of
from doorward.engine.lookup import look_up_name
from doorward.engine.ports.free_port import ANY_PORT, candidates, reserve
from doorward.engine.target import Target
from doorward.net.acceptor import facing
from doorward.policy.address import canonical
from doorward.policy.evaluation import NEEDS_USER, RULE_DENY, USER_NEEDED
from doorward.policy.model import Action, Decision

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.ports.listening import Port
    from doorward.net.reservation import Reservation
    from doorward.policy.model import IPAddress

JUDGED_ON_ARRIVAL: Final = "judged_on_arrival"
PROVISIONAL: Final = "provisional"
# Somebody has written that it shall not be; anything else is only not written.
BY_A_RULE: Final = frozenset({RULE_DENY, USER_NEEDED, NEEDS_USER})
WILDCARDS: Final = {4: "0.0.0.0", 6: "::"}


class Asked(NamedTuple):
    """What a client has asked for. `peer` is whom it expects; with neither host nor address it does not know.

    `port` is a wish. `reached_on` is where the client has reached us: what it is told in place of a wildcard.
    """

    peer: Target
    port: int
    version: int
    reached_on: str


class Found(NamedTuple):
    """A port, the answer to it, and the announced peers that may come; None if nobody was announced."""

    reservation: Reservation
    decision: Decision
    admitted: list[IPAddress] | None


async def open_for_client(engine: Engine, port: Port, asked: Asked) -> None:
    """A port for a client that asked. A refusal is left on its connection; raises DoorwardError, HandlerFailed."""
    connection = port.connection
    found: Found | Decision | None = _refused_whoever_it_is(engine, connection, asked)
    if found is None:
        peers = await _announced(engine, connection, asked.peer)
        expect_alive(connection)
        address = facing(peers[0]) if peers else WILDCARDS[asked.version]
        found = _search(engine, connection, address, asked.port, peers)
        if isinstance(found, Decision):
            found = _provisional(engine, connection, address, peers, found) or found
    if isinstance(found, Decision):
        connection.judged = found
        connection.refuse_by_policy(found)
        return
    address = found.reservation.name[0]
    connection.judged = found.decision
    connection.extra.ip_filter = _filter(found.admitted)
    told = asked.reached_on if address in WILDCARDS.values() and _same_family(asked, address) else address
    try:
        expect_direct(connection)
        await stand(port, found.reservation, asked_for=("", asked.port), told=told)
    finally:
        found.reservation.close()


async def open_for_socket(engine: Engine, port: Port, reservation: Reservation) -> None:
    """A port for a session's own socket, whose peers are not known: each is judged when it arrives. As above."""
    connection = port.connection
    decision = connection.judged = judge_port(engine, connection, reservation, []).decision
    if not decision.allowed:
        connection.refuse_by_policy(decision)
        return
    expect_direct(connection)
    await stand(port, reservation, asked_for=reservation.name)


def expect_direct(connection: Connection) -> None:
    """No peer can come through an upstream. Raises UpstreamNoBind."""
    ways = connection.ruling.ways
    if ways is not None:
        ways.expect_direct(connection.decision.inputs)


async def stand(port: Port, reservation: Reservation, *, asked_for: SocketName, told: str = "") -> None:
    """Events, then it listens; peers wait until `Port.start`. `told` is the address that the client is to hear of.

    The connection has been judged. A refusal is left on it; raises DoorwardError, HandlerFailed. The caller closes the
    reservation, whatever comes of it.
    """
    connection, (address, number) = port.connection, reservation.name
    arrives_at(connection, number)
    if not port.terms.system:
        rule = connection.decision.rule
        connection.entries = connection.ruling.associations.of(connection.way, rule)
    if connection.entries and not await tell_bind(connection, asked_for):
        return
    expect_alive(connection)
    if connection.extra.bind_emulator is None:
        port.listen(reservation.take())
        connection.extra.socket_name = (told or address, number)
    await tell_listen(connection)
    openings = connection.engine.arrivals.openings
    if openings is not None:  # the peer may be told of the port in a moment
        await openings.settled()
    expect_alive(connection)


def arrives_at(connection: Connection, number: int) -> None:
    """The port is known: what it is called, and who is concerned."""
    connection.target = connection.target._replace(port=number)
    application = connection.origin.application
    connection.protocol = connection.ruling.associations.protocol("tcp-in", number, application)
    if connection.promise is not None:
        connection.protocol = connection.promise.protocol or connection.protocol


async def tell_bind(connection: Connection, asked_for: SocketName) -> bool:
    """`on_bind`; False if a filter denied it, which is then the refusal. Raises HandlerFailed, Terminating."""
    event = BindEvent(connection, "tcp", *asked_for, connection.protocol, connection.is_secondary)
    await dispatch(connection, EventKind.BIND, event)
    if was_denied(connection):
        assert connection.refusal is not None
        connection.refusal = connection.refusal._replace(hint=ReplyHint.ADDRESS_IN_USE)
        return False
    emulator = connection.extra.bind_emulator
    if emulator is not None and connection.extra.socket_name is None:
        failure = FilterFailed("it emulates a bind and has given it no name: set_socket_name")
        raise HandlerFailed(failure, emulator, failure)
    return True


async def tell_listen(connection: Connection) -> None:
    """`on_listen`. Raises HandlerFailed."""
    name = connection.extra.socket_name
    assert name is not None
    event = ListenEvent(connection, *name, connection.protocol, connection.is_secondary)
    await dispatch(connection, EventKind.LISTEN, event)


async def _announced(engine: Engine, connection: Connection, peer: Target) -> list[IPAddress]:
    """Whom the client expects: one address, those of a name that are of the first one's family, or nobody known."""
    if peer.host is None:
        unknown = peer.address is None or peer.address.is_unspecified
        return [] if unknown or peer.address is None else [peer.address]
    found = await look_up_name(engine, connection.session, connection, peer.host)
    addresses = list(dict.fromkeys(map(canonical, found)))
    if not addresses:  # a filter's answer; nobody known would be anybody
        raise NameNotFound("the name has no address", side=Side.EXTERNAL)
    return [address for address in addresses if address.version == addresses[0].version]


def _refused_whoever_it_is(engine: Engine, connection: Connection, asked: Asked) -> Decision | None:
    """A name that could not come whatever its address is never looked up: then this is why."""
    if asked.peer.host is None or any(_promising(engine, connection)):
        return None
    found = _search(engine, connection, WILDCARDS[asked.version], asked.port, [])
    if isinstance(found, Decision):
        return found
    found.reservation.close()
    return None


def _search(
    engine: Engine, connection: Connection, address: str, wish: int, peers: list[IPAddress]
) -> Found | Decision:
    """A free port that policy allows, or the most telling refusal. Raises AddressInUse if no port is free at all."""
    failure: AddressInUse | None = None
    refused: Decision | None = None
    for ports in candidates(connection.ruling.policy, wish):
        try:
            reservation = reserve(address, ports)
        except AddressInUse as error:
            failure = error
            continue
        found = judge_port(engine, connection, reservation, peers)
        if found.decision.allowed:
            return found
        reservation.close()
        if refused is None or refused.reason not in BY_A_RULE:
            refused = found.decision
    if refused is None:
        assert failure is not None, "there is a port to try"
        raise failure
    return refused


def judge_port(
    engine: Engine, connection: Connection, reservation: Reservation, peers: list[IPAddress]
) -> Found:
    """Policy's answer for this port."""
    session, number, policy = connection.session, reservation.name[1], connection.ruling.policy
    now_s, is_own = time.time(), engine.own_addresses.is_own

    def ask(peer: IPAddress | None) -> Decision:
        target = Target(None, peer, number)
        return policy.judge(inputs_of(session, target, session.user, now_s, is_own, "tcp-in"))

    if not peers:
        decision = ask(None)
        if decision.needs == "address":  # somebody could be allowed, and whoever comes is asked about
            decision = decision._replace(action=Action.ALLOW, reason=JUDGED_ON_ARRIVAL, needs=None)
        return Found(reservation, decision, None)
    decisions = {peer: ask(peer) for peer in peers}
    admitted = [peer for peer, decision in decisions.items() if decision.allowed]
    return Found(reservation, decisions[admitted[0] if admitted else peers[0]], admitted)


def _provisional(
    engine: Engine, connection: Connection, address: str, peers: list[IPAddress], refused: Decision
) -> Found | None:
    """A port for nobody yet, if a filter may promise it to the announced peer. None where a rule has said no."""
    if refused.reason in BY_A_RULE:
        return None
    for other in _promising(engine, connection):
        if other.peer in peers:
            rule, line = other.decision.rule, other.decision.rule_line
            decision = refused._replace(action=Action.ALLOW, reason=PROVISIONAL, rule=rule, rule_line=line)
            return Found(reserve(address, ANY_PORT), decision, [])
    return None


def _promising(engine: Engine, connection: Connection) -> Iterator[Connection]:
    """Connections of this session in which a filter takes part that knows of binds."""
    if not any(EventKind.BIND in e.interest.events for e in connection.ruling.associations.entries):
        return
    for other in engine.connections.values():
        if other.session is not connection.session or not other.opened:
            continue
        if any(EventKind.BIND in entry.interest.events for entry in other.joined):
            yield other


def _filter(admitted: list[IPAddress] | None) -> IpFilter:
    return IpFilter.everybody() if admitted is None else IpFilter(*map(str, admitted))


def _same_family(asked: Asked, address: str) -> bool:
    if not asked.reached_on:
        return False
    return ipaddress.ip_address(asked.reached_on).version == ipaddress.ip_address(address).version
