"""The ends of TCP connections that a test holds itself: a client's or server's, each wait bounded."""

from __future__ import annotations

import asyncio
import socket
import struct

PATIENCE_S = 8.0


class Wire:
    """A test's own end of a TCP connection."""

    def __init__(self, sock: socket.socket, peer: tuple[str, int] | None = None) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.peer = peer

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def recv(self, size: int = 65536) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.get_running_loop().sock_recv(self.sock, size)

    async def exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = await self.recv(size - len(data))
            assert chunk, f"ended after {len(data)} bytes"
            data += chunk
        return bytes(data)

    async def rest(self) -> bytes:
        """Everything up to an orderly end."""
        data = b""
        while chunk := await self.recv():
            data += chunk
        return data

    async def is_reset(self) -> bool:
        """Read to the end: whether it was a reset."""
        try:
            await self.rest()
        except ConnectionResetError:
            return True
        return False

    def end(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()


class Server:
    """Listens on loopback; the test speaks for it."""

    def __init__(self) -> None:
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.port: int = self.sock.getsockname()[1]

    async def accept(self) -> Wire:
        async with asyncio.timeout(PATIENCE_S):
            sock, peer = await asyncio.get_running_loop().sock_accept(self.sock)
        return Wire(sock, peer)

    def nobody_came(self) -> bool:
        try:
            self.sock.accept()
        except BlockingIOError:
            return True
        return False

    def close(self) -> None:
        self.sock.close()
