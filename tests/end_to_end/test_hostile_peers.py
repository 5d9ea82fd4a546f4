"""Peers that mean no good: silent, endless, deaf, broken, gone. Each costs itself and nobody else."""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator

import pytest
from tests.end_to_end.conftest import StartFirewall
from tests.end_to_end.dialling import connect, socks5
from tests.end_to_end.running import EVERYTHING_HERE, LISTEN, RunningFirewall, wait_for
from tests.end_to_end.servers import echo_server, http_server, silent_server

IMPATIENT = (
    LISTEN + "handshake_timeout_s = 0.5\nidle_timeout_s = 0.5\nheader_bytes_max = 8192\n" + EVERYTHING_HERE
)


@pytest.fixture
def impatient(start_firewall: StartFirewall) -> Iterator[RunningFirewall]:
    """A firewall with short deadlines; afterwards it must have let go of everything, and still work."""
    firewall = start_firewall(IMPATIENT)
    with echo_server() as port, connect(firewall.port, port) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"
    firewall.wait_for_records(1)
    before = firewall.sockets()
    yield firewall
    wait_for(lambda: firewall.sockets() <= before, "every socket is closed")
    with echo_server() as port, connect(firewall.port, port) as sock:
        sock.sendall(b"hello")
        assert sock.recv(5) == b"hello"


def read_to_the_end(sock: socket.socket) -> bytes:
    """Everything until the firewall closes, in order or not."""
    data = b""
    try:
        while piece := sock.recv(65_536):
            data += piece
    except ConnectionError:
        pass
    return data


@pytest.mark.parametrize(
    ("said", "entry"),
    [
        (b"", "unknown"),
        (b"\x05", "socks5"),
        (b"\x05\x01\x00\x05\x01", "socks5"),
        (b"\x04\x01", "socks4"),
        (b"GET ", "http"),
    ],
)
def test_hundreds_who_do_not_finish_their_sentence_are_let_go(
    impatient: RunningFirewall, said: bytes, entry: str
) -> None:
    slow = [impatient.dial() for _ in range(200)]
    for sock in slow:
        sock.sendall(said)
    with echo_server() as port, socks5(impatient.port, port) as sock:  # others do not wait for them
        sock.sendall(b"x")
        assert sock.recv(1) == b"x"
    for sock in slow:
        read_to_the_end(sock)
        sock.close()
    records = impatient.wait_for_records(200, lambda record: record.action == "fail")
    assert {(record.reason, record.entry) for record in records} == {("handshake_timeout", entry)}


def test_garbage_is_refused_without_an_error_of_ours(impatient: RunningFirewall) -> None:
    chance = random.Random(4)  # noqa: S311 - the same garbage every time
    for length in [1, 2, 3, 10, 1000, 100_000] * 20:
        with impatient.dial() as sock:
            try:
                sock.sendall(chance.choice([b"", b"\x05", b"\x04\x01", b"GET "]) + chance.randbytes(length))
                sock.shutdown(socket.SHUT_WR)
            except ConnectionError:
                continue
            read_to_the_end(sock)


@pytest.mark.parametrize("header", [b"X: " + b"a" * 20_000 + b"\r\n", b"X: a\r\n" * 4000, b"X" * 20_000])
def test_a_header_without_end_is_cut_off(impatient: RunningFirewall, header: bytes) -> None:
    with impatient.dial() as sock:
        sock.sendall(b"GET http://127.0.0.1:9/ HTTP/1.1\r\nHost: 127.0.0.1:9\r\n" + header)
        assert read_to_the_end(sock).startswith(b"HTTP/1.1 431 ")


def test_a_client_that_does_not_read_a_large_answer_is_let_go(impatient: RunningFirewall) -> None:
    with http_server() as port, impatient.dial() as sock:
        sock.sendall(f"GET http://127.0.0.1:{port}/big HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        [record] = impatient.wait_for_records(1, lambda record: record.port == port)
        assert (record.end, record.ended_by) == ("timed_out", "internal")


def test_a_client_that_does_not_read_its_refusals_is_let_go(impatient: RunningFirewall) -> None:
    request = b"GET http://169.254.169.254/ HTTP/1.1\r\nHost: 169.254.169.254\r\n\r\n" * 1000
    with impatient.dial() as sock:
        try:
            while True:
                sock.sendall(request)
        except ConnectionError:
            pass  # a TimeoutError would say that it was kept


def test_a_server_that_does_not_read_an_upload_is_given_up(impatient: RunningFirewall) -> None:
    with silent_server() as server, impatient.dial() as sock:
        port = server.getsockname()[1]
        head = f"POST http://127.0.0.1:{port}/ HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: 99999999\r\n\r\n"
        sock.sendall(head.encode())
        sock.settimeout(0.2)
        try:
            while True:
                sock.sendall(b"x" * 65_536)
        except (TimeoutError, ConnectionError):
            pass
        sock.settimeout(10)
        assert read_to_the_end(sock).startswith(b"HTTP/1.1 504 ")


@pytest.mark.parametrize("speaks", ["nobody", "client", "server"])
def test_a_tunnel_in_which_nothing_moves_any_more_ends(impatient: RunningFirewall, speaks: str) -> None:
    with silent_server() as server, socks5(impatient.port, server.getsockname()[1]) as client:
        outer, _ = server.accept()
        with outer:
            speaker, deaf = (client, outer) if speaks == "client" else (outer, client)
            if speaks != "nobody":
                speaker.setblocking(False)
                try:
                    while True:
                        speaker.send(b"x" * 65_536)
                except BlockingIOError:
                    pass
            [record] = impatient.wait_for_records(1, lambda record: record.port == server.getsockname()[1])
            assert record.end == "idle_timeout"
            assert deaf is not speaker


def test_a_half_open_tunnel_ends_when_the_open_half_is_silent(impatient: RunningFirewall) -> None:
    with silent_server() as server, connect(impatient.port, server.getsockname()[1]) as client:
        outer, _ = server.accept()
        with outer:
            client.shutdown(socket.SHUT_WR)
            assert outer.recv(1) == b""
            [record] = impatient.wait_for_records(1, lambda record: record.port == server.getsockname()[1])
            assert record.end == "idle_timeout"


def test_a_reset_reaches_the_other_side_as_a_reset(impatient: RunningFirewall) -> None:
    with silent_server() as server, socks5(impatient.port, server.getsockname()[1]) as client:
        outer, _ = server.accept()
        with outer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            with pytest.raises(ConnectionResetError):
                outer.recv(1)
        [record] = impatient.wait_for_records(1, lambda record: record.port == server.getsockname()[1])
        assert (record.end, record.ended_by) == ("reset", "internal")
