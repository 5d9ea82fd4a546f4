"""A leg: one connected TCP socket under the object model's `Socket`, on raw non-blocking system calls.

The call is tried first and waits only when the kernel says so, so a busy leg costs no more than its system
calls. At most one reader and one writer wait at a time.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import select
import socket
import struct
import sys
import termios
from collections.abc import Callable
from typing import Final

from doorward.api.errors import DoorwardError, NotSupported, Side, Terminating
from doorward.net.carrier import StreamOnly
from doorward.net.limiter import LegLimits, Limiter
from doorward.net.poller import ENDING, READ, WRITE, Poller
from doorward.net.seam import translate

# Chunks grow with the flow: 256 KiB carry 2.5 times the throughput of 16 KiB through a filter, and small
# conversations should not pay for big buffers.
CHUNK_BYTES_MIN: Final = 16 * 1024
CHUNK_BYTES_MAX: Final = 256 * 1024

# A peer that is gone without a word is noticed after two minutes: a silent minute, and four questions.
_KEEP_ALIVE: Final = (
    ((socket.SOL_SOCKET, socket.SO_KEEPALIVE), 1),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPIDLE), 60),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPINTVL), 15),
    ((socket.IPPROTO_TCP, socket.TCP_KEEPCNT), 4),
)
_MAPPED: Final = "::ffff:"
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Leg(StreamOnly):
    """One wire. Owns its socket until `detach` or `close`."""

    __slots__ = (
        "_chunk",
        "_drained",
        "_ending",
        "_failure",
        "_fd",
        "_on_reset",
        "_poller",
        "_reader",
        "_shut",
        "_socket",
        "_unread",
        "_watched",
        "_writer",
        "chunk_max",
        "known_name",
        "limits",
        "received",
        "sent",
        "side",
    )  # fmt: skip

    def __init__(self, poller: Poller, sock: socket.socket, side: Side) -> None:
        """Takes over a connected, non-blocking socket."""
        self.side = side
        self.received = 0
        self.sent = 0
        self._poller = poller
        self._socket = sock
        self._fd = sock.fileno()
        self._watched = False
        self._drained = False  # the last read emptied the socket: the next one waits for an edge, untried
        self._ending = False  # the peer has said something beyond data, so empty is not all there is
        self._shut = False
        self._failure: DoorwardError | None = None
        self._unread = b""
        self._chunk = CHUNK_BYTES_MIN
        self.chunk_max = CHUNK_BYTES_MAX
        self._reader: asyncio.Future[None] | None = None
        self._writer: asyncio.Future[None] | None = None
        self.known_name: tuple[str, int] | None = None  # if somebody has asked the kernel already
        self.limits: LegLimits | None = None  # for a limited leg only
        self._on_reset: Callable[[DoorwardError], None] | None = (
            None  # told of a reset that no reader would see
        )

    @property
    def open(self) -> bool:
        return self._failure is None

    @property
    def congested(self) -> bool:
        """Whether somebody waits for the peer to read."""
        return self._writer is not None

    @property
    def busy(self) -> bool:
        """Whether a task waits for this leg."""
        return self._reader is not None or self._writer is not None

    @property
    def unsent(self) -> int:
        """Bytes that the kernel holds and the peer's has not taken yet; 0 once the leg has ended."""
        if self._fd < 0:
            return 0
        return int.from_bytes(fcntl.ioctl(self._fd, termios.TIOCOUTQ, bytes(4)), sys.byteorder)

    @property
    def local_name(self) -> tuple[str, int]:
        """Our own address and port on this leg."""
        if self.known_name is not None:
            return self.known_name
        try:
            return plain_name(self._socket.getsockname())
        except OSError as error:
            raise translate(error.errno, self.side) from None

    @property
    def peer_name(self) -> tuple[str, int]:
        """The peer's address and port."""
        try:
            return plain_name(self._socket.getpeername())
        except OSError as error:
            raise translate(error.errno, self.side) from None

    def report_reset(self, on_reset: Callable[[DoorwardError], None] | None) -> None:
        """Call `on_reset` once if the peer resets while nobody reads; None ends that. The leg has failed by then."""
        self._on_reset = on_reset
        if on_reset is not None:
            self._watch()

    def keep_alive(self) -> None:
        """Have the kernel find out whether a silent peer is still there; one that is not fails the leg (TimedOut)."""
        for option, value in _KEEP_ALIVE:
            try:
                self._socket.setsockopt(*option, value)
            except OSError:
                return  # it has failed already, and whoever reads will meet that

    def get_option(self, level: int, option: int) -> int:
        """An integer socket option. Raises NotSupported where there is none of that name, and once it has failed."""
        try:
            return self._socket.getsockopt(level, option)
        except OSError as error:
            raise NotSupported(error.strerror or "") from None

    def set_option(self, level: int, option: int, value: int) -> None:
        """Set one. Raises NotSupported, also for a value that the kernel refuses."""
        try:
            self._socket.setsockopt(level, option, value)
        except OSError as error:
            raise NotSupported(error.strerror or "") from None

    def look_for_reset(self) -> None:
        """Nobody reads, so nobody would meet a reset: ask for it. The edge itself proves nothing, and may be past."""
        number = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if number and (on_reset := self._on_reset) is not None:
            self._on_reset = None
            on_reset(self._fail(translate(number, self.side)))

    def put_back(self, data: bytes) -> None:
        """The next `recv` returns these first: bytes that came with a handshake and belong to the tunnel."""
        self._unread = data + self._unread

    def take_back(self) -> bytes:
        """What was put back and not read again; it is the caller's now."""
        data, self._unread = self._unread, b""
        return data

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `Socket.recv`."""
        size = bytes_max or min(self._chunk, self.chunk_max)
        while True:
            if self._unread:
                return self._take_unread(bytes_max)
            if self._failure is not None:
                raise self._failure
            if self._drained:
                await self._readable()
                continue
            if self.limits is not None:
                await self.limits.receiving.ready()
            try:
                data = self._socket.recv(size)
            except (BlockingIOError, InterruptedError):
                self._drained = True
                continue
            except OSError as error:
                raise self._fail(translate(error.errno, self.side)) from None
            self.received += len(data)
            if self.limits is not None:
                self._spend(self.limits.receiving, len(data))
            self._drained = 0 < len(data) < size and not self._ending
            if bytes_max is None:
                self._adapt(len(data), size)
            return data

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `Socket.send`."""
        rest: bytes | bytearray | memoryview = data
        while rest:
            count = await self.send_some(rest)
            if count == len(rest):
                return
            rest = memoryview(rest)[count:]

    async def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the kernel takes now, at least one byte, and say how much. A cancelled call has sent nothing."""
        while True:
            if self._failure is not None:
                raise self._failure
            if self.limits is not None:
                await self.limits.sending.ready()
            try:
                count = self._socket.send(data)
            except (BlockingIOError, InterruptedError):
                await self._writable()
                continue
            except OSError as error:
                if self._shut and error.errno == errno.EPIPE:
                    raise Terminating("send after shutdown", side=Side.OURS) from None
                last_words = self._last_words()
                failure = self._fail(translate(error.errno, self.side))
                self._unread = last_words
                raise failure from None
            self.sent += count
            if self.limits is not None:
                self._spend(self.limits.sending, count)
            return count

    async def shutdown(self, *, abortive: bool = False) -> None:
        """See `Socket.shutdown`."""
        if abortive:
            self.abort(Terminating("aborted", side=Side.OURS))
            return
        if self._failure is not None:
            raise self._failure
        if self._shut:
            return
        self._shut = True
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError as error:
            raise self._fail(translate(error.errno, self.side)) from None

    async def close(self, *, abortive: bool = False) -> None:
        """See `Socket.close`."""
        self.close_now(abortive=abortive)

    def close_now(self, *, abortive: bool = False) -> None:
        """End both directions at once; with RST if abortive. Idempotent; whoever waits meets Terminating."""
        if self._fd >= 0:
            if abortive:
                reset_on_close(self._socket)
            self._end(Terminating("the leg is closed", side=Side.OURS))

    def abort(self, error: DoorwardError) -> None:
        """Reset the peer and raise `error` to whoever waits, now and later. Idempotent."""
        if self._fd >= 0:
            reset_on_close(self._socket)
            self._end(error)

    def detach(self) -> int:
        """Give the descriptor away (to a relay). The leg is dead afterwards; put-back bytes must be gone before."""
        assert not self._unread, "bytes put back would be lost"
        assert self._reader is None and self._writer is None, "somebody still waits for this leg"  # noqa: PT018
        self._unwatch()
        self._fd = -1
        self._failure = Terminating("the leg was given to the relay", side=Side.OURS)
        return self._socket.detach()

    def ready(self, fd: int, events: int) -> None:
        """An edge from the poller."""
        if events & READ:
            self._drained = False
            if events & ENDING:
                self._ending = True
            if (waiter := self._reader) is not None and not waiter.done():
                waiter.set_result(None)
            elif self._on_reset is not None and events & select.EPOLLERR:
                self.look_for_reset()
                return
        if events & WRITE and (waiter := self._writer) is not None and not waiter.done():
            waiter.set_result(None)

    async def _readable(self) -> None:
        assert self._reader is None, "two tasks read one leg"
        self._reader = waiter = self._poller.loop.create_future()
        try:
            self._watch()
            await waiter
        finally:
            self._reader = None

    async def _writable(self) -> None:
        assert self._writer is None, "two tasks write one leg"
        self._writer = waiter = self._poller.loop.create_future()
        try:
            self._watch()
            await waiter
        finally:
            self._writer = None

    def _watch(self) -> None:
        if not self._watched:
            try:
                self._poller.watch(self._fd, self)
            except OSError as error:
                raise self._fail(translate(error.errno, Side.OURS)) from None
            self._watched = True

    def _unwatch(self) -> None:
        if self._watched:
            self._watched = False
            self._poller.unwatch(self._fd)

    def _spend(self, limiter: Limiter, count: int) -> None:
        try:
            limiter.spend(count)
        except DoorwardError as error:
            raise self._fail(error) from None

    def _take_unread(self, bytes_max: int | None) -> bytes:
        if bytes_max is None or len(self._unread) <= bytes_max:
            data, self._unread = self._unread, b""
        else:
            data, self._unread = self._unread[:bytes_max], self._unread[bytes_max:]
        return data

    def _last_words(self) -> bytes:
        """What a peer said before it would take no more (an answer to an upload, say): readable in spite of its RST."""
        try:
            data = self._unread + self._socket.recv(CHUNK_BYTES_MAX)
        except OSError:
            return self._unread
        self.received += len(data) - len(self._unread)
        return data

    def _adapt(self, got: int, size: int) -> None:
        if got == size:
            self._chunk = min(size * 2, self.chunk_max)
        elif got < size // 4:
            self._chunk = max(size // 2, min(CHUNK_BYTES_MIN, self.chunk_max))

    def _fail(self, error: DoorwardError) -> DoorwardError:
        self.abort(error)
        return error

    def _end(self, error: DoorwardError) -> None:
        self._failure = error
        self._unread = b""
        self._drained = False
        if self._watched:
            self._watched = False
            self._poller.forget(self._fd)
        self._fd = -1
        self._socket.close()
        for waiter in (self._reader, self._writer):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)  # it tries again and meets the failure


def plain_name(name: tuple[str, int] | tuple[str, int, int, int]) -> tuple[str, int]:
    """Address and port; an IPv4 address as such, although the socket may take both families."""
    address = name[0]
    if address.startswith(_MAPPED) and "." in address:
        address = address[len(_MAPPED) :]
    return address, name[1]


def reset_on_close(sock: socket.socket) -> None:
    """The next close sends RST in place of FIN."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
    except OSError:
        pass  # the peer is gone already: there is nobody to tell
