from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from doorward.engine.target import target_of
from doorward.engine.udp.destination import (
    HELD_BYTES_MAX,
    HELD_DATAGRAMS_MAX,
    Course,
    Destination,
    Memory,
    State,
    socket_address,
)


def remembered(memory: Memory, host: str, number: int = 1, *, at: float = 0.0) -> Destination:
    nobody: Any = None
    destination = Destination(nobody, number, target_of(host, 9), 60.0, at)
    destination.state = State.OPEN
    address = ip_address(host) if host[0].isdigit() else ip_address("192.0.2.1")
    destination.where = socket_address(address, 9)
    memory.add(destination)
    memory.speak(destination)
    return destination


@pytest.mark.parametrize(
    "text", ["127.0.0.1", "::1", "::2:3", "::7f00:1", "::ffff", "2001:db8::1:0:0:1", "1::"]
)
def test_an_address_is_written_as_the_kernel_writes_it(text: str) -> None:
    """Otherwise its answers would be a stranger's."""
    address = ip_address(text)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    packed = socket.inet_ntop(family, address.packed)
    expected = (packed, 9) if address.version == 4 else (packed, 9, 0, 0)
    assert socket_address(address, 9) == expected


def test_one_that_was_used_stands_behind_those_that_were_not() -> None:
    memory = Memory(3)
    first, second, third = (remembered(memory, f"192.0.2.{n}", n, at=n) for n in (1, 2, 3))
    first.moved = 10.0
    assert memory.oldest() is second
    memory.remove(second)
    assert memory.oldest() is third
    memory.remove(third)
    assert memory.oldest() is first


def test_all_used_or_all_waiting_still_has_an_answer() -> None:
    memory = Memory(2)
    first, second = (remembered(memory, f"192.0.2.{n}", n) for n in (1, 2))
    first.moved = second.moved = 5.0
    assert memory.oldest() is first
    first.state = second.state = State.WAITING
    assert memory.oldest() is None


def test_it_is_full_at_its_limit() -> None:
    memory = Memory(2)
    seen = []
    for host in ("192.0.2.1", "192.0.2.2"):
        remembered(memory, host)
        seen.append((len(memory), memory.full))
    assert seen == [(1, False), (2, True)]


def test_a_peer_is_heard_for_as_long_as_anybody_speaks_to_it() -> None:
    memory = Memory(9)
    by_name, by_address = remembered(memory, "app.example"), remembered(memory, "192.0.2.1")
    peer = memory.peers["192.0.2.1", 9]
    assert peer.current is by_address
    memory.silence(by_address)
    assert peer.current is by_name
    memory.silence(by_address)
    memory.remove(by_name)
    assert memory.peers == {}
    assert (by_name.over, by_address.over) == (True, False)


def test_removing_one_leaves_its_successor_alone() -> None:
    memory = Memory(9)
    old = remembered(memory, "192.0.2.1", 1)
    memory.remove(old)
    new = remembered(memory, "192.0.2.1", 2)
    memory.remove(old)
    assert memory.get(new.target) is new
    assert memory.peers["192.0.2.1", 9].current is new


def test_few_datagrams_and_few_bytes_wait() -> None:
    memory = Memory(9)
    destination = remembered(memory, "192.0.2.1")
    assert all(destination.hold(b"x", Course.CLIENT) for _ in range(HELD_DATAGRAMS_MAX))
    assert not destination.hold(b"x", Course.CLIENT)
    destination.held.clear()
    assert destination.hold(bytes(HELD_BYTES_MAX), Course.CLIENT)
    assert not destination.hold(b"x", Course.CLIENT)
