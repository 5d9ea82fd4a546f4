"""The part of the relay's contract that is about bytes: all of them, in order, and no faster than they are read."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from tests.net.relay_world import MIB, SIDES, Pair, World, digest, stalled
from tests.net.wires import SMALL_BUFFER_BYTES, Peer, connected, turns, until

from doorward.net.relay import Limits


@pytest.mark.anyio
class BytesContract:
    """Every byte arrives, once, in order."""

    async def test_megabytes_both_ways_at_once_arrive_unchanged(self, world: World) -> None:
        pair = world.pair()
        request, response = os.urandom(6 * MIB), os.urandom(8 * MIB)
        got_request, got_response, *_ = await asyncio.gather(
            pair.server.read(len(request)),
            pair.client.read(len(response)),
            pair.client.send(request),
            pair.server.send(response),
        )
        assert digest(got_request) == digest(request)
        assert digest(got_response) == digest(response)
        assert world.relay.counts(pair.id) == (len(request), len(response))

    async def test_small_messages_go_back_and_forth(self, world: World) -> None:
        pair = world.pair()
        for number in range(100):
            await pair.client.send(b"ping %d" % number)
            assert await pair.server.read(len(b"ping %d" % number)) == b"ping %d" % number
            await pair.server.send(b"pong")
            assert await pair.client.read(4) == b"pong"

    async def test_messages_after_megabytes_and_megabytes_after_messages(self, world: World) -> None:
        pair = world.pair()
        for _ in range(3):
            bulk = os.urandom(2 * MIB)
            got, _ = await asyncio.gather(pair.server.read(len(bulk)), pair.client.send(bulk))
            assert digest(got) == digest(bulk)
            for _ in range(20):
                await pair.client.send(b"message")
                assert await pair.server.read(7) == b"message"

    async def test_what_came_with_the_handshake_goes_first_and_counts(self, world: World) -> None:
        pair = world.pair(to_external=b"GET ", to_internal=b"220 ")
        await pair.client.send(b"/")
        await pair.server.send(b"ready")
        assert await pair.server.read(5) == b"GET /"
        assert await pair.client.read(9) == b"220 ready"
        assert world.relay.counts(pair.id) == (5, 9)

    async def test_a_large_handshake_remainder_waits_for_the_reader(self, world: World) -> None:
        early = os.urandom(3 * MIB)
        pair = world.pair(to_external=early, buffer_bytes=SMALL_BUFFER_BYTES)
        await pair.client.send(b"then this")
        assert digest(await pair.server.read(len(early))) == digest(early)
        assert await pair.server.read(9) == b"then this"

    async def test_bytes_sent_before_the_relay_took_over_are_not_forgotten(self, world: World) -> None:
        client, internal = connected()
        external, server = connected()
        with Peer(client) as client_peer, Peer(server) as server_peer:
            client_peer.push(b"early")
            client_peer.finish()
            world.relay.add(internal.detach(), external.detach(), Limits())
            assert await server_peer.read_to_end() == b"early"

    async def test_counts_are_live_and_gone_with_the_pair(self, world: World) -> None:
        pair = world.pair()
        assert world.relay.counts(pair.id) == (0, 0)
        await pair.client.send(b"abc")
        await pair.server.read(3)
        assert world.relay.counts(pair.id) == (3, 0)
        world.relay.kill(pair.id)
        assert world.relay.counts(pair.id) is None
        assert world.relay.counts(pair.id + 1) is None

    @pytest.mark.parametrize("bulk_bytes", [0, 2 * MIB], ids=["message", "bulk"])
    @pytest.mark.parametrize("side", SIDES)
    async def test_urgent_bytes_hide_nothing_of_what_follows(
        self, world: World, side: str, bulk_bytes: int
    ) -> None:
        """Kernels stop a read at the urgent mark, and a splice even says that the stream has ended there."""
        pair = world.pair()
        bulk = os.urandom(bulk_bytes)
        got, _ = await asyncio.gather(pair.other(side).read(bulk_bytes), pair.peer(side).send(bulk))
        assert digest(got) == digest(bulk)
        pair.peer(side).push(b"before")
        pair.peer(side).socket.send(b"!", socket.MSG_OOB)
        pair.peer(side).push(b"after")
        if bulk_bytes:
            pair.peer(side).finish()
            assert (await pair.other(side).read_to_end()).replace(b"!", b"") == b"beforeafter"
        else:
            assert (await pair.other(side).read(6)) == b"before"
            await until(lambda: sum(world.relay.counts(pair.id) or ()) >= len("beforeafter"))

    async def test_names_itself(self, world: World) -> None:
        assert world.relay.name


@pytest.mark.anyio
class PressureContract:
    """A slow peer holds up its sender and nobody else."""

    @pytest.mark.parametrize("side", SIDES)
    async def test_a_reader_that_never_reads_holds_its_sender_and_nobody_else(
        self, world: World, side: str
    ) -> None:
        pair, sent = await stalled(world, side)
        assert len(sent) < 4 * MIB
        neighbour = world.pair()
        for _ in range(10):
            await neighbour.client.send(b"ping")
            assert await neighbour.server.read(4) == b"ping"
        await pair.other(side).send(b"the other direction is open")
        assert await pair.peer(side).read(27) == b"the other direction is open"
        assert digest(await pair.other(side).read(len(sent))) == digest(sent)
        more = os.urandom(MIB)
        got, _ = await asyncio.gather(pair.other(side).read(len(more)), pair.peer(side).send(more))
        assert digest(got) == digest(more)

    async def test_more_stalled_bulk_pairs_than_pipes_lose_nothing(self, world: World) -> None:
        pairs = [await self._filled(world) for _ in range(80)]
        for pair, sent in pairs:
            assert digest(await pair.server.read(len(sent))) == digest(sent)

    async def test_bulk_does_not_starve_messages(self, world: World) -> None:
        bulk, messages = world.pair(), world.pair()
        flood = memoryview(bytes(MIB))
        answered = 0

        async def ping() -> None:
            nonlocal answered
            for _ in range(100):
                await messages.client.send(b"ping")
                await messages.server.read(4)
                answered += 1

        pinging = asyncio.gather(ping())
        moved = 0
        while answered < 100 and moved < 2048 * MIB:
            bulk.client.push(flood)
            moved += len(bulk.server.pull(MIB) or b"")
            await turns(1)
        assert answered == 100
        await until(lambda: moved or bulk.server.pull(MIB), "the bulk")
        await pinging

    @staticmethod
    async def _filled(world: World) -> tuple[Pair, bytes]:
        pair = world.pair(buffer_bytes=64 * 1024)
        sent = bytearray()
        noise = os.urandom(256 * 1024)
        for _ in range(12):
            sent += noise[: pair.client.push(noise)]
            await turns(1)
        return pair, bytes(sent)
