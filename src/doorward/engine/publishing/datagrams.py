"""A UDP port of a published server: a flow for each client's address and port, found by one look-up.

What comes first from a client opens its flow: may it come, limits, `on_bind`, `on_udp_destination`, and then it passes
on. Who may not come is dropped, with a record. The table of flows has a cap, and so has what one address may have in
it; the one that was unused longest makes room, since UDP clients do not say when they are done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from itertools import islice
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError
from doorward.engine.connecting import NOT_ADMITTED
from doorward.engine.operation import Operation
from doorward.engine.publishing.flow import Flow
from doorward.engine.target import Target
from doorward.engine.udp.table import EVICTED
from doorward.net.datagrams import DatagramSocket
from doorward.net.idle import IdleQueue

if TYPE_CHECKING:
    import socket

    from doorward.api.sockets import SocketName
    from doorward.config.model import PublishedAddress
    from doorward.engine.publishing.house import House
    from doorward.engine.udp.mapping import Mapping
    from doorward.net.datagrams import SocketAddress

# Clients of one port at a time. Each has a socket, and sources are easily invented.
FLOWS_MAX: Final = 4096
# Clients whose flows are being opened; what others send meanwhile is dropped.
OPENING_MAX: Final = 256
# How many of the longest placed are compared when one has to make room: a flood of invented sources must not make
# each of them a walk through the table.
LOOKED_AT_MAX: Final = 32
# How long it is remembered that a client's flow could not be opened.
REFUSAL_REMEMBERED_S: Final = 5.0


class DatagramPort:
    """See the module. One of each UDP address of a published server."""

    def __init__(self, house: House, here: PublishedAddress) -> None:
        self.here = here
        self.name: SocketName | None = None
        self.dropped = 0
        self._house = house
        self._engine = house.engine
        self._socket: DatagramSocket | None = None
        self._flows: dict[SocketAddress, Flow] = {}
        self._by_address: dict[str, dict[Flow, None]] = {}
        self._opening = 0
        self._idle: IdleQueue[Mapping] = IdleQueue(self._engine.poller.loop, self._end_idle)
        self._timers: dict[Flow, asyncio.TimerHandle] = {}

    @property
    def flows(self) -> int:
        """How many clients there are."""
        return len(self._flows)

    def open(self, sock: socket.socket) -> None:
        """Receive on this bound socket, which is owned from now on."""
        udp = self._engine.udp
        opened = DatagramSocket(udp.inbox, sock, self._arrived)
        self.name = opened.name
        try:
            self._socket = udp.adopt(opened)
        except DoorwardError as error:
            self._house.port_ended(self.here, error.reason)

    def close(self) -> None:
        """Nobody is heard any more, and every flow ends. Idempotent."""
        opened, self._socket = self._socket, None
        if opened is not None:
            self._engine.udp.release(opened)
        for flow in tuple(self._flows.values()):
            if flow.connection is not None:
                self._engine.kill(flow.connection, "closed")
            self._forget(flow)
        self._idle.close()

    def _arrived(self, payload: memoryview, where: SocketAddress) -> None:
        flow = self._flows.get(where) or self._newcomer(where)
        if flow is not None:
            flow.take(payload)

    def _newcomer(self, where: SocketAddress) -> Flow | None:
        """The flow of somebody not known yet; None for who may not come, or cannot now."""
        house, opened = self._house, self._socket
        if opened is None or self._opening >= OPENING_MAX or self._engine.udp.is_ours(where):
            self.dropped += 1
            return None
        flow = Flow(house, opened, where, self._flow_closed)
        decision = house.visitors.judge("udp", flow.peer, opened.name[1])
        if not decision.allowed:
            house.visitors.turned_away("udp", (str(flow.peer), where[1]), NOT_ADMITTED)
            return None
        if not self._make_room(flow) or not house.room():
            self.dropped += 1
            return None
        refusal = house.visitors.enter(flow.peer)
        flow.counted = True
        self._flows[where] = flow
        self._by_address.setdefault(str(flow.peer), {})[flow] = None
        self._opening += 1
        target = Target(None, None, opened.name[1])
        origin = house.origin("udp", opened.name[1])
        connection = self._engine.begin(house.session, target, origin, Operation.UDP, "udp", limited=False)
        connection.refusal = connection.refusal or refusal
        connection.judged, connection.peer = decision, flow.peer
        flow.connection = connection
        self._engine.supervisor.spawn(self._open(flow), name="published datagrams")
        return flow

    async def _open(self, flow: Flow) -> None:
        connection = flow.connection
        assert connection is not None
        try:
            await self._engine.open(connection, flow.open(connection))
        finally:
            self._opening -= 1
        if connection.refusal is None:
            mapping = flow.start()
            if mapping is None:  # it has ended in the meantime
                self._forget(flow)
                return
            mapping.idle_s = connection.ruling.limits.udp_idle_timeout_s
            self._idle.watch(mapping, len(self._flows))
        elif self._flows.get(flow.where) is flow:
            flow.give_up(connection.refusal)
            loop = self._engine.poller.loop
            self._timers[flow] = loop.call_later(REFUSAL_REMEMBERED_S, self._forget, flow)

    def _make_room(self, flow: Flow) -> bool:
        """For one more of this address, and in all; False if everybody is just being looked at."""
        most = self._engine.ruling.limits.udp_mappings_per_client_max
        own = self._by_address.get(str(flow.peer), {})
        if most and len(own) >= most and not self._push_out(own):
            return False
        return len(self._flows) < FLOWS_MAX or self._push_out(self._flows.values())

    def _push_out(self, flows: Iterable[Flow]) -> bool:
        """One of the first, the longest unused of them. Whether there was one."""
        looked_at = list(islice(flows, LOOKED_AT_MAX))
        possible = [flow for flow in looked_at if flow.stands or flow.refused is not None]
        if not possible:
            return False
        oldest = min(possible, key=lambda flow: flow.last)
        for flow in looked_at:
            if flow.last > flow.placed:
                self._place_anew(flow)
        if oldest.refused is None and oldest.connection is not None:
            self._engine.kill(oldest.connection, EVICTED)
        self._forget(oldest)
        return True

    def _place_anew(self, flow: Flow) -> None:
        """Behind those that were used less lately."""
        flow.placed = flow.last
        if self._flows.get(flow.where) is flow:
            del self._flows[flow.where]
            self._flows[flow.where] = flow
            own = self._by_address[str(flow.peer)]
            del own[flow]
            own[flow] = None

    def _flow_closed(self, flow: Flow) -> None:
        """Its mapping has ended. One that never stood is remembered as refused for a moment."""
        if flow.stands or flow.connection is None or flow.connection.opened:
            self._forget(flow)

    def _forget(self, flow: Flow) -> None:
        """Idempotent."""
        if self._flows.get(flow.where) is flow:
            del self._flows[flow.where]
        own = self._by_address.get(str(flow.peer))
        if own is not None:
            own.pop(flow, None)
            if not own:
                del self._by_address[str(flow.peer)]
        timer = self._timers.pop(flow, None)
        if timer is not None:
            timer.cancel()
        if flow.counted:
            flow.counted = False
            self._house.visitors.leave(flow.peer)

    def _end_idle(self, mapping: Mapping) -> None:
        self._engine.kill(mapping.connection, "idle_timeout")
