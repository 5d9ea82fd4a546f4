"""Sessions: who asks. One for each authenticated user on one client address, or for the address alone.

A session ends when it has had no connection for a while. The table has a cap; when it is full the session that
has been idle longest makes room, and if none is idle the newcomer is refused.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

from doorward.api.errors import OutOfResources, Side
from doorward.policy.address import canonical
from doorward.policy.model import IPAddress, Unknown

if TYPE_CHECKING:
    from doorward.api.filters import SessionFilter
    from doorward.engine.association import FilterEntry

NOBODY: frozenset[str] = frozenset()
SessionKey: TypeAlias = tuple[str, str | None]


class Session:
    """See the object model. `address` is the client's address as policy sees it (IPv4-mapped unwrapped)."""

    __slots__ = ("_filters", "address", "client_address", "connections", "groups", "id", "idle_since", "user")

    def __init__(
        self, session_id: int, client_address: str, user: str | None, groups: frozenset[str]
    ) -> None:
        self.id = session_id
        self.client_address = client_address
        self.address: IPAddress = canonical(ipaddress.ip_address(client_address.partition("%")[0]))
        self.user = user
        self.groups = groups
        self.connections = 0
        self.idle_since = 0.0
        self._filters: dict[FilterEntry, SessionFilter] = {}

    @property
    def key(self) -> SessionKey:
        """Address and user: what makes it one session and not another."""
        return self.client_address, self.user

    def filter_of(self, entry: FilterEntry) -> SessionFilter:
        """This session's object of a filter, made at its first event. May raise whatever the filter raises."""
        session_filter = self._filters.get(entry)
        if session_filter is None:
            session_filter = self._filters[entry] = entry.application_filter.session_filter(self)
        return session_filter

    def forget_filters(self, kept: frozenset[FilterEntry]) -> None:
        """Let go of the objects of filters that have left."""
        for entry in [entry for entry in self._filters if entry not in kept]:
            del self._filters[entry]


class SessionTable:
    """All sessions. Not asked to identify themselves yet (`UNKNOWN`) and unable to (`None`) are one session."""

    def __init__(self, clock: Callable[[], float], sessions_max: int, idle_s: float) -> None:
        self._clock = clock
        self.sessions_max = sessions_max
        self.idle_s = idle_s
        self._sessions: dict[SessionKey, Session] = {}
        self._idle: dict[SessionKey, Session] = {}  # in the order in which they became so
        self._next_id = 1

    def __len__(self) -> int:
        return len(self._sessions)

    def __iter__(self) -> Iterator[Session]:
        return iter(self._sessions.values())

    def get(
        self, client_address: str, user: str | Unknown | None, groups: frozenset[str] = NOBODY
    ) -> Session:
        """The session of this client, made if there is none. Raises OutOfResources when the table is full."""
        name = None if isinstance(user, Unknown) else user
        session = self._sessions.get((client_address, name))
        if session is None:
            self._make_room()
            session = Session(self._next_id, client_address, name, groups)
            self._next_id += 1
            self._sessions[session.key] = session
            self._rest(session)
        else:
            session.groups = groups
        return session

    def enter(self, session: Session) -> None:
        """A connection of this session begins."""
        if not session.connections:
            self._idle.pop(session.key, None)
        session.connections += 1

    def leave(self, session: Session) -> None:
        """A connection of this session has ended."""
        session.connections -= 1
        if not session.connections and self._sessions.get(session.key) is session:
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
        key = next(iter(self._idle))
        del self._idle[key], self._sessions[key]

    def _make_room(self) -> None:
        if len(self._sessions) < self.sessions_max:
            return
        if not self._idle:
            raise OutOfResources(f"all {self.sessions_max} sessions are in use", side=Side.OURS)
        self._end_oldest()
