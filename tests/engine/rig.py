"""A whole engine on loopback sockets, without a front end: what tests of connections stand on.

`make_rig` (conftest.py) makes one and checks afterwards that nothing is left: no task, no descriptor, no connection.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tests.engine.wires import PATIENCE_S, Server, Wire

from doorward.api import (
    AcceptEvent,
    ApplicationFilter,
    BindEvent,
    ClientKind,
    ConnectEvent,
    DataFilter,
    EstablishedEvent,
    EventKind,
    Interest,
    ListenEvent,
    ResolveEvent,
    Scope,
    Side,
    TerminatingEvent,
    UdpDestinationEvent,
)
from doorward.api import Session as SessionContract
from doorward.api.filters import CLIENTS, SessionFilter
from doorward.config.model import Limits
from doorward.engine.association import Associations, FilterEntry
from doorward.engine.connection import Connection
from doorward.engine.engine import Engine
from doorward.engine.origin import Origin
from doorward.engine.ruling import Ruling
from doorward.engine.session import Session, SessionTable
from doorward.engine.supervision import Supervisor, Watchdog
from doorward.engine.target import Target, target_of
from doorward.net.leg import Leg
from doorward.net.own_addresses import OwnAddresses
from doorward.net.poller import Poller
from doorward.net.python_relay import PythonRelay
from doorward.net.resolve import Addresses, Resolver
from doorward.policy.evaluation import Policy
from doorward.policy.model import Action, Protocols, Rule, Unknown
from doorward.record.model import Record

LOOPBACK = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
LOCAL_RULE = Rule("local", Action.ALLOW, to_networks=LOOPBACK, to_names=("*.test",))
NAMED_RULES = (LOCAL_RULE,)

Handler = Callable[[Any], Awaitable[None]]


async def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Turn the loop until the condition holds."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - whatever it is, it has no event of its own
                await asyncio.sleep(0)
    except TimeoutError:
        raise AssertionError(f"never: {what}") from None


class Recorder:
    """Keeps records in memory."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.trouble: str | None = None

    def append(self, record: Record) -> None:
        self.records.append(record)

    def refuses(self) -> str | None:
        return self.trouble


class Plugin(ApplicationFilter):
    """An application filter whose handlers are given; each event it hears goes into `heard` with its name."""

    def __init__(
        self,
        name: str,
        heard: list[tuple[str, str]],
        connect: Handler | None = None,
        established: Handler | None = None,
        terminating: Handler | None = None,
        **others: Handler | None,
    ) -> None:
        super().__init__()
        self.name = name
        self.heard = heard
        self.handlers = {"connect": connect, "established": established, "terminating": terminating, **others}
        self.sessions: list[SessionContract] = []
        self.ends: list[TerminatingEvent] = []

    def session_filter(self, session: SessionContract) -> SessionFilter:
        self.sessions.append(session)
        return _Hearing(self)

    async def hear(self, kind: str, event: Any) -> None:
        self.heard.append((self.name, kind))
        handler = self.handlers.get(kind)
        if handler is not None:
            await handler(event)


class _Hearing(SessionFilter):
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
        self.plugin.ends.append(event)
        await self.plugin.hear("terminating", event)


def entry(
    plugin: Plugin,
    *,
    events: Sequence[EventKind] = (EventKind.CONNECT, EventKind.ESTABLISHED),
    fail: Literal["closed", "open"] = "closed",
    scope: Scope = Scope.PRIMARY,
    clients: Iterable[ClientKind] = CLIENTS,
) -> FilterEntry:
    """A plugin in force for everything."""
    return FilterEntry(
        plugin.name, plugin, Interest.of(events=events, scope=scope, clients=clients), fail=fail
    )


def attaching(*filters: DataFilter) -> Handler:
    """A connect handler that attaches these."""

    async def attach(event: ConnectEvent) -> None:
        for data_filter in filters:
            event.connection.attach_data_filter(data_filter)

    return attach


class Conversation:
    """One connection through the engine, with both its ends in the test's hands."""

    def __init__(
        self, connection: Connection, client: Wire, server: Wire, carried: asyncio.Task[None]
    ) -> None:
        self.connection = connection
        self.client = client
        self.server = server
        self.carried = carried

    async def both_ways(self, data: bytes) -> None:
        """Bytes pass unchanged in both directions."""
        await self.client.send(data)
        assert await self.server.exactly(len(data)) == data
        await self.server.send(data[::-1])
        assert await self.client.exactly(len(data)) == data[::-1]

    async def end(self) -> None:
        """In order: the client first."""
        self.client.end()
        assert await self.server.rest() == b""
        self.server.end()
        assert await self.client.rest() == b""

    def close(self) -> None:
        self.client.close()
        self.server.close()


class Emulated(NamedTuple):
    """One connection without a server, with the client's end in the test's hands."""

    connection: Connection
    client: Wire
    carried: asyncio.Task[None]


class Rig:
    """See the module."""

    def __init__(
        self,
        tmp_path: Path,
        entries: Sequence[FilterEntry] = (),
        *,
        limits: Limits | None = None,
        rules: Sequence[Rule] = NAMED_RULES,
        lookup: Callable[[str], Addresses] | None = None,
        lookup_back: Callable[[str], tuple[str, ...]] | None = None,
        protocols: Protocols | None = None,
        stall_s: float = 5.0,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._tasks = tasks()
        self._descriptors = descriptors()
        self.failures: list[tuple[str, BaseException]] = []
        self.lookups: list[str] = []
        self.recorder = Recorder()
        self.poller = Poller(loop)
        self.watchdog = Watchdog(stall_s)
        self.watchdog.start(loop)
        self.supervisor = Supervisor(lambda name, error: self.failures.append((name, error)))
        self.limits = limits or Limits()
        self._lookup = lookup
        self.protocols = protocols or Protocols()
        self.resolver = Resolver(2.0, self._look_up, lookup_back)
        self.engine = Engine(
            poller=self.poller,
            resolver=self.resolver,
            own_addresses=OwnAddresses(loop.time, tmp_path),
            sessions=SessionTable(loop.time, 100, 60.0),
            watchdog=self.watchdog,
            supervisor=self.supervisor,
            recorder=self.recorder,
            ruling=self.ruling(entries, rules),
            on_filter_failure=lambda _, name, error: self.failures.append((name, error)),
        )
        self.engine.relay = PythonRelay(self.poller, self.engine.completed)
        self._closables: list[Wire | Server] = []
        self.server = self._closing(Server())

    def ruling(self, entries: Sequence[FilterEntry], rules: Sequence[Rule] = NAMED_RULES) -> Ruling:
        return Ruling(Policy(rules, "revision"), Associations(entries, self.protocols), self.limits)

    def _look_up(self, name: str) -> Addresses:
        self.lookups.append(name)
        assert self._lookup is not None, "nothing should be looked up"
        return self._lookup(name)

    def _closing(self, server: Server) -> Server:
        self._closables.append(server)
        return server

    def keep(self, wire: Wire) -> Wire:
        """To be closed at the end."""
        self._closables.append(wire)
        return wire

    def another_server(self) -> Server:
        """One more, closed with the rig."""
        return self._closing(Server())

    def target(self, host: str = "127.0.0.1") -> Target:
        return target_of(host, self.server.port)

    async def connect(
        self,
        target: Target | None = None,
        *,
        user: str | Unknown | None = None,
        application: str | None = None,
        client_address: str = "127.0.0.1",
        kind: ClientKind = ClientKind.SOCKS,
        session: Session | None = None,
    ) -> Connection:
        """What a front end asks for."""
        session = session or self.engine.sessions.get(client_address, user)
        origin = Origin("socks5", kind, client_address, 4242, application)
        async with asyncio.timeout(PATIENCE_S):
            return await self.engine.connect(session, target or self.target(), origin, user=user)

    async def converse(self) -> Conversation:
        """A connection that is being carried."""
        connection = await self.connect()
        assert connection.refusal is None, connection.refusal
        server = await self._accepted(connection)
        client, leg = self.client()
        self._closables.append(server)
        carried = self.start(self.engine.carry(connection, leg))
        return Conversation(connection, client, server, carried)

    async def emulated(self, **options: Any) -> Emulated:
        """A connection that a filter is the server of, being carried."""
        connection = await self.connect(**options)
        assert connection.refusal is None, connection.refusal
        client, leg = self.client()
        return Emulated(connection, client, self.start(self.engine.carry(connection, leg)))

    async def _accepted(self, connection: Connection) -> Wire:
        """The server's end of this connection; those of connections that failed may wait before it."""
        while True:
            server = await self.server.accept()
            if server.peer == connection.external_socket_name:
                return server
            server.close()

    def client(self) -> tuple[Wire, Leg]:
        """A client's own end, and ours."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            near = socket.create_connection(listener.getsockname())
            far, _ = listener.accept()
        far.setblocking(False)
        wire = Wire(near)
        self._closables.append(wire)
        return wire, Leg(self.poller, far, Side.INTERNAL)

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """As the supervisor would run it."""
        return asyncio.Task(coroutine, loop=asyncio.get_running_loop())

    async def record(self) -> Record:
        """The one record there is, or will be."""
        await wait_for(lambda: bool(self.recorder.records), "a record")
        assert len(self.recorder.records) == 1
        return self.recorder.records[0]

    async def close(self) -> None:
        """End everything. Raises AssertionError when something is left behind."""
        engine = self.engine
        for connection in list(engine.connections.values()):
            engine.kill(connection, "shutdown")
        engine.relay.close()
        await self.supervisor.close(PATIENCE_S)
        for closable in self._closables:
            closable.close()
        await wait_for(lambda: tasks() <= self._tasks, "tasks are left")
        assert not engine.connections
        assert all(session.connections == 0 for session in engine.sessions)
        assert len(engine.relay) == 0
        for session in list(engine.sessions):
            engine.sessions.remove(session)
        assert engine.grants.alive == 0
        assert len(self.poller) == 0
        self.watchdog.close()
        asyncio.get_running_loop().set_task_factory(None)
        self.resolver.close()
        self.poller.close()
        assert descriptors() <= self._descriptors, "descriptors are left"


def tasks() -> set[asyncio.Task[Any]]:
    """Every task but those of the test runner itself."""
    return {
        task
        for task in asyncio.all_tasks()
        if not getattr(task.get_coro(), "__qualname__", "").startswith("TestRunner.")
    }


def descriptors() -> set[int]:
    """The open descriptors of this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - names, and no handle kept open while they are read
        try:
            os.fstat(int(name))
        except OSError:
            continue  # the one that listed them
        found.add(int(name))
    return found
