"""A joint: the bounded pair of sockets between two neighbours of a chain, in memory.

Each end is a `Socket`. What one end sends the other receives; back-pressure, half-close and reset behave as on
a wire.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from doorward.api.errors import DoorwardError, PeerReset, Side, Terminating
from doorward.net.carrier import StreamOnly

HELD_BYTES_MAX: Final = 256 * 1024


class Lane:
    """One direction: bytes on their way, at most `HELD_BYTES_MAX` before the sender waits."""

    __slots__ = ("chunks", "ended", "failure", "reader", "size", "writer")

    def __init__(self) -> None:
        self.chunks: deque[bytes] = deque()
        self.size = 0
        self.ended = False
        self.failure: DoorwardError | None = None
        self.reader: asyncio.Future[None] | None = None
        self.writer: asyncio.Future[None] | None = None

    def put(self, data: bytes) -> None:
        """Add bytes; the sender has waited for room."""
        self.chunks.append(data)
        self.size += len(data)
        _wake(self.reader)

    def take(self, bytes_max: int | None) -> bytes:
        """The next chunk, cut to `bytes_max`."""
        data = self.chunks.popleft()
        if bytes_max and len(data) > bytes_max:
            self.chunks.appendleft(data[bytes_max:])
            data = data[:bytes_max]
        self.size -= len(data)
        _wake(self.writer)
        return data

    def take_all(self) -> bytes:
        """Everything on its way."""
        data = b"".join(self.chunks)
        self.chunks.clear()
        self.size = 0
        return data

    def end(self) -> None:
        """No more will come."""
        self.ended = True
        _wake(self.reader)
        _wake(self.writer)

    def fail(self, error: DoorwardError) -> None:
        """Whoever reads or writes meets this error. The first one stays."""
        if self.failure is None:
            self.failure = error
        self.end()


class JointEnd(StreamOnly):
    """One end. See `Socket`."""

    __slots__ = ("_over", "closed", "incoming", "outgoing", "received", "sent")

    def __init__(self, incoming: Lane, outgoing: Lane) -> None:
        self.incoming = incoming
        self.outgoing = outgoing
        self.closed = False
        self._over: DoorwardError | None = None  # why, if it was this end's own doing
        self.received = 0
        self.sent = 0

    @property
    def open(self) -> bool:
        return not self.closed and self.outgoing.failure is None

    @property
    def busy(self) -> bool:
        """Whether a task waits for this end."""
        return self.incoming.reader is not None or self.outgoing.writer is not None

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `Socket.recv`."""
        lane = self.incoming
        while True:
            if self._over is not None:
                raise self._over
            if lane.chunks:
                data = lane.take(bytes_max)
                self.received += len(data)
                return data
            if lane.failure is not None:
                raise lane.failure
            if lane.ended:
                return b""
            assert lane.reader is None, "two tasks read one end"
            lane.reader = asyncio.get_running_loop().create_future()
            try:
                await lane.reader
            finally:
                lane.reader = None

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `Socket.send`."""
        await self.send_some(data)

    async def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """Send all of it once there is room, and say how much it was. A cancelled call has sent nothing."""
        lane = self.outgoing
        while lane.size >= HELD_BYTES_MAX and not lane.ended:
            assert lane.writer is None, "two tasks write one end"
            lane.writer = asyncio.get_running_loop().create_future()
            try:
                await lane.writer
            finally:
                lane.writer = None
        if lane.failure is not None:
            raise lane.failure
        if lane.ended:
            raise Terminating("send after shutdown")
        if data:
            lane.put(bytes(data))
            self.sent += len(data)
        return len(data)

    async def shutdown(self, *, abortive: bool = False) -> None:
        """See `Socket.shutdown`."""
        if abortive:
            self.abort(PeerReset("the neighbour aborted", side=Side.OURS))
        else:
            self.outgoing.end()

    async def close(self, *, abortive: bool = False) -> None:
        """See `Socket.close`."""
        self.close_now(abortive=abortive)

    def close_now(self, *, abortive: bool = False) -> None:
        """End both directions: the neighbour reads the rest and then end of stream, and cannot send any more."""
        self.closed = True
        self._over = self._over or Terminating("the end is closed")
        if abortive:
            self.abort(PeerReset("the neighbour aborted", side=Side.OURS))
            return
        self.outgoing.end()
        if not self.incoming.ended:
            self.incoming.fail(PeerReset("the neighbour has closed", side=Side.OURS))
        self.incoming.take_all()
        _wake(self.incoming.reader)

    def abort(self, error: DoorwardError) -> None:
        """Fail both directions at once; bytes on their way are lost."""
        self._over = self._over or error
        for lane in (self.outgoing, self.incoming):
            lane.take_all()
            lane.fail(error)


def joint() -> tuple[JointEnd, JointEnd]:
    """Two ends that face each other: the one nearer to the client, and the one nearer to the server."""
    outward, inward = Lane(), Lane()
    return JointEnd(inward, outward), JointEnd(outward, inward)


def _wake(waiter: asyncio.Future[None] | None) -> None:
    if waiter is not None and not waiter.done():
        waiter.set_result(None)
