"""From a client's wish for a UDP mapping to one that stands: events to filters, room in the table, the client's side.

Policy is not asked for the mapping, which is nothing but a place to send from: each destination is judged by itself.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from doorward.api.events import BindEvent, EventKind
from doorward.engine.connecting import was_denied
from doorward.engine.dispatch import dispatch
from doorward.engine.judgement import inputs_of
from doorward.engine.operation import Operation
from doorward.engine.target import Target
from doorward.engine.udp.client_address import ClientAddress
from doorward.engine.udp.mapping import Admits, Mapping
from doorward.policy.model import Action, Decision

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.origin import Origin
    from doorward.engine.session import Session
    from doorward.engine.udp.client_side import ClientSide
    from doorward.net.datagrams import SocketAddress

# The reason of what is allowed as a place to send from.
MAPPING: Final = "udp_mapping"
NOWHERE: Final = Target(None, None, 0)


def lead_to_client(connection: Connection, address: str, port: int, admits: Admits) -> Mapping:
    """A mapping that listens here for who is admitted, and leads them to `connection.extra.client_name`.

    The connection has been begun, judged and told to filters by the caller. What filters have attached to it begins.
    It ends with the connection. Raises AddressInUse, LinkError kinds, OutOfResources; then there is nothing to end.
    """
    engine = connection.engine
    mapping = Mapping(connection, engine.udp)
    try:
        engine.udp.listen(mapping, address, port)
    except BaseException:
        mapping.close()
        raise
    connection.extra.udp = connection.extra.listening = mapping
    openings = engine.arrivals.openings
    if openings is not None:
        admitted = connection.extra.ip_filter
        connection.extra.ways = [openings.way("udp", o.name, admitted) for o in mapping.outers.values()]
    mapping.client = ClientAddress(mapping)
    mapping.admits = admits
    engine.udp.enter(mapping)
    attached, connection.attached = connection.attached, []
    mapping.filters.start(attached)
    return mapping


def admitted_by_filter(connection: Connection) -> Admits:
    """Who the connection's IP filter admits; without one, nobody."""

    def admits(where: SocketAddress) -> bool:
        found = connection.extra.ip_filter
        return found is not None and found.includes(where[0])

    return admits


async def open_mapping(
    engine: Engine,
    session: Session,
    origin: Origin,
    client: Callable[[Mapping], ClientSide],
    asked_for: SocketName = ("", 0),
    *,
    idle_s: float | None = None,
) -> tuple[Connection, Mapping | None]:
    """A mapping for a client. Look at the connection's `refusal`: then there is none, and the connection has ended.

    `client` makes the client's side once filters agree; it raises LinkError kinds, OutOfResources. `asked_for` is
    the local end that filters are told of. `idle_s` is how long it may be silent, if not as long as any connection:
    for a client's side that nobody ends.
    """
    connection = engine.begin(session, NOWHERE, origin, Operation.UDP, "udp")
    await engine.open(connection, _open(engine, connection, client, asked_for, idle_s))
    mapping = connection.extra.udp
    return connection, mapping if isinstance(mapping, Mapping) and connection.refusal is None else None


async def _open(
    engine: Engine,
    connection: Connection,
    client: Callable[[Mapping], ClientSide],
    asked_for: SocketName,
    idle_s: float | None,
) -> None:
    """Raises DoorwardError, HandlerFailed; leaves a refusal."""
    ruling, session = connection.ruling, connection.session
    inputs = inputs_of(session, NOWHERE, session.user, time.time(), engine.own_addresses.is_own, "udp")
    connection.judged = Decision(Action.ALLOW, MAPPING, inputs, ruling.policy.revision)
    mapping = Mapping(connection, engine.udp)
    if idle_s is not None:
        mapping.idle_s = idle_s
    connection.extra.udp = connection.extra.listening = mapping
    entries = ruling.associations.of(connection.way, None)
    connection.entries = tuple(entry for entry in entries if EventKind.BIND in entry.interest.events)
    if connection.entries:
        event = BindEvent(connection, "udp", *asked_for, connection.protocol)
        await dispatch(connection, EventKind.BIND, event)
        if was_denied(connection):
            return
    bound = ipaddress.ip_address(asked_for[0] or "0.0.0.0")
    made = engine.grants.attach(connection, EventKind.BIND, bound, asked_for[1])
    engine.udp.enter(mapping)
    mapping.client = client(mapping)
    attached, connection.attached = connection.attached + made, []
    mapping.filters.start(attached)
