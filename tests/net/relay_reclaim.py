"""The part of the relay's contract that is about taking a pair back: with nothing lost, at any moment."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from tests.net.relay_world import MIB, SIDES, World, digest, stalled
from tests.net.wires import Peer, turns, until

from doorward.net.relay import Limits

STALLED_MAX = 20


@pytest.mark.anyio
class ReclaimContract:
    """`Relay.reclaim`."""

    async def test_an_idle_pair_comes_back_whole(self, world: World) -> None:
        pair = world.pair(to_external=b"abc")
        await pair.server.read(3)
        reclaimed = world.reclaim(pair)
        assert (reclaimed.to_external, reclaimed.to_internal, reclaimed.counts) == (b"", b"", (3, 0))
        assert len(world.relay) == 0
        with (
            Peer(_socket(reclaimed.internal_fd)) as internal,
            Peer(_socket(reclaimed.external_fd)) as external,
        ):
            await internal.send(b"to the client")
            assert await pair.client.read(13) == b"to the client"
            await pair.server.send(b"from the server")
            assert await external.read(15) == b"from the server"

    async def test_a_pair_just_added_gives_back_what_came_with_it(self, world: World) -> None:
        pair = world.pair(to_external=b"one", to_internal=b"two")
        reclaimed = world.reclaim(pair)
        sent, received = reclaimed.counts
        with Peer(_socket(reclaimed.internal_fd)), Peer(_socket(reclaimed.external_fd)):
            assert reclaimed.to_external == b"one"[sent:]
            assert reclaimed.to_internal == b"two"[received:]

    async def test_no_completion_follows(self, world: World) -> None:
        pair = world.pair(Limits(idle_s=0.01))
        reclaimed = world.reclaim(pair)
        world.relay.kill(pair.id)
        assert world.relay.reclaim(pair.id) is None
        assert world.relay.counts(pair.id) is None
        bystander = world.pair(Limits(idle_s=0.05))
        await bystander.completion()
        assert set(world.completed) == {bystander.id}
        os.close(reclaimed.internal_fd)
        os.close(reclaimed.external_fd)

    async def test_an_ended_pair_cannot_be_taken_back(self, world: World) -> None:
        pair = world.pair()
        world.relay.kill(pair.id)
        assert world.relay.reclaim(pair.id) is None
        assert (await pair.completion()).end == "killed"
        assert world.relay.reclaim(pair.id) is None
        assert world.relay.reclaim(10_000) is None

    @pytest.mark.parametrize("side", SIDES)
    async def test_what_was_read_and_not_written_comes_back(self, world: World, side: str) -> None:
        # A relay may have got rid of everything that it had read; then there is nothing to see.
        for _ in range(STALLED_MAX):
            if await _taken_back(world, side):
                return
        raise AssertionError("nothing was ever on its way: this test shows nothing")

    async def test_bulk_both_ways_taken_back_again_and_again_arrives_unchanged(self, world: World) -> None:
        pair = world.pair(buffer_bytes=64 * 1024)
        data = os.urandom(6 * MIB)
        transfer = asyncio.gather(
            pair.server.read(len(data)),
            pair.client.read(len(data)),
            pair.client.send(data),
            pair.server.send(data),
        )
        rounds = 0
        while not transfer.done():
            await turns(rounds % 7)
            assert world.hand_over_again(pair)
            rounds += 1
            await turns(1)
        got_one, got_other, *_ = await transfer
        assert digest(got_one) == digest(got_other) == digest(data)
        assert rounds > 5

    @pytest.mark.parametrize("side", SIDES)
    async def test_a_half_closed_pair_goes_on_after_it_was_taken_back(self, world: World, side: str) -> None:
        pair = world.pair()
        pair.peer(side).finish()
        assert await pair.other(side).read_to_end() == b""
        assert world.hand_over_again(pair)
        await pair.other(side).send(b"late")
        assert await pair.peer(side).read(4) == b"late"
        pair.other(side).finish()
        assert await pair.peer(side).read_to_end() == b""
        done = await pair.completion()
        assert (done.end, done.ended_by) == ("closed", side)

    async def test_a_pair_that_waits_for_its_allowance_comes_back_whole(self, world: World) -> None:
        pair = world.pair(Limits(bytes_per_second=1000))
        pair.client.push(bytes(5000))
        await until(lambda: sum(world.relay.counts(pair.id) or ()) > 0)
        world.hand_over_again(pair)
        assert await pair.server.read(5000) == bytes(5000)


async def _taken_back(world: World, side: str) -> bool:
    """Stall a pair, take it back, carry on by hand: nothing is lost. Whether anything was on its way."""
    pair, sent = await stalled(world, side)
    back = world.reclaim(pair)
    inner, outer = Peer(_socket(back.internal_fd)), Peer(_socket(back.external_fd))
    with inner, outer:
        if side == "internal":
            source, sink, held, nothing = inner, outer, back.to_external, back.to_internal
            moved = back.counts.bytes_sent
        else:
            source, sink, held, nothing = outer, inner, back.to_internal, back.to_external
            moved = back.counts.bytes_received
        assert nothing == b""
        assert held == sent[moved : moved + len(held)]
        pair.peer(side).finish()
        got, _ = await asyncio.gather(pair.other(side).read(len(sent)), _carry(held, source, sink))
    assert digest(got) == digest(sent)
    return bool(held)


def _socket(fd: int) -> socket.socket:
    return socket.socket(fileno=fd)


async def _carry(held: bytes, source: Peer, sink: Peer) -> None:
    """Do the relay's work by hand from where it left off."""
    await sink.send(held)
    await sink.send(await source.read_to_end())
