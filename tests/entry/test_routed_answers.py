"""Sockets that answer for others, and hear what comes to them."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import pytest
from tests.entry.routed import received

from doorward.entry.routed_answers import RoutedAnswers
from doorward.net.caught_datagrams import as_caught
from doorward.net.datagrams import Inbox, SocketAddress
from doorward.net.poller import Poller

pytestmark = pytest.mark.anyio

SERVER, OTHER = ("198.51.100.7", 53), ("2001:db8::7", 53)


class Makes:
    """Makes sockets on loopback in place of a server's address."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int]] = []
        self.fails = False

    def __call__(self, host: str, port: int) -> socket.socket:
        self.asked.append((host, port))
        if self.fails:
            raise OSError(99, "not to be had")
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        sock.bind(("127.0.0.1", 0))
        return sock


class Rig:
    def __init__(self, poller: Poller) -> None:
        self.makes = Makes()
        self.caught: list[tuple[bytes, str, bytes]] = []
        self.answers = RoutedAnswers(Inbox(poller), self._on_caught, make=self.makes)
        self.client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.client.bind(("127.0.0.1", 0))

    def _on_caught(self, payload: memoryview, client: SocketAddress, meant_for: bytes) -> None:
        self.caught.append((bytes(payload), client[0], meant_for))

    @property
    def name(self) -> tuple[str, int]:
        name: tuple[str, int] = self.client.getsockname()
        return name


@pytest.fixture
async def rig(anyio_backend: str) -> AsyncIterator[Rig]:
    poller = Poller(asyncio.get_running_loop())
    made = Rig(poller)
    yield made
    made.answers.close()
    made.answers.close()
    made.client.close()
    poller.close()


async def test_each_source_has_one_socket(rig: Rig) -> None:
    for number in range(3):
        assert rig.answers.send(SERVER, b"%d" % number, rig.name)
        assert (await received(rig.client))[0] == b"%d" % number
    assert rig.answers.send(OTHER, memoryview(b"x"), rig.name)
    assert rig.makes.asked == [SERVER, OTHER]
    assert len(rig.answers) == 2


async def test_what_comes_there_was_meant_for_that_source(rig: Rig) -> None:
    for source in (SERVER, OTHER):
        rig.answers.send(source, b"answer", rig.name)
        _, where = await received(rig.client)
        rig.client.sendto(b"more", where)
    await until(lambda: len(rig.caught) == 2)
    assert rig.caught == [
        (b"more", "127.0.0.1", as_caught(*SERVER)),
        (b"more", "127.0.0.1", as_caught(*OTHER)),
    ]


async def test_a_source_that_cannot_be_had_costs_the_datagram(rig: Rig) -> None:
    rig.makes.fails = True
    assert not rig.answers.send(SERVER, b"x", rig.name)
    rig.makes.fails = False
    assert rig.answers.send(SERVER, b"y", rig.name)
    assert rig.answers.dropped == 1


async def test_the_one_unused_for_longest_makes_room(rig: Rig) -> None:
    rig.answers._sockets_max = 2
    sources = [(f"198.51.100.{last}", 53) for last in (1, 2, 3)]
    rig.answers.send(sources[0], b"x", rig.name)
    rig.answers.send(sources[1], b"x", rig.name)
    rig.answers.send(sources[0], b"x", rig.name)
    rig.answers.send(sources[2], b"x", rig.name)
    assert len(rig.answers) == 2
    rig.answers.send(sources[0], b"x", rig.name)
    assert rig.makes.asked == sources


async def test_at_its_end_nothing_is_sent(rig: Rig) -> None:
    rig.answers.send(SERVER, b"x", rig.name)
    rig.answers.close()
    assert not rig.answers.send(SERVER, b"x", rig.name)
    assert (len(rig.answers), rig.answers.dropped) == (0, 1)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110
            await asyncio.sleep(0.001)
