"""The two ends of a conversation: a test plays the client and the server, byte by byte, in one task.

Every wait has a deadline, so a test that waits for what never comes fails and does not hang.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
from typing import Final, NamedTuple

PATIENCE_S: Final = 8.0
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)


class Peer:
    """One end of a TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.socket = sock
        self._held = b""

    @staticmethod
    async def connect(host: str, port: int) -> Peer:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.get_running_loop().sock_connect(sock, (host, port))
        except BaseException:
            sock.close()
            raise
        return Peer(sock)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.get_running_loop().sock_sendall(self.socket, data)

    async def receive(self, count: int) -> bytes:
        """Exactly so many bytes."""
        while len(self._held) < count:
            await self._more()
        data, self._held = self._held[:count], self._held[count:]
        return data

    async def receive_until(self, mark: bytes) -> bytes:
        """Everything up to the mark, with it."""
        while mark not in self._held:
            await self._more()
        end = self._held.index(mark) + len(mark)
        data, self._held = self._held[:end], self._held[end:]
        return data

    async def receive_rest(self) -> bytes:
        """Everything up to an orderly end. Raises ConnectionResetError after a reset."""
        while data := await self._read():
            self._held += data
        rest, self._held = self._held, b""
        return rest

    async def outcome(self) -> tuple[bytes, str]:
        """Everything that still comes, and how it ends: `closed` or `reset`."""
        try:
            while data := await self._read():
                self._held += data
        except (ConnectionResetError, BrokenPipeError):
            return self._held, "reset"
        return self._held, "closed"

    def half_close(self) -> None:
        """End our direction; the other goes on."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Vanish with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self.socket.close()

    def close(self) -> None:
        self.socket.close()

    async def _more(self) -> None:
        data = await self._read()
        assert data, f"it ended after {self._held!r}"
        self._held += data

    async def _read(self) -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.get_running_loop().sock_recv(self.socket, 65_536)


class Server:
    """A listening socket whose conversations the test holds itself."""

    def __init__(self, host: str = "127.0.0.1", *, backlog: int = 16, listening: bool = True) -> None:
        self.host = host
        self.socket = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        self.port: int = self.socket.getsockname()[1]
        if listening:
            self.socket.listen(backlog)

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.authority}"

    async def accept(self) -> Peer:
        async with asyncio.timeout(PATIENCE_S):
            sock, _ = await asyncio.get_running_loop().sock_accept(self.socket)
        return Peer(sock)

    def has_client(self) -> bool:
        """Whether somebody has connected who was not accepted yet."""
        try:
            sock, _ = self.socket.accept()
        except BlockingIOError:
            return False
        sock.close()
        return True

    def close(self) -> None:
        self.socket.close()


def socks5_request(host: str, port: int, command: int = 1) -> bytes:
    """CONNECT to a name or to an address, by what the text is."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        where = b"\x03" + bytes([len(host)]) + host.encode()
    else:
        where = (b"\x01" if address.version == 4 else b"\x04") + address.packed
    return b"\x05" + bytes([command]) + b"\x00" + where + port.to_bytes(2, "big")


def socks4_request(host: str, port: int, user: bytes = b"kim", command: int = 1) -> bytes:
    """Version 4 for an address, 4a for a name."""
    head = b"\x04" + bytes([command]) + port.to_bytes(2, "big")
    try:
        return head + ipaddress.IPv4Address(host).packed + user + b"\0"
    except ValueError:
        return head + b"\0\0\0\x07" + user + b"\0" + host.encode() + b"\0"


def socks_login(name: str, password: str) -> bytes:
    """RFC 1929."""
    return b"\x01" + bytes([len(name)]) + name.encode() + bytes([len(password)]) + password.encode()


class Answer(NamedTuple):
    """An HTTP answer as a client reads it."""

    status: int
    fields: dict[str, str]
    body: bytes

    @property
    def reason(self) -> str | None:
        """The firewall's reason."""
        return self.fields.get("doorward-reason")


async def read_answer(peer: Peer, *, body: bool = True) -> Answer:
    """One answer, whose body has a length or ends with the connection."""
    status, fields = await read_answer_head(peer)
    length = fields.get("content-length")
    content = b""
    if body and length is not None:
        content = await peer.receive(int(length))
    elif body and status not in (204, 304) and status >= 200:
        content = await peer.receive_rest()
    return Answer(status, fields, content)


async def read_answer_head(peer: Peer) -> tuple[int, dict[str, str]]:
    head = (await peer.receive_until(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    return int(first.split(" ")[1]), _fields(lines)


async def read_request(peer: Peer) -> tuple[str, dict[str, str]]:
    """Request line and fields, as a server reads them."""
    head = (await peer.receive_until(b"\r\n\r\n")).decode("latin-1")
    first, *lines = head.rstrip("\r\n").split("\r\n")
    return first, _fields(lines)


def _fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        assert name.lower() not in fields, f"{name} twice"
        fields[name.lower()] = value
    return fields
