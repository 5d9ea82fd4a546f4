"""A scripted peer: one side of a conversation, written as data, over an in-memory socket.

    [Send(b"hello\\n"), Expect(b"HELLO\\n"), End(), ExpectEnd()]

A script that is over ends the peer's own side and takes in the rest, so most scripts need neither End nor
ExpectEnd. Expected bytes may come in any cut; more than was expected waits for the next line.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple, TypeAlias

from doorward.api.errors import DoorwardError
from doorward.api.sockets import Socket
from doorward.engine.joint import joint


class Send(NamedTuple):
    """Send these bytes, as one chunk."""

    data: bytes


class Expect(NamedTuple):
    """Exactly these bytes come next."""

    data: bytes


class End(NamedTuple):
    """Send no more (FIN); the other direction goes on."""


class ExpectEnd(NamedTuple):
    """The other side sends no more, and not a byte before that."""


class Reset(NamedTuple):
    """Abort (RST): nothing can follow."""


class ExpectReset(NamedTuple):
    """The connection is reset; bytes before that do not matter."""


class Do(NamedTuple):
    """Something for the test to do or to look at when the script has come so far: a function, or an async one."""

    action: Callable[[], Awaitable[object] | object]


Line: TypeAlias = Send | Expect | End | ExpectEnd | Reset | ExpectReset | Do


class ConversationBroken(AssertionError):
    """A conversation did not go as its script says. The text tells where and how."""


def socket_pair() -> tuple[Socket, Socket]:
    """Two in-memory sockets that face each other: what one sends the other receives. See `engine.joint`."""
    return joint()


class Peer:
    """One side. `received` is everything that came, in order; `reset_by` the error that ended it, if one did."""

    def __init__(self, name: str, socket: Socket, script: Sequence[Line]) -> None:
        self.name = name
        self.received = bytearray()
        self.reset_by: DoorwardError | None = None
        self._socket = socket
        self._script = tuple(script)
        self._line = 0
        self._unclaimed = bytearray()
        self._ended = False

    @property
    def where(self) -> str:
        """Where in its script it is, for people."""
        if self._line >= len(self._script):
            return f"{self.name} is at the end of its script"
        held = f", with {bytes(self._unclaimed)!r} at hand" if self._unclaimed else ""
        return f"{self.name} is at line {self._line + 1}: {self._script[self._line]}{held}"

    async def play(self) -> None:
        """The whole script, then the rest. Raises ConversationBroken."""
        try:
            for self._line, line in enumerate(self._script):  # noqa: B020 - `where` reads it at any time
                await self._do(line)
            self._line = len(self._script)
            await self._end()
            while await self._receive():
                pass
        except DoorwardError as error:
            self.reset_by = error
            if self._line < len(self._script) and not isinstance(self._script[self._line], ExpectReset):
                raise ConversationBroken(f"{self.where}; it met {error.reason}: {error}") from error

    async def _do(self, line: Line) -> None:
        match line:
            case Send(data):
                await self._socket.send(data)
            case Expect(data):
                await self._expect(data)
            case End():
                await self._end()
            case ExpectEnd():
                if self._unclaimed or await self._receive():
                    raise ConversationBroken(f"{self.where}; the other side went on")
            case Do(action):
                found = action()
                if isinstance(found, Awaitable):
                    await found
            case Reset():
                await self._socket.close(abortive=True)
            case ExpectReset():
                while await self._receive():
                    pass
                raise ConversationBroken(f"{self.where}; it ended in order")

    async def _expect(self, data: bytes) -> None:
        while len(self._unclaimed) < len(data) and data.startswith(self._unclaimed):
            if not await self._receive():
                raise ConversationBroken(f"{self.where}; the other side has ended")
        if not self._unclaimed.startswith(data):
            raise ConversationBroken(f"{self.where}; that is something else")
        del self._unclaimed[: len(data)]

    async def _end(self) -> None:
        if not self._ended:
            self._ended = True
            await self._socket.shutdown()

    async def _receive(self) -> bool:
        """One more chunk; False at the end of the stream."""
        data = await self._socket.recv()
        self.received += data
        self._unclaimed += data
        return bool(data)
