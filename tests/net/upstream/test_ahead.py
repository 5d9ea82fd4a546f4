"""Bytes ahead: received first, in order, counted, and gone when the carrier is closed."""

from __future__ import annotations

import asyncio

import pytest
from tests.net.wires import Clock, Peer, connected, turns

from doorward.api.errors import ByteLimitReached, PeerReset, Side, Terminating
from doorward.net.leg import Leg
from doorward.net.limiter import LegLimits
from doorward.net.poller import Poller
from doorward.net.relay import Limits
from doorward.net.upstream.ahead import Ahead

pytestmark = pytest.mark.anyio


async def test_what_came_ahead_is_received_first_and_then_the_rest(poller: Poller) -> None:
    near, far = connected()
    with Peer(far) as peer:
        ahead = Ahead(Leg(poller, near, Side.EXTERNAL), b"banner")
        await peer.send(b"more")
        assert [await ahead.recv(4), await ahead.recv(), await ahead.recv()] == [b"bann", b"er", b"more"]
        assert (ahead.open, ahead.busy, ahead.received) == (True, False, 10)
        peer.finish()
        assert await ahead.recv() == b""
        ahead.close_now()


async def test_it_sends_and_counts_anew_what_passes_here(poller: Poller) -> None:
    near, far = connected()
    with Peer(far) as peer:
        leg = Leg(poller, near, Side.EXTERNAL)
        await leg.send(b"handshake")
        ahead = Ahead(leg, b"")
        await ahead.send(b"hello")
        count = await ahead.send_some(b"world")
        assert await peer.read(19) == b"handshakehelloworld"
        assert (ahead.sent, count) == (10, 5)
        await ahead.shutdown()
        assert await peer.read_to_end() == b""
        await ahead.close()
        assert not ahead.open


@pytest.mark.parametrize("how", ["shutdown", "close", "close_now", "abort"])
async def test_after_its_end_nothing_is_received_any_more(poller: Poller, how: str) -> None:
    near, far = connected()
    with Peer(far) as peer:
        ahead = Ahead(Leg(poller, near, Side.EXTERNAL), b"banner")
        if how == "shutdown":
            await ahead.shutdown(abortive=True)
        elif how == "close":
            await ahead.close(abortive=True)
        elif how == "close_now":
            ahead.close_now(abortive=True)
        else:
            ahead.abort(PeerReset(side=Side.INTERNAL))
        await peer.sees_reset()
        with pytest.raises((PeerReset, Terminating)):
            await ahead.recv()


async def test_limits_hold_for_what_passes_here_and_for_what_is_ahead(poller: Poller) -> None:
    near, far = connected()
    with Peer(far) as peer:
        ahead = Ahead(Leg(poller, near, Side.EXTERNAL), b"banner")
        ahead.limits = LegLimits(poller.loop, Limits(bytes_max=8))
        await ahead.send(b"12345678")
        assert await ahead.recv() == b"banner"
        await peer.send(b"more")
        with pytest.raises(ByteLimitReached):
            await ahead.recv()
        await peer.sees_reset()
        with pytest.raises(ByteLimitReached):
            await ahead.send(b"9")


async def test_a_rate_is_waited_for_before_bytes_move(poller: Poller, clock: Clock) -> None:
    near, far = connected()
    with Peer(far) as peer:
        ahead = Ahead(Leg(poller, near, Side.EXTERNAL), b"")
        ahead.limits = LegLimits(poller.loop, Limits(bytes_per_second=1_000_000))
        await ahead.send(b"x" * 1_000_000)
        task = poller.loop.create_task(ahead.send(b"late"))
        await turns(5)
        assert not task.done()
        task.cancel()
        await asyncio.wait([task])
        assert len(await peer.read(1_000_000)) == 1_000_000
        assert ahead.sent == 1_000_000
        ahead.close_now()
