"""FTP in active mode: the server connects, by way of a port of the firewall's, to a client that it could not reach."""

from __future__ import annotations

import ftplib
import io
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.end_to_end.conftest import StartFirewall, starting_firewalls
from tests.end_to_end.dialling import TIMEOUT_S, Refused
from tests.end_to_end.ftp import (
    CONTENT,
    FtpServer,
    Program,
    ProxiedFtp,
    Site,
    curl,
    downloaded,
    ftp_server,
    site_of,
)

# The client is not where the firewall is, so the server tells a connection by way of it from a direct one.
CLIENT = "127.0.0.5"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FtpServer]:
    """One that takes data connections from its client's address alone, which is the firewall's."""
    with ftp_server(tmp_path_factory.mktemp("ftp"), allows_anywhere=False) as server:
        yield server


@pytest.fixture(scope="module")
def site(server: FtpServer) -> Iterator[Site]:
    with starting_firewalls() as start:
        yield site_of(start, server)


class ActiveFtp(ProxiedFtp):
    """Lives at CLIENT, comes by SOCKS5, and has the server connect to it."""

    def __init__(self, site: Site) -> None:
        self.proxy_port = site.firewall.port
        super().__init__(self._dial, "127.0.0.1", site.server.port)
        self.set_pasv(False)

    def _dial(self, port: int, host: str) -> socket.socket:
        sock, _ = self.ask(1, host, port)
        return sock

    def ask(self, command: int, host: str, port: int) -> tuple[socket.socket, tuple[str, int]]:
        """One request to the proxy, and what its first reply names."""
        sock = socket.create_connection(("127.0.0.1", self.proxy_port), TIMEOUT_S, (CLIENT, 0))
        where = bytes((5, command, 0, 1)) + socket.inet_aton(host) + port.to_bytes(2, "big")
        sock.sendall(b"\x05\x01\x00" + where)
        assert sock.recv(2, socket.MSG_WAITALL) == b"\x05\x00"
        return sock, bound(sock)

    def makeport(self) -> socket.socket:
        listening = socket.create_server((CLIENT, 0))
        self.sendport(*listening.getsockname())
        listening.settimeout(TIMEOUT_S)
        return listening


def bound(sock: socket.socket) -> tuple[str, int]:
    """What a SOCKS5 reply names. Raises Refused."""
    reply = sock.recv(10, socket.MSG_WAITALL)
    if reply[1]:
        sock.close()
        raise Refused(reply[1])
    return socket.inet_ntoa(reply[4:8]), int.from_bytes(reply[8:], "big")


class BindingFtp(ActiveFtp):
    """Has the firewall listen by SOCKS BIND before it asks for a transfer, and names that address."""

    def makeport(self) -> socket.socket:
        sock, (host, port) = self.ask(2, "127.0.0.1", self.port)
        self.sendport(host, port)
        return Bind(sock)


class Bind(socket.socket):
    """A BIND as what `ntransfercmd` takes for a listening socket: the peer comes on the same connection."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.family, sock.type, sock.proto, sock.detach())
        self.settimeout(TIMEOUT_S)

    def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        peer = bound(self)
        return socket.socket(self.family, self.type, self.proto, self.detach()), peer


WAYS = {"PORT with the client's own address": ActiveFtp, "SOCKS BIND": BindingFtp}
# Why a port was open: a filter's promise, or the client's own wish, with nobody admitted until the filter promised.
BOUND_BY = {"PORT with the client's own address": "granted", "SOCKS BIND": "provisional"}


@pytest.mark.parametrize(("way", "bound_by"), BOUND_BY.items())
def test_active_transfers(start_firewall: StartFirewall, server: FtpServer, way: str, bound_by: str) -> None:
    site = site_of(start_firewall, server)
    with WAYS[way](site) as client:
        assert downloaded(client) == CONTENT
        client.storbinary("STOR uploaded", io.BytesIO(CONTENT))
        assert (site.server.home / "uploaded").read_bytes() == CONTENT
        assert "uploaded" in client.nlst()
        assert downloaded(client, rest=1_000_000) == CONTENT[1_000_000:]
        client.delete("uploaded")
    site.expect_nothing_left()
    records = site.firewall.wait_for_records(9)
    assert {(record.operation, record.reason) for record in records} == {
        ("connect", "rule_allow"),
        ("bind", bound_by),
        ("accept", "granted"),
    }


@pytest.mark.parametrize("way", WAYS)
def test_a_hundred_active_transfers_in_one_session(site: Site, way: str) -> None:
    (site.server.home / "small").write_bytes(b"small")
    with WAYS[way](site) as client:
        for _ in range(100):
            assert downloaded(client, "small") == b"small"
    site.expect_nothing_left()


@pytest.mark.parametrize("way", WAYS)
def test_a_file_that_is_not_there_leaves_no_port_open(site: Site, way: str) -> None:
    with WAYS[way](site) as client:
        for _ in range(3):
            with pytest.raises(ftplib.error_perm):
                downloaded(client, "nothing")
        assert downloaded(client) == CONTENT


def test_an_abort_in_the_middle_and_the_session_goes_on(site: Site) -> None:
    with ActiveFtp(site) as client:
        client.voidcmd("TYPE I")
        data, _ = client.ntransfercmd("RETR file")
        assert data.recv(1000)
        client.abort()
        data.close()
        client.voidresp()
        assert downloaded(client) == CONTENT


@pytest.mark.parametrize("eprt", [[], ["--disable-eprt"]], ids=["eprt", "port"])
def test_curl_active(site: Site, program: Program, tmp_path: Path, eprt: list[str]) -> None:
    url = f"ftp://127.0.0.1:{site.server.port}/"
    ways = ["--proxy", "socks5h://{proxy}", "--ftp-port", "-", *eprt]
    assert curl(program, site.firewall, *ways, url + "file") == CONTENT
    (tmp_path / "up").write_bytes(CONTENT)
    curl(program, site.firewall, *ways, "--upload-file", str(tmp_path / "up"), url + "from-curl")
    assert (site.server.home / "from-curl").read_bytes() == CONTENT
    assert b"from-curl" in curl(program, site.firewall, *ways, url)


SOCKS_CONF = """
logoutput: stderr
route {{
    from: 0.0.0.0/0 to: 0.0.0.0/0 via: 127.0.0.1 port = {port}
    protocol: tcp
    proxyprotocol: socks_v5
    command: bind connect bindreply
    method: none
}}
"""


def test_a_real_client_that_binds_by_socks(
    start_firewall: StartFirewall, server: FtpServer, program: Program, tmp_path: Path
) -> None:
    """Dante's wrapper turns the listening of an old client into SOCKS BIND."""
    site = site_of(start_firewall, server)
    configuration = tmp_path / "socks.conf"
    configuration.write_text(SOCKS_CONF.format(port=site.firewall.port))
    environment = {
        "SOCKS_CONF": str(configuration),
        "SOCKS_AUTOADD_LANROUTES": "no",
        "HOME": str(tmp_path),
        "PATH": os.environ["PATH"],
    }
    script = f"open 127.0.0.1 {site.server.port}\nuser anonymous x\nbinary\nget file {tmp_path}/down\nquit\n"
    command = [program("socksify"), program("tnftp"), "-n", "-A", "-i"]
    done = subprocess.run(
        command, input=script.encode(), env=environment, capture_output=True, timeout=20, check=False
    )
    assert (tmp_path / "down").read_bytes() == CONTENT, done
    records = site.firewall.wait_for_records(3)
    assert {record.reason for record in records} == {"rule_allow", "provisional", "granted"}
