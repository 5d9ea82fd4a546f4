"""What `run_all` needs to put an example under real traffic: a firewall process, a server, clients.

The firewall is the `doorward serve` that operators run, with the example's own policy file; only its listening
port and its paths are moved, so that several may run at once. Nothing here leaves the machine.
"""

from __future__ import annotations

import json
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).parent
PATIENCE_S: Final = 10.0
LINE_BYTES_MAX: Final = 65_536


class Firewall:
    """A running `doorward serve`. After `stop`, what it said and what it put on record can be read."""

    def __init__(self, example: str, directory: Path) -> None:
        self._policy = _moved_policy(example, directory)
        self._errors = directory / "stderr.txt"
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(  # noqa: S603 - our own program, our own arguments
                [sys.executable, "-m", "doorward", "serve", "--policy", str(self._policy)],
                stdout=subprocess.PIPE,
                stderr=errors,
                bufsize=0,  # select must see every line that is still to be read
            )
        self.port = self._wait_for_port()

    def stop(self) -> None:
        """End it in order, so that filters are stopped and every record is written."""
        self._process.send_signal(signal.SIGTERM)
        status = self._process.wait(PATIENCE_S)
        assert self._process.stdout is not None
        self._process.stdout.close()
        assert status == 0, f"doorward ended with status {status}: {self._errors.read_text()}"

    def kill(self) -> None:
        """End it whatever state it is in. Idempotent."""
        self._process.kill()
        self._process.wait()

    def said(self, event: str) -> list[dict[str, Any]]:
        """The operational log's lines of this kind."""
        lines = [json.loads(line) for line in self._errors.read_text().splitlines() if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def records(self) -> list[dict[str, Any]]:
        """The log of decisions."""
        command = [sys.executable, "-m", "doorward", "log", "--policy", str(self._policy), "--json", "-n0"]
        output = subprocess.run(command, check=True, capture_output=True, timeout=PATIENCE_S).stdout  # noqa: S603 - ours
        return [json.loads(line) for line in output.splitlines()]

    def _wait_for_port(self) -> int:
        """From the line that says where it listens."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            if not select.select([self._process.stdout], [], [], 0.1)[0]:
                continue
            line = self._process.stdout.readline().decode()
            if (found := re.search(r"listening +127\.0\.0\.1:(\d+)", line)) is not None:
                return int(found[1])
            if not line:
                break
        self.kill()
        raise RuntimeError(f"doorward did not start: {self._errors.read_text()}")


@contextmanager
def firewall(example: str, directory: Path) -> Iterator[Firewall]:
    """A firewall with the policy of `example`; stopped in order at the end of the block, killed if that fails."""
    running = Firewall(example, directory)
    try:
        yield running
        running.stop()
    finally:
        running.kill()


def _moved_policy(example: str, directory: Path) -> Path:
    """The example's policy with a port of the kernel's choice, and everything it writes below `directory`."""
    text = (HERE / f"{example}.toml").read_text()
    text = text.replace("127.0.0.1:1080", "127.0.0.1:0").replace('use = "', f'use = "{HERE}/')
    policy = directory / "doorward.toml"
    policy.write_text(text)
    return policy


@contextmanager
def server(serve: Callable[[socket.socket], None], first_port: int = 8000) -> Iterator[int]:
    """A server that runs `serve` for each client in a thread; yields its port, below 9000 as the policies want."""
    with _listening(first_port) as listener:
        accepting = threading.Thread(target=_accept, args=(listener, serve), daemon=True)
        accepting.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        accepting.join(PATIENCE_S)


def _listening(first_port: int) -> socket.socket:
    for port in range(first_port, 9000):
        try:
            return socket.create_server(("127.0.0.1", port))
        except OSError:
            continue  # somebody else's
    raise RuntimeError(f"no port is free from {first_port} to 8999")


def _accept(listener: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_serve_one, args=(client, serve), daemon=True).start()


def _serve_one(client: socket.socket, serve: Callable[[socket.socket], None]) -> None:
    with client:
        client.settimeout(PATIENCE_S)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            serve(client)
        except OSError:
            pass  # the firewall ended it, which the other side looks at


def tunnel(
    proxy_port: int, port: int, user: tuple[str, str] | None = None, *, host: str = ""
) -> socket.socket:
    """A connection to a host by its name, or to this machine, through SOCKS5 (RFC 1928, RFC 1929)."""
    sock = socket.create_connection(("127.0.0.1", proxy_port), PATIENCE_S)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if user is None:
        sock.sendall(b"\x05\x01\x00")
        assert receive(sock, 2) == b"\x05\x00", "no entry without a password"
    else:
        name, password = user[0].encode(), user[1].encode()
        sock.sendall(b"\x05\x01\x02")
        assert receive(sock, 2) == b"\x05\x02", "no entry with a password"
        sock.sendall(b"\x01%c%b%c%b" % (len(name), name, len(password), password))
        assert receive(sock, 2) == b"\x01\x00", "name and password do not fit"
    name_or_address = b"\x03%c%b" % (len(host), host.encode()) if host else b"\x01\x7f\0\0\x01"
    sock.sendall(b"\x05\x01\x00" + name_or_address + port.to_bytes(2, "big"))
    reply = receive(sock, 10)
    assert reply[:2] == b"\x05\x00", f"SOCKS refused with {reply[1]}"
    return sock


def receive(sock: socket.socket, size: int) -> bytes:
    """Exactly so many bytes, fewer only at the end of the stream."""
    data = b""
    while len(data) < size and (piece := sock.recv(min(size - len(data), 1 << 20))):
        data += piece
    return data


def receive_all(sock: socket.socket) -> bytes:
    """Everything up to the end of the stream. Raises ConnectionResetError."""
    pieces = []
    while piece := sock.recv(1 << 20):
        pieces.append(piece)
    return b"".join(pieces)


def receive_line(sock: socket.socket) -> bytes:
    """Up to and including the end of a line; what was there of it at the end of the stream."""
    line = b""
    while not line.endswith(b"\n") and len(line) < LINE_BYTES_MAX and (byte := sock.recv(1)):
        line += byte
    return line


def send_bytewise(sock: socket.socket, data: bytes) -> None:
    """Every byte by itself, as the worst network would bring it."""
    for index in range(len(data)):
        sock.sendall(data[index : index + 1])
