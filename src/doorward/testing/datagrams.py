"""A conversation in datagrams through UDP data filters, written as data and played in order, one line after another.

    [FromClient(b"question"), ToServer(b"QUESTION"), FromServer(b"answer"), ToClient(b"answer")]

Datagrams that no line has asked for are no mistake: the outcome has everything that arrived. That something was
dropped is shown by sending another after it, which is the next to arrive.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from doorward.api.errors import Refuse, Terminating
from doorward.engine.udp.chain import DatagramChain
from doorward.engine.udp.ends import DatagramQueue
from doorward.testing.peer import ConversationBroken
from doorward.testing.results import notes_of

if TYPE_CHECKING:
    from doorward.api.sockets import SocketName
    from doorward.engine.chain import Failure
    from doorward.engine.connection import Connection
    from doorward.testing.ground import Ground

# Turns of the loop in which filters come to the end of what they were given.
TURNS_TO_REST: Final = 20


class FromClient(NamedTuple):
    """The client sends this, to the server unless it says otherwise."""

    data: bytes
    to: SocketName | None = None


class ToServer(NamedTuple):
    """This is the next that goes out, to the server unless it says otherwise."""

    data: bytes
    at: SocketName | None = None


class FromServer(NamedTuple):
    """The server sends this, or somebody else."""

    data: bytes
    source: SocketName | None = None


class ToClient(NamedTuple):
    """This is the next that reaches the client, from the server unless it says otherwise."""

    data: bytes
    source: SocketName | None = None


DatagramLine: TypeAlias = FromClient | ToServer | FromServer | ToClient
Datagram: TypeAlias = "tuple[bytes, SocketName]"


class DatagramOutcome(NamedTuple):
    """Everything that came out on either side, with its far end; the rest as in `Outcome`.

    `end` is `open` while filters are at it, `passed` when all have returned, or the reason that ended it.
    """

    to_client: tuple[Datagram, ...]
    to_server: tuple[Datagram, ...]
    end: str
    verdict: str | None = None
    filter: str | None = None
    error: BaseException | None = None
    notes: tuple[str, ...] = ()


class DatagramTable:
    """One chain between the two ends of the script."""

    def __init__(self, ground: Ground, connection: Connection, server: SocketName) -> None:
        """What is attached to the connection takes part."""
        self._ground = ground
        self._connection = connection
        self._server = server
        self._out: dict[type, _Side] = {ToServer: _Side("the server"), ToClient: _Side("the client")}
        self._failure: tuple[Failure, BaseException] | None = None
        self._end = "open"
        self._chain = DatagramChain(
            connection,
            connection.attached,
            to_external=self._out[ToServer].put,
            to_internal=self._out[ToClient].put,
            peer=server,
            watchdog=ground.watchdog,
            on_failure=self._failed,
            on_returned=self._returned,
        )

    async def play(self, script: Sequence[DatagramLine]) -> DatagramOutcome:
        """The script to its end, then the rest of what filters do by themselves. Raises ConversationBroken."""
        try:
            self._chain.start(self._ground.supervisor)
            for number, line in enumerate(script, 1):
                await self._do(number, line)
            for _ in range(TURNS_TO_REST):
                await asyncio.sleep(0)
        finally:
            self._chain.close()
            self._connection.kill()
            await self._ground.supervisor.close(self._ground.timeout_s)
        return self._outcome()

    async def _do(self, number: int, line: DatagramLine) -> None:
        data, name = line[0], line[1] or self._server
        if isinstance(line, FromClient):
            self._chain.outward(data, name)
        elif isinstance(line, FromServer):
            self._chain.inward(data, name)
        else:
            side = self._out[type(line)]
            where = f"{side.name} is at line {number}: {line}"
            try:
                async with asyncio.timeout(self._ground.timeout_s):
                    found = await side.queue.get()
            except TimeoutError:
                raise ConversationBroken(f"nothing moves: {where}") from None
            except Terminating as error:
                raise ConversationBroken(f"{where}; it met {self._end}") from error
            if found != (data, name):
                raise ConversationBroken(f"{where}; that is something else: {found}")

    def _failed(self, failure: Failure, cause: BaseException) -> None:
        self._failure, self._end = (failure, cause), failure.error.reason
        for side in self._out.values():
            side.queue.fail(Terminating("a filter has ended it"))

    def _returned(self) -> None:
        self._end = "passed"

    def _outcome(self) -> DatagramOutcome:
        to_client, to_server = tuple(self._out[ToClient].received), tuple(self._out[ToServer].received)
        outcome = DatagramOutcome(to_client, to_server, self._end, notes=notes_of(self._connection))
        if self._failure is None:
            return outcome
        (error, name), cause = self._failure
        verdict = "denied" if isinstance(error, Refuse) else "failed"
        return outcome._replace(verdict=verdict, filter=name, error=cause)


class _Side:
    """What has come out on one side: all of it, and what no line has asked for yet."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.queue = DatagramQueue()
        self.received: list[Datagram] = []

    def put(self, data: bytes, name: SocketName) -> None:
        self.received.append((data, name))
        self.queue.put(data, name)
