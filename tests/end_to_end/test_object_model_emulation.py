"""Filters that take the place of a server, a listener or a peer, and one that publishes a server by itself."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import socks5
from tests.end_to_end.running import PATIENCE_S, RunningFirewall, wait_for
from tests.end_to_end.servers import echo_server, http_server
from tests.end_to_end.test_bind import exactly, reply
from tests.end_to_end.witness import POLICY, files, heard, said

Program = Callable[[str], str]

# Copies both ways between any two sockets, each with its half-close.
COPY = """
import asyncio
from doorward.api import ApplicationFilter, DataFilter, EventKind, Interest, IpFilter, SessionFilter

async def copy(source, sink, count=lambda size: None):
    while data := await source.recv():
        await sink.send(data)
        count(len(data))
    await sink.shutdown()

async def both(one, other, count=lambda size: None):
    async with asyncio.TaskGroup() as group:
        group.create_task(copy(one, other, count))
        group.create_task(copy(other, one))
"""
TUNNEL = (
    COPY
    + """
class Tunnel(DataFilter):
    async def pump(self, internal, external, connection):
        own = connection.session.create_network_socket()
        try:
            await own.bind("127.0.0.1", 0)
            self.context.log("bound", port=own.socket_name[1])
            await own.connect("127.0.0.1", self.context.target)
            await both(internal, own, connection.increment_bytes_sent)
        finally:
            await own.close()

class Joined(SessionFilter):
    def __init__(self, owner):
        self.owner = owner

    async def on_connect(self, event):
        event.connection.emulate_for_connect(Tunnel(), context=self.owner)

class Mine(ApplicationFilter):
    interest = Interest.of("tcp/9")

    async def start(self, firewall):
        self.log, self.target = firewall.log, self.settings["target"]

    def session_filter(self, session):
        return Joined(self)
"""
)


@contextmanager
def listening() -> Iterator[socket.socket]:
    """A server's socket, in the hands of the test."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(PATIENCE_S)
        yield server


def with_settings(settings: str) -> str:
    return POLICY.replace('use = "mine.py"\n', f'use = "mine.py"\nsettings = {{ {settings} }}\n')


def test_bind_and_connect(start_firewall: StartFirewall) -> None:
    """Scenario A: a socket of a filter's own, in the client's name, bound first and connected then."""
    with listening() as server:
        target = server.getsockname()[1]
        firewall = start_firewall(with_settings(f"target = {target}"), files=files(TUNNEL))
        with socks5(firewall.port, 9) as client:
            arrived, name = server.accept()
            with arrived:
                arrived.settimeout(PATIENCE_S)
                assert name == ("127.0.0.1", said(firewall, "bound")["port"])
                client.sendall(b"hello")
                client.shutdown(socket.SHUT_WR)
                assert exactly(arrived, 5) == b"hello"
                assert arrived.recv(1) == b""
                arrived.sendall(b"goodbye")
            assert exactly(client, 7) == b"goodbye"
            assert client.recv(1) == b""
    lines = heard(firewall, times=2)
    told = [(line["what"], line["port"]) for line in lines if "port" in line]
    assert told == [("connect", 9), ("bind", name[1]), ("connect", target)]
    [emulated] = firewall.wait_for_records(1, lambda record: record.port == 9)
    [own] = firewall.wait_for_records(1, lambda record: record.port == target)
    assert (emulated.bytes_sent, emulated.bytes_received) == (5, 7)
    assert (own.entry, own.rule, own.bytes_sent, own.bytes_received) == ("filter", "everything here", 5, 7)


def test_emulated_connect(start_firewall: StartFirewall, program: Program) -> None:
    """A client gets its page from a server that does not exist; the filter fetches it where policy lets the client."""
    with http_server() as target:
        firewall = start_firewall(with_settings(f"target = {target}"), files=files(TUNNEL))
        command = [program("curl"), "--silent", "--fail", "--max-time", "10"]
        command += ["--proxytunnel", "--proxy", firewall.address, "http://no-such-host.invalid:9/big"]
        refused = subprocess.run(command, check=False, capture_output=True)
        command[-1] = "http://127.0.0.1:9/big"
        assert len(subprocess.run(command, check=True, capture_output=True).stdout) == 8 * 2**20
    assert refused.returncode != 0  # policy comes first: no rule allows that name
    [own] = firewall.wait_for_records(1, lambda record: record.entry == "filter")
    assert own.bytes_received > 8 * 2**20


ROUND_ROBIN = (
    COPY
    + """
class Peer(DataFilter):
    async def pump(self, internal, external, connection):
        try:
            await both(internal, self.context)
        finally:
            await self.context.close()

class Joined(SessionFilter):
    def __init__(self, owner):
        self.owner = owner

    async def on_bind(self, event):
        if event.port == 8600:
            event.connection.emulate_for_bind()
            event.connection.set_socket_name(self.owner.listening.socket_name)
            self.owner.waiting.append(event.connection)

class Mine(ApplicationFilter):
    interest = Interest.of(events=[EventKind.BIND])

    async def start(self, firewall):
        self.firewall, self.waiting = firewall, []
        self.listening = firewall.create_network_socket()
        self.listening.set_ip_filter(IpFilter("127.0.0.0/8"))
        await self.listening.bind("127.0.0.1", 0)
        await self.listening.listen()
        firewall.spawn(self.deal(), name="deal")

    async def deal(self):
        while True:
            peer = await self.listening.accept()
            if self.waiting:
                bound = self.waiting.pop(0)
                bound.emulate_connection(Peer(), peer.peer_name, peer.socket_name, context=peer)
            else:
                await peer.send(b"nobody is left\\n")
                await peer.close()

    def session_filter(self, session):
        return Joined(self)
"""
)


def binds_8600(firewall: RunningFirewall) -> tuple[socket.socket, tuple[str, int]]:
    """A server behind the firewall that has asked for port 8600 by SOCKS5 BIND, and what it was told."""
    sock = firewall.dial()
    sock.settimeout(PATIENCE_S)
    sock.sendall(b"\x05\x01\x00" + b"\x05\x02\x00\x01\0\0\0\0" + (8600).to_bytes(2, "big"))
    assert exactly(sock, 2) == b"\x05\x00"
    return sock, reply(sock)


def test_emulated_bind(start_firewall: StartFirewall) -> None:
    """Two servers have one port, arrivals are dealt in turn, the third is sent away politely."""
    firewall = start_firewall(POLICY, files=files(ROUND_ROBIN))
    idle = firewall.sockets()
    with ExitStack() as stack:
        bound = [binds_8600(firewall) for _ in range(2)]
        name = bound[0][1]
        for number, (server, _) in enumerate(bound):
            stack.enter_context(server)
            with socket.create_connection(name, PATIENCE_S) as peer:
                assert reply(server) == peer.getsockname()
                peer.sendall(b"question")
                assert exactly(server, 8) == b"question"
                server.sendall(b"answer %d" % number)
                assert exactly(peer, 8) == b"answer %d" % number
                peer.shutdown(socket.SHUT_WR)
                assert server.recv(1) == b""
                server.shutdown(socket.SHUT_WR)
                assert peer.recv(1) == b""
        with socket.create_connection(name, PATIENCE_S) as late:
            assert exactly(late, 15) == b"nobody is left\n"
            assert late.recv(1) == b""
    lines = heard(firewall, times=4)
    binds = [line["connection"] for line in lines if line["what"] == "bind"]
    accepts = [line["listening"] for line in lines if line["what"] == "accept"]
    assert accepts == binds
    wait_for(lambda: firewall.sockets() == idle, "no socket is left")


PUBLISH = (
    COPY
    + """
class Peer(DataFilter):
    async def pump(self, internal, external, connection):
        try:
            await both(internal, self.context)
        finally:
            await self.context.close()

class Mine(ApplicationFilter):
    async def start(self, firewall):
        self.firewall = firewall
        self.listening = firewall.create_network_socket()
        self.listening.set_ip_filter(IpFilter("127.0.0.0/8"))
        await self.listening.bind("127.0.0.1", 0)
        await self.listening.listen()
        firewall.log("published", port=self.listening.socket_name[1])
        firewall.spawn(self.serve(), name="serve")

    async def serve(self):
        session = self.firewall.create_private_session("127.0.0.1", "the web server")
        server = ("127.0.0.1", self.settings["target"])
        bound = await session.emulate_client_bind(server, self.listening.socket_name, full_proxy=True)
        while True:
            peer = await self.listening.accept()
            bound.emulate_connection(Peer(), peer.peer_name, peer.socket_name, context=peer)

    def session_filter(self, session):
        return SessionFilter()
"""
)


def test_publishing_by_a_filter(start_firewall: StartFirewall) -> None:
    """It listens itself and hands every peer to a server that never bound anything; each is judged by filters."""
    with echo_server() as target:
        firewall = start_firewall(with_settings(f"target = {target}"), files=files(PUBLISH))
        port = said(firewall, "published")["port"]
        name = ("", 0)
        for number in range(3):
            with socket.create_connection(("127.0.0.1", port), PATIENCE_S) as peer:
                name = peer.getsockname()
                peer.sendall(b"hello %d" % number)
                assert exactly(peer, 7) == b"hello %d" % number
                peer.shutdown(socket.SHUT_WR)
                assert peer.recv(1) == b""
        lines = heard(firewall, times=3)
    accepts = [line for line in lines if line["what"] == "accept"]
    assert len(accepts) == 3
    assert accepts[-1]["remote"] == f"127.0.0.1:{name[1]}"
    assert {line["user"] for line in accepts} == {"the web server"}
    assert len({line["listening"] for line in accepts}) == 1
