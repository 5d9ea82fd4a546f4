"""What the kit tells a test: how a conversation went, and what a filter made of an event."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from doorward.api.filters import DataFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection


class Outcome(NamedTuple):
    """How a conversation went.

    `end` is `closed`, or the reason that ended it. `verdict` is `denied` (Refuse) or `failed`, and `filter` the
    class that did; both None if no filter ended it. `error` is what it raised, `notes` the reasons it noted.
    """

    client_received: bytes
    server_received: bytes
    end: str
    verdict: str | None = None
    filter: str | None = None
    error: BaseException | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Asked:
    """What an application filter made of an event.

    `attached` stands in the order of the priorities; `attached_for` has what was attached for one peer of a UDP
    mapping. `results` is the answer to a look-up. What else it did (an IP filter, a name, flags) the connection tells.
    """

    denied: str | None = None
    attached: tuple[DataFilter, ...] = ()
    emulator: DataFilter | None = None
    notes: tuple[str, ...] = ()
    attached_for: Mapping[SocketName, tuple[DataFilter, ...]] = field(default_factory=dict)
    results: tuple[str, ...] = ()
    maybe_connection: Connection | None = field(default=None, compare=False, repr=False)

    @property
    def connection(self) -> Connection:
        """Where it happened. A look-up has none."""
        assert self.maybe_connection is not None, "a look-up is for no connection"
        return self.maybe_connection


def notes_of(connection: Connection) -> tuple[str, ...]:
    """The reasons that filters have noted."""
    return tuple(verdict.reason for verdict in connection.verdicts if verdict.verdict == "noted")
