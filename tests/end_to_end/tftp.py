"""Real TFTP servers, and two clients behind SOCKS: tftpy's, and one of ours that is slow, early or rude on purpose."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Self

import pytest
import socks  # type: ignore[import-untyped]  # nobody has written types for it that we need
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.running import RunningFirewall, wait_for

TIMEOUT_S: Final = 10.0
CONTENT: Final = os.urandom(700_001)
# Rules allow requests only: answers come through because the filter says so.
POLICY: Final = """
[listen]
proxy = ["127.0.0.1:0"]
[limits]
drain_timeout_s = 1
[protocols.tftp]
ports = ["udp/{port}"]
[[filter]]
name = "tftp"
use = "tftp"
settings = {{ {settings} }}
[[rule]]
name = "tftp only"
action = "allow"
to = ["127.0.0.1", "::1"]
protocols = ["tftp"]
"""
TFTPY: Final = """
    import sys, threading, tftpy
    server = tftpy.TftpServer(sys.argv[1], upload_open=lambda path, _: open(path, "wb"))
    def tell():
        server.is_running.wait()
        print(server.listenport, flush=True)
    threading.Thread(target=tell, daemon=True).start()
    server.listen("127.0.0.1", 0, timeout=2)
"""

Address = tuple[str, int]


class TftpServer:
    """One in a process of its own. `home` is what it serves; CONTENT is `file` there."""

    def __init__(self, home: Path, port: int, process: subprocess.Popen[str]) -> None:
        self.home = home
        self.port = port
        self.process = process
        (home / "file").write_bytes(CONTENT)

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=TIMEOUT_S)


def tftpy_server(home: Path) -> TftpServer:
    """Python's tftpy."""
    pytest.importorskip("tftpy", reason="tftpy is not installed")
    command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(TFTPY), str(home)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    return TftpServer(home, int(process.stdout.readline()), process)


def hpa_server(home: Path, program: str) -> TftpServer:
    """H. Peter Anvin's tftpd. It changes its root directory, which only root may."""
    if os.geteuid() != 0:
        pytest.skip("in.tftpd wants to be started by root")
    with udp_socket() as probe:
        port = probe.getsockname()[1]
    command = [program, "--foreground", "--listen", "--address", f"127.0.0.1:{port}", "--user", "root"]
    command += ["--create", "--permissive", "--retransmit", "200000", "--secure", str(home)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)

    def answers() -> bool:
        with udp_socket() as probe:
            probe.settimeout(0.1)
            probe.sendto(b"\0\1nothing\0octet\0", ("127.0.0.1", port))
            try:
                return probe.recv(512).startswith(b"\0\5")
            except OSError:
                assert process.poll() is None, process.communicate()[1]
                return False

    wait_for(answers, "in.tftpd answers")
    return TftpServer(home, port, process)


def udp_socket(host: str = "127.0.0.1") -> socket.socket:
    """A test's own: a server, or a stranger."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(TIMEOUT_S)
    sock.bind((host, 0))
    return sock


def associated(firewall: RunningFirewall) -> socks.socksocket:
    """A UDP socket behind SOCKS."""
    sock = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.set_proxy(socks.SOCKS5, "127.0.0.1", firewall.port, rdns=True)
    sock.settimeout(TIMEOUT_S)
    return sock


class Client:
    """One association, over which any number of transfers go at once."""

    def __init__(self, firewall: RunningFirewall, server: Address) -> None:
        self.socket = associated(firewall)
        self.server = server

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def asks(self, *texts: str, writes: bool = False) -> None:
        """A request: file, mode, options and their values."""
        texts = (texts[0], "octet", *texts[1:])
        head = b"\0\2" if writes else b"\0\1"
        self.socket.sendto(head + b"".join(text.encode() + b"\0" for text in texts), self.server)

    def says(self, packet: bytes, to: Address) -> None:
        self.socket.sendto(packet, to)

    def hears(self) -> tuple[bytes, Address]:
        data, source = self.socket.recvfrom(65_536)
        return data, source

    def downloads(self, count: int = 1, block_bytes: int = 512) -> dict[Address, bytes]:
        """So many transfers, which were asked for, to their ends: by their servers' ports, what came."""
        found: dict[Address, list[bytes]] = {}
        over: set[Address] = set()
        while len(over) < count:
            packet, source = self.hears()
            blocks = found.setdefault(source, [])
            assert packet[:2] == b"\0\3", packet
            if int.from_bytes(packet[2:4], "big") == (len(blocks) + 1) % 65_536:
                blocks.append(packet[4:])
            self.says(b"\0\4" + packet[2:4], source)
            if len(packet) - 4 < block_bytes:
                over.add(source)
        return {source: b"".join(blocks) for source, blocks in found.items()}


class Site:
    """A firewall before a server."""

    def __init__(self, firewall: RunningFirewall, server: Address) -> None:
        self.firewall = firewall
        self.server = server
        self._idle = firewall.sockets()

    def client(self) -> Client:
        return Client(self.firewall, self.server)

    def expect_nothing_left(self) -> None:
        wait_for(lambda: self.firewall.sockets() == self._idle, f"{self._idle} sockets as before")


def site_of(start: StartFirewall, server: Address, settings: str = "") -> Site:
    """A firewall that allows requests to this server, and what the filter says."""
    return Site(start(POLICY.format(port=server[1], settings=settings)), server)


@contextmanager
def tftpy_client(firewall: RunningFirewall, server: Address, **options: int) -> Iterator[Any]:
    """tftpy's own client, all of whose sockets are behind SOCKS."""
    tftpy = pytest.importorskip("tftpy", reason="tftpy is not installed")
    make: Callable[..., socks.socksocket] = lambda *_: associated(firewall)  # noqa: E731 - it stands for a class
    behind = SimpleNamespace(**{name: getattr(socket, name) for name in ("AF_INET", "SOCK_DGRAM", "timeout")})
    behind.socket, behind.gethostbyname, behind.error = make, socket.gethostbyname, OSError
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tftpy.TftpContexts, "socket", behind)
        yield tftpy.TftpClient(*server, options=dict(options))
