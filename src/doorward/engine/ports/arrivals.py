"""What listens on clients' behalf: every open port, found by client and by name, and the ways to open one.

a client asks           open_port               policy, or provisionally   (binding)
a filter promises       bind_for_client         no policy, filters told    (promised)
                        redirect_connections    toward the client          (redirecting)
                        retroactive_allow_bind  a port that is open already
a filter is the peer    emulate_client_bind, emulate
a filter's own socket   listen_for_socket       policy, or none for the firewall's own
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, Protocol

from doorward.api.errors import BadArgument, BadContext, DoorwardError, NotFound, OutOfResources, Side
from doorward.api.filters import ClientKind
from doorward.engine.connecting import GRANTED
from doorward.engine.extra import checked_name, client_name, copied_filter
from doorward.engine.judgement import inputs_of
from doorward.engine.operation import Operation
from doorward.engine.origin import Origin
from doorward.engine.ports.admittance import Deliver, Take, Terms
from doorward.engine.ports.binding import Asked, open_for_client, open_for_socket, stand
from doorward.engine.ports.listening import Port
from doorward.engine.ports.promised import ENTRY, bind_for_client, dial_client, promise_bind
from doorward.engine.ports.redirecting import redirect_connections
from doorward.engine.refusals import error_of, keeping
from doorward.engine.system import allow_for_system
from doorward.engine.target import Target
from doorward.engine.udp.expected import expect_peers
from doorward.policy.model import Action, Decision

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.chain import Attached
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.grants import Offer, Promise
    from doorward.engine.ports.wanted import Wanted
    from doorward.engine.session import Session
    from doorward.net.openings import Openings
    from doorward.net.reservation import Reservation

NOBODY_YET: Final = Target(None, None, 0)
# Stands for the filter where the port is one that no client has asked for: whoever hands over a peer is it.
ANY_FILTER: Final = "any filter"


class Opened(Protocol):
    """Something open on a client's behalf."""

    @property
    def session(self) -> Session: ...


class Arrivals:
    """See the module. One of each engine."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.openings: Openings | None = None  # of a gateway; set by the service
        self._open: dict[str, set[Opened]] = {}  # by client address

    @property
    def open(self) -> int:
        """How many ports are open, or emulated."""
        return sum(map(len, self._open.values()))

    def enter(self, opened: Opened) -> None:
        """One more of this client's. Raises OutOfResources."""
        client_address = opened.session.client_address
        most = self.engine.ruling.limits.binds_per_client_max
        if len(self._open.get(client_address, ())) >= most:
            raise OutOfResources(f"this client has {most} ports open already", side=Side.OURS)
        self._open.setdefault(client_address, set()).add(opened)

    def leave(self, opened: Opened) -> None:
        """It is closed. Idempotent."""
        client_address = opened.session.client_address
        of_client = self._open.get(client_address)
        if of_client is not None:
            of_client.discard(opened)
            if not of_client:
                del self._open[client_address]

    async def open_port(
        self, session: Session, origin: Origin, asked: Asked, deliver: Deliver
    ) -> tuple[Connection, Port | None]:
        """A port for one peer, as a client has asked for it. Look at the connection's `refusal`: then there is none."""
        engine = self.engine
        connection = engine.begin(session, asked.peer, origin, Operation.BIND)
        terms = Terms(deliver, timeout_s=connection.ruling.limits.bind_timeout_s)

        async def opening() -> None:
            await open_for_client(engine, Port(self, connection, terms), asked)

        await engine.open(connection, opening())
        return connection, _started(connection)

    async def listen_for_socket(
        self,
        session: Session,
        origin: Origin,
        reservation: Reservation,
        take: Take,
        *,
        backlog: int,
        ip_filter: IpFilter | None,
        system: str | None = None,
    ) -> Connection:
        """A port for a socket of a filter's own; `system` names the filter if it is the firewall's.

        `take` gets each connection that stands, without a client's leg. It ends when the connection ends; use
        `set_ip_filter` on that. Raises AccessDenied and what opening it meets; the reservation is used up.
        """
        engine = self.engine
        terms = Terms(take=take, multiple=True, system=system is not None, backlog=backlog)
        try:
            connection = engine.begin(session, NOBODY_YET, origin, Operation.BIND, limited=system is None)
            connection.set_ip_filter(ip_filter)

            async def opening() -> None:
                port = Port(self, connection, terms)
                if system is None:
                    await open_for_socket(engine, port, reservation)
                else:
                    allow_for_system(engine, connection, system)
                    await stand(port, reservation, asked_for=reservation.name)

            met: list[DoorwardError] = []
            await engine.open(connection, keeping(opening(), met))
        finally:
            reservation.close()
        if connection.refusal is not None:
            raise error_of(connection.refusal, met)
        _started(connection)
        return connection

    async def bind_for_client(self, session: Session, wanted: Wanted, offer: Offer) -> list[Connection]:
        """See `api.Session`."""
        return await bind_for_client(self, session, wanted, offer)

    async def redirect_connections(
        self, session: Session, targets: Sequence[SocketName], address: str, offer: Offer
    ) -> list[Promise]:
        """See `api.Session`."""
        return await redirect_connections(self, session, targets, address, offer)

    def retroactive_allow_bind(
        self,
        session: Session,
        transport: TransportName,
        bound: SocketName,
        ip_filter: IpFilter,
        offer: Offer,
    ) -> Promise:
        """See `api.Session`."""
        session.expect_alive()
        if copied_filter(ip_filter) is None:
            raise BadArgument("who may come? an IP filter must say it")
        if transport == "udp":
            return expect_peers(session, bound, ip_filter, offer)
        name = checked_name(bound)
        port = self._of_client(session, name)
        promise = promise_bind(session, "tcp", name[1], offer)
        promise.socket_name = port.name
        if port.admittance.admits_already(ip_filter, port.name[1]):
            promise.cancel()
        else:
            port.admittance.admit(promise, ip_filter, port.way(ip_filter))
        return promise

    async def emulate_client_bind(
        self, session: Session, client_address: SocketName, advertised: SocketName, *, full_proxy: bool
    ) -> Connection:
        """See `api.Session`."""
        session.expect_alive()
        client, told = client_name(session, client_address), checked_name(advertised)
        origin = Origin(ENTRY, ClientKind.FILTER, session.client_address, client[1])
        engine, target = self.engine, NOBODY_YET._replace(port=told[1])
        connection = engine.begin(session, target, origin, Operation.BIND)
        is_own = engine.own_addresses.is_own
        inputs = inputs_of(session, target, session.user, time.time(), is_own, "tcp-in")
        connection.judged = Decision(Action.ALLOW, GRANTED, inputs, connection.ruling.policy.revision)
        extra = connection.extra
        extra.bind_emulator, extra.socket_name, extra.full_proxy = ANY_FILTER, told, full_proxy
        extra.leads_to_client, extra.client_name = True, client
        met: list[DoorwardError] = []

        async def opening() -> None:
            Port(self, connection, Terms(dial_client, multiple=True))

        await engine.open(connection, keeping(opening(), met))
        if connection.refusal is not None:
            raise error_of(connection.refusal, met)
        return connection

    def emulate(
        self, listening: Connection, emulator: Attached, remote: SocketName, local: SocketName
    ) -> Connection:
        """See `api.Connection.emulate_connection`."""
        port = listening.extra.listening
        if not isinstance(port, Port):
            raise BadContext("this bind does not stand")
        if listening.extra.bind_emulator == ANY_FILTER:
            emulator = emulator._replace(name=type(emulator.data_filter).__name__)
        return port.emulate(emulator, remote, local)

    def client_known(self, listening: Connection) -> None:
        """Where its peers are led was said just now."""
        port = listening.extra.listening
        if isinstance(port, Port):
            port.client_known()

    def _of_client(self, session: Session, name: SocketName) -> Port:
        """The port that this client has asked for and knows by this name. Raises NotFound."""
        for opened in self._open.get(session.client_address, ()):
            if (
                isinstance(opened, Port)
                and opened.session is session
                and opened.terms.promise is None
                and opened.is_at(name)
            ):
                return opened
        raise NotFound(f"this client has no port bound at {name[0]} port {name[1]}")


def _started(connection: Connection) -> Port | None:
    """Let peers in, if it stands."""
    port = connection.extra.listening
    if connection.refusal is not None or not isinstance(port, Port):
        return None
    port.start()
    return port
