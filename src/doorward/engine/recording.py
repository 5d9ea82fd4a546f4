"""From a connection that is over to its record."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from doorward.api.errors import Side
from doorward.policy.model import Unknown
from doorward.record.model import Record

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.origin import Origin

_json = msgspec.json.Encoder()


def record_of(connection: Connection) -> Record:
    """The one record of a connection that has ended."""
    session, target, origin, decision = (
        connection.session,
        connection.target,
        connection.origin,
        connection.judged,
    )
    refusal, end = connection.refusal, connection.end
    address = connection.peer or target.address
    if address is None and decision is not None and not isinstance(decision.inputs.address, Unknown):
        address = decision.inputs.address
    return Record(
        time_us=connection.started_us,
        session=session.id,
        connection=connection.id,
        entry=origin.entry,
        action=refusal.action if refusal is not None else "allow",
        reason=refusal.reason if refusal is not None else connection.decision.reason,
        rule=decision.rule if decision is not None else None,
        policy=decision.policy if decision is not None else "",
        user=session.user,
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
        detail=(refusal.detail or None) if refusal is not None else None,
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
    """The record of a client that never got as far as a connection. `host` is what it wrote, name or address."""
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
    )
