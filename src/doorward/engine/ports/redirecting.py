"""Ports toward the client that lead to targets of a filter's choice (`redirect_connections`).

Only the session's own client is let in. Each of its connections goes out as one that was promised: filters are told,
policy is not asked.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from doorward.api.errors import AccessDenied, BadArgument, Side
from doorward.api.filters import ClientKind
from doorward.engine.connecting import NOT_ADMITTED, open_connect
from doorward.engine.extra import checked_name
from doorward.engine.grants import Ports, connect_promise
from doorward.engine.origin import Origin
from doorward.engine.ports.admittance import BACKLOG, PENDING_MAX, TURNED_AWAY_TOLD_MAX
from doorward.engine.ports.free_port import reserve_run
from doorward.engine.ports.listening import BIND_CLOSED, BIND_USED
from doorward.engine.recording import record_of_stranger
from doorward.engine.target import Target
from doorward.net.acceptor import Acceptor, facing, reset
from doorward.net.leg import Leg
from doorward.policy.address import canonical

if TYPE_CHECKING:
    import socket

    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.grants import ConnectPromise, Offer, Promise
    from doorward.engine.ports.arrivals import Arrivals
    from doorward.engine.session import Session
    from doorward.net.reservation import Reservation

ENTRY: Final = "redirect"
# Targets of one call.
TARGETS_MAX: Final = 64


async def redirect_connections(
    arrivals: Arrivals, session: Session, targets: Sequence[SocketName], address: str, offer: Offer
) -> list[Promise]:
    """See `api.Session.redirect_connections`."""
    session.expect_alive()
    if not 1 <= len(targets) <= TARGETS_MAX:
        raise BadArgument(f"{len(targets)} targets; 1 to {TARGETS_MAX} are possible at once")
    here = checked_name((address, 0))[0] if address else _reached_on(session, offer.parent)
    run = reserve_run("tcp", here, 0, len(targets))
    made: list[ConnectPromise] = []
    try:
        for target, reservation in zip(targets, run, strict=True):
            name = checked_name(target)
            promise = connect_promise(session, "tcp", name[0], Ports(name[1], name[1]), offer)
            made.append(promise)
            Redirection(arrivals, session, promise, reservation)
    except BaseException:
        for unused in made:
            unused.cancel()
        raise
    finally:
        for reservation in run:
            reservation.close()
    return [*made]


class Redirection:
    """One port. It is open as long as its promise is good."""

    def __init__(
        self, arrivals: Arrivals, session: Session, promise: ConnectPromise, reservation: Reservation
    ) -> None:
        """Raises OutOfResources, AddressInUse; the caller cancels the promise then."""
        self.session = session
        self._arrivals = arrivals
        self._engine = arrivals.engine
        self._promise = promise
        self._turned_away = 0
        self._pending = 0
        arrivals.enter(self)
        promise.on_end = self._close
        self._acceptor: Acceptor | None = None
        self._acceptor = Acceptor(
            self._engine.poller,
            reservation.take(),
            BACKLOG,
            self._arrived,
            lambda: self._pending < PENDING_MAX,
        )
        promise.socket_name = self._acceptor.name
        self._acceptor.start()

    def _close(self) -> None:
        """The promise is over; who has come through goes on."""
        if self._acceptor is not None:
            self._acceptor.close()
        self._arrivals.leave(self)

    def _arrived(self, sock: socket.socket, name: SocketName) -> None:
        session, engine = self.session, self._engine
        parent = self._promise.parent
        kind = ClientKind.FILTER if parent is None else parent.origin.kind
        origin = Origin(ENTRY, kind, name[0], name[1])
        if canonical(ipaddress.ip_address(name[0].partition("%")[0])) != session.address:
            reset(sock)
            self._turned_away += 1
            if self._turned_away <= TURNED_AWAY_TOLD_MAX:
                engine.recorder.append(record_of_stranger(origin, "deny", NOT_ADMITTED))
            return
        leg = Leg(engine.poller, sock, Side.INTERNAL)
        target = Target(None, self._promise.address, self._promise.first_port)
        connection = engine.begin(session, target, origin)
        connection.internal = leg
        self._pending += 1
        engine.supervisor.spawn(self._serve(connection, leg), name="redirected client")

    async def _serve(self, connection: Connection, leg: Leg) -> None:
        """One connection of the client's, to its end or into the relay."""
        engine = self._engine
        try:
            await engine.open(connection, self._open(connection))
        finally:
            self._pending -= 1
            if self._acceptor is not None:
                self._acceptor.resume()
        if connection.refusal is None:
            await engine.carry(connection, leg)

    async def _open(self, connection: Connection) -> None:
        """As for any client, with the promise's leave. Raises DoorwardError, HandlerFailed."""
        if not self._promise.active:
            raise AccessDenied(BIND_USED if self._promise.uses else BIND_CLOSED)
        await open_connect(self._engine, connection, self.session.user, promise=self._promise)


def _reached_on(session: Session, parent: Connection | None) -> str:
    """Our address that the client can reach: the one it has reached us on, if that is known. Raises Unreachable."""
    internal = None if parent is None else parent.internal
    if isinstance(internal, Leg) and internal.open:
        return internal.local_name[0]
    return facing(session.address)
