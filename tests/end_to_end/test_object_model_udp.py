"""UDP with several destinations: a mapping of one client's, real servers, and filters on some of them."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.running import PATIENCE_S
from tests.end_to_end.test_udp import proxied
from tests.end_to_end.witness import POLICY, files, heard

DESTINATIONS = """
import asyncio
from doorward.api import ApplicationFilter, DataFilter, EventKind, Interest, SessionFilter, StreamFilter

class Shout(StreamFilter):
    def client_data(self, data):
        return data.upper()

class Count(DataFilter):
    async def pump(self, internal, external, connection):
        async with asyncio.TaskGroup() as group:
            group.create_task(self.copy(internal, external, "sent"))
            group.create_task(self.copy(external, internal, "received"))

    async def copy(self, source, sink, what):
        while True:
            data, far_end = await source.recv_from()
            await sink.send_to(data, far_end)
            self.context.log(what, port=far_end[1], size=len(data))

class Joined(SessionFilter):
    def __init__(self, firewall):
        self.firewall = firewall
        self.ports = []

    async def on_bind(self, event):
        event.connection.attach_data_filter(Count(), context=self.firewall)

    async def on_udp_destination(self, event):
        self.ports.append(event.destination.port)
        if len(self.ports) == 1:
            where = (event.destination.address, event.destination.port)
            event.connection.attach_data_filter_with_destination(Shout(), where)
        if len(self.ports) == 3:
            event.destination.deny("third_one")

class Mine(ApplicationFilter):
    interest = Interest.of(events=[EventKind.BIND, EventKind.UDP_DESTINATION])

    async def start(self, firewall):
        self.firewall = firewall

    def session_filter(self, session):
        return Joined(self.firewall)
"""
TFTP = """
import asyncio
from doorward.api import ApplicationFilter, DataFilter, EventKind, Interest, IpFilter, SessionFilter

class Tftp(DataFilter):
    # The server answers from a new port: a socket of the session's own hears it, for the server's address only.
    async def pump(self, internal, external, connection):
        outer = connection.session.create_network_socket("udp")

        async def answers():
            while True:
                data, server = await outer.recv_from()
                await internal.send_to(data, server)

        try:
            async with asyncio.TaskGroup() as group:
                request, server = await internal.recv_from()
                outer.set_ip_filter(IpFilter(server[0]))
                await outer.bind("", 0)
                group.create_task(answers())
                while True:
                    await outer.send_to(request, server)
                    request, server = await internal.recv_from()
        finally:
            await outer.close()

class Joined(SessionFilter):
    async def on_bind(self, event):
        event.connection.attach_data_filter(Tftp())

class Mine(ApplicationFilter):
    interest = Interest.of(events=[EventKind.BIND])

    def session_filter(self, session):
        return Joined()
"""
COME_BACK = """
[[rule]]
name = "transfers"
action = "allow"
to = ["127.0.0.0/8"]
protocols = ["udp-in"]
"""
CONTENT = bytes(range(256)) * 10  # five blocks, and an empty one that ends the transfer


@contextmanager
def servers(count: int) -> Iterator[list[socket.socket]]:
    """Sockets of servers, in the hands of the test."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for server in sockets:
            server.bind(("127.0.0.1", 0))
            server.settimeout(PATIENCE_S)
        yield sockets
    finally:
        for server in sockets:
            server.close()


def test_udp_with_several_destinations(start_firewall: StartFirewall) -> None:
    """One connection, one event for each destination, a filter for one of them, silence for another."""
    firewall = start_firewall(POLICY, files=files(DESTINATIONS))
    with servers(3) as (first, second, third), proxied(firewall) as client:
        mapping = ("", 0)
        for _ in range(3):
            client.sendto(b"hello", first.getsockname())
            data, mapping = first.recvfrom(100)
            assert data == b"HELLO"
            first.sendto(b"answer", mapping)
            assert client.recvfrom(100) == (b"answer", first.getsockname())
        for _ in range(3):
            client.sendto(b"hello", second.getsockname())
            assert second.recvfrom(100) == (b"hello", mapping)
        client.sendto(b"hello", third.getsockname())
        third.sendto(b"from a stranger", mapping)
        second.sendto(b"the last", mapping)
        assert client.recvfrom(100) == (b"the last", second.getsockname())
        third.settimeout(0.2)
        with pytest.raises(TimeoutError):
            third.recvfrom(100)
        ports = [server.getsockname()[1] for server in (first, second, third)]
    lines = heard(firewall)
    bind, *_ = lines
    told = [line for line in lines if line["what"] == "udp destination"]
    assert (bind["what"], bind["transport"]) == ("bind", "udp")
    assert [line["port"] for line in told] == ports
    assert {line["connection"] for line in told} == {bind["connection"]}
    assert [line["port"] for line in firewall.events("sent")] == [ports[0]] * 3 + [ports[1]] * 3
    assert [line["port"] for line in firewall.events("received")] == [ports[0]] * 3 + [ports[1]]
    denied = firewall.wait_for_records(1, lambda record: record.action == "deny")
    assert [(record.reason, record.port) for record in denied] == [("third_one", ports[2])]


def serve_a_file(well_known: socket.socket) -> None:
    """One read request (RFC 1350), answered from a new port as every server does."""
    request, client = well_known.recvfrom(1000)
    assert request == b"\0\1file\0octet\0"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as transfer:
        transfer.bind(("127.0.0.1", 0))
        transfer.settimeout(PATIENCE_S)
        for number in range(len(CONTENT) // 512 + 1):
            head = b"\0\3" + (number + 1).to_bytes(2, "big")
            transfer.sendto(head + CONTENT[number * 512 :][:512], client)
            assert transfer.recvfrom(100)[0] == b"\0\4" + head[2:]


def test_tftp_whose_server_answers_from_a_new_port(start_firewall: StartFirewall) -> None:
    """UDP has secondaries, too: a filter hears the server where the client alone would have heard a stranger."""
    firewall = start_firewall(POLICY + COME_BACK, files=files(TFTP))
    failures: list[BaseException] = []

    def serve() -> None:
        try:
            serve_a_file(well_known)
        except BaseException as error:
            failures.append(error)

    with servers(1) as (well_known,), proxied(firewall) as client:
        serving = Thread(target=serve)
        serving.start()
        client.sendto(b"\0\1file\0octet\0", well_known.getsockname())
        received, block = b"", b"x" * 512
        while len(block) == 512:
            data, transfer = client.recvfrom(1000)
            assert transfer[1] != well_known.getsockname()[1]
            block = data[4:]
            received += block
            client.sendto(b"\0\4" + data[2:4], transfer)
        serving.join(PATIENCE_S)
    assert (received, failures) == (CONTENT, [])
