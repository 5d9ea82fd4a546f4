"""What carries one side of a connection's bytes: a wire, TLS laid over one, or the end of a joint in memory.

The engine's side of the object model's `Socket`: the same four calls, and what whoever runs a connection needs
beyond them. Only a `Leg` can be given to a relay; everything else is carried in Python.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from doorward.api.errors import NotSupported

if TYPE_CHECKING:
    from doorward.api.errors import DoorwardError
    from doorward.api.sockets import SocketName


class StreamOnly:
    """The two calls of `api.Socket` that only datagrams have."""

    __slots__ = ()

    async def recv_from(self, bytes_max: int | None = None) -> tuple[bytes, SocketName]:
        """Raises NotSupported."""
        raise NotSupported("a stream has no datagrams: recv")

    async def send_to(self, data: bytes | bytearray | memoryview, address: SocketName) -> None:
        """Raises NotSupported."""
        raise NotSupported("a stream has no datagrams: send")


class Carrier(Protocol):
    """One side of a connection. `sent` and `received` count payload bytes, as whoever holds it sees them."""

    sent: int
    received: int

    @property
    def open(self) -> bool:
        """Whether bytes may still move; False after a failure or `close`."""
        ...

    @property
    def busy(self) -> bool:
        """Whether a task waits for it."""
        ...

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `api.Socket`."""
        ...

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `api.Socket`."""
        ...

    async def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """Send what is taken now, at least one byte, and say how much. A cancelled call has sent nothing."""
        ...

    async def recv_from(self, bytes_max: int | None = None) -> tuple[bytes, SocketName]:
        """See `api.Socket`; `StreamOnly` has it."""
        ...

    async def send_to(self, data: bytes | bytearray | memoryview, address: SocketName) -> None:
        """See `api.Socket`; `StreamOnly` has it."""
        ...

    async def shutdown(self, *, abortive: bool = False) -> None:
        """See `api.Socket`."""
        ...

    async def close(self, *, abortive: bool = False) -> None:
        """See `api.Socket`."""
        ...

    def close_now(self, *, abortive: bool = False) -> None:
        """`close` without a wait: what the kernel or the neighbour has taken still arrives. Idempotent."""
        ...

    def abort(self, error: DoorwardError) -> None:
        """Reset the far end; `error` is raised to whoever waits, now and later. Idempotent."""
        ...
