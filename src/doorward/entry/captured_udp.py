"""UDP of a captured program: a mapping for each of its sockets, found by the address that it sends from.

What the program sends is led to the destination it was meant for, under the name that the program had asked for; what
comes back reaches it from the address that it had sent to.
"""

from __future__ import annotations

import ipaddress
from typing import TYPE_CHECKING, Final

from doorward.api.errors import OutOfResources
from doorward.capture.icmp import unreachable
from doorward.engine.names.memory import target_of_address
from doorward.engine.udp.destination import State
from doorward.engine.udp.opening import open_mapping
from doorward.entry.captured_dns import DNS_PORT
from doorward.net.caught_datagrams import CaughtDatagrams, name_of

if TYPE_CHECKING:
    import socket

    from doorward.api.sockets import SocketName
    from doorward.engine.udp.client_side import ClientEnd
    from doorward.engine.udp.destination import Destination, FarEnd
    from doorward.engine.udp.mapping import Mapping
    from doorward.entry.captured_dns import CapturedNames
    from doorward.entry.caught import CaughtClients, SendsAnswers
    from doorward.net.datagrams import SocketAddress

# Datagrams that wait while a mapping is made: filters may have to be asked.
HELD_MAX: Final = 16
# Mappings that are being made; what comes for any more is dropped meanwhile.
OPENING_MAX: Final = 64
_DNS: Final = DNS_PORT.to_bytes(2, "big")


class CapturedSide:
    """A mapping's client that is a socket of a captured program. See `ClientSide`."""

    __slots__ = (
        "_answers",
        "_client",
        "_known",
        "_known_max",
        "_meant",
        "_owner",
        "malformed",
        "mapping",
        "unsent",
    )

    def __init__(self, mapping: Mapping, owner: CapturedDatagrams, client: SocketAddress) -> None:
        self.mapping = mapping
        self._owner = owner
        self._answers = owner.answers
        self._client = client
        self._known: dict[bytes, Destination] = {}
        self._known_max = mapping.memory.destinations_max
        self._meant: dict[FarEnd, SocketName] = {}
        self.malformed = 0
        self.unsent = 0

    def from_client(self, payload: memoryview | bytes, meant_for: bytes) -> None:
        """A datagram of the program's, and whom it is for."""
        destination = self._known.get(meant_for)
        if destination is None or destination.state is State.FORGOTTEN:
            destination = self._look_up(meant_for)
            if destination is None:
                return
        self.mapping.outward(destination, payload)
        if destination.state is State.DENIED:
            self._owner.refuse(self._client, meant_for)

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> bool:
        """From where the program had sent to, which a filter or a name may have led elsewhere."""
        return self._answers.send(self._meant.get(source) or source.name, payload, self._client)

    def end_for(self, destination: Destination) -> ClientEnd | None:
        """They come by here: one socket catches for all destinations."""
        return None

    def forget(self, destination: Destination) -> None:
        """Its answers will not come."""
        self._meant.pop(destination, None)

    def close(self) -> None:
        """The mapping has ended; the program's next datagram makes another one."""
        self._owner.closed(self._client, self)
        self._known.clear()
        self._meant.clear()

    def notes(self) -> list[tuple[str, int]]:
        """What never became a datagram of the mapping's."""
        return [("malformed", self.malformed)]

    def _look_up(self, meant_for: bytes) -> Destination | None:
        """Where this leads; None if that is nowhere now."""
        address, port = name_of(meant_for)
        if not port:
            self.malformed += 1
            return None
        clients, session = self._owner.clients, self.mapping.connection.session
        if not clients.are_to_be_served(self._client, address, port, "udp"):
            self._owner.strangers += 1
            return None
        destination = self.mapping.find(target_of_address(clients.engine, session, address, port, "udp"))
        if destination is not None:
            if len(self._known) >= self._known_max:
                self._known.clear()
            self._known[meant_for] = destination
            self._meant[destination] = (str(address), port)
            if destination.state is State.WAITING:
                clients.spawn(self._answered(destination, meant_for))
        return destination

    async def _answered(self, destination: Destination, meant_for: bytes) -> None:
        """Once it is judged: the program learns of a refusal with its first datagram."""
        await destination.answered()
        if destination.state is State.DENIED:
            self._owner.refuse(self._client, meant_for)


class CapturedDatagrams:
    """All of a program's UDP. `strangers` counts what did not come from an address of the program's."""

    opening_max = OPENING_MAX

    def __init__(
        self,
        clients: CaughtClients,
        sockets: list[socket.socket],
        refusing: dict[int, socket.socket],
        answers: SendsAnswers,
        names: CapturedNames | None,
    ) -> None:
        """Without `names`, DNS is traffic like any other."""
        self.clients = clients
        self.answers = answers
        self.strangers = 0
        self.dropped = 0
        self.names = names
        self._refusing = refusing
        self._sides: dict[SocketAddress, CapturedSide] = {}
        self._opening: dict[SocketAddress, list[tuple[bytes, bytes]]] = {}
        inbox = clients.engine.udp.inbox
        self._sockets = [CaughtDatagrams(inbox, sock, self.caught) for sock in sockets]

    def start(self) -> None:
        """Begin. Raises OutOfResources."""
        for sock in self._sockets:
            sock.start()

    def close(self) -> None:
        """Take no more; mappings end with the engine. Idempotent."""
        for sock in self._sockets:
            sock.close()
        for raw in self._refusing.values():
            raw.close()
        self._refusing.clear()

    def caught(self, payload: memoryview, client: SocketAddress, meant_for: bytes) -> None:
        """A datagram of the program's."""
        side = self._sides.get(client)
        if side is not None and meant_for[:2] != _DNS:
            side.from_client(payload, meant_for)
            return
        address, port = name_of(meant_for)
        if not self.clients.are_to_be_served(client, address, port, "udp"):
            self.strangers += 1
        elif port == DNS_PORT and self.names is not None:
            self.names.asked(bytes(payload), client, (str(address), port))
        elif side is not None:
            side.from_client(payload, meant_for)
        else:
            self._begin(bytes(payload), client, meant_for)

    def refuse(self, client: SocketAddress, meant_for: bytes) -> None:
        """Tell the program that what it has sent is not wanted."""
        address = ipaddress.ip_address(client[0])
        raw = self._refusing.get(address.version)
        if raw is None:
            return
        try:
            raw.sendto(unreachable((address, client[1]), name_of(meant_for)), (client[0], 0))
        except OSError:
            pass  # it finds out by waiting, as on any network

    def closed(self, client: SocketAddress, side: CapturedSide) -> None:
        """This side's mapping has ended."""
        if self._sides.get(client) is side:
            del self._sides[client]

    def _begin(self, payload: bytes, client: SocketAddress, meant_for: bytes) -> None:
        """The first datagram of a socket; the next ones wait with it."""
        held = self._opening.get(client)
        if held is None:
            if len(self._opening) >= self.opening_max or not self.clients.has_room():
                self.dropped += 1
                return
            held = self._opening[client] = []
            self.clients.spawn(self._open(client))
        if len(held) >= HELD_MAX:
            self.dropped += 1
            return
        held.append((payload, meant_for))

    async def _open(self, client: SocketAddress) -> None:
        """Make the mapping; what has waited goes its way, or is dropped with a record of why."""
        clients, made = self.clients, list[CapturedSide]()

        def make(mapping: Mapping) -> CapturedSide:
            mapping.connection.extra.borrowed = clients.borrowed(client)
            made.append(CapturedSide(mapping, self, client))
            return made[0]

        try:
            session, origin, idle_s = clients.session_of(client), clients.origin_of(client), self._idle_s()
            _, mapping = await open_mapping(clients.engine, session, origin, make, idle_s=idle_s)
        except OutOfResources:
            mapping = None  # no room for one more session
        finally:
            held = self._opening.pop(client)
        if mapping is None or mapping.over:
            self.dropped += len(held)
            return
        self._sides[client] = made[0]
        for payload, meant_for in held:
            made[0].from_client(payload, meant_for)

    def _idle_s(self) -> float:
        """Nobody says when a socket of the program's is closed."""
        return self.clients.engine.ruling.limits.udp_idle_timeout_s
