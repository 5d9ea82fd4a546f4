"""Upstreams for tests: a listening port each, and talks that answer whoever dials it, well or badly."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from ipaddress import IPv4Address, ip_address
from typing import Any, Final, TypeAlias

from tests.net.wires import Peer, until

from doorward.config.model import Upstream
from doorward.net.resolve import Addresses
from doorward.policy.model import Action, Decision, Inputs, IPAddress

HERE: Final = IPv4Address("127.0.0.1")
DESTINATION: Final = IPv4Address("198.51.100.7")
OTHER: Final = IPv4Address("198.51.100.8")
SOCKS5_HELLO: Final = b"\x05\x01\x00"
SOCKS5_FINE: Final = b"\x05\x00"
SOCKS5_CONNECTED: Final = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"

Talk: TypeAlias = Callable[[Peer], Awaitable[None]]


class Names:
    """A resolver that knows some names."""

    def __init__(self, **known: str) -> None:
        self.known = {name: (ip_address(text),) for name, text in known.items()}

    async def resolve(self, name: str) -> Addresses:
        return self.known[name]


class Server:
    """A port, and how many have come."""

    def __init__(self) -> None:
        self.socket = socket.socket()
        self.socket.bind((str(HERE), 0))
        self.socket.listen(16)
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self.came = 0
        self.peers: list[Peer] = []

    def upstream(self, name: str = "corp", **fields: Any) -> Upstream:
        return Upstream(**{"name": name, "kind": "socks5", "host": HERE, "port": self.port, **fields})

    async def accept(self) -> Peer:
        def arrived() -> bool:
            try:
                sock, _ = self.socket.accept()
            except BlockingIOError:
                return False
            sock.setblocking(False)
            self.peers.append(Peer(sock))
            self.came += 1
            return True

        await until(arrived, "a client")
        return self.peers[-1]

    def close(self) -> None:
        self.socket.close()
        for peer in self.peers:
            peer.socket.close()


@contextlib.contextmanager
def server() -> Any:
    """A port for a test that accepts and talks by hand."""
    one = Server()
    try:
        yield one
    finally:
        one.close()


@contextlib.asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[Server]:
    """A port where everyone meets the same talk, one after another."""

    async def serve() -> None:
        while True:
            with contextlib.suppress(AssertionError):  # nobody came for a while, or left in mid-talk
                await talk(await one.accept())

    with server() as one:
        task = asyncio.get_running_loop().create_task(serve())
        try:
            yield one
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def socks5(answer: bytes = SOCKS5_CONNECTED, asked: list[bytes] | None = None) -> Talk:
    """Speak SOCKS5 without a login; the request is for an IPv4 address and goes into `asked`."""

    async def talk(peer: Peer) -> None:
        await peer.read(3)
        await peer.send(SOCKS5_FINE)
        request = await peer.read(10)
        if asked is not None:
            asked.append(request)
        await peer.send(answer)

    return talk


def http(answer: bytes, asked: list[bytes] | None = None) -> Talk:
    """Read a request's head, which goes into `asked`, and answer."""

    async def talk(peer: Peer) -> None:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += await peer.read(1)
        if asked is not None:
            asked.append(head)
        await peer.send(answer)

    return talk


async def closes(peer: Peer) -> None:
    """Say nothing and go."""
    peer.socket.close()


async def says_nothing(peer: Peer) -> None:
    """Keep the line."""


def allowed(*addresses: IPAddress, host: str | None = None, port: int = 443) -> dict[IPAddress, Decision]:
    """Decisions that allow these."""
    return {
        address: Decision(
            Action.ALLOW,
            "rule_allow",
            Inputs("tcp", HERE, host, address, port, None, frozenset(), 0),
            "r",
            "rule",
        )
        for address in addresses
    }
