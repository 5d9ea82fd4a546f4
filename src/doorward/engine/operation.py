"""What a connection is there for, and which handler of it is being run: that decides which calls are legal."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.events import EventKind

if TYPE_CHECKING:
    from doorward.engine.association import FilterEntry
    from doorward.engine.extra import DestinationChain


class Operation(enum.StrEnum):
    """What a connection is there for."""

    CONNECT = "connect"
    BIND = "bind"  # a listening one, or one whose bind is emulated
    ACCEPT = "accept"  # a peer that has arrived on one
    UDP = "udp"  # a mapping


class Handling(NamedTuple):
    """The handler that is being run: whose, for what, and for UDP concerning which destination."""

    entry: FilterEntry
    kind: EventKind
    destination: DestinationChain | None = None


DENIABLE: Final = frozenset({EventKind.CONNECT, EventKind.BIND, EventKind.ACCEPT})
ATTACHABLE: Final = frozenset(
    {EventKind.CONNECT, EventKind.ACCEPT, EventKind.BIND, EventKind.UDP_DESTINATION}
)
