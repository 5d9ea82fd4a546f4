"""Sessions: who asks. One for each authenticated user on one client address, or for the address alone.

A session ends when it has had no connection for a while. The table has a cap; when it is full the session that
has been idle longest makes room, and if none is idle the newcomer is refused. What filters may ask in a session's
name is done elsewhere (grants, arrivals, look-ups, sockets); here it only has its place.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

from doorward.api.contracts import GRANT_TIMEOUT_S, SessionFlags
from doorward.api.errors import NotFound, OutOfResources, Side, Terminating
from doorward.engine.containment import contained
from doorward.engine.grants import Making, Offer, Ports, cancel_all, own, promise_connect, promise_factory
from doorward.engine.lookup import check_access, look_up_address, look_up_host
from doorward.engine.ports.wanted import Wanted
from doorward.engine.sockets.kept import end_all
from doorward.engine.sockets.network_socket import network_socket
from doorward.policy.address import canonical
from doorward.policy.model import IPAddress, Unknown

if TYPE_CHECKING:
    from doorward.api.contracts import Connection as ConnectionContract
    from doorward.api.contracts import Priority, TransportName
    from doorward.api.events import EventKind
    from doorward.api.filters import ApplicationFilter, DataFilter, SessionFilter
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sessions import Launched
    from doorward.api.sockets import NetworkSocket, SocketName
    from doorward.engine.association import FilterEntry
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.grants import Promise
    from doorward.engine.names.asked import NamesAsked
    from doorward.engine.sockets.kept import Kept
    from doorward.policy.model import Decision

NOBODY: frozenset[str] = frozenset()
SessionKey: TypeAlias = tuple[str, str | None, int]


class Session:
    """See the object model. `address` is the client's address as policy sees it (IPv4-mapped unwrapped)."""

    __slots__ = ("_engine", "_filters", "address", "asked", "client_address", "connections", "ended", "groups", "id",
                 "idle_since", "launched", "number", "process", "programs", "promises", "sockets", "user")  # fmt: skip

    machine_name: str | None = None  # no way in tells us

    def __init__(
        self,
        session_id: int,
        client_address: str,
        user: str | None,
        groups: frozenset[str],
        number: int = 0,
        engine: Engine | None = None,
    ) -> None:
        """`number` tells private sessions apart; 0 is everybody else's. `engine` does what filters ask for."""
        self._engine = engine
        self.id = session_id
        self.client_address = client_address
        self.address: IPAddress = canonical(ipaddress.ip_address(client_address.partition("%")[0]))
        self.user = user
        self.groups = groups
        self.number = number
        self.connections = 0
        self.idle_since = 0.0
        self.ended = False
        # Of a program that was launched behind the firewall: who it is, in words for the record, and for rules.
        self.launched: Launched | None = None
        self.process: str | None = None
        self.programs: frozenset[str] = NOBODY
        self.promises: set[Promise] = set()
        self.sockets: set[Kept] = set()
        self.asked: NamesAsked | None = None  # of a session that asks for names by DNS
        self._filters: dict[ApplicationFilter, SessionFilter] = {}

    @property
    def engine(self) -> Engine:
        """Where what is asked of a session is done."""
        assert self._engine is not None
        return self._engine

    @property
    def key(self) -> SessionKey:
        """Address and user: what makes it one session and not another."""
        return self.client_address, self.user, self.number

    @property
    def flags(self) -> SessionFlags:
        """See the contract."""
        found = SessionFlags.NONE if self.user is None else SessionFlags.AUTHENTICATED
        if (
            self.number and self.launched is None
        ):  # a launched program's is a client's, though nobody shares it
            found |= SessionFlags.PRIVATE
        return found | SessionFlags.TERMINATED if self.ended else found

    def filter_of(self, entry: FilterEntry) -> SessionFilter:
        """This session's object of a filter, made at its first event. May raise whatever the filter raises.

        It stays while the filter does, also when other settings for a rule make another entry of it.
        """
        application_filter = entry.application_filter
        session_filter = self._filters.get(application_filter)
        if session_filter is None:
            session_filter = self._filters[application_filter] = application_filter.session_filter(self)
        return session_filter

    def entry_of(
        self, session_filter: SessionFilter, entries: Sequence[FilterEntry] | None = None
    ) -> FilterEntry | None:
        """Which of the entries (those in force) it is an object of; None for one that this session does not have."""
        if entries is None:
            entries = self.engine.ruling.associations.entries
        return next((e for e in entries if self._filters.get(e.application_filter) is session_filter), None)

    def forget_filters(self, kept: frozenset[FilterEntry]) -> None:
        """Let go of the objects of filters that have left."""
        staying = {entry.application_filter for entry in kept}
        for application_filter in [known for known in self._filters if known not in staying]:
            del self._filters[application_filter]

    def end(self) -> None:
        """It is over, and with it what was promised in its name. Idempotent."""
        self.ended = True
        self.asked = None
        cancel_all(self.promises)
        end_all(self.sockets)

    def close(self) -> None:
        """End a private session and everything that goes on in it. See `api.PrivateSession`. Idempotent."""
        self.engine.close_session(self)

    async def check_access(self, protocol: str, host: str, port: int | None = None) -> Decision:
        """See the contract."""
        return await check_access(self.engine, self, protocol, host, port)

    async def resolve(self, name: str) -> tuple[str, ...]:
        """See the contract."""
        return await look_up_host(self.engine, self, name)

    async def resolve_address(self, address: str) -> tuple[str, ...]:
        """See the contract."""
        return await look_up_address(self.engine, self, address)

    def attach_filter(self, name: str) -> None:
        """See the contract."""
        self.expect_alive()
        entry = next((e for e in self.engine.ruling.associations.entries if e.name == name), None)
        if entry is None:
            raise NotFound(f'there is no filter "{name}"')
        try:
            self.filter_of(entry)
        except Exception as error:
            raise contained(error) from error

    def create_network_socket(self, transport: TransportName = "tcp") -> NetworkSocket:
        """See the contract."""
        self.expect_alive()
        return network_socket(self.engine, self, transport)

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
        parent: ConnectionContract | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
    ) -> Promise:
        """See the contract."""
        offer = Offer(multiple, timeout_s, own(parent), holder, context)
        ports = Ports(port, port if last_port is None else last_port)
        return promise_connect(self, transport, address, ports, offer, address_based=address_based)

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
        parent: ConnectionContract | None = None,
    ) -> Promise:
        """See the contract."""
        offer = Offer(multiple, timeout_s, own(parent), None, context)
        return promise_factory(self, Making(event, address, port, priority, factory), offer)

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
        parent: ConnectionContract | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
        full_proxy: bool = False,
    ) -> list[Connection]:
        """See the contract."""
        wanted = Wanted(transport, address, port, count, ip_filter, client_address, full_proxy)
        return await self.engine.arrivals.bind_for_client(
            self, wanted, Offer(multiple, timeout_s, own(parent), holder, context)
        )

    def retroactive_allow_bind(
        self,
        transport: TransportName,
        bound: SocketName,
        *,
        ip_filter: IpFilter,
        multiple: bool = False,
        timeout_s: float | None = GRANT_TIMEOUT_S,
        parent: ConnectionContract | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
    ) -> Promise:
        """See the contract."""
        offer = Offer(multiple, timeout_s, own(parent), holder, context)
        return self.engine.arrivals.retroactive_allow_bind(self, transport, bound, ip_filter, offer)

    async def redirect_connections(
        self,
        targets: Sequence[SocketName],
        *,
        address: str = "",
        multiple: bool = False,
        timeout_s: float | None = GRANT_TIMEOUT_S,
        parent: ConnectionContract | None = None,
        holder: SessionFilter | None = None,
        context: object = None,
    ) -> list[Promise]:
        """See the contract."""
        offer = Offer(multiple, timeout_s, own(parent), holder, context)
        return await self.engine.arrivals.redirect_connections(self, targets, address, offer)

    async def emulate_client_bind(
        self, client_address: SocketName, advertised: SocketName, *, full_proxy: bool = False
    ) -> Connection:
        """See the contract."""
        return await self.engine.arrivals.emulate_client_bind(
            self, client_address, advertised, full_proxy=full_proxy
        )

    def expect_alive(self) -> None:
        """Raises Terminating."""
        if self.ended:
            raise Terminating("this session has ended")


class SessionTable:
    """All sessions. Not asked to identify themselves yet (`UNKNOWN`) and unable to (`None`) are one session."""

    def __init__(
        self, clock: Callable[[], float], sessions_max: int, idle_s: float, first_id: int = 1
    ) -> None:
        self._clock = clock
        self.engine: Engine | None = None
        self.sessions_max = sessions_max
        self.idle_s = idle_s
        self._sessions: dict[SessionKey, Session] = {}
        self._idle: dict[SessionKey, Session] = {}  # in the order in which they became so
        self._next_id = first_id

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(
        self, client_address: str, user: str | Unknown | None, groups: frozenset[str] = NOBODY
    ) -> Session:
        """The session of this client, made if there is none. Raises OutOfResources when the table is full."""
        name = None if isinstance(user, Unknown) else user
        session = self._sessions.get((client_address, name, 0))
        if session is None:
            session = self._make(client_address, name, groups, 0)
            self._rest(session)
        else:
            session.groups = groups
        return session

    def private(self, client_address: str, user: str | None, groups: frozenset[str]) -> Session:
        """A session that nobody else gets, until `remove`. Raises OutOfResources, ValueError for a bad address."""
        return self._make(client_address, user, groups, self._next_id)

    def remove(self, session: Session) -> None:
        """It is over. Idempotent."""
        if self._sessions.get(session.key) is session:
            del self._sessions[session.key]
            self._idle.pop(session.key, None)
        session.end()

    def enter(self, session: Session) -> None:
        """A connection of this session begins."""
        if not session.connections:
            self._idle.pop(session.key, None)
        session.connections += 1

    def leave(self, session: Session) -> None:
        """A connection of this session has ended."""
        session.connections -= 1
        if not session.connections and not session.number and self._sessions.get(session.key) is session:
            self._rest(session)

    def end_idle(self) -> int:
        """End sessions that were idle for their whole time; how many."""
        limit, ended = self._clock() - self.idle_s, 0
        while self._idle and next(iter(self._idle.values())).idle_since <= limit:
            self._end_oldest()
            ended += 1
        return ended

    def _rest(self, session: Session) -> None:
        session.idle_since = self._clock()
        self._idle[session.key] = session

    def _end_oldest(self) -> None:
        self.remove(next(iter(self._idle.values())))

    def _make(self, client_address: str, user: str | None, groups: frozenset[str], number: int) -> Session:
        self._make_room()
        session = Session(self._next_id, client_address, user, groups, number, self.engine)
        self._next_id += 1
        self._sessions[session.key] = session
        return session

    def _make_room(self) -> None:
        if len(self._sessions) < self.sessions_max:
            return
        if not self._idle:
            raise OutOfResources(f"all {self.sessions_max} sessions are in use", side=Side.OURS)
        self._end_oldest()
