"""Servers on loopback for real clients to reach through the firewall: echo, bulk data, plain HTTP, silence."""

from __future__ import annotations

import hashlib
import os
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

CHUNK_BYTES: Final = 1024 * 1024
_BLOCK: Final = os.urandom(CHUNK_BYTES)


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that vanish are part of the tests."""


@contextmanager
def _serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Echo(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        while data := self.request.recv(65_536):
            self.request.sendall(data)


def echo_server() -> Any:
    """Sends back what it receives, until the client ends."""
    return _serving(_Server(("127.0.0.1", 0), _Echo))


def blocks(mib: int) -> Iterator[bytes]:
    """So many MiB, each different from the others, so that nothing can be lost, doubled or swapped unseen."""
    for number in range(mib):
        yield number.to_bytes(8, "big") + _BLOCK[8:]


def send_blocks(sock: socket.socket, mib: int) -> str:
    """Send so many MiB, then the end of the stream; the digest of what was sent."""
    digest = hashlib.sha256()
    for block in blocks(mib):
        digest.update(block)
        sock.sendall(block)
    sock.shutdown(socket.SHUT_WR)
    return digest.hexdigest()


def receive_all(sock: socket.socket) -> tuple[str, int]:
    """Digest and length of everything up to the end of the stream."""
    digest, length = hashlib.sha256(), 0
    while data := sock.recv(CHUNK_BYTES):
        digest.update(data)
        length += len(data)
    return digest.hexdigest(), length


class BulkServer:
    """Sends so many MiB to whoever connects, and digests what comes, both at once."""

    def __init__(self, mib: int) -> None:
        self.mib = mib
        self.sent = ""
        self.received = ("", 0)
        self.done = threading.Event()

    @contextmanager
    def serving(self) -> Iterator[int]:
        """Its port, while the body runs."""
        bulk = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                receiving = threading.Thread(target=self._receive, daemon=True)
                receiving.start()
                bulk.sent = send_blocks(self.request, bulk.mib)
                receiving.join()
                bulk.done.set()

            def _receive(self) -> None:
                bulk.received = receive_all(self.request)

        with _serving(_Server(("127.0.0.1", 0), Handler)) as port:
            yield port


class Site(BaseHTTPRequestHandler):
    """GET says the path and the headers it saw; PUT and POST say how much came; /slow and /big are themselves."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path == "/big":
            self._answer(_BLOCK * 8)
        else:
            seen = "".join(f"{name}: {value}\n" for name, value in self.headers.items())
            self._answer(f"GET {self.path}\n{seen}".encode())

    def do_PUT(self) -> None:
        digest, length = hashlib.sha256(), 0
        for data in self._body():
            digest.update(data)
            length += len(data)
        self._answer(f"{self.command} {length} {digest.hexdigest()}".encode())

    def do_POST(self) -> None:
        self.do_PUT()

    def _body(self) -> Iterator[bytes]:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("Content-Length", "0"))
        while left:
            data = self.rfile.read(min(left, 65_536))
            if not data:
                return
            left -= len(data)
            yield data

    def _answer(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "text/plain")
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Quiet."""


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 1024

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that vanish are part of the tests."""


def http_server(handler: type[BaseHTTPRequestHandler] = Site) -> Any:
    """A plain HTTP/1.1 server."""
    return _serving(_HttpServer(("127.0.0.1", 0), handler))


@contextmanager
def silent_server() -> Iterator[socket.socket]:
    """Accepts in the kernel and never says or reads anything; the listening socket is the test's."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(4096)
        yield listening
