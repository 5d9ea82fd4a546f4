"""The relay in native code in bad weather: pipes that are stuck behind those who do not read, and no descriptors."""

from __future__ import annotations

import array
import asyncio
import fcntl
import os
import termios
import time
from itertools import cycle
from pathlib import Path

import pytest
from tests.net.relay_weather import WeatherContract
from tests.net.relay_world import MIB, SIDES, MakeRelay, Pair, World, digest
from tests.net.test_native_relay import descriptors_left, needs_native
from tests.net.wires import turns, until

from doorward.net.native_relay import NativeRelay

# As in native/src: pipes.rs, relay.rs, unclog.rs.
PIPES = 64
STALL_S = 0.2
CALM_BYTES = 64 * 1024


@pytest.fixture(params=[NativeRelay], ids=["native"])
def make_relay(request: pytest.FixtureRequest) -> MakeRelay:
    factory: MakeRelay = request.param
    return factory


@needs_native
class TestSeveralThreads(WeatherContract):
    """See `relay_weather`."""

    @pytest.fixture
    def make_relay(self) -> MakeRelay:
        return lambda poller, on_completions: NativeRelay(poller, on_completions, threads=3)


@needs_native
@pytest.mark.anyio
class TestStalledReceivers:
    """A pipe is for those who read."""

    async def test_they_lose_their_pipes_to_those_who_read_and_no_byte(self, world: World) -> None:
        stalled = await _clog(world)
        clogged_at = time.monotonic()
        await until(lambda: time.monotonic() > clogged_at + STALL_S)
        bulk, data = world.pair(), os.urandom(24 * MIB)
        got, _ = await asyncio.gather(bulk.server.read(len(data)), bulk.client.send(data))
        assert digest(got) == digest(data)
        assert _full_pipes() < PIPES, "all pipes are still stuck"
        for pair, sent in stalled:
            assert digest(await pair.server.read(len(sent))) == digest(sent)
        assert _full_pipes() == 0

    async def test_nothing_of_it_is_left_when_they_are_killed(self, world: World) -> None:
        stalled = await _clog(world)
        for pair, _ in stalled:
            world.relay.kill(pair.id)
        assert _full_pipes() == 0


@needs_native
@pytest.mark.anyio
class TestNoDescriptors:
    """Pairs that run need none of their own."""

    async def test_pairs_go_on_without_pipes_and_have_them_again_later(self, world: World) -> None:
        pairs = [world.pair() for _ in range(12)]
        data = os.urandom(2 * MIB)
        with descriptors_left(0):
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            await _exchange(pairs, data)
        pair = pairs[0]
        sent = await pair.client.push_until_stuck()
        assert _full_pipes() > 0
        assert digest(await pair.server.read(len(sent))) == digest(sent)

    async def test_ends_are_told_without_descriptors(self, world: World) -> None:
        pairs = [world.pair() for _ in range(12)]
        with descriptors_left(0):
            for pair, side in zip(pairs, cycle(SIDES), strict=False):
                pair.peer(side).reset()
            await until(lambda: len(world.completed) == len(pairs))
        assert {done.end for done in world.completed.values()} == {"reset"}


async def _exchange(pairs: list[Pair], data: bytes) -> None:
    """All pairs carry the data both ways at once."""

    async def one(pair: Pair) -> None:
        got, got_back, *_ = await asyncio.gather(
            pair.server.read(len(data)),
            pair.client.read(len(data)),
            pair.client.send(data),
            pair.server.send(data),
        )
        assert digest(got) == digest(got_back) == digest(data)

    await asyncio.gather(*map(one, pairs))


async def _clog(world: World) -> list[tuple[Pair, bytes]]:
    """Every pipe is full of bytes that nobody reads, each behind a receiver that was fast at first."""
    stalled: list[tuple[Pair, bytes]] = []
    noise = os.urandom(256 * 1024)
    while _full_pipes() < PIPES:
        assert len(stalled) < 4 * PIPES, "this shows nothing"
        pair = world.pair(buffer_bytes=CALM_BYTES)
        calm = os.urandom(MIB)
        got, _ = await asyncio.gather(pair.server.read(len(calm)), pair.client.send(calm))
        assert digest(got) == digest(calm)
        sent = bytearray()
        for _ in range(30):
            sent += noise[: pair.client.push(noise)]
            await turns(1)
        stalled.append((pair, bytes(sent)))
    return stalled


def _full_pipes() -> int:
    """How many of this process's pipes hold bytes."""
    return sum(map(_is_full_pipe, Path("/proc/self/fd").iterdir())) // 2  # both ends say so


def _is_full_pipe(entry: Path) -> bool:
    try:
        if not str(entry.readlink()).startswith("pipe:"):
            return False
        count = array.array("i", [0])
        fcntl.ioctl(int(entry.name), termios.FIONREAD, count)
    except OSError:  # closed since
        return False
    return count[0] > 0
