"""The part of the relay's contract that is about bad company: good pairs among peers that do everything wrong."""

from __future__ import annotations

import asyncio
import os
import random

import pytest
from tests.net.relay_world import MIB, SIDES, Pair, World, digest
from tests.net.wires import turns, until

from doorward.net.relay import Limits

GOOD = 12
BAD = 60


@pytest.mark.anyio
class WeatherContract:
    """Whatever some do, the others lose no byte, get none twice, and end as they wish."""

    @pytest.mark.parametrize("seed", range(3))
    async def test_good_pairs_do_not_notice_bad_ones(self, world: World, seed: int) -> None:
        chance = random.Random(seed)  # noqa: S311 -- the same weather every time
        good = [_conversation(world.pair(Limits(idle_s=60))) for _ in range(GOOD)]
        bad = [_misbehave(world, chance) for _ in range(BAD)]
        await asyncio.gather(*good, *bad)
        for pair in world.pairs:
            if pair.id not in world.completed:  # those who never read
                world.relay.kill(pair.id)
        await until(lambda: len(world.completed) == GOOD + BAD, "all completions")
        assert [world.completed[pair.id].end for pair in world.pairs[:GOOD]] == ["closed"] * GOOD

    async def test_a_peer_that_vanishes_without_a_word_is_idle(self, world: World) -> None:
        """No FIN and no RST comes from a machine that has lost its power: only its silence tells."""
        pair = world.pair(Limits(idle_s=0.1))
        await pair.client.send(b"hello?")
        assert await pair.server.read(6) == b"hello?"
        done = await pair.completion()
        assert (done.end, done.ended_by) == ("idle_timeout", "ours")
        await pair.client.sees_reset()
        await pair.server.sees_reset()

    async def test_one_byte_at_a_time_arrives_as_such(self, world: World) -> None:
        pair = world.pair()
        for number in range(500):
            for side in SIDES:
                await pair.peer(side).send(bytes([number % 256]))
                assert await pair.other(side).read(1) == bytes([number % 256])
        assert world.relay.counts(pair.id) == (500, 500)


async def _conversation(pair: Pair) -> None:
    """A mebibyte each way, with messages in between, and orderly ends."""
    data = os.urandom(MIB)
    for _ in range(2):
        got, got_back, *_ = await asyncio.gather(
            pair.server.read(MIB), pair.client.read(MIB), pair.client.send(data), pair.server.send(data)
        )
        assert digest(got) == digest(got_back) == digest(data)
        await pair.client.send(b"again?")
        assert await pair.server.read(6) == b"again?"
    pair.client.finish()
    assert await pair.server.read_to_end() == b""
    pair.server.finish()
    assert await pair.client.read_to_end() == b""


async def _misbehave(world: World, chance: random.Random) -> None:
    """Speak for a while, read little of what is said, and then be rude in one of several ways."""
    pair = world.pair(Limits(idle_s=60), buffer_bytes=32 * 1024)
    data = chance.randbytes(100_000)
    for _ in range(chance.randrange(8)):
        pair.peer(chance.choice(SIDES)).push(data[: chance.choice([1, 100, 100_000])])
        pair.peer(chance.choice(SIDES)).pull(chance.choice([1, 5000]))
        await turns(chance.randrange(3))
    side = chance.choice(SIDES)
    match chance.randrange(5):
        case 0:
            pair.peer(side).reset()
        case 1:
            pair.peer(side).socket.close()
        case 2:
            pair.peer(side).finish()
            pair.other(side).reset()
        case 3:
            world.relay.kill(pair.id)
        case _:
            pair.peer(side).push(data)  # and nobody ever reads it
