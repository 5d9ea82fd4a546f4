"""The fast lane: a connection that policy settles at once, that no filter hears of, and that goes to one address.

It is judged, counted and recorded like any other; only nobody waits for it, and its sockets are never Python's. What
does not fit here goes the common way (`connecting`), which gives the same answers.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, NamedTuple

from doorward.api.errors import ConnectionRefused, PeerReset, Side, TimedOut, Unreachable
from doorward.engine.association import Way
from doorward.engine.judgement import judge_address
from doorward.engine.outcome import End
from doorward.net.seam import OUT_OF_RESOURCES, translate

if TYPE_CHECKING:
    from doorward.api.errors import DoorwardError
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.judgement import Judged
    from doorward.engine.origin import Origin
    from doorward.engine.ruling import Ruling
    from doorward.engine.session import Session
    from doorward.engine.target import Target
    from doorward.policy.model import Decision, IPAddress, Unknown


class Course(NamedTuple):
    """Where a connection of the fast lane goes, and why it may."""

    address: IPAddress
    decision: Decision


def course(
    engine: Engine, session: Session, target: Target, origin: Origin, user: str | Unknown | None, now_s: float
) -> Course | None:
    """None for what has to go the common way: refused, unsettled, several addresses, heard of by filters, upstream."""
    ruling = engine.ruling
    if ruling.ways is not None or session.ended or engine.grants.promised(session):
        return None
    judged = _judged(engine, ruling, session, target, user, now_s)
    if judged is None or len(judged.addresses) != 1:
        return None
    ((address, decision),) = judged.addresses.items()
    way = Way("tcp", target.port, origin.application, origin.kind)
    if ruling.associations.of(way, decision.rule):
        return None
    return None if getattr(address, "scope_id", None) else Course(address, decision)


def begin(
    engine: Engine, session: Session, target: Target, origin: Origin, at: Course, relay_id: int
) -> Connection:
    """Like `Engine.begin`; unless there is a `refusal`, the relay will tell of its end under this number."""
    connection = engine.begin(session, target, origin)
    if connection.refusal is not None:
        engine.ended(connection, End("refused", Side.OURS))
        return connection
    connection.judged = at.decision
    connection.addresses = {at.address: at.decision}
    connection.peer = at.address
    connection.relay_id = relay_id
    engine.relayed[relay_id] = connection
    return connection


def stood(engine: Engine, relay_id: int, connect_us: int) -> None:
    """The server was reached, after so long."""
    connection = engine.relayed.get(relay_id)
    if connection is not None:
        connection.connect_us = connect_us
        connection.opened = True


def failed(engine: Engine, relay_id: int, number: int) -> Connection | None:
    """Nobody was reached; see `Guests.failed` for the errno. Its refusal is for the client, who is reset if None."""
    connection = engine.relayed.pop(relay_id, None)
    if connection is None:
        return None
    connection.relay_id = connection.peer = None
    how = connection.killed_as or ("killed" if number == errno.ECANCELED else None)
    if how is not None:
        connection.refuse_by_kill(how)
        engine.ended(connection, End(how, Side.OURS))
        return None if how == "shutdown" else connection
    error = _error(number, connection.ruling.limits.connect_timeout_s)
    connection.refuse_by_error(error)
    engine.ended(connection, End("refused", Side.OURS))
    return connection


def lost(engine: Engine, relay_id: int, number: int) -> None:
    """The client went away before it was answered, or it is a failure of ours."""
    connection = engine.relayed.pop(relay_id, None)
    if connection is None:
        return
    connection.relay_id = None
    error = translate(number, Side.OURS)
    if connection.killed_as is not None:
        if not connection.opened:
            connection.refuse_by_kill(connection.killed_as)
        engine.ended(connection, End(connection.killed_as, Side.OURS))
    elif not connection.opened:
        connection.refuse_by_error(error)
        engine.ended(connection, End("refused", Side.OURS))
    elif isinstance(error, PeerReset | TimedOut | Unreachable):
        engine.ended(connection, End("abandoned", Side.INTERNAL))
    else:
        engine.ended(connection, End(error.reason, Side.OURS))


def _error(number: int, timeout_s: float) -> DoorwardError:
    """What dialling has met, in the words of `net.dial`."""
    if number == 0:
        return TimedOut(f"no answer within {timeout_s:g} s", side=Side.EXTERNAL)
    if number == errno.ELOOP:
        return ConnectionRefused("the connection met itself", side=Side.EXTERNAL)
    return translate(number, Side.OURS if number in OUT_OF_RESOURCES else Side.EXTERNAL)


def _judged(
    engine: Engine,
    ruling: Ruling,
    session: Session,
    target: Target,
    user: str | Unknown | None,
    now_s: float,
) -> Judged | None:
    """Policy's answer, if it takes no waiting: an address, or a name that was asked for in this very second."""
    if ruling.associations.resolving:
        return None
    judged = ruling.judgements.recall(session, target, user, now_s)
    if judged is None and target.address is not None and target.host is None:
        is_own = engine.own_addresses.is_own
        judged = judge_address(ruling.policy, is_own, session, target, target.address, user=user, now_s=now_s)
        ruling.judgements.keep(session, target, user, judged)
    return judged
