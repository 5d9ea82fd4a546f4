"""Datagrams that nobody reads need not pass through Python: native code moves them from socket to socket.

Which ones: those of a destination that `flows`, between one client and one peer, once it has seen so many datagrams
that the trouble is worth it. Everything else stays as it is: what the thread has no flow for comes here as ever, and
is judged, told, counted and dropped here. The first one to want a destination's datagrams gets them back at once.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from doorward.engine.udp.destination import Destination, Peer
    from doorward.engine.udp.mapping import Mapping
    from doorward.net.datagrams import DatagramSocket, Inbox

# A power of two, less one. Of so many datagrams of a destination one asks whether it could enter the lane: what is
# shorter, a look-up of a name say, would pay for entering and leaving, and gain nothing.
ASKS_MASK: Final = 31


class FastLane:
    """Of one engine; without a courier nobody enters."""

    __slots__ = ("_inbox",)

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox

    def ask(self, destination: Destination) -> None:
        """Enter soon, if that can be."""
        if self._inbox.courier is not None and not destination.flow:
            self._inbox.courier.soon(partial(self._enter, destination))

    def leave(self, destination: Destination) -> None:
        """Its datagrams come here again. Its counts are its own. Idempotent."""
        flow, destination.flow = destination.flow, 0
        courier = self._inbox.courier
        if not flow or courier is None:
            return
        carried = courier.end(flow)
        destination.sent += carried.bytes_sent
        destination.received += carried.bytes_received
        destination.moved = max(destination.moved, carried.last)
        mapping = destination.mapping
        mapping.flowing -= 1
        if not mapping.flowing and not mapping.over:
            self._take_back(mapping)

    def leave_all(self, peer: Peer | None) -> None:
        """Whose the answers of this peer are is told by who has spoken to it last, which is known here."""
        for destination in peer.destinations if peer is not None else ():
            self.leave(destination)

    def _enter(self, destination: Destination) -> None:
        mapping, courier, outer = destination.mapping, self._inbox.courier, destination.outer
        if courier is None or outer is None or destination.flow or not _is_free(destination):
            return
        end = mapping.client.end_for(destination)
        if end is None:
            return
        inner_id, outer_id = self._lend(mapping, end.socket), self._lend(mapping, outer)
        if inner_id and outer_id:
            client, header, answer_header = end.address, end.header, end.answer_header
            destination.flow = courier.flow(
                inner_id, client, header, outer_id, destination.where, answer_header
            )
        if destination.flow:
            mapping.flowing += 1
        elif not mapping.flowing:
            self._take_back(mapping)

    def _lend(self, mapping: Mapping, ours: DatagramSocket) -> int:
        number = ours.lend()
        if number and ours not in mapping.lent:
            mapping.lent = [*(each for each in mapping.lent if each.open), ours]
        return number

    def _take_back(self, mapping: Mapping) -> None:
        lent, mapping.lent = mapping.lent, []
        for ours in lent:
            ours.take_back()


def _is_free(destination: Destination) -> bool:
    """Whether nobody wants to see its datagrams, and its peer's answers can be nobody else's."""
    extra, peer = destination.mapping.connection.extra, destination.peer
    return (
        destination.flows
        and peer is not None
        and len(peer.destinations) == 1
        and extra.ip_filter is None
        and extra.buffer_size is None
    )
