"""One client of a published UDP port: its mapping, whose far end it is, and a socket of its own toward a machine.

    client ── the published port (shared) ── mapping, filters ── own connected socket ── machine

The kernel gives a connected socket nothing but what its machine sends, and tells of a machine that refuses.
"""

from __future__ import annotations

import errno
import ipaddress
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, ServersDown, Side
from doorward.api.events import BindEvent, EventKind
from doorward.engine.connecting import was_denied
from doorward.engine.dispatch import dispatch
from doorward.engine.outcome import End
from doorward.engine.publishing.servers import ALL_DOWN
from doorward.engine.target import target_of
from doorward.engine.udp.destination import socket_address
from doorward.engine.udp.mapping import Mapping
from doorward.net.datagrams import DatagramSocket, Inbox, OnDatagram
from doorward.net.seam import translate
from doorward.net.transparent import allow_borrowing

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.outcome import Refusal
    from doorward.engine.publishing.house import House
    from doorward.engine.publishing.servers import Server
    from doorward.engine.udp.destination import Destination, FarEnd
    from doorward.net.datagrams import SocketAddress
    from doorward.policy.model import IPAddress

# How it ended, where the machine's host has answered that nobody takes its datagrams.
REFUSED: Final = "connection_refused"
# Datagrams that wait while a client's mapping is being opened.
HELD_DATAGRAMS_MAX: Final = 16
HELD_BYTES_MAX: Final = 64 * 1024


class Flow:
    """See the module, and `ClientSide`: to its mapping the machine is what a client is elsewhere."""

    __slots__ = ("_held", "_house", "_mapping", "_on_close", "_shared", "_toward", "connection", "counted", "peer",
                 "placed", "refused", "unsent", "where")  # fmt: skip

    def __init__(
        self, house: House, shared: DatagramSocket, where: SocketAddress, on_close: Callable[[Flow], None]
    ) -> None:
        """`shared` is the published port's socket; `on_close` hears of the end of one that stood."""
        self._house = house
        self._shared = shared
        self._on_close = on_close
        self._held: list[bytes] | None = []  # None once it stands, or cannot
        self._mapping: Mapping | None = None
        self._toward: Toward | None = None
        self.where = where
        self.peer: IPAddress = _address_of(where)
        self.connection: Connection | None = None
        self.counted = False
        self.refused: Refusal | None = None
        self.placed = 0.0
        self.unsent = 0

    @property
    def last(self) -> float:
        """The loop's time of its last datagram; 0 before there is one."""
        return 0.0 if self._mapping is None else self._mapping.last

    @property
    def stands(self) -> bool:
        """Whether datagrams pass, or are being judged."""
        return self._held is None and self._mapping is not None and not self._mapping.over

    def take(self, payload: memoryview) -> None:
        """From the client. The payload is valid until the call returns."""
        if self._held is None:
            if self._mapping is not None:
                self._mapping.from_outside(payload, self.where)
        elif (
            len(self._held) < HELD_DATAGRAMS_MAX
            and sum(map(len, self._held)) + len(payload) <= HELD_BYTES_MAX
        ):
            self._held.append(bytes(payload))

    async def open(self, connection: Connection) -> None:
        """A machine, events, the mapping. A refusal is left on the connection; raises DoorwardError, HandlerFailed."""
        house, engine = self._house, self._house.engine
        servers = house.servers.order(self.peer)
        if not servers:
            raise ServersDown(ALL_DOWN, side=Side.INTERNAL)
        mapping = self._mapping = FlowMapping(connection, engine.udp)
        extra = connection.extra
        extra.udp = extra.listening = mapping
        extra.socket_name, extra.peer_name = self._shared.name, (str(self.peer), self.where[1])
        extra.full_proxy = not house.published.keeps_source
        mapping.client = self
        mapping.outers[self._shared.version] = Lent(self._shared)
        mapping.admits = self._is_client
        entries = connection.ruling.associations.of(connection.way, connection.decision.rule)
        connection.entries = tuple(entry for entry in entries if EventKind.BIND in entry.interest.events)
        if connection.entries:
            event = BindEvent(connection, "udp", *self._shared.name, connection.protocol)
            await dispatch(connection, EventKind.BIND, event)
            if was_denied(connection):
                return
        bound = ipaddress.ip_address(self._shared.name[0])
        made = engine.grants.attach(connection, EventKind.BIND, bound, self._shared.name[1])
        self._lead(connection, servers[0])
        attached, connection.attached = connection.attached + made, []
        mapping.filters.start(attached)

    def start(self) -> Mapping | None:
        """It stands: what waits goes its way. None if it has ended meanwhile."""
        held, self._held = self._held or [], None
        mapping = self._mapping
        if mapping is None or mapping.over:
            return None
        for payload in held:
            mapping.from_outside(memoryview(payload), self.where)
        return mapping if self.stands else None

    def give_up(self, refusal: Refusal) -> None:
        """It cannot be: what comes is dropped."""
        self._held = None
        self.refused = refusal

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> bool:
        """To the machine."""
        toward = self._toward
        if toward is None or not toward.pass_on(payload):
            self.unsent += 1
            return False
        return True

    def end_for(self, destination: Destination) -> None:
        """They come by here: the port that they come in at is shared with every other client."""

    def forget(self, destination: Destination) -> None:
        """The client was silent for long, and may speak again."""

    def close(self) -> None:
        """The mapping has ended. Idempotent."""
        toward, self._toward = self._toward, None
        if toward is not None:
            self.unsent += toward.dropped + toward.failed
            self._house.engine.udp.release(toward)
        self._on_close(self)

    def notes(self) -> list[tuple[str, int]]:
        """What did not reach the machine."""
        toward = self._toward
        more = 0 if toward is None else toward.dropped + toward.failed
        return [("to the server", self.unsent + more)]

    def _is_client(self, where: SocketAddress) -> bool:
        return where == self.where

    def _lead(self, connection: Connection, server: Server) -> None:
        """A socket toward this machine. Raises LinkError kinds, OutOfResources."""
        engine, keeps_source = self._house.engine, self._house.published.keeps_source
        sock = _connected(server, self.peer if keeps_source else None)
        toward = Toward(engine.udp.inbox, sock, self._from_server, lambda: self._refused(server))
        self._toward = toward
        engine.udp.adopt(toward)
        connection.origin = connection.origin._replace(
            client_address=str(server.address), client_port=server.port
        )

    def _from_server(self, payload: memoryview, address: SocketAddress) -> None:
        """An answer. The machine cannot be the first to speak, nor the last once its client is forgotten."""
        mapping = self._mapping
        destination = (
            None if mapping is None else mapping.memory.get(target_of(str(self.peer), self.where[1]))
        )
        if mapping is None or destination is None:
            self.unsent += 1
            return
        mapping.outward(destination, payload)

    def _refused(self, server: Server) -> None:
        """Nobody takes datagrams there: the next one of this client's goes to another machine, if there is one."""
        self._house.servers.failed(server, "it refuses datagrams")
        if self.connection is not None:
            self._house.engine.ended(self.connection, End(REFUSED, Side.INTERNAL))


class FlowMapping(Mapping):
    """A mapping whose client was counted where it arrived, and not as the machine that it is led to."""

    __slots__ = ()

    def _may_ask(self) -> bool:
        return True


class Lent(DatagramSocket):
    """The published port's socket as one of its many mappings sees it: to send through, and not to close."""

    __slots__ = ("_lender",)

    def __init__(self, lender: DatagramSocket) -> None:
        """Nothing is owned: `open` is False from the start."""
        self._lender = lender
        self._fd = -1
        self._again = None
        self._lent = self._dropped = self._failed = self._unheard = self.failure = 0
        self.name = lender.name

    @property
    def version(self) -> int:
        """Of IP: 4 or 6."""
        return self._lender.version

    def send(self, data: memoryview | bytes | bytearray, address: SocketAddress) -> bool:
        """See `DatagramSocket.send`."""
        if self._lender.send(data, address):
            return True
        self._dropped += 1
        return False

    def close(self) -> None:
        """It is not ours."""


class Toward(DatagramSocket):
    """Connected to one machine. `on_refused` hears of a refusal, which ends nothing by itself."""

    __slots__ = ("_on_refused",)

    def __init__(
        self, inbox: Inbox, sock: socket.socket, on_datagram: OnDatagram, on_refused: Callable[[], None]
    ) -> None:
        super().__init__(inbox, sock, on_datagram)
        self._on_refused = on_refused

    def ready(self, fd: int, events: int) -> None:
        """An edge; what the kernel has to say of an earlier datagram comes first."""
        if events & select.EPOLLERR and self.open:
            number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if number == errno.ECONNREFUSED:
                self._on_refused()
                return
        super().ready(fd, events)

    def pass_on(self, data: memoryview | bytes) -> bool:
        """To the machine; False if it was dropped."""
        try:
            self._socket.send(data)
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                return False
            # Of the datagram before, and told once; this one is sent by asking again.
            self._inbox.poller.loop.call_soon(self._told_refused)
            return False
        return True

    def _told_refused(self) -> None:
        if self.open:
            self._on_refused()


def _connected(server: Server, source: IPAddress | None) -> socket.socket:
    """A socket that hears this machine alone; from `source`, if that is not to be us. Raises LinkError kinds."""
    family = socket.AF_INET if server.address.version == 4 else socket.AF_INET6
    try:
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise translate(error.errno, Side.OURS) from None
    try:
        if source is not None:
            allow_borrowing(sock)
            sock.bind((str(source), 0))
        sock.connect(socket_address(server.address, server.port))
    except OSError as error:
        sock.close()
        raise translate(error.errno, Side.OURS) from None
    return sock


def _address_of(where: SocketAddress) -> IPAddress:
    """Raises DoorwardError kinds: never for what the kernel has written."""
    address = target_of(where[0].partition("%")[0], where[1]).address
    if address is None:
        raise DoorwardError(f"{where[0]!r} is no address")
    return address
