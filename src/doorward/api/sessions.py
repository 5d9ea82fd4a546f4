"""The contract of a session: who asks, and what may be done in its name.

The engine fulfils it; see `contracts` for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from doorward.api.contracts import GRANT_TIMEOUT_S

if TYPE_CHECKING:
    from doorward.api.contracts import Connection, Decision, Grant, Priority, SessionFlags, TransportName
    from doorward.api.events import EventKind
    from doorward.api.filters import DataFilter, SessionFilter
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import NetworkSocket, SocketName


class Launched(NamedTuple):
    """A program behind `doorward run`, as it was launched; whatever it starts itself counts as it.

    `program` is its path as it was found, `file` the same without symbolic links, `user` who runs it on this machine,
    and `process_id` the first of its processes. Words of `command` may be secrets: they are not on record.
    """

    program: str
    file: str
    user: str
    process_id: int
    command: tuple[str, ...]


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
    def launched(self) -> Launched | None:
        """The program that this session is, if it was launched behind the firewall; None for every other client."""
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
        UDP: `bound` is a mapping's `external_socket_name`. Each peer of `ip_filter` that sends there first, one
        unless `multiple`, becomes a destination of the mapping, which the client may answer; policy is not asked.
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


class PrivateSession(Session, Protocol):
    """A session that a filter has made, and ends."""

    def close(self) -> None:
        """End it: its grants, its binds and its connections end with it. Idempotent."""
        ...
