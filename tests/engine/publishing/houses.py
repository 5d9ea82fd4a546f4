"""Published servers on a rig's engine, with machines and visitors that the test plays itself."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address, ip_network
from typing import Any, Literal

from tests.engine.rig import Rig, wait_for
from tests.engine.wires import PATIENCE_S, Server, Wire

from doorward.config.model import Published, PublishedAddress
from doorward.engine.publishing.datagrams import DatagramPort
from doorward.engine.publishing.house import House, Watch
from doorward.engine.publishing.servers import Server as Machine
from doorward.engine.publishing.streams import StreamPort
from doorward.net.published import Held
from doorward.record.model import Record

HERE = "127.0.0.1"
ANYBODY = (ip_network("127.0.0.0/8"),)


class Street:
    """Published servers, what was told of them, and the sockets of the test's own ends."""

    def __init__(self, rig: Rig) -> None:
        self.rig = rig
        self.has_room = True
        self.changes: list[tuple[str, str]] = []  # machine, why
        self.ended: list[str] = []
        self._houses: list[House] = []
        self._held: list[Held] = []
        self._sockets: list[socket.socket] = []

    def house(
        self,
        *machines: Server | int,
        transport: Literal["tcp", "udp"] = "tcp",
        **options: Any,
    ) -> House:
        """One that is open at a port of the kernel's choice. Machines are servers, or ports."""
        ports = [machine if isinstance(machine, int) else machine.port for machine in machines]
        here = PublishedAddress(transport, ip_address(HERE), 0)
        options.setdefault("sources", ANYBODY)
        published = Published(
            name=options.pop("name", "web"),
            listen=(here,),
            to=tuple((ip_address(HERE), port) for port in ports or [self.rig.server.port]),
            **options,
        )
        house = House(
            self.rig.engine, published, lambda: self.has_room, Watch(self._server_changed, self._port_ended)
        )
        held = Held(transport, here.address, 0)
        self._held.append(held)
        self._houses.append(house)
        house.open({here: held.lend()})
        return house

    async def open(self, *machines: Server | int, **options: Any) -> House:
        """The same, once visitors can come."""
        house = self.house(*machines, **options)
        port = stream_port(house)
        await wait_for(lambda: port.is_open, "it listens")
        return house

    def visit(self, house: House, source: str = HERE) -> Wire:
        """Somebody connects from this address."""
        sock = socket.socket()
        try:
            sock.bind((source, 0))
            sock.connect(name_of(house))
        except BaseException:
            sock.close()
            raise
        return self.rig.keep(Wire(sock))

    async def came(self) -> Wire:
        """The server's end of the next one who was led to it."""
        return self.rig.keep(await self.rig.server.accept())

    def refuses(self, house: House) -> bool:
        """Whether nobody listens there."""
        try:
            self.visit(house)
        except ConnectionRefusedError:
            return True
        return False

    def waits_unheard(self, house: House) -> bool:
        """Whether who comes is taken by nobody: only the address is held."""
        self.visit(house)
        return self.rig.server.nobody_came()

    async def records(self, operation: str, count: int = 1) -> list[Record]:
        """All of this kind, once there are so many."""
        found: list[Record] = []

        def enough() -> bool:
            found[:] = [r for r in self.rig.recorder.records if r.operation == operation]
            return len(found) >= count

        await wait_for(enough, f"{count} records of {operation}")
        assert len(found) == count, found
        return found

    def datagrams(self, source: str = HERE, port: int = 0) -> socket.socket:
        """A UDP socket of the test's own."""
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((source, port))
        sock.setblocking(False)
        self._sockets.append(sock)
        return sock

    def give_up_addresses(self) -> None:
        """Nobody holds them but who serves there."""
        for held in self._held:
            held.close()

    def close(self) -> None:
        for house in self._houses:
            house.end()
        self.give_up_addresses()
        for sock in self._sockets:
            sock.close()

    def _server_changed(self, published: Published, server: Machine, why: str) -> None:
        self.changes.append((server.name, why))

    def _port_ended(self, published: Published, here: PublishedAddress, why: str) -> None:
        self.ended.append(why)


def stream_port(house: House) -> StreamPort:
    (port,) = house.ports.values()
    assert isinstance(port, StreamPort)
    return port


def datagram_port(house: House) -> DatagramPort:
    (port,) = house.ports.values()
    assert isinstance(port, DatagramPort)
    return port


def name_of(house: House) -> tuple[str, int]:
    """Where it is reached."""
    (port,) = house.ports.values()
    assert port.name is not None
    return port.name


async def receive(sock: socket.socket) -> tuple[bytes, tuple[str, int]]:
    """The next datagram, and from where."""
    async with asyncio.timeout(PATIENCE_S):
        return await asyncio.get_running_loop().sock_recvfrom(sock, 65_536)


def is_empty(sock: socket.socket) -> bool:
    """Whether no datagram has come."""
    try:
        sock.recv(1)
    except BlockingIOError:
        return True
    return False


async def passes(visitor: Wire, server: Wire, data: bytes = b"hello") -> None:
    """Bytes go both ways."""
    await visitor.send(data)
    assert await server.exactly(len(data)) == data
    await server.send(data[::-1])
    assert await visitor.exactly(len(data)) == data[::-1]
