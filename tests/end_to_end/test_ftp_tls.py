"""FTPS: what a rule says about AUTH TLS, with a server that speaks it."""

from __future__ import annotations

import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import TIMEOUT_S, Refused, socks5
from tests.end_to_end.ftp import CONTENT, POLICY, Program, curl
from tests.end_to_end.running import RunningFirewall, wait_for

CONFIGURATION = """
listen=YES
listen_address=127.0.0.1
listen_port={port}
background=NO
run_as_launching_user=YES
seccomp_sandbox=NO
xferlog_enable=NO
anonymous_enable=YES
local_enable=NO
no_anon_password=YES
anon_root={home}/served
ssl_enable=YES
allow_anon_ssl=YES
force_anon_logins_ssl=NO
force_anon_data_ssl=NO
require_ssl_reuse=NO
ssl_ciphers=HIGH
rsa_cert_file={home}/certificate
rsa_private_key_file={home}/key
pasv_min_port={first}
pasv_max_port={last}
"""


class Server(NamedTuple):
    """Where it listens, and where its data connections go: first and last port."""

    port: int
    first: int
    last: int

    @property
    def passed(self) -> str:
        """What a rule says to let TLS pass."""
        return f'tls = "pass", passive_ports = "{self.first}-{self.last}"'


@pytest.fixture(scope="module")
def vsftpd(program: Program, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that gives away CONTENT as `file`, in the clear or not."""
    home = tmp_path_factory.mktemp("vsftpd")
    (home / "served").mkdir(mode=0o755)
    (home / "served" / "file").write_bytes(CONTENT)
    certificate = [*("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"),
                   *("-keyout", f"{home}/key", "-out", f"{home}/certificate")]  # fmt: skip
    subprocess.run([program("openssl"), *certificate], check=True, capture_output=True, timeout=20)
    server = Server(_free_port(), *_free_range())
    text = CONFIGURATION.format(home=home, **server._asdict())
    (home / "configuration").write_text(text)
    process = subprocess.Popen([program("vsftpd"), str(home / "configuration")])
    try:
        wait_for(lambda: _answers(server.port), "vsftpd answers")
        yield server
    finally:
        process.terminate()
        process.wait(TIMEOUT_S)


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _free_range() -> tuple[int, int]:
    """A few ports in a row, below those that the kernel gives to clients."""
    for first in range(20_000, 30_000, 10):
        with ExitStack() as stack:
            try:
                for port in range(first, first + 10):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            except OSError:
                continue
            return first, first + 8  # and one that nobody has
    raise AssertionError("no ten ports in a row")


def _answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as sock:
            return sock.recv(3) == b"220"
    except OSError:
        return False


def firewall_for(start: StartFirewall, server: Server, settings: str) -> RunningFirewall:
    return start(POLICY.format(port=server.port, settings=settings, limits=""))


SOCKS = ["--proxy", "socks5h://{proxy}"]


def test_passed_on_with_the_ports_of_the_rule(
    start_firewall: StartFirewall, program: Program, vsftpd: Server
) -> None:
    firewall = firewall_for(start_firewall, vsftpd, vsftpd.passed)
    idle = firewall.sockets()
    url = f"ftp://127.0.0.1:{vsftpd.port}/file"
    assert curl(program, firewall, *SOCKS, "--ssl-reqd", "--insecure", url) == CONTENT
    assert curl(program, firewall, *SOCKS, url) == CONTENT  # in the clear as ever
    for port in (vsftpd.first, vsftpd.last):  # and the ports are closed with the control connection
        with pytest.raises(Refused):
            socks5(firewall.port, port)
    wait_for(lambda: firewall.sockets() == idle, f"{idle} sockets as before")


def test_the_ports_are_open_as_long_as_the_control_connection_lives_and_no_others(
    start_firewall: StartFirewall, vsftpd: Server
) -> None:
    firewall = firewall_for(start_firewall, vsftpd, vsftpd.passed)
    with socks5(firewall.port, vsftpd.port) as plain:
        assert plain.recv(100).startswith(b"220")
        with pytest.raises(Refused):
            socks5(firewall.port, vsftpd.first)
        plain.sendall(b"AUTH TLS\r\n")
        assert plain.recv(100).startswith(b"234")
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as control:
            control.sendall(b"NOOP\r\n")
            assert control.recv(100).startswith(b"530")
            with socket.create_server(
                ("127.0.0.1", vsftpd.last)
            ):  # stands in for the server's next transfers
                for _ in range(3):
                    socks5(firewall.port, vsftpd.last).close()
            with pytest.raises(Refused):
                socks5(firewall.port, vsftpd.last + 1)


@pytest.mark.parametrize("settings", ["", 'tls = "refuse"', "read_only = true"])
def test_refused_a_client_that_insists_gives_up(
    start_firewall: StartFirewall, program: Program, vsftpd: Server, settings: str
) -> None:
    firewall = firewall_for(start_firewall, vsftpd, settings)
    url = f"ftp://127.0.0.1:{vsftpd.port}/file"
    assert curl(program, firewall, *SOCKS, "--ssl", "--insecure", url) == CONTENT
    with pytest.raises(AssertionError, match="Requested SSL level failed"):
        curl(program, firewall, *SOCKS, "--ssl-reqd", "--insecure", url)
    firewall.wait_for_records(2, lambda record: "ftp_tls_refused" in str(record.filters))
