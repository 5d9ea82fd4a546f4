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
    from doorward.api.events import EventKind
    from doorward.api.filters import DataFilter, SessionFilter
    from doorward.api.ip_filter import IpFilter
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


class Session(Protocol):
    """One client: an authenticated user on one client address, or that address alone.

    Shared by all filters. Calls that make a promise take `multiple` (more than one use), `timeout_s` (None: until
    the parent ends), `parent` (the promise dies with this connection), and `holder` with `context`: the session
    filter whose `on_established` is told when the promise comes true. All raise Terminating after the session's end.
    """

    @property
    def id(self) -> int: ...
    @property
    def client_address(self) -> str: ...
    @property
    def machine_name(self) -> str | None:
        """What the client's machine calls itself; None where nobody has said."""
        ...

    @property
    def user(self) -> str | None: ...
    @property
    def groups(self) -> frozenset[str]: ...
    @property
    def flags(self) -> SessionFlags: ...

    async def check_access(self, protocol: str, host: str, port: int | None = None) -> Decision:
        """What policy would answer if this client asked for it now. Nothing is opened and nothing recorded.

        `protocol` is a name of the policy file or `tcp/443`; `port` when the name stands for several. A name is
        looked up if the answer hangs on it. Raises NotFound for an unknown protocol, LinkError kinds of the look-up.
        """
        ...

    def allow_connect(
        self,
        address: str,
        port: int,
        *,
        last_port: int | None = None,
        transport: TransportName = "tcp",
        multiple: bool = False,
        address_based: bool = False,
        timeout_s: float | None = GRANT_TIMEOUT_S,
        parent: Connection | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
    ) -> Grant:
        """Let this client connect to exactly this address and port (up to `last_port`), whatever the rules say.

        A client that asks by the name under which it reached the parent's server means the granted address too.
        `address_based`: any session of the same client address may use it. Addresses that the built-in policy
        guards are granted only if they are the parent's own peer. Raises BadArgument, OutOfResources.
        """
        ...

    async def bind_for_client(
        self,
        client_address: SocketName | None,
        *,
        transport: TransportName = "tcp",
        address: str = "",
        port: int = 0,
        count: int = 1,
        ip_filter: IpFilter | None = None,
        multiple: bool = False,
        timeout_s: float | None = GRANT_TIMEOUT_S,
        parent: Connection | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
        full_proxy: bool = False,
    ) -> Sequence[Connection]:
        """Listen on our address for peers of `ip_filter` (None: nobody yet), and lead them to the client's address.

        `count` > 1 binds a run of consecutive ports together; the i-th leads to the client's port + i. With
        `client_address` None each waits for `Connection.set_client_address`. The client's address must be the
        session's own. Each connection listens: read its `external_socket_name`; `kill` closes the hole.
        Raises AddressInUse, AccessDenied (a filter denied the bind), BadArgument, OutOfResources.
        """
        ...

    def retroactive_allow_bind(
        self,
        transport: TransportName,
        bound: SocketName,
        *,
        ip_filter: IpFilter,
        multiple: bool = False,
        timeout_s: float | None = GRANT_TIMEOUT_S,
        parent: Connection | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
    ) -> Grant:
        """Admit peers to a port that this client has had us bind already. It is theirs until the grant ends.

        A grant that is not `active` says that they were admitted before. Raises NotFound if there is no such bind.
        """
        ...

    async def redirect_connections(
        self,
        targets: Sequence[SocketName],
        *,
        address: str = "",
        multiple: bool = False,
        timeout_s: float | None = GRANT_TIMEOUT_S,
        parent: Connection | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
    ) -> Sequence[Grant]:
        """Listen toward the client, on consecutive ports in the order of the targets, and lead it to them.

        Each grant's `socket_name` is what to tell the client. `address`: one of ours that the client can reach;
        left out, the one that it reached us on. Raises AddressInUse, BadArgument, OutOfResources.
        """
        ...

    async def emulate_client_bind(
        self, client_address: SocketName, advertised: SocketName, *, full_proxy: bool = False
    ) -> Connection:
        """A bind that the client never made and nobody listens on: use `emulate_connection` on it for each peer.

        Each of these connects to `client_address`. `advertised` is what the client is to be told.
        """
        ...

    def set_data_filter_factory(
        self,
        event: EventKind,
        factory: Callable[[], DataFilter],
        *,
        address: str | None = None,
        port: int | None = None,
        priority: Priority | None = None,
        context: object = None,
        multiple: bool = False,
        timeout_s: float | None = GRANT_TIMEOUT_S,
        parent: Connection | None = None,
    ) -> Grant:
        """Attach a data filter to what is to come, without an event: to CONNECT and UDP_DESTINATION by the remote
        address and port, to BIND (UDP) and ACCEPT by the bound ones; None means any. Raises BadArgument.
        """
        ...

    def attach_filter(self, name: str) -> None:
        """Have a filter join this session now, before its first event. Raises NotFound."""
        ...

    def create_network_socket(self, transport: TransportName = "tcp") -> NetworkSocket:
        """A socket in this client's name: policy applies, and the log names this user.

        Other filters hear of it if their interest names `ClientKind.FILTER`.
        """
        ...

    async def resolve(self, name: str) -> tuple[str, ...]:
        """The addresses of a name. Raises NameNotFound, LinkError kinds, AccessDenied if a filter denies it."""
        ...

    async def resolve_address(self, address: str) -> tuple[str, ...]:
        """The names of an address. Raises as `resolve`."""
        ...


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

        Raises NotConnected before the outer leg exists.
        """
        ...

    @property
    def ip_filter(self) -> IpFilter | None:
        """A copy of the peers admitted; None if none was set."""
        ...

    def set_ip_filter(self, ip_filter: IpFilter | None) -> None:
        """Who may be the peer from now on. An unset filter on a listening connection admits nobody.

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


class PrivateSession(Session, Protocol):
    """A session that a filter has made, and ends."""

    def close(self) -> None:
        """End it: its grants, its binds and its connections end with it. Idempotent."""
        ...
