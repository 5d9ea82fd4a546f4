"""Application filters for tests of the kit: handlers given as plain functions, and what they heard."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from doorward.api import (
    AcceptEvent,
    ApplicationFilter,
    BindEvent,
    ConnectEvent,
    Connection,
    DataFilter,
    EstablishedEvent,
    EventKind,
    Interest,
    ListenEvent,
    ResolveEvent,
    Session,
    SessionFilter,
    Socket,
    StreamFilter,
    TerminatingEvent,
    UdpDestinationEvent,
)


class Plugin(ApplicationFilter):
    """Wants every event; `connect=`, `bind=`, … are called with it. `heard` has the kinds and the events."""

    interest = Interest.of(events=EventKind)

    def __init__(self, settings: dict[str, Any] | None = None, **handlers: Callable[[Any], object]) -> None:
        super().__init__(settings)
        self.handlers = handlers
        self.heard: list[str] = []
        self.events: list[Any] = []
        self.made: list[Hearing] = []

    def session_filter(self, session: Session) -> SessionFilter:
        self.made.append(Hearing(self))
        return self.made[-1]

    async def hear(self, kind: str, event: Any) -> None:
        self.heard.append(kind)
        self.events.append(event)
        found = self.handlers[kind](event) if kind in self.handlers else None
        if inspect.isawaitable(found):
            await found


class Hearing(SessionFilter):
    def __init__(self, plugin: Plugin) -> None:
        self.plugin = plugin

    async def on_connect(self, event: ConnectEvent) -> None:
        await self.plugin.hear("connect", event)

    async def on_udp_destination(self, event: UdpDestinationEvent) -> None:
        await self.plugin.hear("udp_destination", event)

    async def on_bind(self, event: BindEvent) -> None:
        await self.plugin.hear("bind", event)

    async def on_listen(self, event: ListenEvent) -> None:
        await self.plugin.hear("listen", event)

    async def on_accept(self, event: AcceptEvent) -> None:
        await self.plugin.hear("accept", event)

    async def on_resolve(self, event: ResolveEvent) -> None:
        await self.plugin.hear("resolve", event)

    async def on_established(self, event: EstablishedEvent) -> None:
        await self.plugin.hear("established", event)

    async def on_terminating(self, event: TerminatingEvent) -> None:
        await self.plugin.hear("terminating", event)


class Upper(StreamFilter):
    """Upper case toward the server."""

    def client_data(self, data: bytes) -> bytes:
        return data.upper()


class Echo(DataFilter):
    """A server that says everything again."""

    async def pump(self, internal: Socket, external: None, connection: Connection) -> None:
        while data := await internal.recv():
            await internal.send(data)
            connection.increment_bytes_sent(len(data))


class Doing(DataFilter):
    """Does one thing with its connection."""

    def __init__(self, action: Callable[[Connection], object]) -> None:
        self.action = action

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        found = self.action(connection)
        if inspect.isawaitable(found):
            await found
