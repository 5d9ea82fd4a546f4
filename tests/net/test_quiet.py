"""Quiet is noticed, and nothing else is."""

from __future__ import annotations

import asyncio

import pytest
from tests.net.wires import Clock, turns

from doorward.net.quiet import QuietWatch

pytestmark = pytest.mark.anyio


class Watched:
    """A counter and how often it was found quiet."""

    def __init__(self, quiet_s: float) -> None:
        self.moved = 0
        self.quiet = 0
        self.has_reason = False
        loop = asyncio.get_running_loop()
        self.watch = QuietWatch(loop, quiet_s, lambda: self.moved, self._found, lambda: self.has_reason)

    def _found(self) -> None:
        self.quiet += 1


async def pass_time(clock: Clock, seconds: float) -> None:
    """In steps as small as a real loop would take."""
    for _ in range(round(seconds * 10)):
        clock.advance(0.1)
        await turns(2)


async def test_quiet_is_told_once_within_a_quarter_of_its_limit(clock: Clock) -> None:
    watched = Watched(10)
    await pass_time(clock, 9.9)
    assert watched.quiet == 0
    await pass_time(clock, 2.6)
    assert watched.quiet == 1
    await pass_time(clock, 100)
    assert watched.quiet == 1


async def test_whoever_moves_a_little_is_not_quiet(clock: Clock) -> None:
    watched = Watched(10)
    for _ in range(10):
        await pass_time(clock, 9)
        watched.moved += 1
    assert watched.quiet == 0
    await pass_time(clock, 9.9)
    assert watched.quiet == 0
    await pass_time(clock, 2.7)
    assert watched.quiet == 1


async def test_who_is_quiet_for_a_reason_is_left_alone_as_long_as_it_holds(clock: Clock) -> None:
    watched = Watched(10)
    watched.has_reason = True
    await pass_time(clock, 50)
    assert watched.quiet == 0
    watched.has_reason = False
    await pass_time(clock, 12.7)
    assert watched.quiet == 1


async def test_nobody_is_told_after_stop(clock: Clock) -> None:
    watched = Watched(10)
    await pass_time(clock, 5)
    watched.watch.stop()
    watched.watch.stop()
    await pass_time(clock, 100)
    assert watched.quiet == 0


async def test_without_a_limit_nothing_is_watched(clock: Clock) -> None:
    watched = Watched(0)
    await pass_time(clock, 100)
    assert watched.quiet == 0
    watched.watch.stop()
