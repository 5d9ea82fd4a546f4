"""The contracts between Doorward and the filters that run in it. No machinery here: the engine fulfils them.

`reference`: the object model's Socket, Session, Connection, Firewall and Decision, as far as they work today.
A call that is not here does not exist yet; nothing is a stub.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from doorward.api.filters import DataFilter

T = TypeVar("T")


class Priority(enum.IntEnum):
    """Where a data filter stands in its chain, from the client's side to the server's.

    Onion order: the class nearest the client sees the client's data first and the server's data last.
    """

    NAT = 0
    INTERNAL = 1
    POST_TRUST = 2
    MIDDLE = 3
    PRE_TRUST = 4
    EXTERNAL = 5
    EMULATION = 6


class Socket(Protocol):
    """One leg as a data filter sees it: a wire, or the neighbouring filter; it cannot know which."""

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """The next bytes, at least one; `b""` at end of stream, and again each time after.

        Without `bytes_max` the chunk grows from 16 to 256 KiB with the flow. Raises PeerReset if the peer reset
        the connection, Terminating after close. A cancelled call has consumed nothing.
        """
        ...

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of it; waits while the other side cannot take more.

        Raises PeerReset if the peer is gone, Terminating after shutdown or close. After cancellation an unknown
        part was sent: only close is left.
        """
        ...

    async def shutdown(self, *, abortive: bool = False) -> None:
        """Say that no more will be sent (FIN), or abort (RST). The other direction goes on after a FIN."""
        ...

    async def close(self, *, abortive: bool = False) -> None:
        """End both directions. Idempotent."""
        ...


class Decision(Protocol):
    """Why this connection was allowed; the whole record is the policy's `Decision`."""

    @property
    def reason(self) -> str: ...
    @property
    def rule(self) -> str | None: ...
    @property
    def policy(self) -> str: ...


class Session(Protocol):
    """One client: an authenticated user on one client address, or that address alone."""

    @property
    def id(self) -> int: ...
    @property
    def client_address(self) -> str: ...
    @property
    def user(self) -> str | None: ...
    @property
    def groups(self) -> frozenset[str]: ...


class Connection(Protocol):
    """One outer socket made for a client."""

    @property
    def id(self) -> int: ...
    @property
    def session(self) -> Session: ...
    @property
    def decision(self) -> Decision: ...
    @property
    def host(self) -> str | None:
        """The name the client asked for; None if it asked for an address."""
        ...

    @property
    def port(self) -> int: ...
    @property
    def protocol(self) -> str | None:
        """The policy's name for what this is, such as `http`; None for a port without a name."""
        ...

    @property
    def external_peer_name(self) -> tuple[str, int]:
        """Address and port of the server. Raises NotConnected before the outer leg exists."""
        ...

    @property
    def external_socket_name(self) -> tuple[str, int]:
        """Our own address and port toward the server. Raises NotConnected before the outer leg exists."""
        ...

    def attach_data_filter(
        self, data_filter: DataFilter, priority: Priority | None = None, context: object = None
    ) -> None:
        """Put a data filter into the chain; its own priority unless one is given. `context` becomes its `context`.

        Raises BadContext outside `on_connect`, Terminating when the connection has ended.
        """
        ...

    def deny(self, reason: str = "denied_by_filter") -> None:
        """Refuse: the client sees what a policy refusal looks like, with this reason.

        Raises BadContext outside `on_connect`.
        """
        ...

    def kill(self) -> None:
        """Reset both sides. Idempotent, legal at any time."""
        ...


class Firewall(Protocol):
    """What an application filter may ask of the process it lives in."""

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run a coroutine until it ends or the filter has stopped; what it raises is logged, nothing more."""
        ...

    async def run_blocking(self, call: Callable[..., T], *arguments: object) -> T:
        """Run a blocking function in a small pool of threads."""
        ...

    def log(self, event: str, **fields: object) -> None:
        """One line in the operational log, escaped."""
        ...
