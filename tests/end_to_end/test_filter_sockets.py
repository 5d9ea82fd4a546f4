"""Filters with sockets of their own on a live firewall: a gateway with its own users, and a TLS server for curl."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, RunningFirewall, wait_for
from tests.end_to_end.servers import echo_server
from tests.net.certificates import SERVER_NAME, Authority, usual

GATEWAY = """
import asyncio
from doorward.api import AccessDenied, ApplicationFilter, DoorwardError, IpFilter, SessionFilter

async def copy(source, sink):
    while data := await source.recv():
        await sink.send(data)
    await sink.shutdown()

class Gateway(ApplicationFilter):
    async def start(self, firewall):
        self.firewall = firewall
        self.listening = firewall.create_network_socket()
        self.listening.set_ip_filter(IpFilter("127.0.0.0/8"))
        await self.listening.bind("127.0.0.1", 0)
        await self.listening.listen()
        firewall.log("gateway", port=self.listening.socket_name[1])
        firewall.spawn(self.serve(), name="serve")

    def session_filter(self, session):
        return SessionFilter()

    async def serve(self):
        while True:
            arrived = await self.listening.accept()
            self.firewall.spawn(self.one(arrived), name="one client")

    async def one(self, arrived):
        client = await self.firewall.create_ssl_network_socket(
            arrived, "server", certificate_file=self.settings["certificate"], key_file=self.settings["key"])
        user, host, port = (await client.recv()).decode().split()
        session = self.firewall.create_private_session(arrived.peer_name[0], user)
        server = session.create_network_socket()
        try:
            await server.connect(host, int(port))
            await client.send(b"connected\\n")
            async with asyncio.TaskGroup() as group:
                group.create_task(copy(client, server))
                group.create_task(copy(server, client))
        except AccessDenied as denied:
            await client.send(f"denied {denied.reason}\\n".encode())
        finally:
            await server.close()
            await client.close()
            session.close()
"""
SERVER = """
from doorward.api import ApplicationFilter, DataFilter, SessionFilter

class Answer(DataFilter):
    def __init__(self, owner):
        self.owner = owner

    async def pump(self, internal, external, connection):
        settings = self.owner.settings
        tls = await self.owner.firewall.create_ssl_network_socket(
            internal, "server", certificate_file=settings["certificate"], key_file=settings["key"],
            alpn=["http/1.1"])
        request = b""
        while b"\\r\\n\\r\\n" not in request:
            request += await tls.recv()
        body = b"x" * 3_000_000
        head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
        await tls.send(head.encode() + body)

class Joined(SessionFilter):
    def __init__(self, owner):
        self.owner = owner

    async def on_connect(self, event):
        event.connection.emulate_for_connect(Answer(self.owner))

class Server(ApplicationFilter):
    async def start(self, firewall):
        self.firewall = firewall

    def session_filter(self, session):
        return Joined(self)
"""
ONLY_KIM = """
[[rule]]
name = "kim only"
action = "allow"
to = ["127.0.0.0/8"]
protocols = ["any"]
users = ["kim"]
[users.kim]
password = "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHRzb21lc2FsdA$RdescudvJCsgt3ub+b7dWRWJTmaaJObG"
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return usual(Path(tmp_path_factory.mktemp("certificates")))


def filter_table(authority: Authority) -> str:
    chain, key = authority.identity("server")
    return (
        '[[filter]]\nname = "mine"\nuse = "mine.py"\n'
        f'[filter.settings]\ncertificate = "{chain!s}"\nkey = "{key!s}"\n'
    )


def ask(firewall: RunningFirewall, authority: Authority, line: str) -> ssl.SSLSocket:
    """A client of the gateway that has said what it wants."""
    port = wait_for(lambda: firewall.events("gateway"), "the gateway's port")[0]["port"]
    context = ssl.create_default_context(cafile=authority.file)
    sock = socket.create_connection(("127.0.0.1", port), timeout=10)
    tls = context.wrap_socket(sock, server_hostname=SERVER_NAME)
    tls.sendall(line.encode())
    return tls


def test_a_gateway_with_users_of_its_own_is_judged_for_each_of_them_and_ends_with_its_filter(
    start_firewall: StartFirewall, authority: Authority
) -> None:
    policy = LISTEN + filter_table(authority) + ONLY_KIM
    firewall = start_firewall(policy, files={"mine.py": GATEWAY})
    with echo_server() as port:
        with ask(firewall, authority, f"robin 127.0.0.1 {port}") as robin:
            assert robin.recv(100) == b"denied guarded_loopback\n"
        with ask(firewall, authority, f"kim 127.0.0.1 {port}") as kim:
            assert kim.recv(10) == b"connected\n"
            kim.sendall(b"hello")
            assert kim.recv(5) == b"hello"
            records = firewall.wait_for_records(2)
            assert [r.user for r in records if r.action == "deny"] == ["robin"]
            firewall.rewrite_policy(LISTEN + ONLY_KIM)
            firewall.hang_up()
            assert kim.recv(100) == b""  # the filter's task has been cancelled, and has closed in order
    gateway = firewall.events("gateway")[0]["port"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", gateway))
    told = {(r.entry, r.operation, r.user, r.end) for r in firewall.wait_for_records(5)}
    assert {("system", "bind", None, "filter_left"), ("filter", "connect", "kim", "closed")} < told


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_speaks_tls_with_a_filter_that_is_the_server(
    start_firewall: StartFirewall, authority: Authority, tmp_path: Path
) -> None:
    policy = LISTEN + filter_table(authority) + EVERYTHING_HERE
    firewall = start_firewall(policy, files={"mine.py": SERVER})
    fetched = tmp_path / "fetched"
    for version in ("--tlsv1.3", "--tls-max"):
        subprocess.run(
            [
                *("curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--output", str(fetched)),
                *("--socks5", firewall.address, "--cacert", authority.file),
                *((version,) if version == "--tlsv1.3" else (version, "1.2")),
                "https://127.0.0.1:9/",
            ],
            check=True,
            timeout=30,
        )
        assert fetched.read_bytes() == b"x" * 3_000_000
    records = firewall.wait_for_records(2)
    assert {r.action for r in records} == {"allow"}
    # With the whole answer in hand, curl does not always wait for the end of TLS: its close is then a reset.
    assert {r.end for r in records} <= {"closed", "reset"}
    assert all(r.bytes_received > 3_000_000 for r in records)
