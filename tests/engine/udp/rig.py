"""A UDP mapping on loopback sockets, with its client in the test's hands."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from tests.engine.rig import Plugin, Rig, entry, wait_for
from tests.engine.wires import PATIENCE_S

from doorward.api import ClientKind, DataFilter, EventKind
from doorward.engine.association import FilterEntry
from doorward.engine.connection import Connection
from doorward.engine.origin import Origin
from doorward.engine.target import Target, target_of
from doorward.engine.udp.client_side import ClientEnd
from doorward.engine.udp.destination import Destination, FarEnd
from doorward.engine.udp.mapping import Mapping
from doorward.engine.udp.opening import open_mapping
from doorward.record.model import Record

UDP_EVENTS = (EventKind.BIND, EventKind.UDP_DESTINATION)


class Client:
    """The client's side of a mapping. `heard` is what was delivered: payload, and who has sent it."""

    def __init__(self) -> None:
        self.heard: list[tuple[bytes, tuple[str, int]]] = []
        self.forgotten = 0
        self.closed = 0

    def deliver(self, payload: memoryview | bytes, source: FarEnd) -> bool:
        self.heard.append((bytes(payload), source.name))
        return True

    def end_for(self, destination: Destination) -> ClientEnd | None:
        return None

    def forget(self, destination: Destination) -> None:
        self.forgotten += 1

    def close(self) -> None:
        self.closed += 1

    def notes(self) -> list[tuple[str, int]]:
        return []


class Far:
    """A test's own UDP socket: a server, or a stranger."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.name: tuple[str, int] = self.socket.getsockname()[:2]
        self.target = target_of(*self.name)

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        async with asyncio.timeout(PATIENCE_S):
            data, source = await asyncio.get_running_loop().sock_recvfrom(self.socket, 65_536)
        return data, source[:2]

    def send(self, data: bytes, to: tuple[str, int]) -> None:
        self.socket.sendto(data, to)

    def is_silent(self) -> bool:
        try:
            self.socket.recv(65_536)
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self.socket.close()


class UdpRig:
    """One mapping and its world."""

    def __init__(self, rig: Rig, connection: Connection, mapping: Mapping, client: Client) -> None:
        self.rig = rig
        self.connection = connection
        self.mapping = mapping
        self.client = client

    def far(self, host: str = "127.0.0.1") -> Far:
        return self.keep(Far(host))

    def keep(self, far: Far) -> Far:
        """To be closed with the rig."""
        self.rig._closables.append(far)  # type: ignore[arg-type]  # it can be closed, and more is not asked for
        return far

    def say(self, payload: bytes, to: Target) -> Destination | None:
        """What the client's side does with a datagram."""
        destination = self.mapping.find(to)
        if destination is not None:
            self.mapping.outward(destination, memoryview(payload))
        return destination

    async def exchange(
        self, far: Far, payload: bytes = b"question", to: Target | None = None
    ) -> tuple[str, int]:
        """One datagram each way; where the far end was spoken to from."""
        self.say(payload, to or far.target)
        data, source = await far.receive()
        assert data == payload
        far.send(payload[::-1], source)
        await self.heard(payload[::-1], far.name)
        return source

    async def heard(self, payload: bytes, source: tuple[str, int]) -> None:
        """The client hears this next, and nothing before it."""
        await wait_for(lambda: bool(self.client.heard), "a datagram for the client")
        assert self.client.heard.pop(0) == (payload, source)

    async def settle(self, destination: Destination | None) -> Destination:
        """It is judged."""
        assert destination is not None
        async with asyncio.timeout(PATIENCE_S):
            await destination.answered()
        return destination

    def record_of(self, target: Target) -> Record:
        """The one record of this destination."""
        found = [
            r for r in self.rig.recorder.records if r.operation == "destination" and r.port == target.port
        ]
        assert len(found) == 1, found
        return found[0]

    @property
    def whole(self) -> Record:
        """The mapping's own record."""
        found = [r for r in self.rig.recorder.records if r.operation == "udp"]
        assert len(found) == 1, found
        return found[0]


async def begin(rig: Rig, client: Client | None = None, *, client_address: str = "127.0.0.1") -> UdpRig:
    """A mapping that stands."""
    side = client or Client()
    session = rig.engine.sessions.get(client_address, None)
    origin = Origin("socks5", ClientKind.SOCKS, client_address, 4242)
    connection, mapping = await open_mapping(rig.engine, session, origin, lambda _: side)
    assert mapping is not None, connection.refusal
    return UdpRig(rig, connection, mapping, side)


def hearing(
    heard: list[tuple[str, str]], name: str = "plugin", **handlers: Callable[[Any], Awaitable[None]]
) -> FilterEntry:
    """A filter that hears of UDP."""
    return entry(Plugin(name, heard, **handlers), events=UDP_EVENTS)


def attaching(*filters: DataFilter) -> Callable[[Any], Awaitable[None]]:
    """A handler that attaches these."""

    async def attach(event: Any) -> None:
        for data_filter in filters:
            event.connection.attach_data_filter(data_filter)

    return attach
