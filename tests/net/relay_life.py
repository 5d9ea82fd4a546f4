"""The part of the relay's contract that is about limits, numbers, completions and the end of all."""

from __future__ import annotations

import asyncio
import resource
import time

import pytest
from tests.net.relay_world import SIDES, World, stalled
from tests.net.wires import open_descriptors, turns, until

from doorward.net.relay import Completion, Limits


@pytest.mark.anyio
class LimitsContract:
    """A limit ends its own pair and says which limit it was."""

    @pytest.mark.parametrize("side", SIDES)
    async def test_silence_ends_a_pair_with_a_reset(self, world: World, side: str) -> None:
        pair = world.pair(Limits(idle_s=0.05))
        await pair.peer(side).sees_reset()
        done = await pair.completion()
        assert (done.end, done.ended_by) == ("idle_timeout", "ours")

    async def test_a_short_idle_limit_does_not_wait_for_a_longer_one(self, world: World) -> None:
        patient = world.pair(Limits(idle_s=3600))
        hasty = world.pair(Limits(idle_s=0.05))
        assert (await hasty.completion()).end == "idle_timeout"
        assert world.relay.counts(patient.id) == (0, 0)

    @pytest.mark.parametrize("side", SIDES)
    async def test_exactly_the_allowed_bytes_and_an_end_are_no_breach(self, world: World, side: str) -> None:
        pair = world.pair(Limits(bytes_max=1000))
        await pair.peer(side).send(bytes(1000))
        pair.peer(side).finish()
        assert await pair.other(side).read_to_end() == bytes(1000)
        pair.other(side).finish()
        assert (await pair.completion()).end == "closed"

    @pytest.mark.parametrize("side", SIDES)
    @pytest.mark.parametrize("bytes_max", [1, 1000, 300_000])
    async def test_one_byte_more_than_allowed_resets_both_sides(
        self, world: World, side: str, bytes_max: int
    ) -> None:
        pair = world.pair(Limits(bytes_max=bytes_max))
        got, _ = await asyncio.gather(
            pair.other(side).read(bytes_max), pair.peer(side).send(bytes(bytes_max))
        )
        assert len(got) == bytes_max
        pair.peer(side).push(b"x")
        await pair.peer(side).sees_reset()
        await pair.other(side).sees_reset()
        done = await pair.completion()
        assert (done.end, done.ended_by) == ("byte_limit", "ours")
        assert max(done.bytes_sent, done.bytes_received) == bytes_max

    async def test_the_byte_limit_holds_for_each_direction_by_itself(self, world: World) -> None:
        pair = world.pair(Limits(bytes_max=1000))
        await pair.client.send(bytes(1000))
        await pair.server.send(bytes(1000))
        await pair.client.read(1000)
        await pair.server.read(1000)
        await turns(10)
        assert not world.completed

    async def test_a_limited_rate_is_not_exceeded_and_does_not_stand_still(self, world: World) -> None:
        rate = 100_000
        began = time.monotonic()
        pair = world.pair(Limits(bytes_per_second=rate))
        pair.client.push(bytes(100_000))
        await until(lambda: (world.relay.counts(pair.id) or (0,))[0] > 8000)
        counts = world.relay.counts(pair.id)
        assert counts is not None
        assert counts.bytes_sent <= rate * (time.monotonic() - began + 0.1)

    @pytest.mark.parametrize("side", SIDES)
    async def test_a_reset_ends_a_pair_that_waits_for_its_allowance(self, world: World, side: str) -> None:
        pair = world.pair(Limits(bytes_per_second=1))
        pair.client.push(bytes(1000))
        pair.server.push(bytes(1000))
        await turns(10)
        pair.peer(side).reset()
        assert (await pair.completion()).ended_by == side
        await pair.other(side).sees_reset()


@pytest.mark.anyio
class LifeContract:
    """Numbers, completions and the end of all."""

    async def test_kill_resets_both_sides_and_may_be_repeated(self, world: World) -> None:
        pair = world.pair()
        await pair.client.send(b"abc")
        await pair.server.read(3)
        world.relay.kill(pair.id)
        world.relay.kill(pair.id)
        await pair.client.sees_reset()
        await pair.server.sees_reset()
        assert await pair.completion() == Completion(pair.id, 3, 0, "ours", "killed", 0)
        world.relay.kill(pair.id)
        await turns(10)
        assert len(world.completed) == 1

    async def test_kill_while_both_directions_are_full(self, world: World) -> None:
        pair, _ = await stalled(world, "internal")
        await pair.server.push_until_stuck()
        world.relay.kill(pair.id)
        await pair.client.sees_reset()
        await pair.server.sees_reset()
        assert (await pair.completion()).end == "killed"

    async def test_completions_come_many_at_a_time(self, world: World) -> None:
        pairs = [world.pair() for _ in range(50)]
        for pair in pairs:
            world.relay.kill(pair.id)
        assert not world.completed, "a completion came while the caller was still calling"
        await until(lambda: len(world.completed) == 50)
        assert len(world.batches) < 50

    async def test_numbers_are_never_used_again(self, world: World) -> None:
        seen: set[int] = set()
        for _ in range(30):
            pair = world.pair()
            assert pair.id not in seen
            seen.add(pair.id)
            world.relay.kill(pair.id)
            await pair.completion()

    async def test_whoever_hears_of_an_end_may_begin_anew(self, world: World) -> None:
        ends: list[int] = []

        def heard(completions: list[Completion]) -> None:
            for completion in completions:
                ends.append(completion.id)
                if len(ends) < 5:
                    world.relay.kill(world.pair().id)

        world.heard = heard
        world.relay.kill(world.pair().id)
        await until(lambda: len(ends) == 5)
        assert len(set(ends)) == 5

    async def test_close_reports_every_pair_before_it_returns(self, world: World) -> None:
        pairs = [world.pair() for _ in range(3)]
        assert len(world.relay) == 3
        world.relay.close()
        assert {done.end for done in world.completed.values()} == {"killed"}
        assert set(world.completed) == {pair.id for pair in pairs}
        assert len(world.relay) == 0

    @pytest.mark.slow
    async def test_thousands_of_idle_pairs_need_no_descriptors_of_their_own(
        self, world: World, request: pytest.FixtureRequest
    ) -> None:
        count = 2000
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if hard < 5 * count:
            pytest.skip(f"this needs {5 * count} descriptors")
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 5 * count), hard))
        request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
        before = len(open_descriptors())
        pairs = [world.pair(Limits(idle_s=3600)) for _ in range(count)]
        assert len(world.relay) == count
        for pair in pairs[::100]:
            await pair.client.send(b"still here")
            assert await pair.server.read(10) == b"still here"
        assert len(open_descriptors()) - before <= 4 * count + 20
        for pair in pairs:
            pair.client.finish()
            pair.server.finish()
        await until(lambda: len(world.completed) == count)
        assert len(world.relay) == 0
