"""UDP ends for tests: a client's association, a server, and the header that stands between them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Final

from tests.entry.peers import PATIENCE_S, Peer, socks5_request
from tests.entry.world import HEAD, RULE, World, world

from doorward.engine.udp.mapping import Mapping
from doorward.record.model import Record
from doorward.wire.socks import Datagram, read_datagram, write_datagram

ASSOCIATE: Final = 3


class UdpPeer:
    """A bound UDP socket. `name` is what it is reached by."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind((host, port))
        self.name: tuple[str, int] = self.socket.getsockname()[:2]

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        self.socket.sendto(data, to)

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        """The next datagram and who has sent it."""
        async with asyncio.timeout(PATIENCE_S):
            data, source = await asyncio.get_running_loop().sock_recvfrom(self.socket, 65_536)
        return data, source[:2]

    def is_silent(self) -> bool:
        """Whether nothing has arrived; over loopback, what was sent has."""
        try:
            self.socket.recv(65_536)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self.socket.close()


class Association:
    """A client with its TCP connection, and its UDP socket; `relay` is what the firewall told it."""

    def __init__(self, tcp: Peer, udp: UdpPeer, relay: tuple[str, int]) -> None:
        self.tcp = tcp
        self.udp = udp
        self.relay = relay

    def say(self, payload: bytes, to: tuple[str, int]) -> None:
        """One datagram through the relay. A host may be a name."""
        self.raw(wrapped(payload, to))

    def raw(self, datagram: bytes) -> None:
        self.udp.send(datagram, self.relay)

    async def hear(self) -> Datagram:
        """The next answer, as the relay wrote it."""
        data, source = await self.udp.receive()
        assert source == self.relay
        return read_datagram(data)

    async def exchange(self, server: UdpPeer, payload: bytes = b"question") -> tuple[str, int]:
        """One datagram each way. Returns where the server was spoken to from."""
        self.say(payload, server.name)
        data, source = await server.receive()
        assert data == payload
        server.send(payload[::-1], source)
        assert await self.hear() == Datagram(
            0, None, ip_address(server.name[0]), server.name[1], payload[::-1]
        )
        return source


def wrapped(payload: bytes, to: tuple[str, int]) -> bytes:
    """A datagram as a client writes it."""
    try:
        return write_datagram(ip_address(to[0]), to[1], payload)
    except ValueError:
        return write_datagram(to[0], to[1], payload)


class UdpWorld:
    """A running firewall, and UDP ends that are closed with the test."""

    def __init__(self, here: World) -> None:
        self.here = here
        self._ends: list[UdpPeer] = []

    def peer(self, host: str = "127.0.0.1") -> UdpPeer:
        peer = UdpPeer(host)
        self._ends.append(peer)
        return peer

    async def ask(self, host: str = "0.0.0.0", port: int = 0) -> Peer:
        """A client that has asked for an association, and not read the answer."""
        tcp = await self.here.client(b"\x05\x01\x00")
        assert await tcp.receive(2) == b"\x05\x00"
        await tcp.send(socks5_request(host, port, ASSOCIATE))
        return tcp

    async def association(self, udp: UdpPeer | None = None, *, announced_port: int = 0) -> Association:
        """One that stands."""
        tcp = await self.ask("0.0.0.0", announced_port)
        code, relay = await answer(tcp)
        assert code == 0
        return Association(tcp, udp or self.peer(relay[0]), relay)

    @property
    def mappings(self) -> list[Mapping]:
        """Those that are alive, in the order of their connections."""
        connections = self.here.firewall.engine.connections.values()
        return [c.extra.udp for c in connections if isinstance(c.extra.udp, Mapping)]

    async def record_of(self, **wanted: object) -> Record:
        """The one record with these values, as soon as it is there."""

        def found() -> list[Record]:
            return [r for r in self.here.records if all(getattr(r, k) == v for k, v in wanted.items())]

        await self.here.until(lambda: bool(found()))
        assert len(found()) == 1, found()
        return found()[0]

    def close(self) -> None:
        for peer in self._ends:
            peer.close()


async def answer(tcp: Peer) -> tuple[int, tuple[str, int]]:
    """The code of the answer to a request, and the address in it."""
    head = await tcp.receive(4)
    assert (head[0], head[2]) == (5, 0)
    rest = await tcp.receive(18 if head[3] == 4 else 6)
    return head[1], (str(ip_address(rest[:-2])), int.from_bytes(rest[-2:], "big"))


@asynccontextmanager
async def udp_world(
    policy: str = HEAD + RULE, files: dict[str, str] | None = None
) -> AsyncIterator[UdpWorld]:
    """See `world`: at its end nothing is left."""
    async with world(policy, files) as here:
        udp = UdpWorld(here)
        try:
            yield udp
        finally:
            udp.close()
