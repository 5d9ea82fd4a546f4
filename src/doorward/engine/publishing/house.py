"""One published server: its session, who may come to it, the machines behind it, and its ports.

It is opened once and closed once. Who has come through when it is closed goes on: its session ends with the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple

from doorward.api.errors import LinkError, OutOfResources, ServersDown, Side
from doorward.api.filters import ClientKind
from doorward.engine.origin import Origin
from doorward.engine.publishing.datagrams import DatagramPort
from doorward.engine.publishing.probing import probe_for_ever
from doorward.engine.publishing.servers import ALL_DOWN, Server, Servers
from doorward.engine.publishing.streams import StreamPort
from doorward.engine.publishing.visitors import ENTRY, Visitors
from doorward.engine.session import NOBODY
from doorward.net.dial import dial
from doorward.net.transparent import Borrowed

if TYPE_CHECKING:
    import socket

    from doorward.api.contracts import TransportName
    from doorward.api.sockets import SocketName
    from doorward.config.model import Published, PublishedAddress
    from doorward.engine.engine import Engine
    from doorward.net.leg import Leg
    from doorward.policy.model import IPAddress

Ends = Mapping["PublishedAddress", "socket.socket"]


class Watch(NamedTuple):
    """What the operator is told: a machine is well no more, or again; a port does not stand, and why."""

    on_server: Callable[[Published, Server, str], None]
    on_port: Callable[[Published, PublishedAddress, str], None]


class House:
    """See the module. `room` says whether one more connection fits into the process."""

    def __init__(self, engine: Engine, published: Published, room: Callable[[], bool], watch: Watch) -> None:
        """Nothing is open yet. Raises OutOfResources if there is no session left."""
        self.engine = engine
        self.published = published
        self.room = room
        self.session = engine.sessions.private(str(published.to[0][0]), None, NOBODY)
        self.visitors = Visitors(engine, published, self.session)
        self.servers = Servers(published, engine.poller.loop.time, self._server_changed)
        self.ports: dict[PublishedAddress, StreamPort | DatagramPort] = {}
        self._watch = watch
        self._probes: list[asyncio.Task[None]] = []
        self._closed = False

    @property
    def is_over(self) -> bool:
        """Whether nobody is served any more."""
        return not self.session.connections

    def open(self, ends: Ends) -> None:
        """Serve at these bound sockets, which are owned from now on. What cannot be is told, and its socket closed."""
        for here, sock in ends.items():
            port = StreamPort(self, here) if here.transport == "tcp" else DatagramPort(self, here)
            self.ports[here] = port
            port.open(sock)
        checks = self.published.health
        if checks is not None:
            for server in self.servers.every:
                self.engine.supervisor.spawn(self._probe(server), name="probe of a published server")

    def close(self) -> None:
        """Nobody else may come. Idempotent."""
        self._closed = True
        for probe in self._probes:
            probe.cancel()
        self._probes.clear()
        for port in self.ports.values():
            port.close()

    def end(self) -> None:
        """Everything that goes on is over as well. Idempotent."""
        self.close()
        self.engine.close_session(self.session)

    def origin(self, transport: TransportName, number: int) -> Origin:
        """Of what comes to this port of ours. What it speaks is what the policy says, or what the port stands for."""
        published, associations = self.published, self.engine.ruling.associations
        application = associations.protocol(transport, number, published.protocol)
        address, port = published.to[0]
        return Origin(ENTRY, ClientKind.PUBLISHED, str(address), port, application)

    async def reach(self, client: IPAddress, timeout_s: float) -> tuple[Leg, Server]:
        """A leg to the first machine that answers, each with its share of the time. Raises ServersDown, LinkError."""
        loop, poller = self.engine.poller.loop, self.engine.poller
        source: SocketName | None = Borrowed(str(client)) if self.published.keeps_source else None
        deadline, failures = loop.time() + timeout_s, []
        servers = self.servers.order(client)
        for place, server in enumerate(servers):
            left_s = deadline - loop.time()
            if left_s <= 0:
                break
            try:
                leg, _ = await dial(
                    poller, (server.address,), server.port, left_s / (len(servers) - place), source
                )
            except OutOfResources:
                raise
            except LinkError as error:
                if error.side is Side.OURS:  # the source cannot be had: nothing that the machine could help
                    raise
                failures.append(f"{server.name}: {error.detail or error.reason}")
                self.servers.failed(server, error.detail or error.reason)
            else:
                self.servers.well(server)
                return leg, server
        raise ServersDown("; ".join(failures) or ALL_DOWN, side=Side.INTERNAL)

    def port_ended(self, here: PublishedAddress, why: str) -> None:
        """This port does not stand, or no more."""
        self._watch.on_port(self.published, here, why)

    def _server_changed(self, server: Server, why: str) -> None:
        self._watch.on_server(self.published, server, why)

    async def _probe(self, server: Server) -> None:
        task, checks = asyncio.current_task(), self.published.health
        assert task is not None
        assert checks is not None
        if self._closed:
            return
        self._probes.append(task)
        await probe_for_ever(self.engine.poller, self.servers, server, checks)
