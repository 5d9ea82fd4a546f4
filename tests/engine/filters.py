"""Data filters that tests attach."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from doorward.api import Connection, DataFilter, Priority, Socket, StreamFilter

Pump = Callable[[Socket, Socket, Connection], Awaitable[None]]


async def copy(source: Socket, sink: Socket) -> None:
    """One direction to its end."""
    while data := await source.recv():
        await sink.send(data)
    await sink.shutdown()


class Copying(DataFilter):
    """Both directions to their ends."""

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(copy(internal, external))
            group.create_task(copy(external, internal))


class Pumping(DataFilter):
    """Whatever the test's own function does."""

    def __init__(self, pump: Pump, priority: Priority = Priority.MIDDLE) -> None:
        self._pump = pump
        self.priority = priority  # type: ignore[misc]  # each test its own

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        await self._pump(internal, external, connection)


class Leaving(DataFilter):
    """Copies and returns after so many chunks; the end of a direction counts as one."""

    def __init__(self, chunks: int, priority: Priority = Priority.MIDDLE) -> None:
        self.chunks = chunks
        self.priority = priority  # type: ignore[misc]  # each test its own
        self._receiving: set[asyncio.Task[None]] = set()

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        if not self.chunks:
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(self._lane(internal, external))
            group.create_task(self._lane(external, internal))

    async def _lane(self, source: Socket, sink: Socket) -> None:
        me = asyncio.current_task()
        assert me is not None
        while self.chunks:
            self._receiving.add(me)
            data = await source.recv()
            self._receiving.discard(me)
            if data:
                await sink.send(data)
            else:
                await sink.shutdown()
            self.chunks = max(0, self.chunks - 1)
            if not data:
                break
        if not self.chunks:
            for lane in self._receiving - {me}:
                lane.cancel()


class Leaning(StreamFilter):
    """Leaves after so many calls; keeps the last byte of a chunk for the next one until then."""

    def __init__(self, chunks: int, priority: Priority = Priority.MIDDLE) -> None:
        self.chunks = chunks
        self.priority = priority  # type: ignore[misc]  # each test its own
        self._kept = {"client": b"", "server": b""}

    def start(self) -> None:
        self._count(0)

    def client_data(self, data: bytes) -> bytes:
        return self._keep("client", data)

    def server_data(self, data: bytes) -> bytes:
        return self._keep("server", data)

    def client_end(self) -> bytes:
        return self._kept["client"]

    def server_end(self) -> bytes:
        return self._kept["server"]

    def _keep(self, side: str, data: bytes) -> bytes:
        data, self._kept[side] = self._kept[side] + data, b""
        other = "server" if side == "client" else "client"
        self._count(1)
        if self.finished and self._kept[other]:
            self.finished = False  # something of the other side is still kept here
        if not self.finished:
            data, self._kept[side] = data[:-1], data[-1:]
        return data

    def _count(self, calls: int) -> None:
        self.chunks -= calls
        if self.chunks <= 0:
            self.seen_enough()


class Marking(StreamFilter):
    """Puts its letter behind each chunk."""

    def __init__(self, letter: bytes, priority: Priority = Priority.MIDDLE) -> None:
        self.letter = letter
        self.priority = priority  # type: ignore[misc]  # each test its own

    def client_data(self, data: bytes) -> bytes:
        return data + self.letter

    def server_data(self, data: bytes) -> bytes:
        return data + self.letter
