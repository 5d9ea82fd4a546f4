"""A name server around an engine, and name servers of the machine that it may ask."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable

import dns.message
import dns.rrset
from tests.engine.ears import session_of
from tests.engine.names.messages import Read, ask
from tests.engine.rig import Rig
from tests.engine.wires import PATIENCE_S

from doorward.api import ClientKind, NameNotFound
from doorward.engine.names.answering import NameServer
from doorward.engine.names.message import Way
from doorward.engine.origin import Origin
from doorward.net.nameservers import Nameservers, SocketName
from doorward.net.resolve import Addresses
from doorward.policy.model import Action, PortRange, Rule
from doorward.record.model import Record

ORIGIN = Origin("captured", ClientKind.SOCKS, "127.0.0.1", 4242)
WEB = (PortRange("tcp", 443, 443),)
RULES = (
    Rule("nobody", Action.DENY, to_names=(".bad.test",)),
    Rule("mail", Action.DENY, to_names=("half.test",), ports=WEB),
    Rule("names", Action.ALLOW, to_names=("*.test",), ports=WEB),
    Rule("network", Action.ALLOW, to_networks=(ipaddress.ip_network("198.51.100.0/24"),)),
)
NAMES = {
    "both.test": ("192.0.2.7", "192.0.2.8", "2001:db8::7"),
    "four.test": ("192.0.2.7",),
    "home.test": ("127.0.0.1", "::1"),
    "mixed.test": ("127.0.0.1", "192.0.2.9", "169.254.169.254"),
    "metadata.test": ("169.254.169.254",),
    "mapped.test": ("::ffff:127.0.0.1", "64:ff9b::7f00:1"),
    "many.test": tuple(f"203.0.113.{n}" for n in range(64)),
    "inside.example": ("198.51.100.7", "192.0.2.7"),
    "outside.example": ("192.0.2.7",),
}


def lookup(name: str) -> Addresses:
    found = NAMES.get(name)
    if found is None:
        raise NameNotFound("no such name")
    return tuple(map(ipaddress.ip_address, found))


class Asker:
    """A client of a name server around a rig's engine."""

    def __init__(self, rig: Rig, servers: Callable[[], list[SocketName]] = list) -> None:
        self.rig = rig
        self.session = session_of(rig)
        self.server = NameServer(rig.engine, Nameservers(servers))

    async def ask(self, name: str, kind: str = "A", *, edns: bool = True, way: Way = "udp") -> Read:
        return Read(await self.send(ask(name, kind, edns=edns), way))

    async def send(self, data: bytes, way: Way = "udp") -> bytes:
        async with asyncio.timeout(PATIENCE_S):
            return await self.server.answer(self.session, ORIGIN, data, way)

    @property
    def records(self) -> list[Record]:
        return self.rig.recorder.records

    def said(self) -> list[tuple[str | None, str, str | None]]:
        """Of each record: the name, the reason, the rule."""
        return [(record.host, record.reason, record.rule) for record in self.records]


class Authority:
    """The machine's name server: on UDP, and on TCP at the same port. It answers with what it is given."""

    def __init__(self, *answers: bytes | None, stream: bytes | None = None) -> None:
        """Of `answers` the first to the first question and so on, None for silence; `stream` to a stream."""
        self.answers = list(answers)
        self.stream = stream
        self.asked: list[bytes] = []
        self.peers: list[tuple[str, int]] = []
        self.listener, self.datagrams = both_at_one_port()
        self.name: SocketName = self.datagrams.getsockname()
        self._tasks = [asyncio.Task(self._serve()), asyncio.Task(self._serve_streams())]

    def servers(self) -> list[SocketName]:
        return [self.name]

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            query, peer = await loop.sock_recvfrom(self.datagrams, 65_535)
            self.asked.append(query)
            self.peers.append(peer)
            answer = self.answers.pop(0) if self.answers else None
            if answer is not None:
                await loop.sock_sendto(self.datagrams, query[:2] + answer[2:], peer)

    async def _serve_streams(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            stream, _ = await loop.sock_accept(self.listener)
            with stream:
                query = await loop.sock_recv(stream, 65_535)
                self.asked.append(query)
                if self.stream is not None:
                    await loop.sock_sendall(stream, self.stream[:2] + query[2:4] + self.stream[4:])

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        self.datagrams.close()
        self.listener.close()


def both_at_one_port() -> tuple[socket.socket, socket.socket]:
    """A listening stream socket and one for datagrams, at the same port of 127.0.0.1."""
    while True:
        listener = socket.create_server(("127.0.0.1", 0))
        listener.setblocking(False)
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            datagrams.bind(listener.getsockname())
        except OSError:  # somebody else's
            listener.close()
            datagrams.close()
            continue
        return listener, datagrams


def answer_to(query: bytes, *records: str, flags: int = 0) -> bytes:
    """What a name server says, each record as `name ttl class type data`."""
    reply = dns.message.make_response(dns.message.from_wire(query), recursion_available=True)
    reply.answer.extend(dns.rrset.from_text(*text.split(" ", 4)) for text in records)  # type: ignore[arg-type]
    reply.flags |= flags
    return reply.to_wire()
