"""What is silent for its whole limit is ended, and nothing else; the clock is the loop's, and it is ours to move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from doorward.net import idle
from doorward.net.idle import IdleQueue


@dataclass
class Item:
    """Something that may fall silent."""

    id: int
    last: float
    idle_s: float
    over: bool = False


class Loop(asyncio.SelectorEventLoop):
    """A loop whose time stands still until it is moved; timers that are due run at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0

    def time(self) -> float:
        return self.now

    def move_to(self, when: float) -> None:
        self.now = when
        for _ in range(3):
            self.call_soon(self.stop)
            self.run_forever()


class World:
    """A queue and who was ended."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.ended: list[int] = []
        self.queue: IdleQueue[Item] = IdleQueue(self.loop, self._end)

    def _end(self, item: Item) -> None:
        item.over = True
        self.ended.append(item.id)


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.loop.close()


def test_silence_for_the_whole_limit_ends_an_item(world: World) -> None:
    world.queue.watch(Item(1, 100.0, 10.0), 1)
    world.loop.move_to(109.9)
    assert world.ended == []
    world.loop.move_to(110.1)
    assert world.ended == [1]


def test_an_item_that_moved_meanwhile_has_its_limit_from_then(world: World) -> None:
    item = Item(1, 100.0, 10.0)
    world.queue.watch(item, 1)
    item.last = 108.0
    world.loop.move_to(110.1)
    assert world.ended == []
    world.loop.move_to(118.1)
    assert world.ended == [1]


def test_a_short_limit_does_not_wait_for_a_long_one(world: World) -> None:
    world.queue.watch(Item(1, 100.0, 50.0), 1)
    world.queue.watch(Item(2, 100.0, 5.0), 2)
    world.loop.move_to(105.1)
    assert world.ended == [2]


def test_an_item_that_is_over_is_left_alone(world: World) -> None:
    item = Item(1, 100.0, 10.0)
    world.queue.watch(item, 1)
    item.over = True
    world.loop.move_to(120.0)
    assert world.ended == []
    assert len(world.queue) == 0


def test_entries_of_ended_items_do_not_pile_up(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idle, "ENTRIES_MIN", 10)
    for number in range(200):
        item = Item(number, 100.0, 1000.0)
        world.queue.watch(item, 1)
        item.over = True
    assert len(world.queue) <= 14


def test_a_closed_queue_ends_nobody(world: World) -> None:
    world.queue.watch(Item(1, 100.0, 10.0), 1)
    world.queue.close()
    world.loop.move_to(120.0)
    assert world.ended == []
