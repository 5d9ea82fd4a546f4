"""All UDP mappings of one engine: their sockets, their idle timers, and how many a client may have.

A client that asks for one too many gets it, and loses its oldest: UDP clients do not say when they are done.
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from typing import TYPE_CHECKING, Final

from doorward.api.errors import NotFound
from doorward.engine.udp.fast_lane import FastLane
from doorward.net.datagrams import (
    ANY_ADDRESS,
    BURST_BUFFER_BYTES,
    DatagramSocket,
    Inbox,
    OnDatagram,
    has_ipv6,
    open_datagrams,
)
from doorward.net.idle import IdleQueue
from doorward.net.transparent import borrowed_datagrams
from doorward.policy.address import BadHost, parse_host

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session
    from doorward.engine.udp.destination import Destination
    from doorward.engine.udp.mapping import Mapping
    from doorward.net.datagrams import SocketAddress

EVICTED: Final = "udp_mapping_evicted"
# Where a mapping keeps its sockets whose address is not ours, beside those that are found by their IP version.
BORROWED: Final = 16


class Mappings:
    """See the module."""

    def __init__(self, engine: Engine) -> None:
        loop = engine.poller.loop
        self._engine = engine
        self.inbox = Inbox(engine.poller)
        self.fast_lane = FastLane(self.inbox)
        self.destinations: IdleQueue[Destination] = IdleQueue(loop, lambda d: d.mapping.forget(d))
        self.alive = 0  # destinations
        self._idle: IdleQueue[Mapping] = IdleQueue(loop, self._end_idle)
        self._by_client: dict[str, dict[Mapping, None]] = {}
        self._ports: Counter[int] = Counter()
        self._borrowed: set[SocketName] = set()
        self._next_id = 0
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def close(self) -> None:
        """Every mapping has ended, and there will be no other. Idempotent."""
        if self.inbox.courier is not None:
            self.inbox.courier.close()

    def next_id(self) -> int:
        """A number for a destination, never given twice."""
        self._next_id += 1
        return self._next_id

    def enter(self, mapping: Mapping) -> None:
        """One more; the oldest of this client's makes room for it if need be."""
        connection = mapping.connection
        own = self._by_client.setdefault(connection.session.client_address, {})
        # The firewall's own have no client.
        most = 0 if mapping.is_system else connection.ruling.limits.udp_mappings_per_client_max
        while most and len(own) >= most:
            self._engine.kill(next(iter(own)).connection, EVICTED)
        # The last one to go takes the table with it.
        self._by_client.setdefault(connection.session.client_address, own)[mapping] = None
        self._count += 1
        self._idle.watch(mapping, self._count)

    def leave(self, mapping: Mapping) -> None:
        """It has ended. Idempotent."""
        mapping.connection.extra.close_ways()
        client_address = mapping.connection.session.client_address
        own = self._by_client.get(client_address)
        if own is None or mapping not in own:
            return
        del own[mapping]
        self._count -= 1
        if not own:
            del self._by_client[client_address]

    def find(self, session: Session, name: SocketName) -> tuple[Mapping, DatagramSocket]:
        """The mapping that this session has, not by a promise, and its socket toward far ends of this name.

        Raises NotFound.
        """
        for mapping in self._by_client.get(session.client_address, ()):
            connection = mapping.connection
            if connection.session is session and connection.promise is None and not mapping.is_system:
                for outer in mapping.outers.values():
                    if outer.name == name:
                        return mapping, outer
        raise NotFound(f"this client has no UDP port at {name[0]} port {name[1]}")

    def open_outer(self, mapping: Mapping, version: int) -> DatagramSocket:
        """A socket toward far ends, on a port of the kernel's choice. Raises LinkError kinds, OutOfResources."""
        return self.open(ANY_ADDRESS[version], 0, mapping.from_outside)

    def outer_toward(self, destination: Destination) -> DatagramSocket:
        """The mapping's socket toward this far end: ours, or one with an address that is borrowed for it.

        Raises AddressInUse, LinkError kinds, OutOfResources.
        """
        mapping, version = destination.mapping, destination.version
        borrowed = mapping.connection.extra.borrowed
        source = None if borrowed is None else borrowed(ipaddress.ip_address(destination.where[0]))
        if source is None:
            return mapping.outer(version)
        found = mapping.outers.get(BORROWED + version)
        if found is None:
            opened = DatagramSocket(self.inbox, borrowed_datagrams(source), mapping.from_outside)
            found = self.adopt(opened)
            self._borrowed.add(found.name)
            mapping.outers[BORROWED + version] = found
        return found

    def listen(self, mapping: Mapping, address: str, port: int) -> SocketName:
        """Have this end toward far ends, in place of one that the kernel chooses; what it is now.

        `""` and `::` are every address of both families. Raises AddressInUse, LinkError kinds, OutOfResources.
        """
        if address not in ("", ANY_ADDRESS[6]):
            bound = self._listen_at(mapping, address, port)
        else:
            bound = self._listen_at(mapping, ANY_ADDRESS[4], port)
            if has_ipv6():
                bound = self._listen_at(mapping, ANY_ADDRESS[6], bound.name[1])
        mapping.connection.extra.socket_name = bound.name
        return bound.name

    def _listen_at(self, mapping: Mapping, address: str, port: int) -> DatagramSocket:
        bound = self.open(address, port, mapping.from_outside)
        mapping.outers[bound.version] = bound
        return bound

    def open(self, host: str, port: int, on_datagram: OnDatagram) -> DatagramSocket:
        """One of our sockets; `release` closes it. Raises AddressInUse, LinkError kinds, OutOfResources."""
        opened = open_datagrams(self.inbox, host, port, on_datagram, buffer_bytes=BURST_BUFFER_BYTES)
        self._ports[opened.name[1]] += 1
        return opened

    def adopt(self, opened: DatagramSocket) -> DatagramSocket:
        """The same for one that is bound already. Raises OutOfResources; it is closed then."""
        opened.raise_receive_buffer()
        opened.start()
        self._ports[opened.name[1]] += 1
        return opened

    def release(self, opened: DatagramSocket) -> None:
        """Close it. Idempotent."""
        if opened.open:
            port = opened.name[1]
            self._borrowed.discard(opened.name)
            opened.close()
            self._ports[port] -= 1
            if not self._ports[port]:
                del self._ports[port]

    def is_ours(self, where: SocketAddress) -> bool:
        """Whether a UDP socket of ours has this address. Such a one must not become anybody's client.

        Two mappings that were each other's clients would send one datagram in circles for ever.
        """
        if where[1] not in self._ports:
            return False
        if where[:2] in self._borrowed:
            return True
        try:
            address = parse_host(where[0].partition("%")[0])
        except BadHost:
            return True
        return not isinstance(address, str) and self._engine.own_addresses.is_own(address)

    def _end_idle(self, mapping: Mapping) -> None:
        self._engine.kill(mapping.connection, "idle_timeout")
