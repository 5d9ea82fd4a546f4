"""What the firewall keeps of a socket that a filter has made for itself, TCP or UDP: whose it is, and how it ends.

The filter has the socket and the firewall has this; so what a filter forgets is still found and ended: with its
session, with the filter, when it falls silent, or as soon as nobody can reach the socket any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import TYPE_CHECKING, Any, Final, TypeVar
from weakref import WeakKeyDictionary

from doorward.api.errors import OutOfResources, Side, Terminating
from doorward.api.filters import ApplicationFilter, ClientKind
from doorward.engine.origin import Origin
from doorward.engine.outcome import End
from doorward.engine.system import SYSTEM_ORIGIN
from doorward.policy.model import Verdict

if TYPE_CHECKING:
    from doorward.api.ip_filter import IpFilter
    from doorward.engine.association import FilterEntry
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session

T = TypeVar("T")
_of_filters: WeakKeyDictionary[ApplicationFilter, set[Kept]] = WeakKeyDictionary()

# Sockets of one session, or of one filter for the system's.
SOCKETS_MAX: Final = 1024
USER_ENTRY: Final = "filter"
CLOSED: Final = End("closed", Side.OURS)
RESET: Final = End("reset", Side.INTERNAL)
FORGOTTEN: Final = End("forgotten", Side.OURS)
SESSION_ENDED: Final = End("session_ended", Side.OURS)
FILTER_LEFT: Final = End("filter_left", Side.OURS)


class Kept:
    """See the module. `system` is the name of the filter whose system socket it is; None for a session's own."""

    __slots__ = (
        "_opening",
        "_own",
        "connection",
        "engine",
        "ip_filter",
        "made_by",
        "over",
        "session",
        "system",
    )

    def __init__(
        self, engine: Engine, session: Session, system: str | None, made_by: FilterEntry | None
    ) -> None:
        """Raises OutOfResources."""
        own: set[Kept] = set()
        if made_by is not None:
            own = _of_filters.setdefault(made_by.application_filter, own)
        if len(session.sockets) >= SOCKETS_MAX or len(own) >= SOCKETS_MAX:
            raise OutOfResources(f"{SOCKETS_MAX} sockets are open already", side=Side.OURS)
        self.engine = engine
        self.made_by = made_by
        self.session = session
        self.system = system
        self.connection: Connection | None = None  # that it has, or tries to make
        self.ip_filter: IpFilter | None = None
        self.over = False
        self._opening: asyncio.Timeout | None = None
        self._own = own
        session.sockets.add(self)
        own.add(self)

    @property
    def origin(self) -> Origin:
        """Who asks, for the record."""
        if self.system is not None:
            return SYSTEM_ORIGIN
        return Origin(USER_ENTRY, ClientKind.FILTER, self.session.client_address, 0)

    def end(self, end: End) -> None:
        """It is not needed any more. Idempotent."""
        if self.leave() and self.connection is not None and self.connection.opened:
            self.engine.ended(self.connection, end)

    def strike_off(self) -> None:
        """There is nothing to end any more."""
        self.session.sockets.discard(self)
        self._own.discard(self)

    def sign(self, connection: Connection) -> None:
        """Put on record which filter did it, unless that stands there already."""
        if self.made_by is not None and self.system is None:
            connection.verdicts.insert(0, Verdict(self.made_by.name, "opened"))

    def forgotten(self) -> None:
        """Nobody can reach the socket any more. To be called from the loop; `let_go` is for everybody else."""
        self.end(FORGOTTEN)

    def let_go(self) -> None:
        """The socket is being collected, in whatever thread that happens."""
        if not self.over:
            try:
                self.engine.poller.loop.call_soon_threadsafe(self.forgotten)
            except RuntimeError:
                pass  # the loop is closed, and everything with it

    def leave(self) -> bool:
        """From now on it is over, also for whoever opens it; False if it was."""
        if self.over:
            return False
        self.over = True
        self.strike_off()
        if self._opening is not None:
            self._opening.reschedule(0)
        return True

    async def while_open(self, opening: Coroutine[Any, Any, T]) -> T:
        """Cut short by the end. Raises Terminating then."""
        scope = self._opening = asyncio.timeout(None)
        try:
            async with scope:
                return await opening
        except TimeoutError:
            if not scope.expired():
                raise
            raise Terminating("the socket was closed meanwhile") from None
        finally:
            self._opening = None

    def expect_open(self, connection: Connection) -> None:
        """It stands. Raises Terminating if the socket was closed in that very turn; then it has ended."""
        if self.over:
            self.engine.kill(connection, "abandoned")
            raise Terminating("the socket was closed meanwhile")


def end_those_of(application_filter: ApplicationFilter) -> None:
    """The filter that has made them has left."""
    for kept in tuple(_of_filters.pop(application_filter, ())):
        kept.end(FILTER_LEFT)


def end_all(sockets: Iterable[Kept]) -> None:
    """Their session is over."""
    for kept in tuple(sockets):
        kept.end(SESSION_ENDED)
