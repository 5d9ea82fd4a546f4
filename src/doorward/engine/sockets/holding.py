"""What one TCP socket of a filter's holds: a local port, then a connection that stands, or peers that arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.contracts import ConnectionFlags
from doorward.api.errors import (
    AlreadyExists,
    DoorwardError,
    NotSupported,
    Terminating,
)
from doorward.engine.connecting import NOT_ADMITTED, open_connect
from doorward.engine.outcome import end_of
from doorward.engine.outer_end import outer_end
from doorward.engine.ports.listening import Port
from doorward.engine.refusals import error_of
from doorward.engine.sockets.backlog import Backlog
from doorward.engine.sockets.kept import RESET, Kept
from doorward.engine.sockets.socket_options import apply
from doorward.engine.system import open_for_system
from doorward.net.leg import Leg
from doorward.net.quiet import QuietWatch

if TYPE_CHECKING:
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.association import FilterEntry
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.outcome import End
    from doorward.engine.session import Session
    from doorward.engine.sockets.socket_options import Option
    from doorward.engine.target import Target
    from doorward.net.carrier import Carrier
    from doorward.net.reservation import Reservation

# What was sent has so long to get through the data filters after a close.
CLOSE_WAIT_S: Final = 10.0


class _OnEnd(NamedTuple):
    """What a connection calls when it has ended; see `extra.Listening`."""

    close: Callable[[], None]


class Holding(Kept):
    """See the module, for TCP."""

    __slots__ = ("_closing", "_quiet", "backlog", "carrier", "options", "reservation")

    def __init__(
        self, engine: Engine, session: Session, system: str | None, made_by: FilterEntry | None
    ) -> None:
        """Raises OutOfResources."""
        super().__init__(engine, session, system, made_by)
        self.options: dict[Option, int] = {}
        self.reservation: Reservation | None = None
        self.carrier: Carrier | None = None
        self.backlog: Backlog | None = None  # of one that listens, or is about to
        self._quiet: QuietWatch | None = None
        self._closing: asyncio.TimerHandle | None = None

    @property
    def alive(self) -> bool:
        """Whether its connection goes on."""
        return self.connection is not None and self.connection.end is None

    def expect_fresh(self) -> None:
        """It is good for a new beginning. Raises Terminating, AlreadyExists, NotSupported."""
        if self.over:
            raise Terminating("the socket is closed")
        if self.backlog is not None:
            raise NotSupported("the socket listens")
        if self.connection is not None:
            raise AlreadyExists("the socket is connected" if self.carrier else "it is being connected")

    async def connect(self, target: Target) -> None:
        """See `api.NetworkSocket`. After failure or cancellation it may be tried again."""
        engine = self.engine
        connection = engine.begin(self.session, target, self.origin, limited=self.system is None)
        if self.ip_filter is not None:
            connection.set_ip_filter(self.ip_filter)
        self.sign(connection)
        self.connection = connection
        source = None if self.reservation is None else self.reservation.name
        met: list[DoorwardError] = []
        try:
            await self.while_open(engine.open(connection, self._dial(connection, source, met)))
        finally:
            if not connection.opened or connection.end is not None:
                self.connection = None
        if connection.refusal is not None:
            raise error_of(connection.refusal, met)
        self.expect_open(connection)
        self.stand(connection)

    async def listen(self, backlog: int) -> None:
        """See `api.NetworkSocket`. After failure or cancellation the socket is bound no more."""
        reservation, self.reservation = self.reservation, None
        assert reservation is not None, "it is bound"
        self.backlog = Backlog(backlog)
        opening = self.engine.arrivals.listen_for_socket(
            self.session,
            self.origin,
            reservation,
            self._take,
            backlog=backlog,
            ip_filter=self.ip_filter,
            system=self.system,
        )
        try:
            connection = await self.while_open(opening)
        except BaseException:
            self.backlog.turn_away()
            self.backlog = None
            raise
        self.expect_open(connection)
        self.sign(connection)
        self.connection = connection
        self.admit(self.ip_filter)  # it may have been set meanwhile
        port = connection.extra.listening
        assert isinstance(port, Port)
        port.on_close = self._port_closed

    def turn_away(self) -> None:
        """Nobody has accepted it, and nobody will."""
        self.end(RESET)

    def stand(self, connection: Connection) -> None:
        """From now on it is this connection's client."""
        self.connection = connection
        self.carrier = outer_end(self.engine, connection)
        connection.extra.listening = _OnEnd(self._ended)
        external = connection.external
        if isinstance(external, Leg):
            apply(external, self.options)
        if external is not None and self.carrier is external:  # else who runs the data filters watches
            self._quiet = QuietWatch(
                self.engine.poller.loop,
                connection.ruling.limits.idle_timeout_s,
                lambda: external.sent + external.received,
                lambda: self.engine.kill(connection, "idle_timeout"),
            )
        self._give_back()

    def broke(self, error: DoorwardError) -> None:
        """A call has met this error; if the leg has failed by it, its connection is over."""
        connection, carrier = self.connection, self.carrier
        if (
            connection is not None
            and carrier is connection.external
            and carrier is not None
            and not carrier.open
        ):
            self.engine.ended(connection, end_of(error))

    def admit(self, ip_filter: IpFilter | None) -> None:
        """Who may be the peer from now on; who is, and is left out, is reset."""
        self.ip_filter = ip_filter
        connection = self.connection
        if connection is None or connection.end is not None:
            return
        if ConnectionFlags.EMULATED not in connection.flags:
            connection.set_ip_filter(ip_filter)
        peer = None if self.carrier is None else connection.peer
        if ip_filter is not None and peer is not None and not ip_filter.includes(peer):
            self.engine.kill(connection, NOT_ADMITTED)

    def end(self, end: End) -> None:
        """It is not needed any more. Idempotent. With data filters, what was sent may still get through them."""
        if not self.leave():
            return
        self._give_back()
        connection = self.connection
        if self.backlog is not None:
            self.backlog.turn_away()
        if connection is None or not connection.opened or connection.end is not None:
            return
        if end.how == "closed" and self.carrier is not None and self.carrier is not connection.external:
            loop = self.engine.poller.loop
            self._closing = loop.call_later(CLOSE_WAIT_S, self.engine.ended, connection, end)
        else:
            self.engine.ended(connection, end)

    async def _dial(
        self, connection: Connection, source: SocketName | None, met: list[DoorwardError]
    ) -> None:
        """Remembers what it raises: a refusal keeps the words of it, and not the kind."""
        try:
            if self.system is None:
                await open_connect(self.engine, connection, self.session.user, source)
            else:
                await open_for_system(self.engine, connection, self.system, source)
        except DoorwardError as error:
            met.append(error)
            raise

    def _take(self, connection: Connection) -> None:
        """A peer has arrived, and both its legs stand. Raises OutOfResources, Terminating."""
        assert self.backlog is not None
        arrived = Holding(self.engine, self.session, self.system, self.made_by)
        arrived.sign(connection)
        arrived.options = self.options.copy()
        try:
            self.backlog.put(arrived)
        except DoorwardError:
            arrived.leave()
            raise
        arrived.ip_filter = self.ip_filter
        arrived.stand(connection)

    def _port_closed(self) -> None:
        """Nobody comes any more: it was killed, or its session is over."""
        if self.backlog is not None:
            self.backlog.close()
        self.strike_off()

    def _ended(self) -> None:
        """The connection is over."""
        self.strike_off()
        if self._quiet is not None:
            self._quiet.stop()
        if self._closing is not None:
            self._closing.cancel()

    def _give_back(self) -> None:
        if self.reservation is not None:
            self.reservation.close()
            self.reservation = None
