"""A mapping's client that is a filter: the socket in its hands sends to targets, and receives what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.api.errors import AccessDenied, LinkError, OutOfResources, Side, Terminating
from doorward.engine.target import Target, target_of
from doorward.engine.udp.destination import State
from doorward.engine.udp.ends import DatagramQueue, checked_payload, checked_peer

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.udp.client_side import ClientEnd
    from doorward.engine.udp.destination import Destination, FarEnd
    from doorward.engine.udp.mapping import Mapping


class Held:
    """See `ClientSide`; and what a network socket of a filter's own is made of."""

    __slots__ = ("_mapping", "_queue")

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._queue = DatagramQueue()

    async def recv_from(self) -> tuple[bytes, SocketName]:
        """The next datagram and who has sent it. Raises Terminating when the mapping has ended."""
        return await self._queue.get()

    def send_to(self, data: bytes | bytearray | memoryview, name: SocketName) -> None:
        """One datagram to an address; dropped, with a record, if it may not be. Raises BadArgument, Terminating."""
        self.send(data, target_of(*checked_peer(name)))

    def send(self, data: bytes | bytearray | memoryview, target: Target) -> None:
        """The same to a target, which may be a name."""
        if self._mapping.over:
            raise Terminating("the socket is closed")
        payload = checked_payload(data)
        destination = self._mapping.find(target)
        if destination is not None:
            self._mapping.outward(destination, payload)

    async def reach(self, target: Target) -> SocketName:
        """Have a target judged without sending anything; its address. Raises AccessDenied, LinkError kinds.

        The answer is remembered as that of any destination.
        """
        if self._mapping.over:
            raise Terminating("the socket is closed")
        destination = self._mapping.find(target)
        if destination is None:
            raise OutOfResources("too many destinations are being judged", side=Side.OURS)
        await destination.answered()
        if destination.state is State.OPEN:
            return destination.name
        refusal = destination.refusal
        if refusal is None:
            raise Terminating("the mapping has ended")
        if refusal.action == "deny":
            raise AccessDenied(refusal.reason, refusal.detail, hint=refusal.hint)
        raise LinkError(refusal.detail or refusal.reason, side=Side.OURS)

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> bool:
        """For the filter, when it asks."""
        return self._queue.put(bytes(payload), source.name)

    def end_for(self, destination: Destination) -> ClientEnd | None:
        """A filter reads everything."""
        return None

    def forget(self, destination: Destination) -> None:
        """Nothing was kept."""

    def close(self) -> None:
        """The mapping has ended: what was not received is lost."""
        self._queue.fail(Terminating("the socket is closed"))

    def notes(self) -> list[tuple[str, int]]:
        """What the filter did not take in time."""
        return [("not received", self._queue.dropped)]
