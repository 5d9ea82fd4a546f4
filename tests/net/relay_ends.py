"""The part of the relay's contract that is about ends: FIN for each direction by itself, RST at every moment."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os

import pytest
from tests.net.relay_world import MIB, SIDES, World, digest, other, stalled
from tests.net.wires import Peer, turns, until


@pytest.mark.anyio
class EndsContract:
    """FIN travels as FIN, each direction by itself; RST travels as RST at every moment."""

    @pytest.mark.parametrize("side", SIDES)
    async def test_half_close_leaves_the_other_direction_open(self, world: World, side: str) -> None:
        pair = world.pair()
        first, second = pair.peer(side), pair.other(side)
        await first.send(b"question")
        first.finish()
        assert await second.read_to_end() == b"question"
        for _ in range(3):
            await second.send(b"answer")
            assert await first.read(6) == b"answer"
        assert not world.completed
        second.finish()
        assert await first.read_to_end() == b""
        done = await pair.completion()
        assert (done.end, done.ended_by, done.errno) == ("closed", side, 0)
        sent, received = (8, 18) if side == "internal" else (18, 8)
        assert (done.bytes_sent, done.bytes_received) == (sent, received)

    async def test_an_end_right_behind_megabytes_loses_none_of_them(self, world: World) -> None:
        pair = world.pair()
        data = os.urandom(8 * MIB)

        async def send_and_finish(peer: Peer) -> None:
            await peer.send(data)
            peer.finish()

        got_one, got_other, *_ = await asyncio.gather(
            pair.server.read_to_end(),
            pair.client.read_to_end(),
            send_and_finish(pair.client),
            send_and_finish(pair.server),
        )
        assert digest(got_one) == digest(got_other) == digest(data)
        assert (await pair.completion()).end == "closed"

    @pytest.mark.parametrize("side", SIDES)
    async def test_an_end_waits_for_what_is_held_before_it(self, world: World, side: str) -> None:
        pair, sent = await stalled(world, side)
        pair.peer(side).finish()
        await turns(20)
        assert digest(await pair.other(side).read_to_end()) == digest(sent)

    @pytest.mark.parametrize("side", SIDES)
    async def test_a_reset_of_an_idle_pair(self, world: World, side: str) -> None:
        pair = world.pair()
        pair.peer(side).reset()
        await pair.other(side).sees_reset()
        done = await pair.completion()
        assert (done.end, done.ended_by, done.errno) == ("reset", side, errno.ECONNRESET)

    @pytest.mark.parametrize("side", SIDES)
    @pytest.mark.parametrize("sender", SIDES)
    async def test_a_reset_in_the_middle_of_a_transfer(self, world: World, side: str, sender: str) -> None:
        pair = world.pair()
        data = os.urandom(4 * MIB)
        sending = asyncio.gather(pair.peer(sender).send(data), pair.other(sender).read(MIB))
        await until(lambda: sum(world.relay.counts(pair.id) or ()) > MIB // 2)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        pair.peer(side).reset()
        await pair.other(side).sees_reset()
        done = await pair.completion()
        assert (done.end, done.ended_by) == ("reset", side)

    @pytest.mark.parametrize("finished_by", SIDES)
    @pytest.mark.parametrize("side", SIDES)
    async def test_a_reset_after_a_half_close(self, world: World, side: str, finished_by: str) -> None:
        pair = world.pair()
        pair.peer(finished_by).finish()
        assert await pair.other(finished_by).read_to_end() == b""
        pair.peer(side).reset()
        await pair.other(side).sees_reset()
        done = await pair.completion()
        assert (done.end, done.ended_by) == ("reset", side)

    @pytest.mark.parametrize("finished", [False, True], ids=["open", "half-closed"])
    @pytest.mark.parametrize("side", SIDES)
    async def test_a_sender_that_resets_is_noticed_though_nobody_reads(
        self, world: World, side: str, *, finished: bool
    ) -> None:
        pair, _ = await stalled(world, side)
        if finished:
            pair.peer(side).finish()
            await turns(20)
        pair.peer(side).reset()
        done = await pair.completion()
        assert (done.end, done.ended_by) == ("reset", side)
        await pair.other(side).sees_reset()

    @pytest.mark.parametrize("side", SIDES)
    async def test_a_reader_that_resets_is_noticed_though_the_sender_is_stuck(
        self, world: World, side: str
    ) -> None:
        pair, _ = await stalled(world, other(side))
        pair.peer(side).reset()
        await pair.other(side).sees_reset()
        assert (await pair.completion()).ended_by == side

    @pytest.mark.parametrize("side", SIDES)
    async def test_sending_to_a_peer_that_is_gone_ends_in_a_reset(self, world: World, side: str) -> None:
        pair = world.pair()
        pair.peer(side).socket.close()  # FIN now, and RST to whatever comes
        assert await pair.other(side).read_to_end() == b""
        await pair.other(side).send(b"is anybody there?")
        await pair.other(side).sees_reset()
        done = await pair.completion()
        assert (done.end, done.ended_by) == ("reset", side)
