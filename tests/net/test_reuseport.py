from __future__ import annotations

import select
import socket
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from doorward.api.errors import LinkError
from doorward.net import published, reuseport
from doorward.net.listen import unbound
from doorward.net.reuseport import Spread

COUNT = 3
ADDRESSES = [f"127.0.0.{number}" for number in range(1, 41)]


@contextmanager
def group(spread: Spread, host: str = "127.0.0.1", port: int = 0) -> Iterator[list[socket.socket]]:
    sockets = spread.group(lambda: unbound(host), host, port)
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def place_of(address: str, sockets: list[socket.socket]) -> int:
    """Where a client from this address arrives."""
    with socket.socket() as client:
        client.bind((address, 0))
        client.settimeout(5)
        client.connect(sockets[0].getsockname())
        client.sendall(b"x")  # the kernel keeps who says nothing
        [ready] = select.select(sockets, [], [], 5)[0]
        place: int = sockets.index(ready)
        sockets[place].accept()[0].close()
    return place


def run(program: list[reuseport._Operation], packet: bytes) -> int:
    """What the kernel would answer."""
    a = x = 0
    for code, value in program:
        match code:
            case reuseport._LOAD:
                [a] = struct.unpack_from(">I", packet, value - reuseport._NETWORK)
            case reuseport._A_TO_X:
                x = a
            case reuseport._SHIFT_RIGHT:
                a >>= value
            case reuseport._XOR_X:
                a ^= x
            case reuseport._MULTIPLY:
                a = a * value & 0xFFFFFFFF
            case reuseport._MODULO:
                a %= value
            case reuseport._RETURN_A:
                return a
            case _:
                raise AssertionError(code)
    raise AssertionError("it never answers")


def test_one_address_always_meets_the_same_place_and_many_are_spread() -> None:
    spread = Spread(COUNT)
    with group(spread) as first, group(spread) as second:
        places = [place_of(address, first) for address in ADDRESSES]
        assert [place_of(address, first) for address in ADDRESSES] == places
        assert [place_of(address, second) for address in ADDRESSES] == places
    assert set(places) == set(range(COUNT))


def test_the_kernel_reckons_as_this_file_does() -> None:
    spread = Spread(COUNT)
    program = spread._program(socket.AF_INET)
    with group(spread) as sockets:
        for address in ADDRESSES:
            assert place_of(address, sockets) == run(program, bytes(12) + socket.inet_aton(address))


def test_addresses_of_ipv6_are_spread_by_all_their_bits() -> None:
    program = Spread(4)._program(socket.AF_INET6)
    for bits in (0, 32, 64, 96):
        found = Counter(
            run(program, bytes(8) + IPv6Address((0x2001 << 112) ^ (number << bits)).packed)
            for number in range(1, 1001)
        )
        assert min(found.values()) > 150, (bits, found)


def test_an_ipv6_client_arrives() -> None:
    with (
        group(Spread(COUNT), "::1") as sockets,
        socket.create_connection(sockets[0].getsockname()[:2]) as client,
    ):
        client.sendall(b"x")
        assert len(select.select(sockets, [], [], 5)[0]) == 1


def test_whether_two_addresses_meet_cannot_be_reckoned_beforehand() -> None:
    packets = [bytes(12) + struct.pack(">I", number) for number in range(100)]
    answers = set()
    for _ in range(5):
        program = Spread(2)._program(socket.AF_INET)
        answers.add(tuple(run(program, packet) for packet in packets))
    assert len(answers) == 5


@pytest.mark.parametrize("taken_by_a_group", [True, False])
def test_an_address_where_somebody_listens_already_is_refused(taken_by_a_group: bool) -> None:
    with group(Spread(COUNT if taken_by_a_group else 1)) as sockets, pytest.raises(LinkError):
        Spread(2).group(lambda: unbound("127.0.0.1"), *sockets[0].getsockname())


def test_an_address_that_is_not_ours_is_refused_and_nothing_stays_open() -> None:
    before = descriptors()
    with pytest.raises(LinkError):
        Spread(COUNT).group(lambda: unbound("192.0.2.1"), "192.0.2.1", 0)
    assert descriptors() == before


def test_clients_wait_in_their_place_while_nobody_takes_them() -> None:
    with group(Spread(COUNT)) as sockets:
        with socket.socket() as client:
            client.bind((ADDRESSES[0], 0))
            client.connect(sockets[0].getsockname())
            client.sendall(b"hello")
            [ready] = select.select(sockets, [], [], 5)[0]
            duplicate = socket.socket(fileno=socket.dup(ready.fileno()))  # as a successor would get it
            with duplicate, duplicate.accept()[0] as taken:
                assert taken.recv(5) == b"hello"


def test_datagrams_of_one_address_always_meet_the_same_place_too() -> None:
    sockets = Spread(COUNT).group(lambda: published.unbound("udp", "127.0.0.1"), "127.0.0.1", 0)
    met: dict[str, set[int]] = {address: set() for address in ADDRESSES}
    for _ in range(2):
        for address in ADDRESSES:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
                client.bind((address, 0))
                client.sendto(b"x", sockets[0].getsockname())
                [ready] = select.select(sockets, [], [], 5)[0]
                assert ready.recvfrom(10)[1][0] == address
                met[address].add(sockets.index(ready))
    assert all(len(places) == 1 for places in met.values())
    assert set.union(*met.values()) == set(range(COUNT))
    with pytest.raises(LinkError):
        Spread(2).group(lambda: published.unbound("udp", "127.0.0.1"), *sockets[0].getsockname())
    for sock in sockets:
        sock.close()
