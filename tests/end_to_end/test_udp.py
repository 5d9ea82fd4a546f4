"""UDP through SOCKS5 with programs that others wrote: PySocks as the client, and a name server's dialogue."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread

import pytest
import socks  # type: ignore[import-untyped]  # nobody has written types for it that we need
from tests.end_to_end.running import RunningFirewall

PATIENCE_S = 10
ANSWER = socket.inet_aton("192.0.2.80")


@contextmanager
def name_server(host: str = "127.0.0.1") -> Iterator[int]:
    """Answers every question for an address with the same one (RFC 1035), until it is told to stop."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as server:
        server.bind((host, 0))

        def serve() -> None:
            while question := server.recvfrom(4096)[0:2]:
                data, client = question
                if not data:
                    return
                head = data[:2] + b"\x81\x80" + data[4:6] + b"\0\1\0\0\0\0"
                server.sendto(head + data[12:] + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + ANSWER, client)

        thread = Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            with socket.socket(family, socket.SOCK_DGRAM) as stop:
                stop.sendto(b"", server.getsockname())
            thread.join(PATIENCE_S)


def question(number: int, name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", number, 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


@contextmanager
def proxied(firewall: RunningFirewall) -> Iterator[socks.socksocket]:
    host, _, port = firewall.address.rpartition(":")
    with socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.set_proxy(socks.SOCKS5, host, int(port), rdns=True)
        client.settimeout(PATIENCE_S)
        yield client


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_name_server_is_asked_through_the_firewall(firewall: RunningFirewall, host: str) -> None:
    with name_server() as port, proxied(firewall) as client:
        for number in range(20):
            client.sendto(question(number, "www.example.org"), (host, port))
            answer, server = client.recvfrom(4096)
            assert struct.unpack("!H", answer[:2]) == (number,)
            assert answer.endswith(ANSWER)
            assert server == ("127.0.0.1", port)


def test_large_datagrams_pass_unchanged(firewall: RunningFirewall) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo, proxied(firewall) as client:
        echo.bind(("127.0.0.1", 0))
        echo.settimeout(PATIENCE_S)
        payload = bytes(range(256)) * 250
        client.sendto(payload, echo.getsockname())
        data, source = echo.recvfrom(65_536)
        assert data == payload
        echo.sendto(data[::-1], source)
        assert client.recvfrom(65_536)[0] == payload[::-1]


def test_many_clients_at_once_each_hear_their_own_answers(firewall: RunningFirewall) -> None:
    with name_server() as port:
        failures: list[str] = []

        def ask(number: int) -> None:
            try:
                with proxied(firewall) as client:
                    for turn in range(20):
                        client.sendto(question(number * 100 + turn, "example.org"), ("127.0.0.1", port))
                        answer = client.recvfrom(4096)[0]
                        assert struct.unpack("!H", answer[:2]) == (number * 100 + turn,)
            except Exception as error:
                failures.append(repr(error))

        threads = [Thread(target=ask, args=(number,)) for number in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert failures == []
