"""The relay in plain Python: the whole contract, and what only its own clock and insides can show."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.net.relay_contract import RelayContract
from tests.net.relay_world import MIB, MakeRelay, Pair, World, digest
from tests.net.wires import Clock, Peer, connected, open_descriptors, turns

from doorward.api.errors import OutOfResources
from doorward.net import idle
from doorward.net.pipes import PIPES_FREE_MAX
from doorward.net.poller import Poller, Target
from doorward.net.python_relay import PythonRelay
from doorward.net.relay import Limits, OnCompletions


@pytest.fixture(params=[PythonRelay], ids=["python"])
def make_relay(request: pytest.FixtureRequest) -> MakeRelay:
    factory: MakeRelay = request.param
    return factory


class TestContract(RelayContract):
    """See `relay_contract`."""


@pytest.fixture
async def insides(anyio_backend: str) -> AsyncIterator[tuple[World, PythonRelay]]:
    """A world whose relay may be looked into."""
    before = open_descriptors()
    relays: list[PythonRelay] = []

    def make(poller: Poller, on_completions: OnCompletions) -> PythonRelay:
        relays.append(PythonRelay(poller, on_completions))
        return relays[0]

    world = World(make)
    yield world, relays[0]
    world.close()
    assert open_descriptors() <= before


@pytest.mark.anyio
class TestClock:
    """Limits that are about time, on a clock turned by hand."""

    async def test_silence_counts_from_the_last_byte(self, clock: Clock, world: World) -> None:
        pair = world.pair(Limits(idle_s=10))
        for _ in range(5):
            clock.advance(9)
            await pair.client.send(b"x")
            await pair.server.read(1)
            await turns(5)
        assert not world.completed
        clock.advance(9)
        await turns(5)
        assert not world.completed
        clock.advance(1.1)
        assert (await pair.completion()).end == "idle_timeout"

    async def test_silence_before_the_relay_took_over_does_not_count(
        self, clock: Clock, world: World
    ) -> None:
        """The poller's own idea of the time is as old as the last edge."""
        clock.advance(100)
        pair = world.pair(Limits(idle_s=10))
        clock.advance(9)
        await turns(5)
        assert not world.completed
        clock.advance(1.1)
        assert (await pair.completion()).end == "idle_timeout"

    async def test_many_limits_end_each_in_its_own_time(self, clock: Clock, world: World) -> None:
        pairs = {idle_s: world.pair(Limits(idle_s=idle_s)) for idle_s in (30, 10, 20)}
        ended: list[float] = []
        for _ in range(3):
            clock.advance(10.06)
            await turns(5)
            ended += [idle_s for idle_s, pair in pairs.items() if pair.id in world.completed]
        assert ended == [10, 10, 20, 30, 10, 20]

    async def test_the_rate_is_kept_over_many_seconds(self, clock: Clock, world: World) -> None:
        pair = world.pair(Limits(bytes_per_second=10_000))
        pair.client.push(bytes(100_000))
        for tenth in range(1, 51):
            clock.advance(0.1)
            await turns(5)
            counts = world.relay.counts(pair.id)
            assert counts is not None
            assert counts.bytes_sent <= 500 + tenth * 1000
        assert sum(world.relay.counts(pair.id) or ()) >= 45_000

    async def test_an_allowance_is_not_saved_up(self, clock: Clock, world: World) -> None:
        pair = world.pair(Limits(bytes_per_second=1000))
        await pair.client.send(b"x")
        await pair.server.read(1)
        clock.advance(3600)
        pair.client.push(bytes(50_000))
        await turns(10)
        counts = world.relay.counts(pair.id)
        assert counts is not None
        assert counts.bytes_sent <= 1001


@pytest.mark.anyio
class TestInsides:
    """Pipes, watches and tables."""

    async def test_pipes_come_back_and_few_are_kept(self, insides: tuple[World, PythonRelay]) -> None:
        world, relay = insides
        before = len(open_descriptors())
        pairs = [world.pair() for _ in range(20)]
        for pair in pairs:
            await pair.client.push_until_stuck()
        assert relay._pipes.lent == 20
        for pair in pairs:
            await _drain(pair)
        assert relay._pipes.lent == 0
        assert len(open_descriptors()) - before == 4 * 20 + 2 * PIPES_FREE_MAX

    async def test_a_pair_that_ends_with_bytes_in_its_pipe_gives_it_up(
        self, insides: tuple[World, PythonRelay]
    ) -> None:
        world, relay = insides
        pair = world.pair()
        await pair.client.push_until_stuck()
        assert relay._pipes.lent == 1
        relay.kill(pair.id)
        assert relay._pipes.lent == 0
        clean = world.pair()
        await clean.client.send(bytes(MIB // 4))
        assert await clean.server.read(MIB // 4) == bytes(MIB // 4), "somebody else's bytes"

    async def test_bytes_in_a_pipe_come_back(self, insides: tuple[World, PythonRelay]) -> None:
        world, relay = insides
        pair = world.pair()
        sent = await pair.client.push_until_stuck()
        assert relay._pairs[pair.id].outward.in_pipe, "nothing is in a pipe: this test shows nothing"
        back = world.reclaim(pair)
        assert relay._pipes.lent == 0
        assert back.to_external == sent[back.counts.bytes_sent :][: len(back.to_external)]
        with Peer(socket.socket(fileno=back.internal_fd)) as inner:
            with Peer(socket.socket(fileno=back.external_fd)):
                pair.client.finish()
                rest = await inner.read_to_end()
        assert digest(back.to_external + rest) == digest(sent[back.counts.bytes_sent :])

    async def test_a_pair_at_its_byte_limit_holds_no_pipe(self, insides: tuple[World, PythonRelay]) -> None:
        world, relay = insides
        pair = world.pair(Limits(bytes_max=2 * MIB))
        data = bytes(2 * MIB)
        await asyncio.gather(pair.client.send(data), pair.server.read(len(data)))
        await turns(5)
        assert relay._pipes.lent == 0

    @pytest.mark.parametrize("number", [errno.EINVAL, None], ids=["cannot splice", "no pipe"])
    async def test_bulk_is_copied_when_it_cannot_be_spliced(
        self, insides: tuple[World, PythonRelay], monkeypatch: pytest.MonkeyPatch, number: int | None
    ) -> None:
        world, relay = insides

        def refuse(*_: object, **__: object) -> int:
            raise OSError(number or errno.EMFILE, "")

        if number is None:
            monkeypatch.setattr(relay._pipes, "take", lambda: None)
        else:
            monkeypatch.setattr(os, "splice", refuse)
        pair = world.pair()
        data = os.urandom(3 * MIB)
        got, _ = await asyncio.gather(pair.server.read(len(data)), pair.client.send(data))
        assert digest(got) == digest(data)

    @pytest.mark.parametrize("watches", [0, 1])
    async def test_without_room_for_watches_both_descriptors_are_closed(
        self, insides: tuple[World, PythonRelay], monkeypatch: pytest.MonkeyPatch, watches: int
    ) -> None:
        world, _ = insides
        watch, left = world.poller.watch, iter(range(watches))

        def limited(fd: int, target: Target) -> None:
            if next(left, None) is None:
                raise OSError(errno.ENOSPC, "")
            watch(fd, target)

        monkeypatch.setattr(world.poller, "watch", limited)
        client, internal = connected()
        external, server = connected()
        with Peer(client) as client_peer, Peer(server) as server_peer:
            with pytest.raises(OutOfResources):
                world.relay.add(internal.detach(), external.detach(), Limits())
            await client_peer.sees_reset()
            await server_peer.sees_reset()
        assert len(world.poller) == 0
        assert len(world.relay) == 0

    async def test_our_own_bug_ends_its_pair_and_no_other(
        self, insides: tuple[World, PythonRelay], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world, relay = insides
        other, pair = world.pair(), world.pair()
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        await turns(5)
        with monkeypatch.context() as patch:
            patch.setattr(relay, "_fill", lambda flow: 1 // 0)
            pair.client.push(b"x")
            assert (await pair.completion()).end == "failed"
        assert isinstance(reported[0]["exception"], ZeroDivisionError)
        await pair.client.sees_reset()
        await pair.server.sees_reset()
        await other.client.send(b"unharmed")
        assert await other.server.read(8) == b"unharmed"

    async def test_ended_pairs_do_not_pile_up_in_the_table_of_idle_limits(
        self, insides: tuple[World, PythonRelay], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world, relay = insides
        monkeypatch.setattr(idle, "ENTRIES_MIN", 10)
        for _ in range(50):
            pair = world.pair(Limits(idle_s=3600))
            relay.kill(pair.id)
        assert len(relay._idle) < 20
        assert (await world.pair(Limits(idle_s=0.05)).completion()).end == "idle_timeout"


async def _drain(pair: Pair) -> None:
    """Read until nothing comes any more."""
    patience = 0
    while patience < 20:
        patience = 0 if pair.server.pull() else patience + 1
        await turns(1)
