"""A listener takes clients as long as there is room, waits when there is none, and goes on by itself.

Clients here say a byte: the kernel keeps silent ones to itself for a second.
"""

from __future__ import annotations

import asyncio
import errno
import resource
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.net.wires import Peer, turns, until

from doorward.api.errors import LinkError
from doorward.net import listen
from doorward.net.listen import Listener
from doorward.net.poller import Poller

pytestmark = pytest.mark.anyio


class Door:
    """A listener on loopback, who came in, and what it complained of."""

    def __init__(self, poller: Poller, host: str = "127.0.0.1") -> None:
        self.came: list[tuple[socket.socket, tuple[str, int]]] = []
        self.clients: list[Peer] = []
        self.shortages: list[str] = []
        self.room = True
        self.broken = False
        self.listener = Listener(
            poller, host, 0, self._on_client, room=lambda: self.room, on_shortage=self.shortages.append
        )

    def knock(self) -> Peer:
        """One more client."""
        family = socket.AF_INET6 if ":" in self.listener.name[0] else socket.AF_INET
        client = Peer(socket.socket(family))
        self.clients.append(client)
        client.socket.connect(self.listener.name)
        client.socket.setblocking(False)
        client.push(b"x")
        return client

    def close(self) -> None:
        """Everybody out."""
        self.listener.close()
        for sock, _ in self.came:
            sock.close()
        for client in self.clients:
            client.socket.close()

    def _on_client(self, sock: socket.socket, address: tuple[str, int]) -> None:
        if self.broken:
            raise ZeroDivisionError
        self.came.append((sock, address))


@pytest.fixture
async def door(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Door]:
    monkeypatch.setattr(listen, "PAUSE_S", 0.01)
    door = Door(poller)
    door.listener.start()
    yield door
    door.close()


async def test_a_client_comes_in_with_its_address_and_does_not_block(door: Door) -> None:
    client = door.knock()
    await until(lambda: door.came)
    sock, address = door.came[0]
    assert address == client.socket.getsockname()
    assert not sock.getblocking()
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_ipv6_alone(poller: Poller) -> None:
    door = Door(poller, "::1")
    door.listener.start()
    client = door.knock()
    await until(lambda: door.came)
    assert door.came[0][1] == client.socket.getsockname()[:2]
    assert door.listener.name == ("::1", client.socket.getpeername()[1])
    door.close()


async def test_clients_wait_until_start(poller: Poller) -> None:
    door = Door(poller)
    door.knock()
    await turns(10)
    assert not door.came
    door.listener.start()
    await until(lambda: door.came)
    door.close()


async def test_a_crowd_is_taken_in_several_turns_and_wholly(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listen, "ACCEPTS_MAX", 4)
    for _ in range(10):
        door.knock()
    await turns(2)
    assert len(door.came) <= 8
    await until(lambda: len(door.came) == 10)


async def test_without_room_clients_wait_and_come_in_later(door: Door) -> None:
    door.room = False
    door.knock()
    await until(lambda: len(door.shortages) >= 2)
    assert not door.came
    door.room = True
    await until(lambda: door.came)
    door.knock()
    await until(lambda: len(door.came) == 2)


async def test_without_descriptors_clients_wait_and_come_in_later(door: Door) -> None:
    door.knock()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        await until(lambda: len(door.shortages) >= 2)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not door.came
    assert "open files" in door.shortages[0]
    await until(lambda: door.came)


async def test_a_pause_is_a_pause(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "PAUSE_S", 3600)
    door.room = False
    for _ in range(5):
        door.knock()
        await turns(5)
    assert len(door.shortages) == 1, "a full house must not spin"


async def test_a_client_that_left_before_it_was_taken_is_passed_over(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept, gone = socket.socket.accept, [errno.ECONNABORTED, errno.EPROTO, errno.EPERM]

    def accept_some(sock: socket.socket) -> Any:
        if gone:
            raise OSError(gone.pop(), "")
        return accept(sock)

    monkeypatch.setattr(socket.socket, "accept", accept_some)
    door.knock()
    await until(lambda: door.came)
    assert not gone
    assert not door.shortages


async def test_a_client_that_breaks_us_does_not_close_the_door_to_others(door: Door) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    door.broken = True
    unlucky = door.knock()
    await until(lambda: reported)
    assert isinstance(reported[0]["exception"], ZeroDivisionError)
    await unlucky.sees_reset()
    door.broken = False
    door.knock()
    await until(lambda: door.came)


async def test_nobody_comes_in_after_close_which_may_be_repeated(door: Door) -> None:
    door.room = False
    waiting = door.knock()
    await until(lambda: door.shortages)
    door.listener.close()
    door.listener.close()
    door.room = True
    await waiting.sees_reset()
    await turns(10)
    assert not door.came
    with pytest.raises(ConnectionRefusedError):
        door.knock()


async def test_close_in_the_middle_of_a_crowd(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "ACCEPTS_MAX", 1)
    for _ in range(3):
        door.knock()
    await until(lambda: door.came)
    door.listener.close()
    count = len(door.came)
    await turns(10)
    assert len(door.came) == count


async def test_a_port_in_use_is_an_error_of_ours(door: Door, poller: Poller) -> None:
    host, port = door.listener.name
    with pytest.raises(LinkError, match="in use"):
        Listener(poller, host, port, door._on_client, room=lambda: True, on_shortage=print)


async def test_without_a_descriptor_the_listener_says_so(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> socket.socket:
        raise OSError(errno.EAFNOSUPPORT, "")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", none_left)
        with pytest.raises(LinkError, match="not supported"):
            Listener(poller, "::1", 0, print, room=lambda: True, on_shortage=print)
