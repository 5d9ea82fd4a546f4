"""Edges reach their target, and a target's mistake reaches nobody else."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.net.wires import Peer, connected, open_descriptors, turns, until

from doorward.net.poller import READ, WRITE, Poller

pytestmark = pytest.mark.anyio


class Target:
    """Remembers its edges."""

    def __init__(self, then: Callable[[], object] = int) -> None:
        self.edges: list[tuple[int, int]] = []
        self.then = then

    def ready(self, fd: int, events: int) -> None:
        self.edges.append((fd, events))
        self.then()


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, Peer]]:
    ours, theirs = connected()
    with ours, Peer(theirs) as peer:
        yield ours, peer


async def test_an_edge_that_stands_already_is_told(poller: Poller, wire: tuple[socket.socket, Peer]) -> None:
    sock, peer = wire
    peer.push(b"x")
    target = Target()
    poller.watch(sock.fileno(), target)
    assert target.edges == []
    await until(lambda: target.edges)
    fd, events = target.edges[0]
    assert fd == sock.fileno()
    assert events & READ
    assert events & WRITE
    poller.unwatch(sock.fileno())


async def test_each_arrival_is_an_edge_of_its_own(poller: Poller, wire: tuple[socket.socket, Peer]) -> None:
    sock, peer = wire
    target = Target()
    poller.watch(sock.fileno(), target)
    await turns(3)
    for _ in range(3):
        target.edges.clear()
        peer.push(b"x")
        await until(lambda: target.edges)
    target.edges.clear()
    await turns(5)
    assert not target.edges, "an edge without an event: the loop would spin"
    poller.unwatch(sock.fileno())


async def test_nobody_is_told_after_unwatch(poller: Poller, wire: tuple[socket.socket, Peer]) -> None:
    sock, peer = wire
    target = Target()
    poller.watch(sock.fileno(), target)
    poller.unwatch(sock.fileno())
    poller.unwatch(sock.fileno())
    peer.push(b"x")
    await turns(5)
    assert not target.edges
    assert len(poller) == 0


async def test_a_target_that_is_forgotten_in_the_middle_of_a_batch_is_not_told(poller: Poller) -> None:
    wires = [connected() for _ in range(2)]
    socks = [ours for ours, _ in wires]

    def forget_the_others() -> None:
        for sock in socks:
            poller.unwatch(sock.fileno())

    targets = [Target(forget_the_others) for _ in socks]
    for sock, target in zip(socks, targets, strict=True):
        poller.watch(sock.fileno(), target)
    await turns(5)
    assert sum(len(target.edges) for target in targets) == 1
    for ours, theirs in wires:
        ours.close()
        theirs.close()


async def test_forget_lets_the_closed_descriptors_number_be_used_again(poller: Poller) -> None:
    ours, theirs = connected()
    number, old = ours.fileno(), Target()
    poller.watch(number, old)
    await turns(3)
    old.edges.clear()
    poller.forget(number)
    ours.close()
    with Peer(theirs), socket.socket() as another:
        assert os.dup2(another.fileno(), number) == number
        new = Target()
        poller.watch(number, new)
        await until(lambda: new.edges)
        poller.unwatch(number)
        os.close(number)
    assert not old.edges


async def test_a_target_that_fails_is_reported_and_the_others_go_on(poller: Poller) -> None:
    reported: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

    def fail() -> None:
        raise ZeroDivisionError

    (bad, bad_peer), (good, good_peer) = connected(), connected()
    bad_target, good_target = Target(fail), Target()
    poller.watch(bad.fileno(), bad_target)
    poller.watch(good.fileno(), good_target)
    await until(lambda: good_target.edges)
    assert isinstance(reported[0]["exception"], ZeroDivisionError)
    assert len(poller) == 1
    poller.unwatch(good.fileno())
    for sock in (bad, bad_peer, good, good_peer):
        sock.close()


async def test_a_descriptor_that_cannot_be_watched_is_refused_and_not_remembered(poller: Poller) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    os.close(writer)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        poller.watch(reader, Target())
    assert len(poller) == 0
    poller.unwatch(reader)


async def test_close_tells_nobody_anything_any_more_and_may_be_repeated(
    wire: tuple[socket.socket, Peer],
) -> None:
    before = open_descriptors()
    poller, target = Poller(asyncio.get_running_loop()), Target()
    poller.watch(wire[0].fileno(), target)
    poller.close()
    poller.close()
    await turns(3)
    assert not target.edges
    poller.unwatch(wire[0].fileno())
    assert open_descriptors() <= before
