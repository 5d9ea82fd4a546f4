"""The smallest clients there can be: a tunnel through SOCKS5 or CONNECT as a plain socket."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Final

TIMEOUT_S: Final = 15.0
_IPV4: Final = 1


class Refused(Exception):
    """The firewall said no: the SOCKS reply code, or the HTTP status."""


def socks5(proxy_port: int, port: int, host: str = "127.0.0.1") -> socket.socket:
    """A tunnel through SOCKS5 without a password."""
    sock = socket.create_connection(("127.0.0.1", proxy_port), TIMEOUT_S)
    try:
        name = host.encode()
        sock.sendall(
            b"\x05\x01\x00" + b"\x05\x01\x00\x03" + bytes([len(name)]) + name + struct.pack(">H", port)
        )
        answer = _exactly(sock, 2 + 10)
        if answer[3] != 0:
            raise Refused(answer[3])
        _exactly(sock, 0 if answer[5] == _IPV4 else 12)
    except BaseException:
        sock.close()
        raise
    return sock


def connect(proxy_port: int, port: int, host: str = "127.0.0.1") -> socket.socket:
    """A tunnel through HTTP CONNECT."""
    sock = socket.create_connection(("127.0.0.1", proxy_port), TIMEOUT_S)
    try:
        sock.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode())
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += _exactly(sock, 1)
        status = int(head.split()[1])
        if status != 200:
            raise Refused(status)
    except BaseException:
        sock.close()
        raise
    return sock


Dial = Callable[[int, int], socket.socket]


def _exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            raise ConnectionError(f"closed after {len(data)} of {count} bytes")
        data += piece
    return data
