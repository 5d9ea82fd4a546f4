"""A leg whose bytes Python carries keeps the limits that a relay would hold it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.net.wires import Peer, connected

from doorward.api.errors import ByteLimitReached, Side
from doorward.net.leg import Leg
from doorward.net.limiter import LegLimits, Limiter
from doorward.net.poller import Poller
from doorward.net.relay import Limits

pytestmark = pytest.mark.anyio


@pytest.fixture
async def wire(poller: Poller) -> AsyncIterator[tuple[Leg, Peer]]:
    ours, theirs = connected()
    leg = Leg(poller, ours, Side.EXTERNAL)
    yield leg, Peer(theirs)
    leg.close_now()
    theirs.close()


async def test_as_many_bytes_as_allowed_pass_and_not_one_more() -> None:
    limiter = Limiter(asyncio.get_running_loop(), Limits(bytes_max=10))
    limiter.spend(4)
    limiter.spend(6)
    with pytest.raises(ByteLimitReached):
        limiter.spend(1)


async def test_a_leg_over_its_limit_of_received_bytes_is_reset(
    wire: tuple[Leg, Peer], poller: Poller
) -> None:
    leg, peer = wire
    leg.limits = LegLimits(poller.loop, Limits(bytes_max=5))
    await peer.send(b"12345")
    assert await leg.recv() == b"12345"
    await peer.send(b"6")
    with pytest.raises(ByteLimitReached):
        await leg.recv()
    await peer.sees_reset()


async def test_a_leg_over_its_limit_of_sent_bytes_is_reset(wire: tuple[Leg, Peer], poller: Poller) -> None:
    leg, peer = wire
    leg.limits = LegLimits(poller.loop, Limits(bytes_max=5))
    await leg.send(b"12345")
    with pytest.raises(ByteLimitReached):
        await leg.send(b"6")
    await peer.sees_reset()


async def test_each_direction_has_its_own_limit(wire: tuple[Leg, Peer], poller: Poller) -> None:
    leg, peer = wire
    leg.limits = LegLimits(poller.loop, Limits(bytes_max=5))
    await leg.send(b"12345")
    await peer.send(b"54321")
    assert await leg.recv() == b"54321"
    assert await peer.read(5) == b"12345"


async def test_who_has_no_allowance_left_waits_before_it_moves_anything(
    wire: tuple[Leg, Peer], poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    leg, peer = wire
    now = [100.0]
    monkeypatch.setattr(poller.loop, "time", lambda: now[0])
    limits = leg.limits = LegLimits(poller.loop, Limits(bytes_per_second=1000))
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += seconds

    monkeypatch.setattr(asyncio, "sleep", sleep)
    limits.receiving.spend(1050)  # a second's worth too much
    peer.push(b"late")
    assert await leg.recv() == b"late"
    assert slept[0] == 1.0
