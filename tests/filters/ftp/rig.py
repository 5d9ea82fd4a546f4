"""A control connection on a table: the filter between a client and a server that the test plays, and a session
that notes every promise it is asked for.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, cast

import pytest

from doorward.api import Connection, DoorwardError, IpFilter, NotFound, Session, Socket, SocketName
from doorward.engine.containment import contained
from doorward.filters.ftp.control import FtpControl
from doorward.filters.ftp.settings import read_settings
from doorward.testing import socket_pair

PATIENCE_S: Final = 5.0
CLIENT: Final = "192.0.2.7"
SERVER: Final = "198.51.100.1"
OURS: Final = "203.0.113.254"


class Promise:
    """A grant, or a connection that listens."""

    def __init__(self, about: tuple[object, ...], socket_name: SocketName | None = None) -> None:
        self.about = about
        self.open = True
        self.external_socket_name = socket_name

    def cancel(self) -> None:
        self.open = False

    kill = cancel


class FakeSession:
    """Fulfils what the filter uses of `api.Session`. `bound` are addresses that the client had us bind before."""

    def __init__(self, client_address: str) -> None:
        self.client_address = client_address
        self.bound: set[SocketName] = set()
        self.promises: list[Promise] = []
        self.error: DoorwardError | None = None
        self.next_port = 40001

    @property
    def open(self) -> list[tuple[object, ...]]:
        """The promises that are open now."""
        return [promise.about for promise in self.promises if promise.open]

    def allow_connect(self, address: str, port: int, **how: Any) -> Promise:
        if self.error is not None:
            raise self.error
        assert how.pop("parent") is not None
        last = how.pop("last_port", None)
        about = ("connect", address, port) if last is None else ("connect", address, port, last, how)
        return self._keep(Promise(about))

    def retroactive_allow_bind(
        self, transport: str, bound: SocketName, *, ip_filter: IpFilter, parent: object
    ) -> Promise:
        assert transport == "tcp"
        assert parent is not None
        if bound not in self.bound:
            raise NotFound("no such bind")
        return self._keep(Promise(("admit", bound, ip_filter.ranges)))

    async def bind_for_client(
        self, client_address: SocketName, *, address: str, ip_filter: IpFilter, parent: object
    ) -> list[Promise]:
        assert parent is not None
        await asyncio.sleep(0)  # binding takes its time: others get their turn
        if self.error is not None:
            raise self.error
        name = address, self.next_port
        self.next_port += 1
        return [self._keep(Promise(("listen", client_address, ip_filter.ranges), name))]

    def _keep(self, promise: Promise) -> Promise:
        self.promises.append(promise)
        return promise


class FakeConnection:
    """Fulfils what the filter uses of `api.Connection`."""

    def __init__(self, session: FakeSession, server: str, ours: str) -> None:
        self.id = 1
        self.session = cast(Session, session)
        self.external_peer_name = server, 21
        self.external_socket_name = ours, 50000
        self.notes: list[str] = []

    def note(self, reason: str, by: str) -> None:
        assert by == "ftp"
        self.notes.append(reason)


class End:
    """The client, or the server."""

    def __init__(self, socket: Socket) -> None:
        self.socket = socket
        self._held = b""

    async def says(self, text: str | bytes) -> None:
        """These lines, or these very bytes."""
        data = (
            text if isinstance(text, bytes) else "".join(f"{line}\r\n" for line in text.split("\n")).encode()
        )
        async with asyncio.timeout(PATIENCE_S):
            await self.socket.send(data)

    async def hears(self, text: str) -> None:
        """Exactly these lines come next."""
        wanted = "".join(f"{line}\r\n" for line in text.split("\n")).encode()
        async with asyncio.timeout(PATIENCE_S):
            while len(self._held) < len(wanted):
                data = await self.socket.recv()
                assert data, f"it ended after {self._held!r}"
                self._held += data
        heard, self._held = self._held[: len(wanted)], self._held[len(wanted) :]
        assert heard == wanted, (heard, self._held)

    async def hears_nothing(self) -> None:
        """Nothing more, however long one waits (which is not long)."""
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                self._held += await self.socket.recv()
        assert self._held == b""

    async def hears_the_end(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            assert (self._held, await self.socket.recv()) == (b"", b"")

    async def leaves(self) -> None:
        """Says no more."""
        await self.socket.shutdown()


class Table:
    """One conversation. `ended` is what the filter raised, once it has come back; None if it returned."""

    def __init__(self, settings: Mapping[str, Any], client: str, server: str, ours: str) -> None:
        self.session = FakeSession(client)
        self.connection = FakeConnection(self.session, server, ours)
        self.alerts: list[dict[str, object]] = []
        near, self.internal = socket_pair()
        far, self.external = socket_pair()
        self.client, self.server = End(near), End(far)
        self._filter = FtpControl(lambda name, **fields: self.alerts.append({"name": name, **fields}))
        self._filter.context = read_settings(settings)
        self._task = asyncio.get_running_loop().create_task(self._pump())

    async def greeted(self) -> None:
        """The server has said hello, and the client has heard it."""
        await self.server.says("220 ready")
        await self.client.hears("220 ready")

    async def passes(self, *lines: str) -> None:
        """Each reaches the server as it was said."""
        for line in lines:
            await self.client.says(line)
            await self.server.hears(line)

    async def answers(self, *lines: str) -> None:
        """Each reaches the client as it was said."""
        for line in lines:
            await self.server.says(line)
            await self.client.hears(line)

    async def is_refused(self, line: str, code: int, reason: str) -> None:
        """The client is told so, the server hears nothing, and it is noted."""
        noted = self.connection.notes.count(reason)
        await self.client.says(line)
        await self.client.hears(f"{code} Refused by the firewall: {reason}")
        assert self.connection.notes.count(reason) == noted + 1

    async def ended(self) -> BaseException | None:
        async with asyncio.timeout(PATIENCE_S):
            return await self._task

    async def over(self) -> None:
        """Both sides leave, and the filter comes back without a word; the server has heard nothing more."""
        await self.client.leaves()
        await self.server.hears_the_end()
        await self.server.leaves()
        await self.client.hears_the_end()
        assert await self.ended() is None

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _pump(self) -> BaseException | None:
        try:
            await self._filter.pump(self.internal, self.external, cast(Connection, self.connection))
        except (DoorwardError, ExceptionGroup) as error:
            return contained(error)  # as the engine does
        return None


@asynccontextmanager
async def table(
    settings: Mapping[str, Any] | None = None,
    *,
    client: str = CLIENT,
    server: str = SERVER,
    ours: str = OURS,
    greeted: bool = True,
) -> AsyncIterator[Table]:
    """At its end no hole for a single transfer is open, and no task is left."""
    here = Table(settings or {}, client, server, ours)
    tasks = len(asyncio.all_tasks())
    try:
        if greeted:
            await here.greeted()
        yield here
    finally:
        await here.close()
    assert not [promise for promise in here.session.open if len(promise) == 3]
    assert len(asyncio.all_tasks()) < tasks
