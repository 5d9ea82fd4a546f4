"""What a mapping remembers of the far ends it speaks to: bounded, by use, and each only for a while.

    waiting ──▶ open ──▶ forgotten        (idle, pushed out by newer ones, or with the mapping)
       └─────▶ denied ──▶ forgotten

One `Destination` for each thing a client has asked for: a name and its address are two, since policy and filters may
answer them differently. Both may lead to the same `Peer`, which is an address and a port; answers of a peer belong
to whichever of its destinations was spoken to last.
"""

from __future__ import annotations

import asyncio
import enum
import socket
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.errors import BadContext, slug_or
from doorward.engine.association import Way
from doorward.engine.at_work import AT_WORK
from doorward.net.datagrams import SocketAddress

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.association import FilterEntry
    from doorward.engine.chain import Attached
    from doorward.engine.grants import Promise
    from doorward.engine.outcome import Refusal
    from doorward.engine.target import Target
    from doorward.engine.udp.chain import DatagramChain
    from doorward.engine.udp.mapping import Mapping
    from doorward.net.datagrams import DatagramSocket
    from doorward.policy.model import Decision, IPAddress, Verdict

# Datagrams that wait while their destination is judged: a burst at the start of a flow, and no more.
HELD_DATAGRAMS_MAX: Final = 16
HELD_BYTES_MAX: Final = 128 * 1024

# The destination whose handler or data filter is running. Tasks that a filter starts inherit it.
AT_DESTINATION: Final[ContextVar[Destination | None]] = ContextVar("destination_at_work", default=None)


def socket_address(address: IPAddress, port: int) -> SocketAddress:
    """As the kernel writes it: what `recvfrom` gives for a datagram from there, letter by letter."""
    if address.version == 4:
        return str(address), port
    return socket.inet_ntop(socket.AF_INET6, address.packed), port, 0, 0


class State(enum.Enum):
    """Where a destination stands."""

    WAITING = "waiting"
    OPEN = "open"
    DENIED = "denied"
    FORGOTTEN = "forgotten"


class Course(enum.Enum):
    """Where a datagram comes from."""

    CLIENT = "client"
    FILTERED = "filtered"  # the client, and through the mapping's filters
    FAR_END = "far end"


class Held(NamedTuple):
    """A datagram that waits."""

    payload: bytes
    course: Course


class FarEnd:
    """A place beyond the firewall. `header` belongs to the client's side, which may keep what it needs with it."""

    __slots__ = ("header", "where")

    def __init__(self, where: SocketAddress) -> None:
        self.where = where
        self.header = b""

    @property
    def name(self) -> SocketName:
        """Address and port."""
        return self.where[0], self.where[1]


class Peer:
    """An address and port that is spoken to."""

    __slots__ = ("current", "destinations")

    def __init__(self, destination: Destination) -> None:
        self.current = destination
        self.destinations: dict[Destination, None] = {destination: None}

    def leave(self, destination: Destination) -> bool:
        """Without this destination; whether nobody is left."""
        self.destinations.pop(destination, None)
        if self.destinations and self.current is destination:
            self.current = next(reversed(self.destinations))
        return not self.destinations


class Destination(FarEnd):
    """One far end as the client asked for it; fulfils `api.UdpDestination`. An `Idler`: see net/idle.py.

    `flows` says that its datagrams meet nobody: no filter, no limit. Then native code may move them, and `flow` is
    its number for them; `moved`, `sent` and `received` are what has come by here all the same.
    """

    __slots__ = ("_answer", "_decision", "attached", "chain", "denied", "entries", "flow", "flows", "held", "id",
                 "idle_s", "mapping", "moved", "outer", "passed", "peer", "placed", "promise", "received", "refusal",
                 "sent", "started_us", "state", "target", "verdicts")  # fmt: skip

    def __init__(
        self, mapping: Mapping, destination_id: int, target: Target, idle_s: float, now: float
    ) -> None:
        super().__init__(("", target.port))
        self.mapping = mapping
        self.id = destination_id
        self.target = target
        self.idle_s = idle_s
        self.moved = self.placed = now
        self.started_us = time.time_ns() // 1000
        self.state = State.WAITING
        self.flows = False
        self.entries: tuple[FilterEntry, ...] = ()  # the filters that hear of it
        self.denied: str | None = None  # by one of them
        self.refusal: Refusal | None = None
        self.promise: Promise | None = None  # the grant that it came by
        self.verdicts: list[Verdict] = []
        self.attached: list[Attached] = []
        self.peer: Peer | None = None
        self.outer: DatagramSocket | None = None
        self.chain: DatagramChain | None = None
        self.held: list[Held] = []
        self.flow = 0  # see fast_lane.py
        self.passed = 0  # datagrams that met nobody
        self.sent = 0
        self.received = 0
        self._decision: Decision | None = None
        self._answer: asyncio.Event | None = None  # somebody waits for it

    async def answered(self) -> None:
        """Wait until it is judged, or forgotten."""
        if self.state is State.WAITING:
            if self._answer is None:
                self._answer = asyncio.Event()
            await self._answer.wait()

    def answer(self) -> None:
        """It is judged, or forgotten."""
        if self._answer is not None:
            self._answer.set()

    @property
    def last(self) -> float:
        """The loop's time of the last datagram either way."""
        courier = self.mapping.table.inbox.courier if self.flow else None
        if courier is None:
            return self.moved
        return max(self.moved, courier.counts(self.flow).last)

    @property
    def bytes_sent(self) -> int:
        """Payload, whoever has moved it."""
        courier = self.mapping.table.inbox.courier if self.flow else None
        return self.sent if courier is None else self.sent + courier.counts(self.flow).bytes_sent

    @property
    def bytes_received(self) -> int:
        """Payload, whoever has moved it."""
        courier = self.mapping.table.inbox.courier if self.flow else None
        return self.received if courier is None else self.received + courier.counts(self.flow).bytes_received

    @property
    def over(self) -> bool:
        return self.state is State.FORGOTTEN

    @property
    def decision(self) -> Decision:
        """The policy's answer; there is one before any filter hears of the destination."""
        assert self._decision is not None
        return self._decision

    @property
    def judged(self) -> Decision | None:
        """The policy's answer, None before there is one."""
        return self._decision

    @judged.setter
    def judged(self, decision: Decision) -> None:
        self._decision = decision

    @property
    def protocol(self) -> str | None:
        """The policy's name for what it is; for one that was promised, what it was promised for."""
        if self.promise is not None and self.promise.protocol is not None:
            return self.promise.protocol
        connection = self.mapping.connection
        associations = connection.engine.ruling.associations
        return associations.protocol("udp", self._port_of_way, connection.origin.application)

    @property
    def way(self) -> Way:
        """What decides which filters hear of it; one that was promised goes the way of what it was promised for."""
        connection = self.mapping.connection
        promise, origin = self.promise or connection.promise, connection.origin
        if promise is not None:
            return promise.way
        return Way("udp", self._port_of_way, origin.application, origin.kind)

    @property
    def _port_of_way(self) -> int:
        """Of who has come to a port of ours, that one says what it is about; else the destination's own."""
        return self.mapping.connection.target.port or self.port

    @property
    def version(self) -> int:
        """Of IP: 4 or 6, once its address is known."""
        return 4 if len(self.where) == 2 else 6

    @property
    def is_refused_by_policy(self) -> bool:
        """Whether rules have said no, and neither a filter nor what had been promised."""
        refusal = self.refusal
        return self.promise is None and refusal is not None and refusal.filter is None

    @property
    def host(self) -> str | None:
        """The name that the client asked for; None if it gave an address."""
        return self.target.host

    @property
    def address(self) -> str:
        """As text; empty before a name was resolved."""
        return self.where[0]

    @property
    def port(self) -> int:
        return self.target.port

    def deny(self, reason: str = "denied_by_filter") -> None:
        """See `api.UdpDestination`."""
        handling = self.mapping.connection.handling
        if handling is None or handling.destination is not self or AT_WORK.get() is not handling.entry:
            raise BadContext("legal only inside on_udp_destination")
        self.denied = slug_or(reason, "denied_by_filter")

    def hold(self, payload: bytes, course: Course) -> bool:
        """Keep a datagram until the destination is judged; False if it had to be dropped."""
        size = len(payload) + sum(len(held.payload) for held in self.held)
        if len(self.held) >= HELD_DATAGRAMS_MAX or size > HELD_BYTES_MAX:
            return False
        self.held.append(Held(payload, course))
        return True


class Memory:
    """The destinations of one mapping, at most `destinations_max`; `peers` by their address."""

    def __init__(self, destinations_max: int) -> None:
        self.destinations_max = destinations_max
        self.peers: dict[SocketAddress, Peer] = {}
        self._by_target: dict[
            Target, Destination
        ] = {}  # the longest unused first, more or less: see `oldest`

    def __len__(self) -> int:
        return len(self._by_target)

    def __iter__(self) -> Iterator[Destination]:
        return iter(tuple(self._by_target.values()))

    @property
    def full(self) -> bool:
        return len(self._by_target) >= self.destinations_max

    def get(self, target: Target) -> Destination | None:
        """What is remembered under this target."""
        return self._by_target.get(target)

    def add(self, destination: Destination) -> None:
        """A new one; `full` was asked before."""
        self._by_target[destination.target] = destination

    def speak(self, destination: Destination) -> None:
        """Policy and filters agree: from now on its peer may answer."""
        peer = self.peers.get(destination.where)
        if peer is None:
            peer = self.peers[destination.where] = Peer(destination)
        else:
            peer.destinations[destination] = None
            peer.current = destination
        destination.peer = peer

    def silence(self, destination: Destination) -> None:
        """Its peer may not answer any more, unless another destination still speaks to it."""
        if destination.peer is not None and destination.peer.leave(destination):
            del self.peers[destination.where]
        destination.peer = None

    def remove(self, destination: Destination) -> None:
        """Forget it."""
        if self._by_target.get(destination.target) is destination:
            del self._by_target[destination.target]
        self.silence(destination)
        destination.state = State.FORGOTTEN
        destination.flows = False
        destination.held.clear()

    def oldest(self) -> Destination | None:
        """The one to make room: the longest unused, or nearly so. None if all are being judged.

        Use costs nothing but a time stamp. So whoever was used since it was placed is placed anew here, at most
        once for each that is remembered.
        """
        for destination in tuple(self._by_target.values()):
            if destination.state is State.WAITING:
                continue
            last = destination.last
            if last <= destination.placed:
                return destination
            destination.placed = last
            del self._by_target[destination.target]
            self._by_target[destination.target] = destination
        return next((d for d in self._by_target.values() if d.state is not State.WAITING), None)
