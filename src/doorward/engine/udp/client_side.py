"""Where the client of a mapping is. A mapping does not know: it gives what came from far ends, and is given targets.

The SOCKS side lives with the front end (entry/socks_udp.py); `client_address.py` leads to an address of the client,
`held.py` into a filter's hands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from doorward.engine.udp.destination import Destination, FarEnd
    from doorward.net.datagrams import DatagramSocket, SocketAddress


class ClientEnd(NamedTuple):
    """Where a client's datagrams for one destination come in, and what stands before payloads each way."""

    socket: DatagramSocket
    address: SocketAddress
    header: bytes
    answer_header: bytes


class Nobody:
    """No client yet."""

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> bool:
        """There is nobody to take it."""
        return False

    def end_for(self, destination: Destination) -> ClientEnd | None:
        """There is none."""
        return None

    def forget(self, destination: Destination) -> None:
        """Nothing was kept."""

    def close(self) -> None:
        """Nothing is open."""

    def notes(self) -> list[tuple[str, int]]:
        """Nothing was dropped."""
        return []


class ClientSide(Protocol):
    """One mapping's client."""

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> bool:
        """A datagram for the client, as if from `source`; False if it was dropped. Never raises, never waits.

        The payload is valid until the call returns.
        """
        ...

    def end_for(self, destination: Destination) -> ClientEnd | None:
        """Where its datagrams come in, if they need not come by here. As long as it flows, that does not change."""
        ...

    def forget(self, destination: Destination) -> None:
        """This destination is not remembered any more."""
        ...

    def close(self) -> None:
        """The mapping has ended. Idempotent."""
        ...

    def notes(self) -> list[tuple[str, int]]:
        """What was dropped before it became a datagram of the mapping's, for the record: what, and how many."""
        ...
