"""A mapping's client that is an address: peers arrive at a port of ours and are led there (`bind_for_client`).

Each peer reaches the client from a socket of its own, so that what the client answers goes back to that peer and to
no other. The client may answer whoever has come; it cannot be the first to speak.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError
from doorward.engine.target import target_of
from doorward.engine.udp.client_side import ClientEnd
from doorward.engine.udp.ends import checked_peer
from doorward.net.datagrams import ANY_ADDRESS

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.udp.destination import Destination, FarEnd
    from doorward.engine.udp.mapping import Mapping
    from doorward.net.datagrams import DatagramSocket, SocketAddress

# Peers with a socket toward the client at once; one more takes the place of the one that came first.
SOCKETS_MAX: Final = 64


class ClientAddress:
    """See the module and `ClientSide`. The client's address stands in the connection, where it may come late."""

    __slots__ = ("_mapping", "_sockets", "intruders", "unsent")

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._sockets: dict[SocketName, DatagramSocket] = {}
        self.intruders = 0
        self.unsent = 0

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> bool:
        """From the socket of this source; dropped before the client's address is known."""
        client = self._mapping.connection.extra.client_name
        if client is None:
            self.unsent += 1
            return False
        try:
            toward = self._sockets.get(source.name) or self._open(source.name, client)
        except DoorwardError:
            self.unsent += 1
            return False
        return toward.send(payload, client)

    def end_for(self, destination: Destination) -> ClientEnd | None:
        """None before the peer has been heard, and before the client's address is known."""
        toward, client = self._sockets.get(destination.name), self._mapping.connection.extra.client_name
        return None if toward is None or client is None else ClientEnd(toward, checked_peer(client), b"", b"")

    def forget(self, destination: Destination) -> None:
        """Its socket has nobody to answer."""
        if destination.name in self._sockets:
            self._close(destination.name)

    def close(self) -> None:
        """The mapping has ended, and with it what had been promised. Idempotent."""
        for name in tuple(self._sockets):
            self._close(name)
        promise = self._mapping.connection.promise
        if promise is not None:
            promise.cancel()

    def notes(self) -> list[tuple[str, int]]:
        """What did not reach the client, and what came to its sockets from elsewhere."""
        unsent = self.unsent + sum(s.dropped + s.failed for s in self._sockets.values())
        return [("not from the client", self.intruders), ("to the client", unsent)]

    def _open(self, name: SocketName, client: SocketName) -> DatagramSocket:
        """Raises LinkError kinds, OutOfResources."""
        if len(self._sockets) >= SOCKETS_MAX:
            self._close(next(iter(self._sockets)))
        host = ANY_ADDRESS[6 if ":" in client[0] else 4]
        opened = self._mapping.table.open(host, 0, partial(self._from_client, name))
        self._sockets[name] = opened
        return opened

    def _close(self, name: SocketName) -> None:
        mapping, toward = self._mapping, self._sockets.pop(name)
        destination = mapping.memory.get(target_of(*name))
        if destination is not None:
            mapping.table.fast_lane.leave(destination)
        mapping.table.release(toward)
        self.unsent += toward.dropped + toward.failed
        mapping.dropped += toward.unheard

    def _from_client(self, name: SocketName, payload: memoryview, address: SocketAddress) -> None:
        """An answer for this peer."""
        client = self._mapping.connection.extra.client_name
        if client is None or (address[0], address[1]) != checked_peer(client):
            self.intruders += 1
            return
        destination = self._mapping.find(target_of(*name))
        if destination is not None:
            self._mapping.outward(destination, payload)
