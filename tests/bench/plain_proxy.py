"""A proxy of a few lines in threads, for one load server at a time: what the load generator says is checked here."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

TIMEOUT_S = 5.0


@dataclass
class PlainProxy:
    """`port` is where it listens, `clients` the addresses that came."""

    port: int
    clients: set[str] = field(default_factory=set)


def _exactly(sock: socket.socket, count: int) -> bytes:
    got = b""
    while len(got) < count:
        part = sock.recv(count - len(got))
        assert part, "closed during the handshake"
        got += part
    return got


def forwarded(_sock: socket.socket, server_port: int) -> int:
    return server_port


def asked_by_socks(sock: socket.socket, _server_port: int) -> int:
    assert _exactly(sock, 3) == b"\x05\x01\x00"
    sock.sendall(b"\x05\x00")
    request = _exactly(sock, 10)
    assert request[:8] == b"\x05\x01\x00\x01\x7f\x00\x00\x01"
    sock.sendall(b"\x05\x00\x00\x01" + bytes(6))
    return int.from_bytes(request[8:])


def asked_by_connect(sock: socket.socket, _server_port: int) -> int:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _exactly(sock, 1)
    method, where, _ = head.split(b" ", 2)
    assert method == b"CONNECT"
    sock.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    return int(where.rpartition(b":")[2])


def _copy(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the generator ends its run by closing


@contextmanager
def plain_proxy(handshake: Callable[[socket.socket, int], int], server_port: int = 0) -> Iterator[PlainProxy]:
    """Proxy as `handshake` does, which returns the port of the load server."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    proxy = PlainProxy(listener.getsockname()[1])
    threads: list[threading.Thread] = []

    def serve(inner: socket.socket) -> None:
        with inner:
            inner.settimeout(TIMEOUT_S)
            try:
                outer = socket.create_connection(("127.0.0.1", handshake(inner, server_port)), TIMEOUT_S)
            except (OSError, AssertionError):
                return  # the generator counts it as an error
            with outer:
                back = threading.Thread(target=_copy, args=(outer, inner))
                back.start()
                _copy(inner, outer)
                back.join()

    def accept() -> None:
        while True:
            try:
                inner, address = listener.accept()
            except OSError:
                return  # the listener is shut down: the end
            proxy.clients.add(address[0])
            threads.append(threading.Thread(target=serve, args=(inner,)))
            threads[-1].start()

    accepting = threading.Thread(target=accept)
    accepting.start()
    try:
        yield proxy
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        accepting.join(TIMEOUT_S)
        for thread in threads:
            thread.join(TIMEOUT_S)
        listener.close()
