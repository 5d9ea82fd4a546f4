"""Loopback wires for tests of net/: connected pairs, peers that are driven by hand, and bounded waiting.

Nothing here sleeps: a wait gives the loop one turn after another until its condition holds or a deadline passes.
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, Self

DEADLINE_S: Final = 5.0
# A relay with threads of its own may not have had its turn for this long.
QUIET_S: Final = 0.02
# What two kernels' buffers, set this small, and a relay between them can hold stays far below a few MiB.
SMALL_BUFFER_BYTES: Final = 16 * 1024


class Clock:
    """A loop's time, moved by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


async def turns(count: int) -> None:
    """Give the loop so many turns."""
    for _ in range(count):
        await asyncio.sleep(0)


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Turn the loop until the condition holds."""
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        await turns(1)


def open_descriptors() -> set[str]:
    """The numbers of this process's open descriptors, less the one that reads them."""
    return {entry.name for entry in Path("/proc/self/fd").iterdir() if _is_open(int(entry.name))}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:  # it read the directory
        return False
    return True


def connected(buffer_bytes: int = 0, *, host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """Both ends of one TCP connection over loopback, non-blocking; both kernels' buffers small if asked for."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as server:
        one = socket.socket(family, socket.SOCK_STREAM)
        for sock in (server, one):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if buffer_bytes:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer_bytes)
        server.bind((host, 0))
        server.listen(1)
        one.connect(server.getsockname())
        other, _ = server.accept()
    one.setblocking(False)
    other.setblocking(False)
    return one, other


class Peer:
    """The far end of a wire: a client or a server, driven by the test."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def push(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes now; how much that was."""
        try:
            return self.socket.send(data)
        except BlockingIOError:
            return 0

    def pull(self, bytes_max: int = 256 * 1024) -> bytes | None:
        """What is there now: None if nothing, `b""` at the end."""
        try:
            return self.socket.recv(bytes_max)
        except BlockingIOError:
            return None

    async def send(self, data: bytes) -> None:
        """Send all of it."""
        rest = memoryview(data)

        def all_sent() -> bool:
            nonlocal rest
            rest = rest[self.push(rest) :]
            return not rest

        await until(all_sent, "room to send")

    async def read(self, count: int) -> bytes:
        """Exactly so many bytes."""
        found = bytearray()
        while len(found) < count:
            data = await self._next(min(256 * 1024, count - len(found)))
            assert data, f"the stream ended after {len(found)} of {count} bytes"
            found += data
        return bytes(found)

    async def read_to_end(self) -> bytes:
        """Everything up to an orderly end."""
        found = bytearray()
        while data := await self._next(256 * 1024):
            found += data
        return bytes(found)

    async def push_until_stuck(self) -> bytes:
        """Send noise until the other side takes no more, not even after many turns and a while; what was sent."""
        noise = os.urandom(256 * 1024)
        sent = bytearray()
        patience, quiet_since = 0, time.monotonic()
        while patience < 50 or time.monotonic() < quiet_since + QUIET_S:
            count = self.push(noise)
            sent += noise[:count]
            if count:
                noise = noise[count:] + noise[:count]
                quiet_since = time.monotonic()
            patience = 0 if count else patience + 1
            await turns(1)
        return bytes(sent)

    def finish(self) -> None:
        """FIN."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    async def sees_reset(self) -> None:
        """Wait for RST. After a FIN the kernel hides it from recv, so the socket's error is asked for."""
        await until(self._is_reset, "a reset")

    def _is_reset(self) -> bool:
        try:
            while self.pull():
                pass
            return bool(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
        except ConnectionError:
            return True

    async def _next(self, bytes_max: int) -> bytes:
        found: list[bytes] = []

        def some() -> bool:
            data = self.pull(bytes_max)
            if data is not None:
                found.append(data)
            return bool(found)

        await until(some, "data")
        return found[0]
