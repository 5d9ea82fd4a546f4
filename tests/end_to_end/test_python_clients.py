"""What Python programs use: requests, httpx, urllib, and WebSockets through SOCKS, CONNECT and a plain proxy."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import httpx
import pytest
import requests
from tests.end_to_end.dialling import socks5
from tests.end_to_end.running import RunningFirewall
from tests.end_to_end.servers import http_server
from websockets.sync.client import connect as connect_websocket
from websockets.sync.server import ServerConnection, serve

SCHEMES = pytest.mark.parametrize("scheme", ["socks5h", "socks5", "http"])


@SCHEMES
def test_requests(firewall: RunningFirewall, scheme: str) -> None:
    proxy = f"{scheme}://{firewall.address}"
    with http_server() as port, requests.Session() as session:
        session.trust_env = False
        session.proxies = {"http": proxy}
        for number in range(3):
            answer = session.get(f"http://localhost:{port}/{number}", timeout=10)
            assert answer.text.startswith(f"GET /{number}\n")
        answer = session.post(f"http://localhost:{port}/", data=(b"part" for _ in range(1000)), timeout=10)
        assert answer.text.startswith("PUT 4000 ") or answer.text.startswith("POST 4000 ")
        content = session.get(f"http://localhost:{port}/big", timeout=10).content
        assert len(content) == 8 * 2**20


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "http"])
def test_httpx(firewall: RunningFirewall, scheme: str) -> None:
    with (
        http_server() as port,
        httpx.Client(proxy=f"{scheme}://{firewall.address}", trust_env=False, timeout=10) as client,
    ):
        assert client.get(f"http://localhost:{port}/a").text.startswith("GET /a\n")
        with client.stream("GET", f"http://localhost:{port}/big") as answer:
            assert sum(len(part) for part in answer.iter_bytes()) == 8 * 2**20


def test_httpx_shows_the_reason_of_a_refusal(firewall: RunningFirewall) -> None:
    with httpx.Client(proxy=f"http://{firewall.address}", trust_env=False, timeout=10) as client:
        answer = client.get("http://169.254.169.254/latest/meta-data/")
    assert answer.status_code == 403
    assert "guarded_metadata" in answer.text


def test_urllib(firewall: RunningFirewall) -> None:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({"http": f"http://{firewall.address}"}))
    with http_server() as port, opener.open(f"http://127.0.0.1:{port}/page", timeout=10) as answer:
        assert answer.read().startswith(b"GET /page\n")


@contextmanager
def websocket_echo() -> Iterator[int]:
    """Sends back every message."""

    def echo(connection: ServerConnection) -> None:
        for message in connection:
            connection.send(message)

    with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.socket.getsockname()[1]
        finally:
            server.shutdown()
            thread.join()


MESSAGES: list[str | bytes] = ["small", b"\x00" * 3_000_000, "", "last"]


@pytest.mark.parametrize("way", ["connect", "socks5"])
def test_websocket_through_a_tunnel(firewall: RunningFirewall, way: str) -> None:
    with websocket_echo() as port:
        uri = f"ws://127.0.0.1:{port}/"
        if way == "socks5":
            client = connect_websocket(uri, sock=socks5(firewall.port, port), max_size=None, proxy=None)
        else:
            client = connect_websocket(uri, proxy=f"http://{firewall.address}", max_size=None)
        with client:
            for message in MESSAGES:
                client.send(message)
                assert client.recv(timeout=10) == message


def test_websocket_as_an_upgrade_of_a_plain_request(firewall: RunningFirewall) -> None:
    """Not what browsers do, but what a client does that treats the proxy as the server."""
    handshake = (
        "GET http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
        "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )
    with websocket_echo() as port, firewall.dial() as sock:
        sock.sendall(handshake.format(port=port).encode() + b"\x81\x82\x00\x00\x00\x00hi")
        received = b""
        while not received.endswith(b"\x81\x02hi"):
            piece = sock.recv(4096)
            assert piece, received
            received += piece
    assert received.startswith(b"HTTP/1.1 101 ")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in received
