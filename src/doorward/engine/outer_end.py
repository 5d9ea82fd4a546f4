"""The outer side of a connection whose client is no wire: our own HTTP proxy, or a filter with its socket."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.engine.joint import joint

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.net.carrier import Carrier


def outer_end(engine: Engine, connection: Connection) -> Carrier:
    """The outer leg itself, which ends with the connection but does not end it; or, with data filters, their near end.

    Filters that are attached run from now on, and the connection ends with them; one that emulates is the wire.
    """
    if connection.external is not None and not connection.attached:
        return connection.external
    near, far = joint()
    engine.supervisor.spawn(engine.carry(connection, far), name="chain")
    return near
