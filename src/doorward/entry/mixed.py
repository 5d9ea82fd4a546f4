"""The mixed port: SOCKS and HTTP proxying on one listener, told apart by the first byte.

    0x04, 0x05      SOCKS4(a), SOCKS5
    A-Z, a-z        an HTTP method
    anything else   refused: nothing is guessed

One task serves a client from its first byte until its bytes belong to the relay, or until it is refused.
"""

from __future__ import annotations

import socket
from functools import cache
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, HandshakeTimedOut, OutOfResources, Side, TimedOut
from doorward.api.filters import ClientKind
from doorward.engine.engine import Engine
from doorward.engine.origin import Origin
from doorward.engine.session import Session
from doorward.entry.authentication import Authenticator
from doorward.entry.client import HANDSHAKE_BYTES, Client, Lobby
from doorward.net.farewell import farewell
from doorward.net.leg import Leg
from doorward.net.seam import translate
from doorward.wire.errors import ProtocolError

if TYPE_CHECKING:
    from doorward.entry.http import HttpServer
    from doorward.entry.socks import SocksServer
    from doorward.net.front import Visitor
    from doorward.wire.socks import Request

_SOCKS: Final = b"\x04\x05"
_TLS_HANDSHAKE: Final = b"\x16"


class MixedEntry:
    """Serves every client of the mixed port."""

    def __init__(self, engine: Engine, authenticator: Authenticator) -> None:
        self._engine = engine
        self._authenticator = authenticator
        self._lobby = Lobby()
        self.serving = 0

    def on_client(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """A client was accepted."""
        self._welcome(Leg(self._engine.poller, sock, Side.INTERNAL), address)

    def on_visitor(self, visitor: Visitor) -> None:
        """A client that a front has listened to. It has the rest of its time."""
        leg = Leg(self._engine.poller, visitor.socket, Side.INTERNAL)
        if visitor.late:
            leg.abort(_late(self._engine.ruling.limits.handshake_timeout_s))
        elif visitor.errno:
            leg.abort(translate(visitor.errno, Side.INTERNAL))
        leg.put_back(visitor.said)
        self._welcome(leg, visitor.address, visitor.answered, visitor.waited_s)

    def part(self, visitor: Visitor, answer: bytes | None) -> None:
        """Tell a client of a front why not, and close; None resets it."""
        leg = Leg(self._engine.poller, visitor.socket, Side.INTERNAL)
        if answer is None:
            leg.close_now(abortive=True)
            return
        self.serving += 1
        self._engine.supervisor.spawn(self._part(leg, answer), name="farewell")

    async def _part(self, leg: Leg, answer: bytes) -> None:
        try:
            await farewell(leg, answer)
        finally:
            self.serving -= 1
            leg.close_now()

    def _welcome(
        self, leg: Leg, address: tuple[str, int], answered: bool = False, waited_s: float = 0.0
    ) -> None:
        client = Client(self._engine, self._authenticator, self._lobby, leg, *address, answered, waited_s)
        self.serving += 1
        self._engine.supervisor.spawn(self._serve(client), name="client")

    def close(self) -> None:
        """Part from clients that only wait; who is being served goes on, and is parted from afterwards."""
        self._lobby.close()

    async def _serve(self, client: Client) -> None:
        """One client. Whatever happens, its leg is closed or given to the relay."""
        try:
            await self._speak(client)
        finally:
            self.serving -= 1
            if client.leg.open:
                client.leg.close_now(abortive=True)

    async def _speak(self, client: Client) -> None:
        """One deadline for everything up to a SOCKS request; HTTP has its own for each request."""
        timeout_s = self._engine.ruling.limits.handshake_timeout_s
        left_s = max(0.0, timeout_s - client.waited_s)
        deadline = self._engine.poller.loop.call_later(left_s, _too_late, client.leg, timeout_s)
        try:
            first = await self._first_bytes(client)
            if first[:1] in _SOCKS:
                asked = await self._ask_socks(_socks_server()(client), first) if first else None
                deadline.cancel()
                if asked is not None:
                    await self._answer_socks(*asked)
                return
        finally:
            deadline.cancel()
        if first[:1].isalpha():
            await _http_server()(client).serve(first)
        else:
            reason = "tls_on_plain_port" if first[:1] == _TLS_HANDSHAKE else "unknown_protocol"
            client.stranger(_unknown(client), "fail", reason, detail=f"first byte 0x{first[0]:02x}")
            await farewell(client.leg, b"")

    async def _first_bytes(self, client: Client) -> bytes:
        """What the client says first; empty if it says nothing, which is then on record."""
        try:
            first = await client.leg.recv(HANDSHAKE_BYTES)
        except DoorwardError as error:
            client.stranger(_unknown(client), "fail", error.reason, detail=error.detail)
            return b""
        if not first:
            client.stranger(_unknown(client), "fail", "abandoned", detail="closed without a byte")
        return first

    async def _ask_socks(
        self, server: SocksServer, first: bytes
    ) -> tuple[SocksServer, Request, Session] | None:
        """The client's request; None if there is none, which is then on record."""
        client = server.client
        try:
            asked = await server.receive_request(first)
        except ProtocolError as error:
            client.stranger(server.origin, "fail", error.reason, detail=error.detail)
            await farewell(client.leg, error.reply)
            return None
        except DoorwardError as error:
            reason = error.reason if isinstance(error, TimedOut | OutOfResources) else "abandoned"
            client.stranger(server.origin, "fail", reason, detail=error.detail)
            return None
        return (server, *asked) if asked is not None else None

    async def _answer_socks(self, server: SocksServer, request: Request, session: Session) -> None:
        try:
            connection = await server.answer(request, session)
        except DoorwardError:
            return  # the client went away while it was answered; the connection is on record
        if connection is not None:
            await self._engine.carry(connection, server.client.leg)


# Both are loaded with the first listener (service/front_door): a launched program has none, and waits for every import.
@cache
def _socks_server() -> type[SocksServer]:
    from doorward.entry.socks import SocksServer

    return SocksServer


@cache
def _http_server() -> type[HttpServer]:
    from doorward.entry.http import HttpServer

    return HttpServer


def _too_late(leg: Leg, timeout_s: float) -> None:
    leg.abort(_late(timeout_s))


def _late(timeout_s: float) -> HandshakeTimedOut:
    return HandshakeTimedOut(f"the handshake was not over within {timeout_s:g} s", side=Side.INTERNAL)


def _unknown(client: Client) -> Origin:
    """A client that has not said what it speaks."""
    return Origin("unknown", ClientKind.SOCKS, client.address, client.port)
