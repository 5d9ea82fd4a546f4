"""The contracts between Doorward and the filters that run in it. No machinery here: the engine fulfils them.

`reference`: the object model's Session, Connection, Grant, Firewall and Decision. Where a call is legal only
in some handlers it says so, and raises BadContext elsewhere.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self, TypeAlias, TypeVar

if TYPE_CHECKING:
    from doorward.api.filters import DataFilter
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sessions import PrivateSession, Session
    from doorward.api.sockets import NetworkSocket, Socket, SocketName, TLSSocket

T = TypeVar("T")
TransportName: TypeAlias = Literal["tcp", "udp"]

# A promise that nobody has used lapses after this long, unless it says otherwise.
GRANT_TIMEOUT_S = 60.0


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


class SessionFlags(enum.Flag):
    """What kind of session it is."""

    NONE = 0
    PRIVATE = enum.auto()  # made by a filter, not by a client
    AUTHENTICATED = enum.auto()  # the user is proven
    TERMINATED = enum.auto()  # it is over


class ConnectionFlags(enum.Flag):
    """How a connection looks from outside."""

    NONE = 0
    FULL_PROXY = enum.auto()  # the published host sees our address in place of the client's
    SECONDARY = enum.auto()  # promised by a filter
    EMULATED = enum.auto()  # a filter is the other side


class Decision(Protocol):
    """Why something was allowed or refused; the whole record is the policy's `Decision`."""

    @property
    def allowed(self) -> bool: ...
    @property
    def reason(self) -> str: ...
    @property
    def rule(self) -> str | None: ...
    @property
    def policy(self) -> str: ...


class Grant(Protocol):
    """A promise for what is to come. It ends when it is used up, expired, cancelled, or its parent has ended.

    Whichever comes first closes the hole at once; connections that have come through it live on. As an async
    context manager it is cancelled at the end of the block.
    """

    @property
    def active(self) -> bool: ...
    @property
    def uses(self) -> int:
        """How often it was used."""
        ...

    @property
    def socket_name(self) -> SocketName | None:
        """Where the firewall listens for it, if it does."""
        ...

    def cancel(self) -> None:
        """Take it back. Idempotent."""
        ...

    async def __aenter__(self) -> Self: ...
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Connection(Protocol):
    """One outer socket made for a client: what it connects to, binds, listens on, has accepted, or sends from."""

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
    def flags(self) -> ConnectionFlags: ...

    @property
    def external_peer_name(self) -> SocketName:
        """Address and port of the server, or of the peer that arrived. Raises NotConnected while there is none."""
        ...

    @property
    def external_socket_name(self) -> SocketName:
        """Our own address and port on the outer side; for a listening connection where it listens.

        Of a UDP mapping: toward the destination whose handler or filter asks, else toward the first one. Raises
        NotConnected before the outer leg exists.
        """
        ...

    @property
    def ip_filter(self) -> IpFilter | None:
        """A copy of the peers admitted; None if none was set."""
        ...

    def set_ip_filter(self, ip_filter: IpFilter | None) -> None:
        """Who may become the peer from now on; one that is there stays. An unset filter on a listening connection
        admits nobody.

        Raises BadContext for an emulated connection, Terminating.
        """
        ...

    def attach_data_filter(
        self, data_filter: DataFilter, priority: Priority | None = None, context: object = None
    ) -> None:
        """Put a data filter into the chain; its own priority unless one is given. `context` becomes its `context`.

        Legal inside `on_connect`, `on_accept`, `on_bind` (UDP) and `on_udp_destination` (there: for that peer).
        """
        ...

    def attach_data_filter_with_destination(
        self,
        data_filter: DataFilter,
        destination: SocketName,
        priority: Priority | None = None,
        context: object = None,
    ) -> None:
        """The same for one remote peer of a UDP mapping; it ends when the peer is forgotten.

        Legal inside `on_bind` (UDP) and `on_udp_destination`, for a peer that is not spoken to yet.
        """
        ...

    def deny(self, reason: str = "denied_by_filter") -> None:
        """Refuse: the client sees what a policy refusal looks like, with this reason; who arrived is reset.

        Legal inside `on_connect`, `on_bind` and `on_accept`.
        """
        ...

    def emulate_for_connect(self, data_filter: DataFilter, context: object = None) -> None:
        """Be the server: nothing is dialled, the client is told that it is connected, and `data_filter.pump` gets
        `external=None`. Legal inside `on_connect`. Raises AlreadyEmulated for a second claim.
        """
        ...

    def emulate_for_bind(self) -> None:
        """Claim the bind: no socket is made. `set_socket_name` must follow before the handler returns.

        Legal inside `on_bind` (TCP). Raises AlreadyEmulated for a second claim.
        """
        ...

    def emulate_connection(
        self, data_filter: DataFilter, remote: SocketName, local: SocketName, context: object = None
    ) -> Connection:
        """Hand a peer, real or invented, to the client of an emulated bind. `data_filter` is that peer.

        Legal at any time. Raises NotEmulated unless the bind is emulated, AlreadyExists when a one-shot bind has
        had its peer, Terminating.
        """
        ...

    def increment_bytes_sent(self, count: int) -> None:
        """Count bytes that an emulator has sent on: for the record. Raises NotEmulated, BadArgument below 0."""
        ...

    def set_socket_name(self, name: SocketName) -> None:
        """What the client is told as our outer address. Obligatory for who emulates a bind.

        Raises NotEmulated, BadArgument, AlreadyExists the second time.
        """
        ...

    def set_client_address(self, name: SocketName) -> None:
        """Where peers are led, for a `bind_for_client` made without it. Raises AlreadyExists the second time,
        BadArgument if it is not the session's address, NotSupported for any other connection.
        """
        ...

    def set_buffer_size(self, bytes_max: int) -> None:
        """Bytes of one read, at most 1 MiB: TCP grows to 262,144 by itself, UDP takes 65,535.

        A longer datagram is dropped. Raises BadArgument.
        """
        ...

    def note(self, reason: str, by: str) -> None:
        """Put on record that something inside this connection was refused, which goes on; `by` is the filter's name.

        Each reason once, at most sixteen of them. Legal at any time; after the end it comes too late and is lost.
        """
        ...

    def kill(self) -> None:
        """Reset both sides; stop listening. Idempotent, legal at any time."""
        ...


class Firewall(Protocol):
    """What an application filter may ask of the process it lives in. All of it ends with the filter."""

    def create_network_socket(self, transport: TransportName = "tcp") -> NetworkSocket:
        """A socket of the firewall itself: no policy, no user, but a record of what it did."""
        ...

    async def create_ssl_network_socket(
        self,
        leg: Socket,
        side: Literal["server", "client"],
        *,
        server_name: str | None = None,
        alpn: Sequence[str] = (),
        certificate_file: str | None = None,
        key_file: str | None = None,
        ca_file: str | None = None,
        ask_client_certificate: Literal["no", "optional", "required"] = "no",
        verify: bool = True,
        timeout_s: float = 10.0,
    ) -> TLSSocket:
        """Lay TLS over a leg that exists already, and shake hands.

        `client`: we are the client toward `leg`; the certificate must be good for `server_name`, unless `verify`
        is False. `certificate_file` and `key_file` are then ours to show. `server`: we are the server toward
        `leg`, with that certificate; `ca_file` says who may sign a client's. Raises TLSFailed, LinkError kinds,
        BadArgument for files that cannot be used.
        """
        ...

    def create_ip_filter(self, ranges: Iterable[str] = ()) -> IpFilter:
        """A set of addresses. Raises ValueError for what is no range."""
        ...

    def create_private_session(
        self, client_address: str, user: str | None = None, groups: Iterable[str] = ()
    ) -> PrivateSession:
        """A session for a client that the filter itself took in, with the user it authenticated; never anybody
        else's. It lives until the filter closes it. Raises OutOfResources.
        """
        ...

    def client_session(self, client_address: str) -> Session:
        """The session of whoever comes from this address without a user; made if there is none."""
        ...

    async def resolve(self, name: str) -> tuple[str, ...]:
        """The addresses of a name. Raises NameNotFound, LinkError kinds."""
        ...

    async def resolve_address(self, address: str) -> tuple[str, ...]:
        """The names of an address. Raises as `resolve`."""
        ...

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run a coroutine until it ends or the filter has stopped; what it raises is logged, nothing more."""
        ...

    async def run_blocking(self, call: Callable[..., T], *arguments: object) -> T:
        """Run a blocking function in a small pool of threads."""
        ...

    def log(self, event: str, **fields: object) -> None:
        """One line in the operational log, escaped."""
        ...

    def alert(self, name: str, **fields: object) -> None:
        """Something an operator should look at. At most one line a minute for each name; the rest is counted."""
        ...
