"""Traffic of machines that route through this one: TCP, datagrams and DNS, caught by the kernel's packet filter.

    client ── SYN to a server ──▶ prerouting: tproxy or redirect ──▶ our socket ──▶ session of its address ──▶ engine

As for a captured program, the kernel has said yes to the client before anybody was asked, so a refusal is a reset as
soon as it is known. Without this process there is no socket, and what comes up is rejected by the packet filter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.errors import DoorwardError, OutOfResources, Side
from doorward.capture.sockets import BACKLOG
from doorward.engine.connecting import open_connect
from doorward.engine.names.asked import WAITING_OF_ALL_MAX
from doorward.engine.names.memory import target_of_address
from doorward.entry.captured_dns import DNS_PORT, CapturedNames
from doorward.entry.routed_answers import RoutedAnswers
from doorward.entry.routed_clients import RoutedClients
from doorward.entry.routed_udp import MAPPINGS_MAX, RoutedDatagrams
from doorward.net.acceptor import Acceptor, reset
from doorward.net.leg import Leg
from doorward.net.redirected import before_redirect, left_as_it_was
from doorward.net.transparent import Borrowed

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from doorward.api.sockets import SocketName
    from doorward.config.model import Transparent
    from doorward.engine.engine import Engine
    from doorward.net.datagrams import SocketAddress
    from doorward.policy.model import IPAddress

PLENTY: Final = 2**20
_ORIGINAL: Final = {"tproxy": left_as_it_was, "redirect": before_redirect}


class TransparentSockets(NamedTuple):
    """What the packet filter leads to, bound; `refusing` says to senders of datagrams that they were refused."""

    tcp: list[socket.socket]
    udp: list[socket.socket]
    refusing: dict[int, socket.socket]

    def close(self) -> None:
        """Close all of them. Idempotent."""
        for sock in (*self.tcp, *self.udp, *self.refusing.values()):
            sock.close()


class TransparentEntry:
    """See the module. `serving` counts TCP clients."""

    def __init__(
        self,
        engine: Engine,
        settings: Transparent,
        sockets: TransparentSockets,
        has_room: Callable[[], bool],
        descriptors: int = PLENTY,
    ) -> None:
        """Takes over the sockets. Raises AddressInUse, OutOfResources; they are closed then.

        Datagrams get a part of this process's `descriptors`, so that who invents sources leaves room for TCP.
        """
        self._engine = engine
        self.settings = settings
        self.serving = 0
        self._original = _ORIGINAL[settings.method]
        self._clients = RoutedClients(engine, settings, has_room)
        self._answers = RoutedAnswers(engine.udp.inbox, self._caught_by_answer, max(1, descriptors // 8))
        self._names = CapturedNames(self._clients, self._answers, WAITING_OF_ALL_MAX)
        self._acceptors: list[Acceptor] = []
        try:
            for sock in sockets.tcp:
                self._acceptors.append(Acceptor(engine.poller, sock, BACKLOG, self._on_peer, has_room))
        except DoorwardError:
            self.stop_listening()
            sockets.close()
            raise
        self._datagrams = RoutedDatagrams(
            self._clients, sockets.udp, sockets.refusing, self._answers, self._names
        )
        self._datagrams.mappings_max = min(MAPPINGS_MAX, max(1, descriptors // 4))
        self.configure(settings)

    def configure(self, settings: Transparent) -> None:
        """Go by these from now on: the port and the method are as they were."""
        self.settings = settings
        self._clients.configure(settings)
        self._datagrams.names = self._names if settings.dns == "answer" else None

    def start(self) -> None:
        """Begin to serve. Raises OutOfResources."""
        self._datagrams.start()
        for acceptor in self._acceptors:
            acceptor.start()

    def stop_listening(self) -> None:
        """Take nothing more; TCP that is being served goes on. Idempotent."""
        for acceptor in self._acceptors:
            acceptor.close()

    def close(self) -> None:
        """It is over, for datagrams too. Idempotent."""
        self.stop_listening()
        self._datagrams.end()
        self._answers.close()
        self._names.close()

    def _caught_by_answer(self, payload: memoryview, client: SocketAddress, meant_for: bytes) -> None:
        self._datagrams.caught(payload, client, meant_for)

    def _on_peer(self, sock: socket.socket, name: SocketName) -> None:
        """A connection of a client's, caught on its way."""
        try:
            address, port = self._original(sock)
        except OSError:
            sock.close()  # it is gone already
            return
        if not self._clients.are_to_be_served(name, address, port, "tcp"):
            reset(sock)
            return
        leg = Leg(self._engine.poller, sock, Side.INTERNAL)
        self.serving += 1
        self._clients.spawn(self._serve(leg, name, address, port))

    async def _serve(self, leg: Leg, client: SocketName, address: IPAddress, port: int) -> None:
        """One connection. Whatever happens, its leg is closed or given to the relay."""
        try:
            if port == DNS_PORT and self.settings.dns == "answer":
                await self._names.serve(leg, client)
            else:
                await self._connect(leg, client, address, port)
        except OutOfResources:
            pass  # no room for one more session: a reset
        finally:
            self.serving -= 1
            if leg.open:
                leg.close_now(abortive=True)

    async def _connect(self, leg: Leg, client: SocketName, address: IPAddress, port: int) -> None:
        """Raises OutOfResources when there is no room for a session."""
        engine, clients = self._engine, self._clients
        session = clients.session_of(client)
        target = target_of_address(engine, session, address, port)
        borrowed = clients.borrowed(client)
        kept = borrowed(address) if borrowed is not None else None
        source = None if kept is None else Borrowed(kept)
        connection = engine.begin(session, target, clients.origin_of(client))
        await engine.open(connection, open_connect(engine, connection, session.user, source))
        if connection.refusal is None:
            await engine.carry(connection, leg)
