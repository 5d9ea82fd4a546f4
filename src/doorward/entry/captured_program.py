"""A captured program as a client: one session, whichever of its addresses it uses, for as long as it runs.

It is on this machine, so policy sees it at 127.0.0.1, where it would be if it used the proxy.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from doorward.api.errors import OutOfResources, Side
from doorward.api.filters import ClientKind
from doorward.capture.addresses import OWN
from doorward.engine.origin import Origin
from doorward.policy.model import names_of_process

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.sessions import Launched
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session
    from doorward.net.datagrams import SocketAddress
    from doorward.policy.model import IPAddress

ENTRY: Final = "captured"
ADDRESS: Final = "127.0.0.1"
_OWN: Final = frozenset(map(ipaddress.ip_address, OWN.values()))


class LaunchedProgram(NamedTuple):
    """Who it is, and what records say of that."""

    launched: Launched
    shown: str
    has_neighbours: bool = False  # others are served beside it, and none of them is to be in its session


class CapturedProgram:
    """See the module. `has_room` says whether one more connection fits, `launched` who it is."""

    def __init__(
        self, engine: Engine, has_room: Callable[[], bool], launched: LaunchedProgram | None = None
    ) -> None:
        """Raises OutOfResources when there is no room for its session."""
        self.engine = engine
        self.has_room = has_room
        self._launched = launched
        self._is_private = launched is not None and launched.has_neighbours
        self._closed = False
        self._session = self._new_session()

    @property
    def session_id(self) -> int:
        """The number of the session that it has, or had last."""
        return self._session.id

    @property
    def session(self) -> Session:
        """Its session; a new one if a filter has ended the last. Raises OutOfResources."""
        if self._session.ended:
            self._session = self._new_session()
        return self._session

    def _new_session(self) -> Session:
        if self._closed:
            raise OutOfResources("the program has ended", side=Side.OURS)
        sessions = self.engine.sessions
        session = (
            sessions.private(ADDRESS, None, frozenset()) if self._is_private else sessions.get(ADDRESS, None)
        )
        if self._launched is not None:
            session.launched, session.process = self._launched[:2]
            session.programs = names_of_process(filter(None, session.launched[:2]))
        self.engine.sessions.enter(session)
        return session

    def origin(self, port: int) -> Origin:
        """Where what it sends from this port comes from."""
        return Origin(ENTRY, ClientKind.CAPTURED, ADDRESS, port)

    def session_of(self, client: SocketAddress) -> Session:
        """See `CaughtClients`: the one session, whichever of its addresses it uses."""
        return self.session

    def asking(self, client: SocketAddress) -> Session:
        """See `CaughtClients`."""
        return self.session

    def origin_of(self, client: SocketAddress) -> Origin:
        """See `CaughtClients`."""
        return self.origin(client[1])

    def are_to_be_served(
        self, client: SocketAddress, address: IPAddress, port: int, transport: TransportName
    ) -> bool:
        """See `CaughtClients`."""
        return self.is_own(ipaddress.ip_address(client[0])) and not self.is_own(address)

    def borrowed(self, client: SocketAddress) -> None:
        """See `CaughtClients`: nobody else has its address."""

    def is_own(self, address: IPAddress) -> bool:
        """Whether this is the program itself: nothing from elsewhere is served, and nothing led back to it."""
        return address.is_loopback or address in _OWN

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run a piece of its work under the engine's supervisor."""
        self.engine.supervisor.spawn(work, name=ENTRY)

    def close(self) -> None:
        """It has ended; with neighbours, so has what it still had under way. Idempotent."""
        self._closed = True
        if self._is_private:
            self.engine.close_session(self._session)
        elif not self._session.ended and self._session.connections:
            self.engine.sessions.leave(self._session)
