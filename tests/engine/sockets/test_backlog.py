"""Who has arrived is accepted in order, by one and only one; nobody waits for ever and nobody is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from doorward.api import OutOfResources, Terminating
from doorward.engine.sockets.backlog import Backlog

pytestmark = pytest.mark.anyio


class Arrived:
    """Stands in for what is kept of an arrived socket."""

    def __init__(self) -> None:
        self.alive = True
        self.turned_away = False

    def turn_away(self) -> None:
        self.turned_away = True


def arrived(count: int) -> list[Any]:
    return [Arrived() for _ in range(count)]


async def waiting(backlog: Backlog, count: int) -> list[asyncio.Task[Any]]:
    tasks = [asyncio.get_running_loop().create_task(backlog.get()) for _ in range(count)]
    await asyncio.sleep(0)
    assert not any(task.done() for task in tasks)
    return tasks


async def test_first_come_first_served_whoever_waits() -> None:
    backlog, peers = Backlog(4), arrived(4)
    backlog.put(peers[0])
    assert await backlog.get() is peers[0]
    tasks = await waiting(backlog, 3)
    for peer in peers[1:]:
        backlog.put(peer)
    assert [await task for task in tasks] == peers[1:]


async def test_who_has_gone_away_is_passed_over_and_makes_room() -> None:
    backlog, peers = Backlog(2), arrived(4)
    backlog.put(peers[0])
    backlog.put(peers[1])
    with pytest.raises(OutOfResources):
        backlog.put(peers[2])
    peers[0].alive = False
    backlog.put(peers[2])
    assert [await backlog.get(), await backlog.get()] == peers[1:3]
    [task] = await waiting(backlog, 1)
    gone = peers[0]
    backlog.put(gone)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not task.done()
    backlog.put(peers[3])
    assert await task is peers[3]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_cancelled_wait_takes_nobody_from_the_next(when: str) -> None:
    backlog, [peer] = Backlog(1), arrived(1)
    first, second = await waiting(backlog, 2)
    if when == "before":
        first.cancel()
    backlog.put(peer)
    first.cancel()
    assert await asyncio.wait_for(second, 1) is peer
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_a_close_wakes_everybody_and_who_has_come_may_still_be_accepted() -> None:
    backlog, peers = Backlog(2), arrived(2)
    tasks = await waiting(backlog, 2)
    backlog.close()
    backlog.close()
    for task in tasks:
        with pytest.raises(Terminating):
            await task
    other = Backlog(2)
    other.put(peers[0])
    other.put(peers[1])
    other.close()
    assert await other.get() is peers[0]
    with pytest.raises(Terminating):
        other.put(arrived(1)[0])
    other.turn_away()
    assert [peer.turned_away for peer in peers] == [False, True]
    with pytest.raises(Terminating):
        await other.get()
