"""A TCP port of a published server: who arrives is looked at, told to filters, and led to a machine inside.

    arrived ─▶ PROXY header? ─▶ may it come? ─▶ limits ─▶ on_accept ─▶ a machine answers ─▶ its header ─▶ carried
       │             │               │             │          │               │
       └─────────────┴───────────────┴─────────────┴──────────┴───────────────┘ reset, with a reason on record

No byte of anybody's is sent to a machine before all of this. The port itself is a `Port`, as those that clients ask
for; here is what is different.
"""

from __future__ import annotations

import time
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, Side
from doorward.api.ip_filter import IpFilter
from doorward.engine.connecting import NOT_ADMITTED
from doorward.engine.operation import Operation
from doorward.engine.ports.admittance import Leave, Terms
from doorward.engine.ports.binding import stand
from doorward.engine.ports.listening import BIND_CLOSED, Port, plain
from doorward.engine.publishing.greeting import read_greeting
from doorward.engine.target import Target
from doorward.net.acceptor import reset
from doorward.net.leg import Leg
from doorward.net.reservation import Reservation
from doorward.policy.address import canonical
from doorward.wire.errors import ProtocolError
from doorward.wire.proxy_protocol import Place, write_header

if TYPE_CHECKING:
    import socket

    from doorward.api.sockets import SocketName
    from doorward.config.model import PublishedAddress
    from doorward.engine.connection import Connection
    from doorward.engine.outcome import Refusal
    from doorward.engine.publishing.house import House
    from doorward.net.carrier import Carrier
    from doorward.policy.model import IPAddress
    from doorward.wire.proxy_protocol import Header

NOT_TRUSTED: Final = "proxy_not_trusted"
# Visitors between their arrival and their being carried; others wait in the kernel.
PENDING_MAX: Final = 1024
# Proxies that have not said for whom they come.
GREETING_MAX: Final = 1024
BACKLOG: Final = 4096


class Visit:
    """One who has come; counted for as long as the connection lives. See `admittance.Visit`."""

    __slots__ = ("_house", "_peer", "destination", "refusal")

    def __init__(self, house: House, peer: IPAddress, destination: Place | None) -> None:
        self._house: House | None = house
        self._peer = peer
        self.destination = destination  # where it wanted to go, as its proxy says
        self.refusal: Refusal | None = house.visitors.enter(peer)

    def close(self) -> None:
        """It is over. Idempotent."""
        house, self._house = self._house, None
        if house is not None:
            house.visitors.leave(self._peer)


class StreamPort:
    """See the module. One of each TCP address of a published server."""

    def __init__(self, house: House, here: PublishedAddress) -> None:
        self.here = here
        self.name: SocketName | None = None  # where it listens
        self._house = house
        self._engine = house.engine
        self._port: Port | None = None
        self._reservation: Reservation | None = None
        self._greeting: dict[Leg, None] = {}
        self._closed = False

    @property
    def is_open(self) -> bool:
        """Whether visitors are taken."""
        return self._port is not None and self._port.connection.opened and not self._port.closed

    def open(self, sock: socket.socket) -> None:
        """Filters are told, and then it listens, on this bound socket, which is owned from now on."""
        reservation = self._reservation = Reservation(str(self.here.address), self.here.port, sock=sock)
        self.name = reservation.name
        house, number = self._house, reservation.name[1]
        origin, target = house.origin("tcp", number), Target(None, None, number)
        connection = self._engine.begin(house.session, target, origin, Operation.BIND, limited=False)
        connection.refusal = None  # while the log cannot be written, each who arrives is refused
        connection.judged = house.visitors.judge("tcp", None, number)
        terms = Terms(
            self._lead,
            multiple=True,
            backlog=BACKLOG,
            welcome=self._welcome,
            pending_max=PENDING_MAX,
            room=self._has_room,
        )
        self._port = port = Port(self._engine.arrivals, connection, terms)
        extra = connection.extra
        extra.ip_filter = IpFilter.everybody()  # for filters to narrow
        if not house.published.keeps_source:
            address, server_port = house.published.to[0]
            extra.leads_to_client = extra.full_proxy = True
            extra.client_name = (str(address), server_port)
        self._engine.supervisor.spawn(self._stand(port, reservation), name="published port")

    def close(self) -> None:
        """Nobody else may come. Idempotent."""
        self._closed = True
        for leg in tuple(self._greeting):
            leg.close_now(abortive=True)
        if self._port is not None:
            self._engine.kill(self._port.connection, "closed")
        if self._reservation is not None:  # filters had not been told yet
            self._reservation.close()

    async def _stand(self, port: Port, reservation: Reservation) -> None:
        connection = port.connection
        try:
            await self._engine.open(connection, stand(port, reservation, asked_for=reservation.name))
        finally:
            reservation.close()
        if connection.refusal is None and not port.closed:
            port.on_close = self._ended
            try:
                port.start()
            except DoorwardError:
                return  # it is closed, and that was told
        elif not self._closed:
            self._ended()

    def _ended(self) -> None:
        """It does not listen, or no more, and nobody here has ended it."""
        if self._closed or self._port is None:
            return
        connection = self._port.connection
        refusal, end = connection.refusal, connection.end
        why = refusal.reason if refusal is not None else end.how if end is not None else BIND_CLOSED
        self._house.port_ended(self.here, why)

    def _has_room(self) -> bool:
        return len(self._greeting) < GREETING_MAX and self._house.room()

    # Who arrives

    def _welcome(self, port: Port, sock: socket.socket, name: SocketName) -> None:
        """Somebody, of whom nothing is known but where it comes from."""
        peer, name = plain(name)
        if not self._house.published.headers_from:
            self._admit(port, Leg(self._engine.poller, sock, Side.EXTERNAL), name)
        elif self._house.visitors.must_say(peer):
            leg = Leg(self._engine.poller, sock, Side.EXTERNAL)
            self._greeting[leg] = None
            self._engine.supervisor.spawn(self._greet(port, leg, name), name="proxy header")
        else:
            reset(sock)
            self._turn_away(port, name, NOT_TRUSTED)

    async def _greet(self, port: Port, leg: Leg, name: SocketName) -> None:
        """A proxy has to say for whom it comes."""
        try:
            header = await read_greeting(leg, self._engine.ruling.limits.handshake_timeout_s)
        except (ProtocolError, DoorwardError) as error:
            if not self._closed:
                self._turn_away(port, name, error.reason, detail=error.detail, action="fail")
        else:
            del self._greeting[leg]
            self._admit(port, leg, name, header)
        finally:
            if self._greeting.pop(leg, leg) is None:  # it was not admitted
                leg.close_now(abortive=True)

    def _admit(self, port: Port, leg: Leg, name: SocketName, header: Header | None = None) -> None:
        """It is known who comes: serve it, or turn it away. The leg is owned."""
        trusted, destination = False, None
        if header is not None:
            trusted, destination = header.is_local, header.destination
            name = name if header.source is None else (str(header.source.address), header.source.port)
        peer, name = plain(name)
        decision = self._house.visitors.judge("tcp", peer, port.name[1], trusted=trusted)
        admitted = port.connection.extra.ip_filter
        if port.closed or not decision.allowed or admitted is None or peer not in admitted:
            leg.close_now(abortive=True)
            self._turn_away(port, name, BIND_CLOSED if port.closed else NOT_ADMITTED)
            return
        port.take_in(leg, name, Leave(decision, None), Visit(self._house, peer, destination))

    def _turn_away(
        self, port: Port, name: SocketName, reason: str, *, detail: str = "", action: str = "deny"
    ) -> None:
        self._house.visitors.turned_away(
            "tcp", name, reason, detail=detail, action=action, parent=port.connection.id
        )

    # Where it is led

    async def _lead(self, connection: Connection) -> Carrier:
        """A leg to one of the machines. Raises ServersDown, LinkError kinds."""
        house, extra = self._house, connection.extra
        assert connection.peer is not None
        before_ns = time.monotonic_ns()
        leg, server = await house.reach(connection.peer, connection.ruling.limits.connect_timeout_s)
        connection.connect_us = (time.monotonic_ns() - before_ns) // 1000
        connection.origin = connection.origin._replace(
            client_address=str(server.address), client_port=server.port
        )
        leg.side = Side.INTERNAL
        version = house.published.header_version
        if version is not None:
            visit, peer_name = extra.listening, extra.peer_name
            told = visit.destination if isinstance(visit, Visit) else None
            assert peer_name is not None
            source, here = _place(peer_name), _place(extra.socket_name or peer_name)
            try:
                await leg.send(write_header(version, source, told or here))
            except BaseException:
                leg.close_now(abortive=True)
                raise
        return leg


def _place(name: SocketName) -> Place:
    return Place(canonical(ip_address(name[0].partition("%")[0])), name[1])
