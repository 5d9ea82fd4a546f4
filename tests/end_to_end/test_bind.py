"""BIND with real programs: a peer that connects to where the firewall says, and active FTP of a client under Dante."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.ftp import CONTENT, POLICY, FtpServer, ftp_server
from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, PATIENCE_S, RunningFirewall, wait_for

from doorward.net.acceptor import facing

Program = Callable[[str], str]

FEW_PORTS = """
[[rule]]
name = "called back"
action = "allow"
to = ["127.0.0.0/8"]
protocols = ["tcp-in/21000-21063"]
"""
DANTE = """
route {{
    from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {port}
    proxyprotocol: {version}
    command: bind connect
    protocol: tcp
    method: none
}}
"""


def exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        chunk = sock.recv(size - len(data))
        assert chunk, f"ended after {data!r}"
        data += chunk
    return data


def digest_of(sock: socket.socket) -> str:
    """Of everything up to its end."""
    digest = hashlib.sha256()
    while chunk := sock.recv(1 << 16):
        digest.update(chunk)
    return digest.hexdigest()


def reply(sock: socket.socket) -> tuple[str, int]:
    head = exactly(sock, 10)
    assert head[:4] == b"\x05\x00\x00\x01", head
    return str(ipaddress.IPv4Address(head[4:8])), int.from_bytes(head[8:], "big")


def bound(firewall: RunningFirewall, peer: str = "127.0.0.1") -> tuple[socket.socket, tuple[str, int]]:
    """A client that has had the firewall listen, and where."""
    client = firewall.dial()
    client.settimeout(PATIENCE_S)
    client.sendall(b"\x05\x01\x00\x05\x02\x00\x01" + ipaddress.IPv4Address(peer).packed + b"\0\0")
    assert exactly(client, 2) == b"\x05\x00"
    return client, reply(client)


def test_much_passes_both_ways_at_once_on_a_port_of_the_policys(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(LISTEN + EVERYTHING_HERE + FEW_PORTS)
    content = os.urandom(20_000_000)
    expected = hashlib.sha256(content).hexdigest()
    idle = firewall.sockets()
    client, name = bound(firewall)
    assert 21_000 <= name[1] <= 21_063
    with client, socket.create_connection(name, PATIENCE_S) as peer:
        assert reply(client) == peer.getsockname()
        digests: list[str] = []

        def say(sock: socket.socket) -> None:
            sock.sendall(content)
            sock.shutdown(socket.SHUT_WR)

        threads = [threading.Thread(target=say, args=(sock,)) for sock in (client, peer)]
        threads += [
            threading.Thread(target=lambda s=sock: digests.append(digest_of(s))) for sock in (client, peer)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
    assert digests == [expected, expected]
    bind, accept = firewall.wait_for_records(2)
    assert (bind.operation, bind.rule, bind.port, bind.end) == ("bind", "called back", name[1], "closed")
    assert (accept.operation, accept.parent, accept.end) == ("accept", bind.connection, "closed")
    assert (accept.bytes_sent, accept.bytes_received) == (len(content), len(content))
    wait_for(lambda: firewall.sockets() == idle, "no socket is left")


def test_a_hundred_clients_that_only_ask_leave_nothing(start_firewall: StartFirewall) -> None:
    firewall = start_firewall(LISTEN + EVERYTHING_HERE + FEW_PORTS.replace("/21000-21063", ""))
    idle = firewall.sockets()
    waiting = [bound(firewall) for _ in range(64)]
    refused = firewall.dial()
    refused.sendall(b"\x05\x01\x00\x05\x02\x00\x01\x7f\x00\x00\x01\x00\x00")
    refused.settimeout(PATIENCE_S)
    assert exactly(refused, 4)[3] == 1  # the client has as many as it may: general failure
    refused.close()
    for client, _ in waiting[:32]:
        client.close()
    wait_for(lambda: firewall.sockets() == idle + 2 * 32, "half of them are over")
    for client, name in waiting[32:]:
        with client, socket.create_connection(name, PATIENCE_S) as peer:
            assert reply(client) == peer.getsockname()
    wait_for(lambda: firewall.sockets() == idle, "no socket is left")


@pytest.mark.parametrize("version", ["socks_v5", "socks_v4"])
def test_active_ftp_under_dante_comes_through_bind(
    start_firewall: StartFirewall, program: Program, tmp_path: Path, version: str
) -> None:
    ours = own_address()
    with ftp_server(tmp_path, ours) as server:
        (server.home / "file").write_bytes(CONTENT)
        policy = POLICY.format(port=server.port, settings="", limits="")
        firewall = start_firewall(policy.replace('"127.0.0.0/8"', f'"127.0.0.0/8", "{ours}"'))
        configuration = tmp_path / "socks.conf"
        configuration.write_text(DANTE.format(port=firewall.port, version=version))
        environment = os.environ | {"SOCKS_CONF": str(configuration), "SOCKS_AUTOADD_LANROUTES": "no"}
        script = f"""
            set ftp:passive-mode off; set net:max-retries 2; open ftp://{ours}:{server.port};
            get file -o {tmp_path}/down; put {tmp_path}/down -o up; cls -1
        """
        command = [program("socksify"), program("lftp"), "-c", script]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=20, check=False
        )
        assert "up" in done.stdout.splitlines(), done.stderr
        assert (tmp_path / "down").read_bytes() == CONTENT
        assert (server.home / "up").read_bytes() == CONTENT
        expect_provisional(firewall, server)


def expect_provisional(firewall: RunningFirewall, server: FtpServer) -> None:
    """No rule lets the server come; the FTP filter did, each time for the one peer."""
    accepted = firewall.wait_for_records(3, lambda record: record.operation == "accept")
    assert {(r.action, r.reason, r.rule) for r in accepted} == {("allow", "granted", "ftp only")}
    binds = firewall.wait_for_records(3, lambda record: record.operation == "bind")
    assert {(r.reason, r.end) for r in binds} == {("provisional", "closed")}
    assert all(record.port != server.port for record in binds)


def own_address() -> str:
    """One of this machine that is not loopback, which Dante never leads through a proxy."""
    try:
        found = facing(ipaddress.ip_address("198.51.100.1"))
    except Exception as error:
        pytest.skip(f"this machine has no address but loopback: {error}")
    return found
