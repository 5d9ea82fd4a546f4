"""Requests as clients write them, and as attackers do."""

from __future__ import annotations

import base64
from typing import Final

from tests.entry.peers import Peer, Server, read_request

BOTH_FRAMINGS: Final = (
    "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\n"
    "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)
# Head, status and reason (None: one of those that begin with `http_`) of what two readers could read in two ways.
AMBIGUOUS: Final[list[tuple[str, int, str | None]]] = [
    ("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "http_origin_form"),
    ("GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "http_scheme"),
    ("GET http://a.test/ HTTP/1.1\r\nHost: b.test\r\n\r\n", 400, "http_host_mismatch"),
    ("GET http://127.1/ HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400, "http_host_mismatch"),
    ("GET http://1.2.3.4.5/ HTTP/1.1\r\nHost: 1.2.3.4.5\r\n\r\n", 400, "bad_name"),
    ("GET http://a.test/ HTTP/1.1\r\n\r\n", 400, "http_host_missing"),
    ("GET http://a.test/ HTTP/2.0\r\nHost: a.test\r\n\r\n", 505, "http_version"),
    ("TRACE http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 405, "http_trace"),
    (
        BOTH_FRAMINGS,
        400,
        "http_two_framings",
    ),
    (
        "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        400,
        "http_content_length_twice",
    ),
    (
        "POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        400,
        "http_transfer_coding",
    ),
    ("POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: +5\r\n\r\n", 400, None),
    ("POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length : 5\r\n\r\n", 400, None),
    ("GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n X: folded\r\n\r\n", 400, None),
    ("GET http://a.test/ HTTP/1.1\nHost: a.test\n\n", 400, None),
    ("CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", 400, "http_port"),
    (
        "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\n",
        400,
        "http_connect_body",
    ),
]


def get(server: Server, path: str = "/", *fields: str, method: str = "GET", version: str = "1.1") -> bytes:
    lines = [f"{method} {server.url}{path} HTTP/{version}", f"Host: {server.authority}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def connect(authority: str, *fields: str) -> bytes:
    return "\r\n".join([f"CONNECT {authority} HTTP/1.1", f"Host: {authority}", *fields, "", ""]).encode()


def login(name: str, password: str) -> str:
    return "Proxy-Authorization: Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


async def answer_with(outer: Peer, text: bytes) -> str:
    """Play the server for one request without a body; its request line."""
    line, _ = await read_request(outer)
    await outer.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text))
    return line
