"""A captured program's TCP, and all that is caught of it together: the way in of who knows of no proxy.

The kernel has said yes to the program before anybody was asked. So a refusal is a reset, as soon as it is known, and
a program that waits for the other side to speak first learns of it without having said a word.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, OutOfResources, Side
from doorward.capture.sockets import BACKLOG, Place
from doorward.engine.names.memory import target_of_address
from doorward.engine.recording import record_of_stranger
from doorward.entry.captured_answers import Answers
from doorward.entry.captured_dns import DNS_PORT, CapturedNames
from doorward.entry.captured_program import CapturedProgram
from doorward.entry.captured_udp import CapturedDatagrams
from doorward.net.acceptor import Acceptor, reset
from doorward.net.leg import Leg, plain_name

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.engine import Engine
    from doorward.entry.captured_program import LaunchedProgram
    from doorward.policy.model import IPAddress

# The program has tried to reach the place where it is caught, which is nobody's server.
NOT_CAUGHT: Final = "capture_address"
# Far ends that answer a program's datagrams at once, where descriptors are others' too.
SOCKETS_BESIDE_OTHERS: Final = 64


class CapturedEntry:
    """Serves one captured program."""

    def __init__(
        self,
        engine: Engine,
        sockets: Mapping[Place, socket.socket],
        channel: socket.socket,
        has_room: Callable[[], bool],
        launched: LaunchedProgram | None = None,
    ) -> None:
        """Takes over the sockets. `launched` is whose they are.

        Raises DoorwardError kinds when there is no room for it; the sockets are closed then.
        """
        self._engine = engine
        self.serving = 0
        try:
            self._program = CapturedProgram(engine, has_room, launched)
            beside = launched is not None and launched.has_neighbours
            self._answers = Answers(engine.poller, channel, SOCKETS_BESIDE_OTHERS if beside else None)
            self._names = CapturedNames(self._program, self._answers)
            self._acceptors = [
                self._acceptor(place, sock) for place, sock in sockets.items() if place.kind == "tcp"
            ]
        except DoorwardError:
            for sock in sockets.values():
                sock.close()
            raise
        udp = {place: sock for place, sock in sockets.items() if place.kind == "udp"}
        caught = [sock for place, sock in udp.items() if place.is_catching]
        self._resolvers = [sock for place, sock in udp.items() if not place.is_catching]
        refusing = {place.version: sock for place, sock in sockets.items() if place.kind == "icmp"}
        self._datagrams = CapturedDatagrams(self._program, caught, refusing, self._answers, self._names)

    @property
    def session_id(self) -> int:
        """The number of the program's session."""
        return self._program.session_id

    def start(self) -> None:
        """Begin to serve what has come meanwhile, and what comes. Raises OutOfResources."""
        self._answers.start()
        self._datagrams.start()
        self._names.start(self._resolvers)
        for acceptor in self._acceptors:
            acceptor.start()

    def stop_listening(self) -> None:
        """Take nothing more; what is being served goes on. Idempotent."""
        for acceptor in self._acceptors:
            acceptor.close()
        self._datagrams.close()

    def close(self) -> None:
        """It is over, also for datagrams on their way to the program. Idempotent."""
        self.stop_listening()
        self._answers.close()
        self._names.close()
        self._program.close()

    def _acceptor(self, place: Place, sock: socket.socket) -> Acceptor:
        """Raises OutOfResources."""
        on_peer = self._on_peer if place.is_catching else self._on_resolver
        return Acceptor(self._engine.poller, sock, BACKLOG, on_peer, self._program.has_room)

    def _on_peer(self, sock: socket.socket, name: SocketName) -> None:
        """A connection of the program's, caught on its way to `getsockname`."""
        try:
            meant_for = plain_name(sock.getsockname())
        except OSError:
            sock.close()  # it is gone already
            return
        address = ipaddress.ip_address(meant_for[0])
        if not self._program.is_own(ipaddress.ip_address(name[0])) or self._program.is_own(address):
            self._refuse(sock, name, meant_for)
            return
        leg = Leg(self._engine.poller, sock, Side.INTERNAL)
        self.serving += 1
        if meant_for[1] == DNS_PORT:
            self._program.spawn(self._serve_names(leg, name))
        else:
            self._program.spawn(self._serve(leg, address, meant_for[1], name[1]))

    def _on_resolver(self, sock: socket.socket, name: SocketName) -> None:
        """A connection to a nameserver on the program's own loopback."""
        self.serving += 1
        leg = Leg(self._engine.poller, sock, Side.INTERNAL)
        self._program.spawn(self._serve_names(leg, name))

    async def _serve(self, leg: Leg, address: IPAddress, port: int, of: int) -> None:
        """One connection. Whatever happens, its leg is closed or given to the relay."""
        program, engine = self._program, self._engine
        try:
            session = program.session
            target = target_of_address(engine, session, address, port)
            connection = await engine.connect(session, target, program.origin(of), user=session.user)
            if connection.refusal is None:
                await engine.carry(connection, leg)
        except OutOfResources:
            pass  # no session for it: the program has ended meanwhile, or the table is full
        finally:
            self.serving -= 1
            if leg.open:
                leg.close_now(abortive=True)

    async def _serve_names(self, leg: Leg, of: SocketName) -> None:
        try:
            await self._names.serve(leg, of)
        except OutOfResources:
            pass  # as above
        finally:
            self.serving -= 1
            if leg.open:
                leg.close_now(abortive=True)

    def _refuse(self, sock: socket.socket, name: SocketName, meant_for: SocketName) -> None:
        """Not from the program's own address, or to it: a loop, or a program that plays with sources."""
        reset(sock)
        record = record_of_stranger(
            self._program.origin(name[1]), "deny", NOT_CAUGHT, host=meant_for[0], port=meant_for[1],
            detail=f"from {name[0]}",
        )  # fmt: skip
        self._engine.recorder.append(record)
