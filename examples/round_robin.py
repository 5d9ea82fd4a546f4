"""Deals arriving peers in turn to several servers that all asked for the same port.

    [[filter]]
    name = "dealer"
    use = "round_robin.py"
    settings = { address = "127.0.0.1", port = 8600, peers = ["127.0.0.0/8"] }

The servers stand behind the firewall and ask it, by SOCKS5 BIND, for port 8600: the first would get it and all others
be told that it is in use. This filter claims such binds with `emulate_for_bind`, so no socket is made for any of
them, and listens on the port itself, once. Each peer that arrives is handed to the server that has waited longest:
`emulate_connection` makes a connection toward it, whose other side is `Hand`. A bind is good for one peer; a server
that wants the next one asks again. When nobody waits, the peer gets a sentence and an orderly end.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import Any

from doorward.api import (
    ApplicationFilter,
    BindEvent,
    CallError,
    Connection,
    DataFilter,
    DoorwardError,
    EventKind,
    Firewall,
    Interest,
    ListenEvent,
    NetworkSocket,
    Session,
    SessionFilter,
    Socket,
    TerminatingEvent,
)

BUSY = b"all servers are busy; please come again\r\n"
SECONDS_TO_READ_IT = 5.0


class RoundRobin(ApplicationFilter):
    """Keeps the queue and the listener."""

    interest = Interest.of("any", events=[EventKind.BIND, EventKind.LISTEN])

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.name = (str(self.settings.get("address", "127.0.0.1")), int(self.settings.get("port", 8600)))
        self.peers = [str(peer) for peer in self.settings.get("peers", [])]
        self.waiting: deque[Connection] = deque()
        self.firewall: Firewall | None = None

    async def start(self, firewall: Firewall) -> None:
        """An address that cannot be had refuses the policy, so the operator hears of it at once."""
        self.firewall = firewall
        listener = firewall.create_network_socket()
        await listener.bind(*self.name)
        listener.set_ip_filter(firewall.create_ip_filter(self.peers))
        await listener.listen()
        firewall.spawn(self.serve(listener), name="dealer")

    def session_filter(self, session: Session) -> SessionFilter:
        return Claim(self)

    async def serve(self, listener: NetworkSocket) -> None:
        assert self.firewall is not None
        while True:
            peer = await listener.accept()
            if not self.dealt(peer):
                self.firewall.spawn(part(peer), name="parting")

    def dealt(self, peer: NetworkSocket) -> bool:
        """Whether somebody waited for this peer."""
        while self.waiting:
            server = self.waiting.popleft()
            try:
                server.emulate_connection(Hand(peer), peer.peer_name, peer.socket_name)
            except CallError:
                continue  # it has gone meanwhile
            return True
        return False


async def part(peer: NetworkSocket) -> None:
    """Polite, and not for ever."""
    try:
        async with asyncio.timeout(SECONDS_TO_READ_IT):
            await peer.send(BUSY)
            await peer.shutdown()
            while await peer.recv():
                pass
    except (TimeoutError, DoorwardError):
        pass  # it has had its chance
    await peer.close()


class Claim(SessionFilter):
    """One server's binds."""

    def __init__(self, dealer: RoundRobin) -> None:
        self.dealer = dealer

    async def on_bind(self, event: BindEvent) -> None:
        if event.transport == "tcp" and event.port == self.dealer.name[1]:
            event.connection.emulate_for_bind()
            event.connection.set_socket_name(self.dealer.name)

    async def on_listen(self, event: ListenEvent) -> None:
        if (event.address, event.port) == self.dealer.name:
            self.dealer.waiting.append(event.connection)

    async def on_terminating(self, event: TerminatingEvent) -> None:
        if event.connection in self.dealer.waiting:
            self.dealer.waiting.remove(event.connection)


class Hand(DataFilter):
    """The far side of a dealt connection: it is the peer."""

    def __init__(self, peer: NetworkSocket) -> None:
        self.peer = peer

    async def pump(self, internal: Socket, external: None, connection: Connection) -> None:
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self.carry(internal, self.peer, connection))
                both.create_task(self.carry(self.peer, internal, None))
        finally:
            await self.peer.close()

    async def carry(self, source: Socket, sink: Socket, counted: Connection | None) -> None:
        while data := await source.recv():
            await sink.send(data)
            if counted is not None:
                counted.increment_bytes_sent(len(data))
        await sink.shutdown()
