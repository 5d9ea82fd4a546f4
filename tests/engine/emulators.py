"""Filters that are the server themselves."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tests.engine.rig import Plugin, entry

from doorward.api import ConnectEvent, Connection, DataFilter, EventKind, Socket
from doorward.engine.association import FilterEntry

Serve = Callable[[Socket, Connection], Awaitable[None]]


class Being(DataFilter):
    """The server is the test's own function."""

    def __init__(self, serve: Serve) -> None:
        self.serve = serve

    async def pump(self, internal: Socket, external: None, connection: Connection) -> None:
        assert external is None
        await self.serve(internal, connection)


def being(serve: Serve, *before: DataFilter, fail: str = "closed", name: str = "it") -> FilterEntry:
    """A filter that is the server of every connection, with other data filters between client and it."""

    async def connect(event: ConnectEvent) -> None:
        event.connection.emulate_for_connect(Being(serve))
        for data_filter in before:
            event.connection.attach_data_filter(data_filter)

    plugin = Plugin(name, [], connect=connect)
    return entry(plugin, events=[EventKind.CONNECT], fail=fail)  # type: ignore[arg-type]  # one of both


async def echo_lines(internal: Socket, connection: Connection) -> None:
    """Each line in capitals, until the client ends; then a last word."""
    line = b""
    while data := await internal.recv():
        line += data
        *whole, line = line.split(b"\n")
        for one in whole:
            await internal.send(one.upper() + b"\n")
            connection.increment_bytes_sent(len(one) + 1)
    await internal.send(b"bye")
