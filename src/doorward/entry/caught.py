"""Who is caught: what the ways in for clients that know of no proxy have to know of them.

doorward run    one program, one session           captured_program
[transparent]   many machines, each its session    routed_clients
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.sockets import SocketName
    from doorward.engine.engine import Engine
    from doorward.engine.origin import Origin
    from doorward.engine.session import Session
    from doorward.net.datagrams import SocketAddress
    from doorward.policy.model import IPAddress


class CaughtClients(Protocol):
    """See the module. A client is known by the address and port that it sends from."""

    @property
    def engine(self) -> Engine:
        """Who judges and carries."""
        ...

    @property
    def has_room(self) -> Callable[[], bool]:
        """Whether one more connection fits."""
        ...

    def session_of(self, client: SocketAddress) -> Session:
        """This client's session. Raises OutOfResources."""
        ...

    def asking(self, client: SocketAddress) -> Session:
        """The same, of a client that asks for a name: what it is told is remembered. Raises OutOfResources."""
        ...

    def origin_of(self, client: SocketAddress) -> Origin:
        """Where what it sends comes from."""
        ...

    def are_to_be_served(
        self, client: SocketAddress, address: IPAddress, port: int, transport: TransportName
    ) -> bool:
        """Whether this client may be led there at all; if not, that is on record as far as it should be."""
        ...

    def borrowed(self, client: SocketAddress) -> Callable[[IPAddress], str | None] | None:
        """For a destination, the address that it is to see in place of ours, if any; None if that is always ours."""
        ...

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a piece of their work under the engine's supervisor."""
        ...


class SendsAnswers(Protocol):
    """Datagrams back to clients, each from the address that the client had sent to."""

    def send(self, source: SocketName, payload: memoryview | bytes, client: SocketAddress) -> bool:
        """A datagram for the client, from `source`; False if it was dropped. Never raises, never waits."""
        ...
