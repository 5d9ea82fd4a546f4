"""Ports opened through a rig's engine, and visitors that the test sends there."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from typing import Any

from tests.engine.rig import LOCAL_RULE, Plugin, Rig, entry, wait_for
from tests.engine.wires import PATIENCE_S, Wire

from doorward.api import ClientKind, EventKind, Scope
from doorward.api.sockets import SocketName
from doorward.engine.association import FilterEntry
from doorward.engine.connection import Connection
from doorward.engine.grants import Offer
from doorward.engine.origin import Origin
from doorward.engine.ports.binding import Asked
from doorward.engine.ports.listening import Port
from doorward.engine.session import Session
from doorward.engine.target import Target, target_of
from doorward.net.leg import Leg
from doorward.policy.model import Action, PortRange, Rule
from doorward.record.model import Record

CLIENT = "127.0.0.1"
EVERY_PORT = (PortRange("tcp-in", 0, 65_535),)
# Peers on loopback may come to any port; rule names loopback outright, which opens it.
PEERS_RULE = Rule("peers", Action.ALLOW, to_networks=LOCAL_RULE.to_networks, ports=EVERY_PORT)
RULES = (PEERS_RULE, LOCAL_RULE)
INBOUND = (EventKind.BIND, EventKind.LISTEN, EventKind.ACCEPT)
FOREVER = Offer(True, 60.0, None, None, None)
ONCE = Offer(False, 60.0, None, None, None)


def hearing(plugin: Plugin, *more: EventKind, **options: Any) -> FilterEntry:
    """A plugin in force for whatever listens or arrives, promised or not."""
    return entry(plugin, events=(*INBOUND, *more), scope=options.pop("scope", Scope.ANY), **options)


class Visits:
    """Opens ports for one client of a rig, and visits them."""

    def __init__(self, rig: Rig, client_address: str = CLIENT) -> None:
        self.rig = rig
        self.session: Session = rig.engine.sessions.get(client_address, None)
        self.delivered: list[Connection] = []
        self.clients: list[Wire] = []

    async def deliver(self, connection: Connection) -> Leg:
        """A client's leg that the test holds the other end of."""
        client, leg = self.rig.client()
        self.delivered.append(connection)
        self.clients.append(client)
        return leg

    async def asked(
        self, peer: str | None = CLIENT, *, port: int = 0, reached_on: str = CLIENT
    ) -> tuple[Connection, Port | None]:
        """A port that a client has asked for, announcing this peer."""
        target = Target(None, None, 0) if peer is None else target_of(peer, 0)
        origin = Origin("socks5", ClientKind.SOCKS, self.session.client_address, 4242)
        async with asyncio.timeout(PATIENCE_S):
            return await self.rig.engine.arrivals.open_port(
                self.session, origin, Asked(target, port, 4, reached_on), self.deliver
            )

    async def open(self, peer: str | None = CLIENT, **options: Any) -> tuple[Connection, Port]:
        """The same, and it is there."""
        connection, port = await self.asked(peer, **options)
        assert connection.refusal is None, connection.refusal
        assert port is not None
        return connection, port

    def visit(self, name: SocketName, source: str = CLIENT) -> Wire:
        """Somebody connects from this address."""
        sock = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
        try:
            sock.bind((source, 0))
            sock.connect(name)  # the kernel answers for who listens: on loopback it does so at once
        except BaseException:
            sock.close()
            raise
        return self.rig.keep(Wire(sock))

    async def passes(self, peer: Wire, client: Wire, data: bytes = b"hello") -> None:
        """Bytes go both ways."""
        await client.send(data)
        assert await peer.exactly(len(data)) == data
        await peer.send(data[::-1])
        assert await client.exactly(len(data)) == data[::-1]

    async def came(self, count: int = 1) -> Wire:
        """The client's end of the so-and-so-many'th peer that was led to it."""
        await wait_for(lambda: len(self.clients) >= count, "the peer was led to the client")
        return self.clients[count - 1]

    def refuses(self, name: SocketName, source: str = CLIENT) -> bool:
        """Whether nobody listens there."""
        try:
            self.visit(name, source)
        except ConnectionRefusedError:
            return True
        return False

    async def record_of(self, operation: str, count: int = 1) -> Record:
        """The last of so many records of this kind."""
        records = self.rig.recorder.records
        await wait_for(
            lambda: sum(r.operation == operation for r in records) >= count, f"{count} records of {operation}"
        )
        found = [r for r in records if r.operation == operation]
        assert len(found) == count, found
        return found[-1]


def address(text: str) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(text)
