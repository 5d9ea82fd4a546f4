"""Filters on a table: data filters between two scripted peers, application filters asked about events.

The engine runs them (`ground`): its chain, its connections, its promises. No wire, no policy, no record, no watchdog
thread. A filter that blocks the loop blocks the test. As on a wire, a reset destroys what its receiver has not read.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Self

from doorward.api.contracts import Priority
from doorward.engine.chain import Attached
from doorward.engine.joint import joint
from doorward.engine.operation import Operation
from doorward.engine.target import Target
from doorward.testing.asking import Asking, Server
from doorward.testing.datagrams import DatagramLine, DatagramOutcome, DatagramTable
from doorward.testing.destination import ScriptedMapping
from doorward.testing.firewall import ScriptedFirewall
from doorward.testing.ground import Allows, Ground
from doorward.testing.peer import ConversationBroken, Line, Peer
from doorward.testing.promises import OUR_NAME, Given, stand
from doorward.testing.results import Asked, Outcome, notes_of
from doorward.testing.session import ScriptedSession

if TYPE_CHECKING:
    from types import TracebackType

    from doorward.api.contracts import TransportName
    from doorward.api.filters import ApplicationFilter, DataFilter
    from doorward.api.sockets import Socket, SocketName
    from doorward.engine.connection import Connection
    from doorward.testing.sockets import ScriptedDatagramSocket, ScriptedSocket

TIMEOUT_S: Final = 5.0


def everything(protocol: str, host: str, port: int | None) -> bool:
    """A policy that allows it."""
    return True


class FilterHarness:
    """One client, one server, the same for every conversation. Keep it simple: make a new one for another case.

    `names` are all the names that there are, with their addresses; `allows` is what policy answers a filter that
    asks (`check_access`) or opens a socket in the client's name. `timeout_s` is for each wait. Used with `async with`
    it ends what filters have started; without, that is left to the test.
    """

    def __init__(
        self,
        *,
        host: str | None = "server.example",
        address: str = "192.0.2.1",
        port: int = 80,
        protocol: str | None = None,
        client_address: str = "192.0.2.7",
        user: str | None = None,
        groups: frozenset[str] = frozenset(),
        names: Mapping[str, Sequence[str]] | None = None,
        allows: Allows = everything,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._server = Server(host, str(ipaddress.ip_address(address)), port, protocol)
        self._names = {name.lower(): tuple(found) for name, found in (names or {}).items()}
        if host is not None:
            self._names.setdefault(host.lower(), (self._server.address,))
        self._allows = allows
        self._timeout_s = timeout_s
        self._made: Ground | None = None
        self.session = ScriptedSession(self._get_ground, 1, client_address, user, groups)
        self.firewall = ScriptedFirewall(self._get_ground, self.session)

    async def ask(
        self, application_filter: ApplicationFilter, *, settings: Mapping[str, Any] | None = None
    ) -> Asked:
        """Hand it a connect event, and say what it did. Raises what it raises. What it attached goes into `run`.

        `settings` are what a rule says to the filter, here as in every call that asks: laid over its own, and
        compiled. A filter whose interest does not name the event raises ConversationBroken, for it would not be told.
        """
        return await self._asking(application_filter, settings).connect()

    async def ask_bind(
        self,
        application_filter: ApplicationFilter,
        transport: TransportName = "tcp",
        address: str = "",
        port: int = 0,
        *,
        settings: Mapping[str, Any] | None = None,
    ) -> Asked:
        """A bind event, and if it stands and the filter wants it, the listen event."""
        return await self._asking(application_filter, settings).bind(transport, address, port)

    async def ask_accept(
        self,
        application_filter: ApplicationFilter,
        remote: SocketName = ("198.51.100.1", 20),
        *,
        listening: Connection | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> Asked:
        """An accept event, of a port that the client has open or of `listening`."""
        return await self._asking(application_filter, settings).accept(remote, listening)

    async def ask_udp_destination(
        self, application_filter: ApplicationFilter, *, settings: Mapping[str, Any] | None = None
    ) -> Asked:
        """A UDP destination event: the client is about to speak to the server."""
        return await self._asking(application_filter, settings).udp_destination()

    async def ask_resolve(
        self, application_filter: ApplicationFilter, *, name: str | None = None, address: str | None = None
    ) -> Asked:
        """A look-up of a name, or of an address, with both its events. Raises NameNotFound."""
        return await self._asking(application_filter, None).resolve(name, address)

    async def established(
        self, application_filter: ApplicationFilter, connection: Connection | None = None
    ) -> Asked:
        """An established event, of a connection that it was asked about or of a new one."""
        return await self._asking(application_filter, None).established(connection)

    async def terminating(
        self,
        application_filter: ApplicationFilter,
        connection: Connection | None = None,
        *,
        bytes_sent: int = 0,
        bytes_received: int = 0,
        end: str = "closed",
    ) -> Asked:
        """A connection ends, one that the filter was asked about or a new one, and it is told."""
        asking = self._asking(application_filter, None)
        return await asking.terminating(connection, bytes_sent, bytes_received, end)

    async def run(
        self,
        *filters: DataFilter,
        client: Sequence[Line] = (),
        server: Sequence[Line] = (),
        emulator: DataFilter | None = None,
        connection: Connection | None = None,
        peers: Sequence[Peer] = (),
    ) -> Outcome:
        """Both scripts through the filters, in the order of their priorities. Raises ConversationBroken.

        With an `emulator` there is no server; what `connection` (one that was asked about, or handed to a client)
        has attached and who emulates it takes part as well. `peers` are others with a script, to play beside.
        """
        ground = self._get_ground()
        connection = connection or ground.make(
            self.session, self._server.target, protocol=self._server.protocol
        )
        (client_socket, internal), (external, server_socket) = joint(), joint()
        connection.attached += [_attached(item, item.priority) for item in filters]
        if emulator is not None:
            connection.emulator = _attached(emulator, Priority.EMULATION)
        assert connection.attached or connection.emulator, "there is nothing to try"
        at_client = Peer("the client", client_socket, client)
        at_server = Peer("the server", server_socket, server)
        playing = [at_client, *peers]
        if connection.emulator is None:
            connection.external = external
            playing.append(at_server)
        else:
            assert not server, "who is emulated has no server"
        stand(connection, ipaddress.ip_address(self._server.address))
        await self._play(ground, connection, ground.carry(connection, internal), playing)
        return _outcome(ground, connection, at_client, at_server)

    async def run_datagrams(
        self, *filters: DataFilter, script: Sequence[DatagramLine] = ()
    ) -> DatagramOutcome:
        """Datagrams through the filters, as if they were attached for the server. Raises ConversationBroken."""
        ground, target = self._get_ground(), Target(None, None, 0)
        connection = ground.make(self.session, target, Operation.UDP, "udp", self._server.protocol)
        connection.extra.udp = ScriptedMapping(connection, OUR_NAME)
        connection.attached += [_attached(item, item.priority) for item in filters]
        assert connection.attached, "there is nothing to try"
        table = DatagramTable(ground, connection, (self._server.address, self._server.port))
        return await table.play(script)

    @property
    def grants(self) -> list[Given]:
        """Everything that was promised, oldest first."""
        return self._get_ground().promises.given

    @property
    def handed_over(self) -> list[Connection]:
        """The peers that a filter has given to the client of an emulated bind: `run(connection=…)` plays each."""
        return self._get_ground().ports.handed_over

    @property
    def sockets(self) -> list[ScriptedSocket | ScriptedDatagramSocket]:
        """Every network socket that a filter has made, of the session or of the firewall."""
        return self._get_ground().sockets

    def serve(self, host: str, port: int) -> Socket:
        """A server for one connection of a filter's own socket; this is its end. Without one it is refused."""
        return self._get_ground().serve(host, port)

    def client_has_bound(self, address: str, port: int) -> Connection:
        """The client had us bind this port before, for `retroactive_allow_bind` to find; nobody may come yet."""
        ground = self._get_ground()
        connection = ground.make(self.session, Target(None, None, port), Operation.BIND)
        ground.ports.open_here(connection, "tcp", (address, port))
        connection.extra.socket_name, connection.opened = (address, port), True
        return connection

    async def close(self) -> None:
        """End what is left: connections, promises, tasks that filters have started."""
        await self.firewall.close()
        if self._made is not None:
            for connection in tuple(self._made.connections.values()):
                connection.kill()
            self.session.close()
            await self._made.supervisor.close(self._timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def _get_ground(self) -> Ground:
        """Made when it is needed: a harness may be made where no loop runs."""
        if self._made is None:
            self._made = Ground(self._names, self._allows, self._timeout_s)
        return self._made

    def _asking(self, application_filter: ApplicationFilter, settings: Mapping[str, Any] | None) -> Asking:
        ground = self._get_ground()
        entry = ground.put_in_force(application_filter, settings)
        return Asking(ground, self.session, self._server, entry)

    async def _play(
        self,
        ground: Ground,
        connection: Connection,
        carrying: Any,
        peers: Sequence[Peer],
    ) -> None:
        """All of them to their end. Raises ConversationBroken."""
        loop = asyncio.get_running_loop()
        tasks = [loop.create_task(carrying), *(loop.create_task(peer.play()) for peer in peers)]
        try:
            done, waiting = await asyncio.wait(
                tasks, timeout=self._timeout_s, return_when=asyncio.FIRST_EXCEPTION
            )
            for task in done:
                await task
            if waiting:
                raise ConversationBroken("nothing moves: " + "; ".join(peer.where for peer in peers))
        finally:
            connection.end_tasks()
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await ground.supervisor.close(self._timeout_s)


def _attached(data_filter: DataFilter, priority: Priority) -> Attached:
    return Attached(priority, data_filter, type(data_filter).__name__)


def _outcome(ground: Ground, connection: Connection, client: Peer, server: Peer) -> Outcome:
    assert connection.end is not None
    verdict = next((v for v in connection.verdicts if v.verdict in ("denied", "failed")), None)
    failures, ground.failures[:] = tuple(ground.failures), []
    return Outcome(
        bytes(client.received),
        bytes(server.received),
        connection.end.how,
        None if verdict is None else verdict.verdict,
        None if verdict is None else verdict.filter,
        None if verdict is None or not failures else failures[0],
        notes_of(connection),
    )
