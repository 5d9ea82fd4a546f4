"""The channel between the supervisor and one worker: packets that may carry descriptors, and their words.

A local socket that keeps the borders of packets (SOCK_SEQPACKET), never waited for by whoever sends. The supervisor
takes no descriptors and believes nothing that has another shape: a worker runs the code of filters.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import msgspec

from doorward.service.share import Bound
from doorward.service.status import WorkerStatus

PACKET_BYTES_MAX: Final = 64 * 1024
# SCM_MAX_FD of the kernel is 253; one is the policy.
DESCRIPTORS_MAX: Final = 253
SOCKETS_MAX: Final = DESCRIPTORS_MAX - 1


class Order(msgspec.Struct, tag=True, kw_only=True):
    """What the supervisor asks for. It is answered with a `Reply` of the same number."""

    question: int = 0


class Begin(Order):
    """Get ready. Descriptors: the policy's text, then a listening socket for each address of `listen`.

    `filters` are those of the command line: names and files.
    """

    worker: int
    workers: int
    first_id: int
    path: str
    log_level: str
    listen: list[Bound]
    filters: list[tuple[str, str]]


class Serve(Order):
    """Accept clients."""


class Prepare(Order):
    """Do everything for this policy that can fail. Descriptors as for `Begin`, sockets only for new addresses."""

    path: str
    listen: list[Bound]


class Commit(Order):
    """Put in force what was prepared."""


class Abandon(Order):
    """Forget what was prepared."""


class Tell(Order):
    """How are you?"""


class Drain(Order):
    """Take no more clients, and end when those that are here have gone, or after so long."""

    timeout_s: float


class Stop(Order):
    """Bound at once."""


AnyOrder: TypeAlias = Begin | Serve | Prepare | Commit | Abandon | Tell | Drain | Stop


class Reply(msgspec.Struct):
    """Done, or the problem because of which it was not."""

    question: int
    problem: str | None = None
    relay: str = ""
    filters: list[str] = []
    status: WorkerStatus | None = None


OnPacket: TypeAlias = Callable[[bytes, list[int]], None]


class Channel:
    """One end. `on_packet` gets each packet and owns the descriptors in it; `on_end` is called once, if it was lost."""

    def __init__(
        self, sock: socket.socket, on_packet: OnPacket, on_end: Callable[[], None], *, descriptors: bool
    ) -> None:
        """`sock` belongs to the channel. Without `descriptors`, those that come are closed by the kernel."""
        sock.setblocking(False)
        self._sock = sock
        self._on_packet = on_packet
        self._on_end = on_end
        self._descriptors_max = DESCRIPTORS_MAX if descriptors else 0
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)

    def send(self, message: msgspec.Struct, descriptors: Sequence[int] = ()) -> None:
        """Send at once. Raises OSError if the other end is gone, or does not read."""
        data = msgspec.json.encode(message)
        if len(data) > PACKET_BYTES_MAX:
            raise OSError(f"a message of {len(data)} bytes")
        if descriptors:
            socket.send_fds(self._sock, [data], list(descriptors))
        else:
            self._sock.send(data)

    def close(self) -> None:
        """Idempotent. `on_end` is not called any more."""
        if self._sock.fileno() >= 0:
            self._loop.remove_reader(self._sock)
            self._sock.close()

    def _read(self) -> None:
        try:
            data, descriptors, flags = self._receive()
        except BlockingIOError:
            return
        except OSError:
            data, descriptors, flags = b"", [], 0
        if not data or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            close_all(descriptors)
            self.close()
            self._on_end()
            return
        self._on_packet(data, descriptors)

    def _receive(self) -> tuple[bytes, list[int], int]:
        if not self._descriptors_max:
            # Without room for them there is no MSG_CTRUNC to be told of either: what came along is gone.
            data, _, flags, _ = self._sock.recvmsg(PACKET_BYTES_MAX)
            return data, [], flags & ~socket.MSG_CTRUNC
        room = socket.CMSG_SPACE(self._descriptors_max * array.array("i").itemsize)
        data, ancillary, flags, _ = self._sock.recvmsg(PACKET_BYTES_MAX, room, socket.MSG_CMSG_CLOEXEC)
        found = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(content[: len(content) - len(content) % found.itemsize])
        return data, list(found), flags


def close_all(descriptors: Sequence[int]) -> None:
    """Close descriptors that nobody wants."""
    for descriptor in descriptors:
        os.close(descriptor)
