"""DNS of a captured program: every query, to whatever server, is answered by the firewall, as if from that server.

Here are only sockets; what is answered is the engine's to say (engine/names). It loads a library that takes a while, in
a thread, at the first query: most programs have other things to do until then, and some never ask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Final

from doorward.api.errors import OutOfResources
from doorward.net.datagrams import DatagramSocket

if TYPE_CHECKING:
    import socket

    from doorward.api.sockets import SocketName
    from doorward.engine.engine import Engine
    from doorward.engine.names.answering import NameServer
    from doorward.entry.caught import CaughtClients, SendsAnswers
    from doorward.net.datagrams import Inbox, SocketAddress
    from doorward.net.leg import Leg

DNS_PORT: Final = 53
# Queries under way; a program's resolver asks again for what was dropped.
WAITING_MAX: Final = 256


class CapturedNames:
    """Answers queries. `dropped` counts those that met a full table."""

    def __init__(self, clients: CaughtClients, answers: SendsAnswers, waiting_max: int | None = None) -> None:
        self._clients = clients
        self._answers = answers
        self._waiting = 0
        self._waiting_max = WAITING_MAX if waiting_max is None else waiting_max
        self._local: list[_LocalServer] = []
        self._loading: asyncio.Future[NameServer] | None = None
        self.dropped = 0

    def start(self, local: list[socket.socket]) -> None:
        """Serve these sockets, too: nameservers on the program's own loopback. Raises OutOfResources."""
        self._local = [_LocalServer(self, self._clients.engine.udp.inbox, sock) for sock in local]
        for server in self._local:
            server.socket.start()

    def close(self) -> None:
        """No more. Idempotent."""
        for server in self._local:
            server.socket.close()

    def asked(self, query: bytes, client: SocketAddress, server: SocketName) -> None:
        """A query in a datagram, to this server."""
        self.begin(query, client, lambda reply: self._answers.send(server, reply, client))

    def begin(self, query: bytes, client: SocketAddress, send: Callable[[bytes], object]) -> None:
        """Answer a query of this client's by calling `send`, or not at all."""
        if self._waiting >= self._waiting_max:
            self.dropped += 1
            return
        self._waiting += 1
        self._clients.spawn(self._answer(query, client, send))

    async def serve(self, leg: Leg, client: SocketAddress) -> None:
        """Queries over TCP; the leg is closed afterwards, unless OutOfResources is raised."""
        from doorward.engine.names.stream import serve_stream

        server = await self._server()
        await serve_stream(server, self._clients.asking(client), self._clients.origin_of(client), leg)

    async def _answer(self, query: bytes, client: SocketAddress, send: Callable[[bytes], object]) -> None:
        clients = self._clients
        try:
            server = await self._server()
            reply = await server.answer(clients.asking(client), clients.origin_of(client), query, "udp")
        except OutOfResources:
            self.dropped += 1  # no room for one more session
            return
        finally:
            self._waiting -= 1
        if reply:
            send(reply)

    async def _server(self) -> NameServer:
        """Who answers, once it is loaded."""
        if self._loading is None:
            loop = asyncio.get_running_loop()
            self._loading = loop.run_in_executor(None, _load, self._clients.engine)
        return await asyncio.shield(self._loading)


class _LocalServer:
    """A nameserver's UDP socket on the program's own loopback."""

    def __init__(self, names: CapturedNames, inbox: Inbox, sock: socket.socket) -> None:
        self._names = names
        self.socket = DatagramSocket(inbox, sock, self._asked)

    def _asked(self, payload: memoryview, client: SocketAddress) -> None:
        self._names.begin(bytes(payload), client, lambda reply: self._reply(reply, client))

    def _reply(self, reply: bytes, client: SocketAddress) -> None:
        if self.socket.open:
            self.socket.send(reply, client)


def _load(engine: Engine) -> NameServer:
    """In a thread."""
    made: NameServer = import_module("doorward.engine.names.answering").NameServer(engine)
    return made
