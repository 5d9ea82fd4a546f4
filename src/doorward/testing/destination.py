"""One remote peer of a UDP mapping, as filters are told of it; and the mapping that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.api.errors import BadContext, slug_or
from doorward.engine.udp.ends import checked_peer

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.association import FilterEntry
    from doorward.engine.chain import Attached
    from doorward.engine.connection import Connection
    from doorward.policy.model import Decision, Verdict


class ScriptedMapping:
    """What stands behind a UDP connection here; see `extra.UdpSide`. `peers` are those with filters of their own."""

    note = ""

    def __init__(self, connection: Connection, our_name: SocketName) -> None:
        self.peers: dict[SocketName, ScriptedPeer] = {}
        self._connection = connection
        self._our_name = our_name

    def destination(self, name: SocketName) -> ScriptedPeer:
        """What filters for this peer are attached to."""
        name = checked_peer(name)
        handling = self._connection.handling
        current = None if handling is None else handling.destination
        if isinstance(current, ScriptedDestination) and (current.address, current.port) == name:
            return current
        return self.peers.setdefault(name, ScriptedPeer())

    def read_all(self) -> None:
        """Everything is."""

    def own_name(self) -> SocketName:
        """Where it sends from."""
        return self._our_name


class ScriptedPeer:
    """A peer that is not spoken to yet."""

    def __init__(self) -> None:
        self.attached: list[Attached] = []


class ScriptedDestination(ScriptedPeer):
    """A peer that is about to be spoken to; fulfils `api.UdpDestination`."""

    def __init__(self, connection: Connection, host: str | None, address: str, port: int) -> None:
        super().__init__()
        self.host = host
        self.address = address
        self.port = port
        self.denied: str | None = None
        self.verdicts: list[Verdict] = []
        self.decision: Decision = connection.decision
        self.entries: tuple[FilterEntry, ...] = connection.entries
        self._connection = connection

    def deny(self, reason: str = "denied_by_filter") -> None:
        """See `api.UdpDestination`."""
        handling = self._connection.handling
        if handling is None or handling.destination is not self:
            raise BadContext("legal only inside on_udp_destination")
        self.denied = slug_or(reason, "denied_by_filter")
