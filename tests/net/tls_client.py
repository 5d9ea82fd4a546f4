"""A TLS client of the tests' own: Python's ssl module on a wire, driven by hand, and our server's leg facing it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

from tests.net.certificates import SERVER_NAME, Authority
from tests.net.openssl import ask_for_key_update
from tests.net.tls_ends import TIMEOUT_S
from tests.net.wires import Peer, connected, until

from doorward.api.errors import Side
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.tls import accept_tls
from doorward.net.tls_context import client_context, server_context
from doorward.net.tls_leg import TLSLeg


class Client:
    """A client at the other end of a wire, spoken by Python's ssl module and driven by the test."""

    def __init__(self, peer: Peer, context: ssl.SSLContext) -> None:
        self.peer = peer
        self.incoming = ssl.MemoryBIO()
        self.outgoing = ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname=SERVER_NAME)

    async def shake(self) -> None:
        await until(self._shaken, "the handshake")
        await self.flush()

    def _shaken(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.peer.push(self.outgoing.read())
            self.incoming.write(self.peer.pull() or b"")
            return False
        return True

    async def flush(self) -> None:
        await self.peer.send(self.outgoing.read())

    def encrypted(self, data: bytes) -> bytes:
        rest = memoryview(data)
        while rest:
            rest = rest[self.tls.write(rest) :]
        return self.outgoing.read()

    async def send(self, data: bytes) -> None:
        await self.peer.send(self.encrypted(data))

    async def read(self, count: int) -> bytes:
        """So many bytes of plaintext."""
        found = bytearray()

        def enough() -> bool:
            try:
                found.extend(self.tls.read(count - len(found)))
            except ssl.SSLWantReadError:
                self.incoming.write(self.peer.pull() or b"")
            return len(found) == count

        await until(enough, "plaintext")
        return bytes(found)

    def key_updates(self, count: int) -> bytes:
        """So many, each asking for one in return."""
        for _ in range(count):
            ask_for_key_update(self.tls)
        return self.outgoing.read()


Serve: TypeAlias = Callable[..., Awaitable[tuple[TLSLeg, Client]]]


@asynccontextmanager
async def serving(poller: Poller, authority: Authority) -> AsyncIterator[Serve]:
    """Makes our server's leg and a client, past the handshake. At the end both are closed, and no task is left."""
    made: list[tuple[TLSLeg, Peer]] = []

    async def serve(
        version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, *, buffer_bytes: int = 0, renegotiates: bool = False
    ) -> tuple[TLSLeg, Client]:
        ours, theirs = connected(buffer_bytes)
        context = client_context(ca=authority.file)
        context.maximum_version = version
        if renegotiates:
            context.options &= ~ssl.OP_NO_RENEGOTIATION
        client = Client(Peer(theirs), context)
        leg, _ = await asyncio.gather(
            accept_tls(
                Leg(poller, ours, Side.INTERNAL),
                server_context(authority.identity("server")),
                timeout_s=TIMEOUT_S,
            ),
            client.shake(),
        )
        made.append((leg, client.peer))
        return leg, client

    tasks = len(asyncio.all_tasks())
    yield serve
    for leg, peer in made:
        leg.close_now()
        peer.socket.close()
    await until(lambda: len(asyncio.all_tasks()) <= tasks, "the end of every task")
