"""From a client's wish to an outer leg: a promise or policy, the filters, the dial.

The one sequence of the object model for what goes out; what listens has its own (arrivals), and so has UDP.
"""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from doorward.api.errors import AccessDenied, NotSupported, ReplyHint, Terminating
from doorward.api.events import BindEvent, EventKind
from doorward.engine.dispatch import dispatch, dispatch_connect, dispatch_established
from doorward.engine.judgement import Judged, inputs_of, judge
from doorward.engine.lookup import ClientResolver
from doorward.net.dial import dial
from doorward.net.transparent import Borrowed
from doorward.policy.model import Action, Decision, Unknown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.grants import ConnectPromise, Promise
    from doorward.net.carrier import Carrier
    from doorward.policy.model import Inputs, IPAddress

# The reason of what a filter has promised.
GRANTED: Final = "granted"
# That of a peer that an IP filter leaves out.
NOT_ADMITTED: Final = "peer_not_admitted"


async def open_connect(
    engine: Engine,
    connection: Connection,
    user: str | Unknown | None,
    source: SocketName | None = None,
    *,
    promise: ConnectPromise | None = None,
) -> None:
    """Policy, events, outer leg. A refusal is left on the connection; raises DoorwardError, HandlerFailed.

    `source` is the local end that was bound for it before, or that is borrowed (net/transparent) where the way is
    direct; `promise` one that is for this connection alone.
    """
    session, target = connection.session, connection.target
    session.expect_alive()
    if promise is None:
        promise = engine.grants.connect(session, "tcp", target)
    judged = (
        granted(engine, connection, promise)
        if promise is not None
        else await _judge(engine, connection, user)
    )
    connection.judged = judged.decision
    expect_alive(connection)
    if not judged.addresses:
        connection.refuse_by_policy(judged.decision)
        return
    connection.addresses = judged.addresses
    connection.entries = connection.ruling.associations.of(connection.way, judged.decision.rule)
    first = next(iter(judged.addresses))
    if connection.entries:
        if source is not None and not isinstance(source, Borrowed) and await _bind_denied(connection, source):
            return
        await dispatch_connect(connection)
        if was_denied(connection):
            return
    connection.attached += engine.grants.attach(connection, EventKind.CONNECT, first, target.port)
    if connection.emulator is None:
        await dial_out(engine, connection, source)
    if connection.entries or promise is not None:
        await dispatch_established(connection)
        expect_alive(connection)


async def _judge(engine: Engine, connection: Connection, user: str | Unknown | None) -> Judged:
    """Policy's answer. One of this very second is as good as a new one, unless filters hear of look-ups."""
    ruling, session, target = connection.ruling, connection.session, connection.target
    now_s = connection.started_us / 1e6
    listened_to = bool(ruling.associations.resolving)
    if not listened_to and (recalled := ruling.judgements.recall(session, target, user, now_s)) is not None:
        return recalled
    resolver = ClientResolver(engine, session, connection) if listened_to else engine.resolver
    is_own = engine.own_addresses.is_own
    judged = await judge(ruling.policy, resolver, is_own, session, target, user=user, now_s=now_s)
    if not listened_to:
        ruling.judgements.keep(session, target, user, judged)
    return judged


def granted(engine: Engine, connection: Connection, promise: ConnectPromise) -> Judged:
    """A filter has promised this. What it has promised is used up, and the connection is secondary."""
    promise.use()
    connection.promise = promise
    connection.protocol = promise.protocol or connection.protocol
    session, now_s = connection.session, connection.started_us / 1e6
    target = connection.target._replace(address=promise.address)
    inputs = inputs_of(session, target, session.user, now_s, engine.own_addresses.is_own, promise.transport)
    decision = decision_of(engine, promise, inputs)
    return Judged(decision, {promise.address: decision})


def decision_of(engine: Engine, promise: Promise, inputs: Inputs) -> Decision:
    """Why what was promised is allowed: the rule that allowed its parent stands for it, or that UDP destination."""
    of = promise.parent if promise.destination is None else promise.destination
    parent = None if of is None else of.judged
    rule, line = (None, 0) if parent is None else (parent.rule, parent.rule_line)
    return Decision(Action.ALLOW, GRANTED, inputs, engine.ruling.policy.revision, rule, line)


def was_denied(connection: Connection) -> bool:
    """After an event: whether a filter has said no. Raises Terminating if the connection was killed meanwhile."""
    expect_alive(connection)
    if connection.denied is None:
        return False
    connection.refuse_by_filter(connection.denied, connection.verdicts[-1].filter)
    return True


async def _bind_denied(connection: Connection, source: SocketName) -> bool:
    """A filter's own socket that was bound before it connects: it has one connection, and so both events."""
    event = BindEvent(connection, "tcp", *source, connection.protocol, connection.is_secondary)
    await dispatch(connection, EventKind.BIND, event)
    if connection.extra.bind_emulator is not None:
        raise NotSupported("a bind for a connect cannot be emulated: emulate the connect")
    if not was_denied(connection):
        return False
    assert connection.refusal is not None
    connection.refusal = connection.refusal._replace(hint=ReplyHint.ADDRESS_IN_USE)
    return True


async def dial_out(engine: Engine, connection: Connection, source: SocketName | None) -> None:
    """The outer leg, to one of the connection's addresses that it admits. Raises LinkError kinds, AccessDenied."""
    before_ns = time.monotonic_ns()
    ruling = connection.ruling
    addresses: Mapping[IPAddress, Decision] = connection.addresses
    if (admitted := connection.ip_filter) is not None:
        addresses = {a: d for a, d in addresses.items() if admitted.includes(a)}
        if not addresses:
            raise AccessDenied(NOT_ADMITTED, "the IP filter leaves out the destination")
    timeout_s = ruling.limits.connect_timeout_s
    carrier: Carrier
    if isinstance(source, Borrowed):
        addresses, source = _where_kept(connection, addresses, source)
    elif ruling.ways is not None and source is not None:
        for decision in addresses.values():
            ruling.ways.expect_direct(decision.inputs, bound=True)
    if ruling.ways is None or source is not None:
        carrier, address = await dial(engine.poller, tuple(addresses), connection.port, timeout_s, source)
    else:
        # By name an upstream might choose another address: not where one and no other is meant.
        is_exact = admitted is not None or connection.promise is not None
        host = None if is_exact else connection.host
        reached = await ruling.ways.reach(addresses, host, connection.port, timeout_s)
        carrier, address = reached.carrier, reached.address
        connection.extra.via = reached.upstream
    connection.connect_us = (time.monotonic_ns() - before_ns) // 1000
    if connection.end is not None:  # killed meanwhile
        carrier.close_now(abortive=True)
    expect_alive(connection)
    connection.peer = address
    connection.judged = addresses[address]
    engine.take_external(connection, carrier)


def _where_kept(
    connection: Connection, addresses: Mapping[IPAddress, Decision], source: Borrowed
) -> tuple[Mapping[IPAddress, Decision], SocketName | None]:
    """The addresses that can see the client's, and its end; or all, and None, where an upstream is the one to be seen.

    A borrowed address is of one family, and no upstream takes on a client's.
    """
    ways, version = connection.ruling.ways, ip_address(source.address).version
    if ways is not None and any(not ways.is_direct(decision.inputs) for decision in addresses.values()):
        return addresses, None
    return {a: d for a, d in addresses.items() if a.version == version} or addresses, source


def expect_alive(connection: Connection) -> None:
    """Raises Terminating if it was killed while somebody waited."""
    if connection.end is not None:
        raise Terminating("killed")
