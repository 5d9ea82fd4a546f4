"""A transparent entry in a world of its own, at the places where a packet filter would lead to it.

No packet filter is needed: what is caught is handed in, and where a connection was going is said by the test.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.entry.peers import PATIENCE_S, Peer
from tests.entry.world import HEAD, RULE, World, world

from doorward.config.model import Transparent
from doorward.entry.transparent import TransparentEntry, TransparentSockets
from doorward.net.caught_datagrams import as_caught

NETWORKS = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("198.51.100.0/24"))


def settings(**changes: Any) -> Transparent:
    written: dict[str, Any] = {"interfaces": ("lo",), "networks": NETWORKS, "port": 1081}
    return Transparent(**(written | changes))


class NotOurs:
    """This machine's own addresses, of which clients of these tests are some, count as others'."""

    def __init__(self, *own: str) -> None:
        self.own = {ipaddress.ip_address(text) for text in own}

    def is_own(self, address: Any) -> bool:
        return address in self.own


class Routed:
    """One gateway."""

    def __init__(self, here: World, entry: TransparentEntry, port: int) -> None:
        self.world = here
        self.entry = entry
        self.port = port
        self.going_to = ("127.0.0.1", 0)

        def original(sock: socket.socket) -> tuple[Any, int]:
            return ipaddress.ip_address(self.going_to[0]), self.going_to[1]

        entry._original = original

    async def connect(self, host: str, port: int, source: str = "127.0.0.1") -> Peer:
        """A client connects there, and is caught."""
        self.going_to = (host, port)
        # Blocking, so that it stands before the entry can refuse it: the backlog takes it at once.
        sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE_S, (source, 0))
        sock.setblocking(False)
        return self.world.keep(Peer(sock))

    def send(self, payload: bytes, client: socket.socket, host: str, port: int) -> None:
        """A client sends a datagram there, and it is caught."""
        self.entry._datagrams.caught(memoryview(payload), client.getsockname(), as_caught(host, port))


def client_socket(host: str = "127.0.0.1") -> socket.socket:
    """A client's UDP socket."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind((host, 0))
    return sock


async def received(sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """The next datagram, and who has sent it."""
    async with asyncio.timeout(PATIENCE_S):
        found: tuple[bytes, tuple[str, int]] = await asyncio.get_running_loop().sock_recvfrom(sock, 65_536)
        return found


def answering(host: str, port: int) -> socket.socket:
    """In place of a socket on the server's address: one of this machine's."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    sock.bind(("127.0.0.9", 0))
    return sock


@asynccontextmanager
async def routed(text: str = HEAD + RULE, own: tuple[str, ...] = (), **changes: Any) -> AsyncIterator[Routed]:
    """A gateway in a world; at its end nothing is left of either."""
    async with world(text) as here:
        engine: Any = here.firewall.engine
        engine.own_addresses = NotOurs(*own)
        tcp = socket.create_server(("127.0.0.1", 0))
        tcp.setblocking(False)
        port: int = tcp.getsockname()[1]
        entry = TransparentEntry(engine, settings(**changes), TransparentSockets([tcp], [], {}), lambda: True)
        entry._answers._make = answering
        entry.start()
        try:
            yield Routed(here, entry, port)
        finally:
            entry.close()
            entry.close()
            await here.quiet()
