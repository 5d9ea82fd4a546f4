"""Other people's firewalls on loopback, for Doorward to go out through: Dante (SOCKS5) and ncat (HTTP CONNECT)."""

from __future__ import annotations

import random
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

PATIENCE_S: Final = 10.0

_DANTE: Final = """
logoutput: {home}/dante.log
internal: 127.0.0.1 port = {port}
external: lo
socksmethod: none
clientmethod: none
user.privileged: {user}
user.unprivileged: {user}
client pass {{ from: 127.0.0.0/8 to: 0.0.0.0/0 }}
socks block {{ from: 0.0.0.0/0 to: 127.9.9.9/32 }}
socks pass {{ from: 0.0.0.0/0 to: 127.0.0.0/8 }}
"""


@contextmanager
def dante(home: Path) -> Iterator[int]:
    """Its port. It connects to loopback, and refuses 127.9.9.9."""
    program = _program("danted", "sockd")
    port = _free_port()
    user = subprocess.run(["id", "-un"], check=True, capture_output=True, text=True, timeout=5).stdout.strip()
    configuration = home / "danted.conf"
    configuration.write_text(_DANTE.format(home=home, port=port, user=user))
    with _running([program, "-f", str(configuration), "-N", "1"], port):
        yield port


@contextmanager
def ncat_proxy(login: str = "", identity: tuple[str, str] | None = None) -> Iterator[int]:
    """The port of an HTTP proxy that knows CONNECT and asks for a login if one is given (`kim:secret`).

    With `identity`, the files of a certificate and its key, it speaks TLS.
    """
    program = _program("ncat")
    port = _free_port()
    arguments = ["--proxy-auth", login] if login else []
    if identity is not None:
        arguments += ["--ssl", "--ssl-cert", identity[0], "--ssl-key", identity[1]]
    with _running([program, "-l", "-k", "127.0.0.1", str(port), "--proxy-type", "http", *arguments], port):
        yield port


def _program(*names: str) -> str:
    for name in names:
        if found := shutil.which(name, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"):
            return found
    pytest.skip(f"{names[0]} is not installed")


def _free_port() -> int:
    """Below those that the kernel gives to outgoing connections, one of which might take it meanwhile."""
    for port in random.sample(range(12_000, 30_000), 100):
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


@contextmanager
def _running(command: Sequence[str], port: int) -> Iterator[None]:
    """A child that listens, ended with its own children at the end."""
    child = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        _wait_until_it_listens(child, port)
        yield
    finally:
        child.terminate()
        try:
            child.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait(PATIENCE_S)


def _wait_until_it_listens(child: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        assert child.poll() is None, "it has ended at once"
        try:
            socket.create_connection(("127.0.0.1", port), 0.2).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    raise AssertionError("it does not listen")
