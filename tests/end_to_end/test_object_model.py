"""Each system of the object model with a real client and a real server: what docs/object-model.md says of it holds."""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import Refused, socks5
from tests.end_to_end.running import PATIENCE_S, wait_for
from tests.end_to_end.servers import echo_server, http_server
from tests.end_to_end.test_bind import bound, exactly, reply
from tests.end_to_end.witness import POLICY, files, heard, said

Program = Callable[[str], str]


def whats(lines: list[dict[str, object]]) -> list[object]:
    return [line["what"] for line in lines]


@contextmanager
def listening(host: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A server's socket, in the hands of the test."""
    with socket.create_server((host, 0)) as server:
        server.settimeout(PATIENCE_S)
        yield server


# -- Outbound connect --------------------------------------------------------------------------------------------

WATCH = """
from doorward.api import ApplicationFilter, DataFilter, SessionFilter

class Peek(DataFilter):
    async def pump(self, internal, external, connection):
        data = await internal.recv()
        self.context.log("peeked", start=data[:14].decode(), server=connection.external_peer_name[1])
        await external.send(data)

class Joined(SessionFilter):
    def __init__(self, firewall):
        self.firewall = firewall

    async def on_connect(self, event):
        if event.port == 9:
            event.connection.deny("port_nine")
        event.connection.attach_data_filter(Peek(), context=self.firewall)

class Mine(ApplicationFilter):
    async def start(self, firewall):
        self.firewall = firewall

    def session_filter(self, session):
        return Joined(self.firewall)
"""


def test_outbound_connect(start_firewall: StartFirewall, program: Program) -> None:
    """Policy, event, dial, established, data filter, terminating, record; whom policy refuses no filter sees."""
    firewall = start_firewall(POLICY, files=files(WATCH))
    with http_server() as port:
        with pytest.raises(Refused):
            socks5(firewall.port, 80, "169.254.169.254")
        with pytest.raises(Refused):
            socks5(firewall.port, 9)
        command = [program("curl"), "--silent", "--fail", "--max-time", "10"]
        command += ["--socks5", firewall.address, f"http://127.0.0.1:{port}/big"]
        assert len(subprocess.run(command, check=True, capture_output=True).stdout) == 8 * 2**20
        lines = heard(firewall, times=2)
        allowed = firewall.wait_for_records(3)[-1]
    assert whats(lines) == ["connect", "terminating", "connect", "established", "terminating"]
    denied, _, connect, established, terminating = lines
    assert (denied["port"], connect["port"]) == (9, port)
    assert (connect["peer"], established["peer"]) == (None, f"127.0.0.1:{port}")
    peeked = said(firewall, "peeked")
    assert (peeked["start"], peeked["server"]) == ("GET /big HTTP/", port)
    assert terminating["received"] > 8 * 2**20
    assert (allowed.bytes_sent, allowed.bytes_received) == (terminating["sent"], terminating["received"])
    reasons = [(record.action, record.reason) for record in firewall.records()]
    assert reasons == [("deny", "guarded_metadata"), ("deny", "port_nine"), ("allow", "rule_allow")]


# -- Bind, listen, accept ----------------------------------------------------------------------------------------

PICKY = """
from doorward.api import ApplicationFilter, EventKind, Interest, SessionFilter, StreamFilter

class Shout(StreamFilter):
    def server_data(self, data):
        return data.upper()

class Joined(SessionFilter):
    async def on_bind(self, event):
        if event.port == 9:
            event.connection.deny("port_nine")

    async def on_accept(self, event):
        if event.remote[0] == "127.0.0.2":
            event.connection.deny("not_this_one")
        event.connection.attach_data_filter(Shout())

class Mine(ApplicationFilter):
    interest = Interest.of(events=[EventKind.BIND, EventKind.ACCEPT])

    def session_filter(self, session):
        return Joined()
"""


def test_bind_listen_accept(start_firewall: StartFirewall) -> None:
    """The listening connection and the inbound one are two; a peer is judged before the client hears of it."""
    firewall = start_firewall(POLICY, files=files(PICKY))
    idle = firewall.sockets()
    client, name = bound(firewall, "0.0.0.0")
    with client:
        with pytest.raises(ConnectionResetError):
            with socket.create_connection(name, PATIENCE_S, ("127.0.0.2", 0)) as stranger:
                stranger.recv(1)
        with socket.create_connection(name, PATIENCE_S, ("127.0.0.3", 0)) as peer:
            assert reply(client) == peer.getsockname()
            peer.sendall(b"hello")
            assert exactly(client, 5) == b"HELLO"
            client.sendall(b"hello")
            assert exactly(peer, 5) == b"hello"
            with pytest.raises(ConnectionRefusedError):  # it was for one peer
                socket.create_connection(name, PATIENCE_S)
    lines = heard(firewall, times=3)
    bind, listen, first, _, second = [line for line in lines if line["what"] != "established"][:5]
    assert whats([bind, listen, first, second]) == ["bind", "listen", "accept", "accept"]
    assert (bind["port"], listen["port"]) == (0, name[1])
    assert bind["connection"] == listen["connection"] == first["listening"] == second["listening"]
    assert len({bind["connection"], first["connection"], second["connection"]}) == 3
    assert (first["remote"].split(":")[0], second["remote"].split(":")[0]) == ("127.0.0.2", "127.0.0.3")
    told = [line["connection"] for line in lines if line["what"] == "established"]
    assert told == [second["connection"]]
    wait_for(lambda: firewall.sockets() == idle, "no socket is left")


def test_a_denied_bind_is_an_address_in_use(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(POLICY, files=files(PICKY))
    with firewall.dial() as client:
        client.settimeout(PATIENCE_S)
        client.sendall(b"\x05\x01\x00\x05\x02\x00\x01\x00\x00\x00\x00\x00\x09")
        assert exactly(client, 4)[3] == 1  # SOCKS has no word for it but general failure
    [record] = firewall.wait_for_records(1)
    assert (record.operation, record.action, record.reason) == ("bind", "deny", "port_nine")


FOR_THE_CLIENT = """
from doorward.api import ApplicationFilter, DataFilter, Interest, IpFilter, SessionFilter

class Hole(DataFilter):
    async def pump(self, internal, external, connection):
        port = int(await internal.recv())
        late, = await connection.session.bind_for_client(
            None, ip_filter=IpFilter("127.0.0.7"), multiple=True, parent=connection)
        await internal.send(b"%d" % late.external_socket_name[1])
        await internal.recv()
        late.set_client_address(("127.0.0.1", port))
        await internal.send(b"set")
        await internal.recv()
        late.set_ip_filter(IpFilter("127.0.0.8"))
        await internal.send(b"narrowed")
        await internal.recv()

class Joined(SessionFilter):
    async def on_connect(self, event):
        event.connection.emulate_for_connect(Hole())

class Mine(ApplicationFilter):
    interest = Interest.of("tcp/9")

    def session_filter(self, session):
        return Joined()
"""


def come(port: int, address: str, say: bytes) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port), PATIENCE_S, (address, 0))
    peer.sendall(say)
    return peer


def test_a_listener_for_many_outlives_its_peers_and_dies_with_its_parent(
    start_firewall: StartFirewall,
) -> None:
    """A filter listens for its client: for whom it admits, to an address told late, as often as anybody comes."""
    firewall = start_firewall(POLICY, files=files(FOR_THE_CLIENT))
    with echo_server() as inside:
        with socks5(firewall.port, 9) as client:
            client.sendall(b"%d" % inside)
            port = int(client.recv(10))
            with come(port, "127.0.0.7", b"early") as early:
                client.sendall(b"go on")
                assert exactly(client, 3) == b"set"
                assert exactly(early, 5) == b"early"
                with come(port, "127.0.0.7", b"second") as second:
                    assert exactly(second, 6) == b"second"
            with come(port, "127.0.0.7", b"third") as third:
                assert exactly(third, 5) == b"third"
                client.sendall(b"go on")
                assert exactly(client, 8) == b"narrowed"
                with pytest.raises(ConnectionResetError), come(port, "127.0.0.7", b"late") as late:
                    late.recv(1)
                with come(port, "127.0.0.8", b"other") as other:
                    assert exactly(other, 5) == b"other"
                    client.close()
                    wait_for(lambda: not answers(port), "the port is closed")
                    third.sendall(b"still here")
                    assert exactly(third, 10) == b"still here"
    lines = heard(firewall, times=5)
    accepts = [line for line in lines if line["what"] == "accept"]
    assert len(accepts) == 4
    assert all(line["secondary"] for line in accepts)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), PATIENCE_S).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:
        pass
    return True
