"""The events that a session filter may receive. Each carries its connection and nothing that can outlive it.

Connect, established and terminating are delivered today; the object model has more, and they take their
place in `EventKind` when they come.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from doorward.api.contracts import Connection


class EventKind(enum.StrEnum):
    """What may happen to a connection that a filter can hear of."""

    CONNECT = "connect"
    ESTABLISHED = "established"
    TERMINATING = "terminating"


@dataclass(frozen=True, slots=True)
class ConnectEvent:
    """A client asked for a TCP connection, and policy allowed it; nothing is dialled yet.

    The handler may attach data filters or deny. `host` is the name the client asked for (None if it gave an
    address), `address` the first address that will be tried. `protocol` is the policy's name for the port.
    """

    connection: Connection
    host: str | None
    address: str
    port: int
    protocol: str | None


@dataclass(frozen=True, slots=True)
class EstablishedEvent:
    """The outer leg stands: external names can be read, no byte has moved yet. Only for who asked for it."""

    connection: Connection


@dataclass(frozen=True, slots=True)
class TerminatingEvent:
    """The connection has ended and its record is about to be written. Always delivered to a filter that joined.

    Bytes sent run from the client to the server. `end` says how it ended (`closed`, `reset`, `idle_timeout`, …).
    """

    connection: Connection
    bytes_sent: int
    bytes_received: int
    end: str
