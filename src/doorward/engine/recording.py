"""From a connection that is over to its record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import msgspec

from doorward.api.errors import Side
from doorward.engine.operation import Operation
from doorward.policy.model import Unknown
from doorward.record.model import Record

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.extra import Extra
    from doorward.engine.grants import Promise
    from doorward.engine.origin import Origin
    from doorward.engine.session import Session
    from doorward.policy.model import Decision

# The operation of a record that no connection stands behind.
RESOLVE: Final = "resolve"
DNS_PORT: Final = 53

_json = msgspec.json.Encoder()
_CONNECT: Final = Operation.CONNECT  # looking it up in the enumeration takes longer than comparing with it


def record_of(connection: Connection) -> Record:
    """The one record of a connection that has ended."""
    session, target, origin = connection.session, connection.target, connection.origin
    decision, refusal, end = connection.judged, connection.refusal, connection.end
    address = connection.peer or target.address
    if address is None and decision is not None and not isinstance(decision.inputs.address, Unknown):
        address = decision.inputs.address
    if refusal is not None:
        action, reason, detail = refusal.action, refusal.reason, refusal.detail or None
    else:
        assert decision is not None
        action, reason, detail = "allow", decision.reason, None
    record = Record(
        time_us=connection.started_us,
        session=session.id,
        connection=connection.id,
        entry=origin.entry,
        action=action,
        reason=reason,
        rule=decision.rule if decision is not None else None,
        policy=decision.policy if decision is not None else "",
        user=session.user,
        process=session.process,
        client_address=origin.client_address,
        client_port=origin.client_port,
        host=target.host,
        address=str(address) if address is not None else None,
        port=target.port,
        protocol=connection.protocol,
        connect_us=connection.connect_us,
        duration_us=time.time_ns() // 1000 - connection.started_us,
        bytes_sent=connection.bytes_sent,
        bytes_received=connection.bytes_received,
        end=end.how if end is not None else None,
        ended_by=end.by if end is not None else None,
        filters=_json.encode(connection.verdicts).decode() if connection.verdicts else None,
        detail=detail,
    )
    extra = connection.extra_if_any
    if extra is not None:
        _add_extra(record, extra, connection.operation)
    if connection.operation is not _CONNECT:
        record.operation, record.transport = connection.operation.value, connection.transport
    if record.parent is None and connection.promise is not None:
        record.parent = parent_of(connection.promise)
    return record


def _add_extra(record: Record, extra: Extra, operation: Operation) -> None:
    """What most connections do not have: an upstream, a parent, names other than those asked for, a UDP mapping."""
    record.via = extra.via
    if extra.parent is not None:
        record.parent = extra.parent.id
    if operation is Operation.ACCEPT and extra.peer_name is not None:
        record.address, record.port = extra.peer_name
    elif operation is not _CONNECT and record.port == 0 and extra.socket_name is not None:
        record.port = extra.socket_name[1]  # any would do, and this it was
    if record.detail is None:
        record.detail = extra.note or (extra.udp.note if extra.udp is not None else "") or None


def parent_of(promise: Promise) -> int | None:
    """The number of the connection in whose name this was promised, if there was one."""
    return None if promise.parent is None else promise.parent.id


def record_of_peer(listening: Connection, peer: SocketName, decision: Decision | None, reason: str) -> Record:
    """The record of a peer that was turned away where we listen. `reason` is for whom nobody was asked about."""
    session, origin = listening.session, listening.origin
    return Record(
        time_us=time.time_ns() // 1000,
        session=session.id,
        connection=0,
        entry=origin.entry,
        action="deny",
        reason=reason if decision is None else decision.reason,
        rule=None if decision is None else decision.rule,
        policy=listening.decision.policy if decision is None else decision.policy,
        user=session.user,
        process=session.process,
        client_address=origin.client_address,
        client_port=origin.client_port,
        address=peer[0],
        port=peer[1],
        protocol=listening.protocol,
        end="refused",
        ended_by=Side.OURS,
        operation=Operation.ACCEPT.value,
        parent=listening.id,
    )


def record_of_name(
    session: Session,
    origin: Origin,
    policy: str,
    host: str | None,
    reason: str,
    *,
    rule: str | None,
    transport: TransportName,
) -> Record:
    """The record of a DNS query that was refused. `policy` is the revision, `host` the name asked for, if any."""
    return Record(
        time_us=time.time_ns() // 1000,
        session=session.id,
        connection=0,
        entry=origin.entry,
        action="deny",
        reason=reason,
        rule=rule,
        policy=policy,
        user=session.user,
        process=session.process,
        client_address=origin.client_address,
        client_port=origin.client_port,
        host=host,
        port=DNS_PORT,
        transport=transport,
        protocol="dns",
        end="refused",
        ended_by=Side.OURS,
        operation=RESOLVE,
    )


def record_of_stranger(
    origin: Origin,
    action: str,
    reason: str,
    *,
    user: str | None = None,
    host: str | None = None,
    port: int = 0,
    detail: str = "",
) -> Record:
    """The record of a client that never got as far as a connection. `host` is what it wrote, name or address.

    It has no operation: what the client said may have been anything.
    """
    return Record(
        time_us=time.time_ns() // 1000,
        session=0,
        connection=0,
        entry=origin.entry,
        action=action,
        reason=reason,
        user=user,
        client_address=origin.client_address,
        client_port=origin.client_port,
        host=host,
        port=port,
        end=reason,
        ended_by=Side.INTERNAL if action == "fail" else Side.OURS,
        detail=detail or None,
        operation=None,
    )
