"""A port that is open for a while: peers are taken at once, wait for room, and are reset when it closes."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from doorward.api import AddressInUse, OutOfResources, Unreachable
from doorward.net.acceptor import ACCEPTS_MAX, Acceptor, facing, reset
from doorward.net.poller import Poller

pytestmark = pytest.mark.anyio

HERE = "127.0.0.1"


class Door:
    """An acceptor, and what came through it."""

    def __init__(self, poller: Poller, sock: socket.socket | None = None) -> None:
        self.came: list[socket.socket] = []
        self.room = True
        self.close_after: int | None = None
        self.failing = False
        self.acceptor = Acceptor(poller, sock or bound(), 32, self.take, lambda: self.room)
        self.clients: list[socket.socket] = []

    def take(self, sock: socket.socket, name: tuple[str, int]) -> None:
        assert name == sock.getpeername()
        if self.failing:
            raise RuntimeError("our own bug")
        self.came.append(sock)
        if len(self.came) == self.close_after:
            self.acceptor.close()

    def visit(self, count: int = 1) -> None:
        for _ in range(count):
            self.clients.append(socket.create_connection(self.acceptor.name))

    def close(self) -> None:
        self.acceptor.close()
        for sock in (*self.came, *self.clients):
            sock.close()


@pytest.fixture
async def poller(anyio_backend: str) -> AsyncIterator[Poller]:
    made = Poller(asyncio.get_running_loop())
    yield made
    assert len(made) == 0
    made.close()


def bound(port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HERE, port))
    return sock


async def until(door: Door, count: int) -> None:
    async with asyncio.timeout(8):
        while len(door.came) < count:  # noqa: ASYNC110 - what comes has no event
            await asyncio.sleep(0)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_a_peer_that_says_nothing_is_taken_at_once(poller: Poller) -> None:
    door = Door(poller)
    door.acceptor.start()
    door.visit()
    await until(door, 1)
    assert door.came[0].getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert not door.came[0].getblocking()
    door.close()


async def test_peers_wait_until_it_starts_and_more_than_a_turn_holds_are_all_taken(poller: Poller) -> None:
    door = Door(poller)
    door.visit(ACCEPTS_MAX + 9)
    await turns()
    assert door.came == []
    door.acceptor.start()
    await until(door, ACCEPTS_MAX + 9)
    door.close()


async def test_without_room_peers_wait_and_come_when_there_is_some_again(poller: Poller) -> None:
    door = Door(poller)
    door.room = False
    door.acceptor.start()
    door.visit(3)
    await turns()
    assert door.came == []
    door.acceptor.resume()  # there is still none
    await turns()
    assert door.came == []
    door.room = True
    door.acceptor.resume()
    await until(door, 3)
    door.close()


async def test_without_descriptors_peers_wait_and_it_goes_on_by_itself(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.net.acceptor.PAUSE_S", 0.001)
    short = True

    class Short(socket.socket):
        def accept(self) -> Any:
            if short:
                raise OSError(errno.EMFILE, "too many open files")
            return super().accept()

    plain = bound()
    door = Door(poller, Short(fileno=plain.detach()))
    door.acceptor.start()
    door.visit()
    await turns()
    assert door.came == []
    short = False
    await until(door, 1)
    door.close()


async def test_who_comes_may_be_the_last_and_who_waits_behind_is_reset(poller: Poller) -> None:
    door = Door(poller)
    door.close_after = 1
    door.visit(2)
    door.acceptor.start()
    await until(door, 1)
    with pytest.raises(ConnectionResetError):
        door.clients[1].recv(1)
    door.acceptor.close()
    door.close()


async def test_closed_while_it_pauses_it_stays_closed(poller: Poller) -> None:
    door = Door(poller)
    door.room = False
    door.acceptor.start()
    door.visit()
    await turns()
    door.acceptor.close()
    door.acceptor.resume()
    door.room = True
    await turns()
    assert door.came == []
    door.close()


async def test_a_failure_of_ours_costs_one_peer_and_not_the_port(poller: Poller) -> None:
    told: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))
    door = Door(poller)
    door.failing = True
    door.acceptor.start()
    door.visit()
    while not told:  # noqa: ASYNC110 - bounded by the test's own deadline
        await asyncio.sleep(0)
    with pytest.raises(ConnectionResetError):
        door.clients[0].recv(1)
    door.failing = False
    door.visit()
    await until(door, 1)
    door.close()


async def test_of_two_that_have_bound_one_port_one_listens(poller: Poller) -> None:
    first = bound()
    second = bound(first.getsockname()[1])
    door = Door(poller, first)
    with pytest.raises(AddressInUse):
        Acceptor(poller, second, 1, door.take, lambda: True)
    assert second.fileno() < 0
    door.close()


async def test_what_the_kernel_cannot_watch_is_closed(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def watch(*_: object) -> None:
        raise OSError(errno.ENOSPC, "no watches left")

    door = Door(poller)
    monkeypatch.setattr(poller, "watch", watch)
    with pytest.raises(OutOfResources):
        door.acceptor.start()
    with pytest.raises(ConnectionRefusedError):
        door.visit()


def test_a_peer_that_is_turned_away_notices() -> None:
    with socket.create_server((HERE, 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        sock, _ = listener.accept()
        reset(sock)
        with pytest.raises(ConnectionResetError):
            client.recv(1)
        client.close()


def test_our_address_that_faces_another() -> None:
    assert facing(ipaddress.ip_address("127.0.0.9")).startswith("127.")
    with pytest.raises(Unreachable):
        facing(ipaddress.ip_address("255.255.255.255"))
