"""Datagrams with the destination that they were meant for; the kernel tells it on loopback without any capture."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from doorward.net.caught_datagrams import CaughtDatagrams, as_caught, name_of
from doorward.net.datagrams import TURN_DATAGRAMS_MAX, Inbox
from doorward.net.poller import Poller

pytestmark = pytest.mark.anyio

OPTION = {4: (socket.IPPROTO_IP, 20), 6: (socket.IPPROTO_IPV6, 74)}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}


class Caught:
    """What was handed over."""

    def __init__(self, version: int, *, tells: bool = True) -> None:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        if tells:
            sock.setsockopt(*OPTION[version], 1)
        sock.bind((LOOPBACK[version], 0))
        self.name = sock.getsockname()[:2]
        self.poller = Poller(asyncio.get_running_loop())
        self._changed = asyncio.Event()
        self.taken: list[tuple[bytes, str, tuple[str, int]]] = []
        self.datagrams = CaughtDatagrams(Inbox(self.poller), sock, self.take)
        self.client = socket.socket(family, socket.SOCK_DGRAM)

    def take(self, payload: memoryview, source: tuple[object, ...], meant_for: bytes) -> None:
        address, port = name_of(meant_for)
        self.taken.append((bytes(payload), str(source[0]), (str(address), port)))
        self._changed.set()

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.taken) < count:
                self._changed.clear()
                await self._changed.wait()


@contextmanager
def caught(version: int, *, tells: bool = True) -> Iterator[Caught]:
    made = Caught(version, tells=tells)
    try:
        yield made
    finally:
        made.datagrams.close()
        made.datagrams.close()
        made.client.close()
        made.poller.close()


@pytest.mark.parametrize("version", [4, 6])
async def test_it_comes_with_source_and_destination(version: int) -> None:
    with caught(version) as here:
        here.datagrams.start()
        for size in (0, 1, 60_000):
            here.client.sendto(b"x" * size, here.name)
        await here.until(3)
        assert [len(payload) for payload, _, _ in here.taken] == [0, 1, 60_000]
        assert {(source, where) for _, source, where in here.taken} == {(LOOPBACK[version], here.name)}


async def test_more_than_a_turn_comes_in_order() -> None:
    with caught(4) as here:
        count = TURN_DATAGRAMS_MAX * 2 + 5
        for number in range(count):
            here.client.sendto(b"%d" % number, here.name)
        here.datagrams.start()
        await here.until(count)
        assert [payload for payload, _, _ in here.taken] == [b"%d" % number for number in range(count)]


async def test_one_without_its_destination_is_counted_and_dropped() -> None:
    with caught(4, tells=False) as here:
        here.datagrams.start()
        here.client.sendto(b"whose?", here.name)
        for _ in range(5):
            await asyncio.sleep(0)  # what is sent over loopback has arrived
        assert here.datagrams.nameless == 1
        assert not here.taken


async def test_a_mistake_of_ours_costs_one_datagram() -> None:
    with caught(4) as here:
        told: list[object] = []
        here.poller.loop.set_exception_handler(lambda loop, context: told.append(context))
        take = here.take

        def fail(payload: memoryview, source: tuple[object, ...], meant_for: bytes) -> None:
            if bytes(payload) == b"bad":
                raise ValueError
            take(payload, source, meant_for)

        here.datagrams._on_caught = fail
        here.datagrams.start()
        for payload in (b"bad", b"good"):
            here.client.sendto(payload, here.name)
        await here.until(1)
        assert (here.taken[0][0], len(told)) == (b"good", 1)


async def test_it_may_be_closed_by_what_it_has_received() -> None:
    with caught(4) as here:
        here.datagrams._on_caught = lambda *caught: here.datagrams.close()
        for _ in range(3):
            here.client.sendto(b"x", here.name)
        here.datagrams.start()
        for _ in range(5):
            await asyncio.sleep(0)
        assert here.datagrams._fd == -1
        assert not len(here.poller)


def test_names_are_read_as_the_kernel_writes_them() -> None:
    assert [str(part) for part in name_of(b"\x00\x35" + bytes([198, 51, 100, 7]) + bytes(8))] == [
        "198.51.100.7",
        "53",
    ]
    address = socket.inet_pton(socket.AF_INET6, "2001:db8::7")
    assert [str(part) for part in name_of(b"\x14\xe9" + bytes(4) + address + bytes(4))] == [
        "2001:db8::7",
        "5353",
    ]


@pytest.mark.parametrize("host", ["198.51.100.7", "2001:db8::7"])
def test_an_address_is_written_as_the_kernel_writes_it(host: str) -> None:
    assert name_of(as_caught(host, 53)) == (ip_address(host), 53)
    assert as_caught("198.51.100.7", 53) == b"\x00\x35" + bytes([198, 51, 100, 7]) + bytes(8)
    assert len(as_caught("fe80::1%lo", 53)) == 26
