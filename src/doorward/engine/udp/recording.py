"""The record of one destination of a mapping: when it was denied, or when it is forgotten."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import msgspec

from doorward.engine.recording import parent_of
from doorward.policy.model import Unknown
from doorward.record.model import Record

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.outcome import End
    from doorward.engine.udp.destination import Destination

_json = msgspec.json.Encoder()


def record_of_destination(connection: Connection, destination: Destination, end: End) -> Record:
    """Bytes count payloads. It has the mapping's connection number, and its own name, address and port."""
    session, origin, refusal = connection.session, connection.origin, destination.refusal
    decision, target = destination.judged, destination.target
    address = destination.address or (None if target.address is None else str(target.address))
    if address is None and decision is not None and not isinstance(decision.inputs.address, Unknown):
        address = str(decision.inputs.address)
    if refusal is not None:
        action, reason = refusal.action, refusal.reason
    else:
        action, reason = "allow", destination.decision.reason
    return Record(
        time_us=destination.started_us,
        session=session.id,
        connection=connection.id,
        entry=origin.entry,
        action=action,
        reason=reason,
        rule=None if decision is None else decision.rule,
        policy="" if decision is None else decision.policy,
        user=session.user,
        process=session.process,
        client_address=origin.client_address,
        client_port=origin.client_port,
        host=target.host,
        address=address,
        port=target.port,
        transport="udp",
        operation="destination",
        parent=None if destination.promise is None else parent_of(destination.promise),
        protocol=destination.protocol,
        duration_us=time.time_ns() // 1000 - destination.started_us,
        bytes_sent=destination.bytes_sent,
        bytes_received=destination.bytes_received,
        end=end.how,
        ended_by=end.by,
        filters=_json.encode(destination.verdicts).decode() if destination.verdicts else None,
        detail=(refusal.detail or None) if refusal is not None else None,
        via=connection.extra.via,
    )
