"""A world with a captured program: sockets that belong to its namespace, used by the test as any client's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import SOCK_DGRAM, SOCK_STREAM
from socket import socket as socket_object
from typing import Any

from tests.capture.inside import Inside, launched, own_address
from tests.entry.peers import PATIENCE_S, Peer
from tests.entry.world import HEAD, World, world

from doorward.entry.captured import CapturedEntry


def policy(*more: str, ports: str = "any") -> str:
    """Servers of these tests are at this machine's own addresses, which only rules that name them open."""
    own = [f'"{address}"' for address in (own_address(4), own_address(6)) if address is not None]
    rule = f'[[rule]]\nname = "here"\naction = "allow"\nto = [{", ".join(own)}]\nprotocols = ["{ports}"]\n'
    return HEAD + "".join(more) + rule


class Captured:
    """One captured program in a world of its own."""

    def __init__(self, world: World, entry: CapturedEntry, inside: Inside) -> None:
        self.world = world
        self.entry = entry
        self._inside = inside
        self._sockets: list[socket_object] = []

    def socket(self, version: int = 4, kind: int = SOCK_STREAM) -> socket_object:
        """One of the program's; not connected, not blocking."""
        made = self._inside.socket(version, kind)
        made.setblocking(False)
        self._sockets.append(made)
        return made

    async def connect(self, host: str, port: int) -> Peer:
        """The program connects there."""
        sock = self.socket(6 if ":" in host else 4)
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_connect(sock, (host, port))
        return Peer(sock)

    async def expect_reset(self, host: str, port: int) -> None:
        """The program connects there and is refused; whether it sees that as early as that, or on reading."""
        try:
            client = await self.connect(host, port)
        except ConnectionError:
            return
        assert await client.outcome() == (b"", "reset")

    def datagrams(self, host: str, port: int) -> socket_object:
        """The program speaks UDP to this one."""
        sock = self.socket(6 if ":" in host else 4, SOCK_DGRAM)
        sock.connect((host, port))
        return sock

    def close(self) -> None:
        self.entry.close()
        for sock in self._sockets:
            sock.close()


async def received(sock: socket_object) -> bytes:
    """The next datagram; raises what the kernel tells of an earlier one."""
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.get_running_loop().sock_recv(sock, 65_536)


@asynccontextmanager
async def captured(text: str = "", **keywords: Any) -> AsyncIterator[Captured]:
    """A captured program. At its end nothing is left of it."""
    with launched() as (launch, inside):
        async with world(text or policy(), **keywords) as here:
            entry = CapturedEntry(here.firewall.engine, launch.sockets(), launch.channel, lambda: True)
            entry.start()
            found = Captured(here, entry, inside)
            try:
                yield found
            finally:
                found.close()
