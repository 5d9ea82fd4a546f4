"""A real FTP server, and Python's own client behind a proxy."""

from __future__ import annotations

import ftplib
import io
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import TIMEOUT_S, connect, socks5
from tests.end_to_end.running import RunningFirewall, wait_for

CONTENT: Final = os.urandom(3_000_000)

# The rule allows the control connection only: data connections come through because the filter says so.
POLICY: Final = """
[listen]
proxy = ["127.0.0.1:0", "[::1]:0"]
[limits]
drain_timeout_s = 1
{limits}
[protocols.ftp]
ports = ["tcp/{port}"]
[[filter]]
name = "ftp"
use = "ftp"
settings = {{ {settings} }}
[[rule]]
name = "ftp only"
action = "allow"
to = ["127.0.0.0/8", "::1"]
protocols = ["ftp"]
"""


class FtpServer:
    """pyftpdlib in a process of its own. Everybody may write into `home`.

    `allows_anywhere`: data connections to and from anybody, so that nobody but the firewall prevents a bounce.
    """

    def __init__(self, home: Path, address: str = "127.0.0.1", *, allows_anywhere: bool = True) -> None:
        pytest.importorskip("pyftpdlib", reason="pyftpdlib is not installed")
        self.home = home / "served"
        self.home.mkdir()
        self._log = home / "server.log"
        command = [
            *(sys.executable, "-W", "ignore", "-m", "pyftpdlib", "--interface", address, "--port", "0"),
            *("--write", "--directory", str(self.home), *["--permit-foreign-addresses"] * allows_anywhere),
        ]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(command, stderr=log)
        self.port = wait_for(self._listening, "the FTP server listens")

    def said(self) -> str:
        """Its log."""
        return self._log.read_text()

    def _listening(self) -> int | None:
        found = re.search(r"starting FTP server on \S+?:(\d+),", self.said())
        assert self.process.poll() is None, self.said()
        return int(found[1]) if found else None

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(TIMEOUT_S)


@contextmanager
def ftp_server(
    home: Path, address: str = "127.0.0.1", *, allows_anywhere: bool = True
) -> Iterator[FtpServer]:
    """A server while the body runs."""
    server = FtpServer(home, address, allows_anywhere=allows_anywhere)
    try:
        yield server
    finally:
        server.end()


Program = Callable[[str], str]
Dialler = Callable[[int, str], socket.socket]


class ProxiedFtp(ftplib.FTP):
    """ftplib whose connections are all made by `dial(port, host)`; active mode listens where ftplib does."""

    def __init__(self, dial: Dialler, host: str, port: int) -> None:
        self.dial = dial
        super().__init__(timeout=TIMEOUT_S)
        self.connect(host, port)
        self.login()

    def connect(
        self,
        host: str = "",
        port: int = 0,
        timeout: float = -999,
        source_address: tuple[str, int] | None = None,
    ) -> str:
        self.host, self.port = host, port
        self.sock = self.dial(port, host)
        self.af = self.sock.family
        self.file = self.sock.makefile("r", encoding=self.encoding)
        self.welcome = self.getresp()
        return self.welcome

    def ntransfercmd(self, cmd: str, rest: int | str | None = None) -> tuple[socket.socket, int | None]:
        if not self.passiveserver:
            return super().ntransfercmd(cmd, rest)
        host, port = self.makepasv()
        data = self.dial(port, host)
        try:
            if rest is not None:
                self.sendcmd(f"REST {rest}")
            answer = self.sendcmd(cmd)
            if answer.startswith("2"):
                answer = self.getresp()
            if not answer.startswith("1"):
                raise ftplib.error_reply(answer)  # noqa: S321 - an exception, no connection
        except BaseException:
            data.close()
            raise
        return data, None


class Site:
    """A firewall and the server behind it, which serves CONTENT as `file`."""

    def __init__(self, firewall: RunningFirewall, server: FtpServer) -> None:
        self.firewall = firewall
        self.server = server
        (server.home / "file").write_bytes(CONTENT)
        self._idle = firewall.sockets()

    def dialler(self, way: str) -> Dialler:
        tunnel = {"socks5": socks5, "connect": connect}[way]
        return lambda port, host: tunnel(self.firewall.port, port, host)

    def client(self, way: str = "socks5", host: str = "127.0.0.1") -> ProxiedFtp:
        return ProxiedFtp(self.dialler(way), host, self.server.port)

    def expect_nothing_left(self) -> None:
        """No connection and no listener more than at the beginning."""
        wait_for(lambda: self.firewall.sockets() == self._idle, f"{self._idle} sockets as before")


def site_of(start: StartFirewall, server: FtpServer, settings: str = "", limits: str = "") -> Site:
    """A firewall that allows this server's control connections, and what the filter says."""
    return Site(start(POLICY.format(port=server.port, settings=settings, limits=limits)), server)


def downloaded(client: ftplib.FTP, name: str = "file", rest: int | None = None) -> bytes:
    """A whole file."""
    found = io.BytesIO()
    client.retrbinary(f"RETR {name}", found.write, rest=rest)
    return found.getvalue()


def curl(program: Program, firewall: RunningFirewall, *arguments: str) -> bytes:
    """What curl prints, with the firewall's address in the place of {proxy}; it must succeed."""
    filled = [argument.format(proxy=firewall.address) for argument in arguments]
    command = [program("curl"), "--silent", "--show-error", "--noproxy", "", "--max-time", "15", *filled]
    done = subprocess.run(command, capture_output=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def lftp(program: Program, site: Site, before: list[str], script: str) -> str:
    """Run lftp's own commands; it must succeed. {port} in them is the server's."""
    settings = "set net:max-retries 1; set net:timeout 5; set cmd:fail-exit yes; "
    text = settings + script.format(proxy=site.firewall.address, port=site.server.port)
    command = [*before, program("lftp"), "-c", text]
    environment = os.environ | {"HOME": str(site.firewall.home)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
