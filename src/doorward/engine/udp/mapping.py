"""A UDP mapping: one connection, one client, and as many far ends as it remembers.

    client's side ── mapping's filters ── destination's filters ── outer socket (one for each family)

A datagram of the client's is led to a destination that policy and filters have judged once for as long as it is
remembered. What comes from outside is the client's only if it comes from an address and port that the client has
spoken to, or that a filter has promised to admit; anybody else is a stranger, and is counted. Without filters and
limits a datagram passes from socket to socket in one turn: a look-up, a few stores, a system call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias

from doorward.api.errors import ByteLimitReached, DoorwardError, Side, Terminating
from doorward.engine.outcome import End, Refusal, end_of
from doorward.engine.target import Target, target_of
from doorward.engine.udp.admission import judge_destination
from doorward.engine.udp.client_side import ClientSide, Nobody
from doorward.engine.udp.destination import AT_DESTINATION, Course, Destination, FarEnd, Memory, State
from doorward.engine.udp.expected import Expected
from doorward.engine.udp.fast_lane import ASKS_MASK
from doorward.engine.udp.filtering import Filters
from doorward.engine.udp.quota import Quota
from doorward.engine.udp.recording import record_of_destination
from doorward.net.datagrams import SocketAddress

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.extra import Attachable
    from doorward.engine.grants import Promise
    from doorward.engine.udp.table import Mappings
    from doorward.net.datagrams import DatagramSocket

# Whether somebody not spoken to yet may send first; asked once for each that is then remembered.
Admits: TypeAlias = Callable[[SocketAddress], bool]

# Destinations that are being judged at once; datagrams to any more are dropped meanwhile.
WAITING_MAX: Final = 64
# How long it is remembered that a destination could not be judged or reached: its name may resolve in a moment.
FAILURE_REMEMBERED_S: Final = 5.0
PUSHED_OUT: Final = "udp_destination_evicted"


class Mapping:
    """See the module. An `Idler` as well: silent for `idle_s`, it ends.

    `admits` lets peers come first: who it admits is told to filters like any destination, and then is one.
    """

    __slots__ = ("_extra", "_last", "_now", "_poller", "_quota", "_waiting", "admits", "client", "connection",
                 "dropped", "expected", "filters", "flowing", "id", "idle_s", "is_system", "lent", "memory", "outers",
                 "over", "strangers", "table", "telling")  # fmt: skip

    def __init__(self, connection: Connection, table: Mappings, *, is_system: bool = False) -> None:
        """Its `client` is set by whoever makes it. `is_system`: it is the firewall's own, and policy has no say."""
        limits = connection.ruling.limits
        self._poller = table.inbox.poller
        self._now = self._poller.loop.time
        self._last = self._now()
        self._extra = connection.extra
        self._quota = Quota(limits.bytes_max_per_direction, limits.bytes_per_second, self._last)
        self._waiting = 0
        self.connection = connection
        self.client: ClientSide = Nobody()
        self.table = table
        self.admits: Admits | None = None
        self.expected = Expected()
        self.is_system = is_system
        self.memory = Memory(limits.udp_destinations_max)
        self.filters = Filters(self)
        self.outers: dict[int, DatagramSocket] = {}
        self.lent: list[DatagramSocket] = []  # see fast_lane.py
        self.flowing = 0
        self.telling = asyncio.Lock()  # handlers of one connection run one after another
        self.id = connection.id
        self.idle_s = limits.idle_timeout_s
        self.over = False
        self.strangers = 0
        self.dropped = 0

    @property
    def last(self) -> float:
        """The loop's time of the last datagram. It is worked out when it is asked for, which is seldom."""
        return max((d.last for d in self.memory if d.state is State.OPEN), default=self._last)

    # From the client

    def find(self, target: Target) -> Destination | None:
        """The destination of a target, judged or being judged. None if there is no room for one more now."""
        found = self.memory.get(target)
        if found is not None or self.over:
            return found
        found = self._remember(target)
        if found is not None:
            judge_destination(self, found)
        return found

    def outward(self, destination: Destination, payload: memoryview | bytes) -> None:
        """A datagram of the client's. The payload is valid until the call returns."""
        extra = self._extra
        if destination.flows and extra.ip_filter is None and extra.buffer_size is None:
            destination.moved = self._poller.now
            destination.sent += len(payload)
            destination.peer.current = destination  # type: ignore[union-attr]  # what flows has a peer
            destination.outer.send(payload, destination.where)  # type: ignore[union-attr]  # and a socket
            destination.passed += 1
            if not destination.passed & ASKS_MASK:
                self.table.fast_lane.ask(destination)
        elif destination.state is State.WAITING:
            self._hold(destination, payload, Course.CLIENT)
        elif destination.state is not State.OPEN or self._is_too_long(payload):
            self.dropped += 1
        elif self.filters.chain is not None:
            self.filters.chain.outward(bytes(payload), destination.name)
        else:
            self.to_destination(destination, payload)

    def to_destination(self, destination: Destination, payload: memoryview | bytes) -> None:
        """Past the mapping's own filters: to those of the destination, or out."""
        if destination.state is State.WAITING:
            self._hold(destination, payload, Course.FILTERED)
        elif destination.chain is not None:
            destination.chain.outward(bytes(payload), destination.name)
        else:
            self.emit(destination, payload)

    def emit(self, destination: Destination, payload: memoryview | bytes) -> None:
        """Past every filter: out, if it may."""
        outer, peer = destination.outer, destination.peer
        if outer is None or peer is None or not self._may_pass(destination, payload, outward=True):
            self.dropped += 1
            return
        destination.moved = self._now()
        destination.sent += len(payload)
        peer.current = destination
        outer.send(payload, destination.where)

    # From outside

    def from_outside(self, payload: memoryview, address: SocketAddress) -> None:
        """A datagram that has arrived at one of our outer sockets."""
        peer = self.memory.peers.get(address)
        if peer is None:
            self._stranger(payload, address)
            return
        destination, extra = peer.current, self._extra
        if destination.flows and extra.ip_filter is None and extra.buffer_size is None:
            destination.moved = self._poller.now
            destination.received += len(payload)
            self.client.deliver(payload, destination)
            destination.passed += 1
            if not destination.passed & ASKS_MASK:
                self.table.fast_lane.ask(destination)
        else:
            self._arrive(destination, payload)

    def from_destination(self, destination: Destination, payload: memoryview | bytes) -> None:
        """Past the destination's filters: to those of the mapping, or to the client."""
        if not self._may_pass(destination, payload, outward=False):
            self.dropped += 1
            return
        destination.received += len(payload)
        if self.filters.chain is not None:
            self.filters.chain.inward(bytes(payload), destination.name)
        else:
            self.deliver(payload, destination)

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> None:
        """Past every filter: to the client."""
        if not self.over:
            self.client.deliver(payload, source)

    def _arrive(self, destination: Destination, payload: memoryview | bytes) -> None:
        """From a peer that may answer, or that came first."""
        destination.moved = self._now()
        if self._is_too_long(payload):
            self.dropped += 1
        elif destination.chain is not None:
            destination.chain.inward(bytes(payload), destination.name)
        else:
            self.from_destination(destination, payload)

    def _stranger(self, payload: memoryview, address: SocketAddress) -> None:
        """Nobody has spoken to this one: dropped, unless peers may come first, and this one may."""
        promise = self.expected.find(address)
        if (self.admits is None and promise is None and not self._waiting) or self.over:
            self.strangers += 1
            return
        target = target_of(address[0].partition("%")[0], address[1])
        known = self.memory.get(target)
        if known is not None and promise is not None and known.is_refused_by_policy:
            self.forget(known)  # the client was too early, and what was promised goes before rules
            known = None
        if known is None:
            known = self._arrived(target, address, promise)
            if known is None:
                self.strangers += 1
                return
            self._hold(known, payload, Course.FAR_END)
            judge_destination(self, known, arrived=True)
        elif known.state is State.WAITING and (known.promise is not None or self.admits is not None):
            self._hold(known, payload, Course.FAR_END)
        else:
            self.dropped += 1

    def _arrived(self, target: Target, address: SocketAddress, promise: Promise | None) -> Destination | None:
        """Somebody new, if admitted. By a promise for many nobody is pushed out, or one server could push out all."""
        if promise is None:
            return self._remember(target) if self.admits is not None and self.admits(address) else None
        if promise.multiple and self.memory.full:
            return None
        found = self._remember(target)
        if found is not None:
            found.promise = promise
            promise.use()
        return found

    # What destinations become

    def open(self, destination: Destination) -> None:
        """It may be spoken to. Raises LinkError kinds, OutOfResources when there is no socket for that."""
        destination.outer = self.table.outer_toward(destination)
        self.memory.speak(destination)
        self.table.fast_lane.leave_all(destination.peer)
        destination.state = State.OPEN
        destination.moved = self._now()
        self.filters.attach(destination)
        self.let_flow(destination)

    def let_flow(self, destination: Destination) -> None:
        """Whether its datagrams meet anybody may have changed."""
        destination.flows = (
            destination.state is State.OPEN
            and destination.chain is None
            and self.filters.chain is None
            and not self._quota.limited
        )
        if not destination.flows:
            self.table.fast_lane.leave(destination)

    def read_all(self) -> None:
        """See `extra.UdpSide`."""
        for destination in self.memory:
            self.table.fast_lane.leave(destination)

    def deny(self, destination: Destination, refusal: Refusal, *, remembered_s: float | None = None) -> None:
        """It is not spoken to for as long as it is remembered; one record says why."""
        if destination.state in (State.DENIED, State.FORGOTTEN):
            return
        was_open = destination.state is State.OPEN
        destination.refusal = refusal
        destination.state = State.DENIED
        destination.flows = False
        self.table.fast_lane.leave(destination)
        self.memory.silence(destination)
        self.filters.detach(destination)
        destination.moved = destination.placed = self._now()
        if remembered_s is not None:
            destination.idle_s = min(destination.idle_s, remembered_s)
        self._record(destination, End(refusal.reason if was_open else "refused", Side.OURS))

    def fail(self, destination: Destination, error: DoorwardError) -> None:
        """It could not be judged or reached; that is remembered for a moment."""
        rule = destination.judged.rule if destination.judged is not None else None
        refusal = Refusal("fail", error.reason, error.hint, rule, error.detail)
        self.deny(destination, refusal, remembered_s=FAILURE_REMEMBERED_S)

    def settled(self, destination: Destination) -> None:
        """Whatever the answer is: it waits no longer, and what waited for it goes its way."""
        self._waiting -= 1
        destination.answer()
        held, destination.held = destination.held, []
        if destination.state is not State.FORGOTTEN:
            self.table.destinations.watch(destination, self.table.alive)
        for payload, course in held:
            if destination.state is not State.OPEN:
                self.dropped += 1
            elif course is Course.CLIENT:
                self.outward(destination, payload)
            elif course is Course.FILTERED:
                self.to_destination(destination, payload)
            else:
                self._arrive(destination, payload)

    def forget(self, destination: Destination, how: str = "idle_timeout") -> None:
        """It is not remembered any more. If it was spoken to, its record is written."""
        if destination.state is State.FORGOTTEN:
            return
        was_open = destination.state is State.OPEN
        self.table.fast_lane.leave(destination)
        self._last = max(self._last, destination.last)
        self.filters.detach(destination)
        self.memory.remove(destination)
        self.table.alive -= 1
        self.connection.bytes_sent += destination.bytes_sent
        self.connection.bytes_received += destination.bytes_received
        self.client.forget(destination)
        if was_open:
            self._record(destination, End(how, Side.OURS))

    def destination(self, name: SocketName) -> Attachable:
        """See `extra.UdpSide`."""
        return self.filters.chain_for(name)

    # Its own life

    def own_name(self) -> SocketName | None:
        """Toward the destination whose handler or filter asks, else toward the first one. Raises as `outer`."""
        destination = AT_DESTINATION.get()
        if destination is not None and destination.mapping is self and destination.address:
            return self.outer(destination.version).name
        return self._extra.socket_name

    def outer(self, version: int) -> DatagramSocket:
        """Our socket toward far ends of this IP version. Raises LinkError kinds, OutOfResources."""
        if self.over:
            raise Terminating("the mapping has ended")
        found = self.outers.get(version)
        if found is None:
            found = self.outers[version] = self.table.open_outer(self, version)
            if self._extra.socket_name is None:
                self._extra.socket_name = found.name
        return found

    def close(self) -> None:
        """It is over: every destination's record is written, every socket closed. Idempotent."""
        if self.over:
            return
        self.over = True
        self.expected.end()
        self.filters.close()
        end = self.connection.end
        for destination in self.memory:
            self.forget(destination, end.how if end is not None else "closed")
        for outer in self.outers.values():
            self.table.release(outer)
            self.dropped += outer.dropped + outer.failed + outer.unheard
        self.lent.clear()
        self.client.close()
        self.table.leave(self)

    @property
    def note(self) -> str:
        """What was dropped, for the record; empty if nothing was."""
        counts = [("from strangers", self.strangers), *self.client.notes(), ("on the way", self.dropped)]
        told = ", ".join(f"{count} {what}" for what, count in counts if count)
        return f"dropped: {told}" if told else ""

    def _remember(self, target: Target) -> Destination | None:
        """A new destination that waits; None if there is no room now."""
        memory = self.memory
        if self._waiting >= WAITING_MAX or not self._may_ask() or (memory.full and not self._push_out()):
            self.dropped += 1
            return None
        idle_s = self.connection.ruling.limits.udp_idle_timeout_s
        destination = Destination(self, self.table.next_id(), target, idle_s, self._now())
        memory.add(destination)
        self.table.alive += 1
        self._waiting += 1
        return destination

    def _may_ask(self) -> bool:
        """A new destination counts like a new connection: who asks too fast is not answered, and leaves no record."""
        engine, session = self.connection.engine, self.connection.session
        return self.is_system or engine.admission.may_ask(session.client_address, engine.ruling.limits)

    def _push_out(self) -> bool:
        """Room for one more, at the cost of the longest unused."""
        oldest = self.memory.oldest()
        if oldest is not None:
            self.forget(oldest, PUSHED_OUT)
        return oldest is not None

    def _hold(self, destination: Destination, payload: memoryview | bytes, course: Course) -> None:
        if not destination.hold(bytes(payload), course):
            self.dropped += 1

    def _record(self, destination: Destination, end: End) -> None:
        self.connection.engine.recorder.append(record_of_destination(self.connection, destination, end))

    def _is_too_long(self, payload: memoryview | bytes) -> bool:
        most = self._extra.buffer_size
        return most is not None and len(payload) > most

    def _may_pass(self, destination: Destination, payload: memoryview | bytes, *, outward: bool) -> bool:
        """Whether its peer is admitted and the limits allow it; the mapping ends at its limit of bytes."""
        if destination.state is not State.OPEN or self.over:
            return False
        admitted = self._extra.ip_filter
        if admitted is not None and not admitted.includes(destination.where[0]):
            return False
        try:
            return self._quota.take(len(payload), self._now(), outward=outward)
        except ByteLimitReached as error:
            self.connection.engine.ended(self.connection, end_of(error))
            return False
