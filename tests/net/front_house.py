"""A front with a relay and a door on loopback, in the hands of a test: clients, servers, and what was told."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest
from tests.net.wires import Peer, until

from doorward.net import front as front_module
from doorward.net.front import Front, FrontListener, Visitor
from doorward.net.native_relay import NativeRelay
from doorward.net.poller import Poller
from doorward.net.relay import Completion, Limits

GREETING = b"\x05\x01\x00"
CLIENT_ADDRESS = ("127.0.0.1", 4242)


def request(port: int) -> bytes:
    return b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big")


class House:
    """A front with a relay, a door on loopback, and everything that they told."""

    def __init__(self, poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(front_module, "PAUSE_S", 0.01)
        self.visitors: list[Visitor] = []
        self.asking: list[tuple[int, tuple[str, int], bytes]] = []
        self.ends: list[tuple[str, int, int]] = []
        self.unreached: list[Visitor] = []
        self.completions: list[Completion] = []
        self.shortages: list[str] = []
        self.errors: list[BaseException] = []
        self.broken = ""
        self.free: Callable[[], int] = lambda: 1000
        self.relay = NativeRelay(poller, self.completions.extend, threads=2)
        self.front = Front(
            poller, self.relay, self, room=lambda: self.free(), on_shortage=self.shortages.append
        )
        self.front.set(names_users=False, handshake_timeout_s=10.0)
        self.door = FrontListener(self.front, "127.0.0.1", 0)
        self.door.start()
        self.peers: list[Peer] = []
        poller.loop.set_exception_handler(lambda _, context: self.errors.append(context["exception"]))

    def visited(self, visitor: Visitor) -> None:
        self._break("visited")
        self.visitors.append(visitor)

    def asked(self, client_id: int, address: tuple[str, int], request: bytes) -> None:
        self.asking.append((client_id, address, request))
        self._break("asked")

    def stood(self, client_id: int, connect_us: int) -> None:
        assert connect_us >= 0
        self.ends.append(("stood", client_id, 0))
        self._break("stood")

    def failed(self, client_id: int, visitor: Visitor) -> None:
        self._break("failed")
        self.ends.append(("failed", client_id, visitor.errno))
        self.unreached.append(visitor)

    def lost(self, client_id: int, number: int) -> None:
        self.ends.append(("lost", client_id, number))
        self._break("lost")

    def client(self, said: bytes) -> Peer:
        """Somebody who has come and said this."""
        peer = Peer(socket.create_connection(self.door.name))
        peer.socket.setblocking(False)
        peer.push(said)
        self.peers.append(peer)
        return peer

    async def asks(self, port: int) -> tuple[Peer, int]:
        """Somebody who wants to go there, and the number."""
        peer = self.client(GREETING + request(port))
        before = len(self.asking)
        await until(lambda: len(self.asking) > before)
        return peer, self.asking[-1][0]

    def dial(self, client_id: int, port: int, timeout_s: float = 5.0) -> None:
        self.front.dial(client_id, ip_address("127.0.0.1"), port, Limits(), timeout_s)

    def heard(self) -> bool:
        """Look for what does not ring the bell: that somebody stands."""
        self.front.hear()
        return True

    def errs(self) -> bool:
        return self.heard() and bool(self.errors)

    def close(self) -> None:
        self.door.close()
        self.front.close()
        self.relay.close()
        for visitor in self.visitors + self.unreached:
            visitor.socket.close()
        for peer in self.peers:
            peer.socket.close()

    def _break(self, what: str) -> None:
        if self.broken == what:
            raise ZeroDivisionError(what)


@contextmanager
def listening(backlog: int = 8) -> Iterator[socket.socket]:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(backlog)
        server.setblocking(False)
        yield server


@contextmanager
def silent() -> Iterator[int]:
    """A port that does not answer: its backlog is full."""
    with listening(0) as server, socket.create_connection(server.getsockname()):
        yield server.getsockname()[1]


async def accepted(server: socket.socket) -> Peer:
    sock, _ = await asyncio.get_running_loop().sock_accept(server)
    return Peer(sock)
