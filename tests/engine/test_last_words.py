"""What a server that is a filter has said last arrives, however slow the client is and whatever it goes on saying."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.engine.rig import Rig, wait_for

from doorward.api import PeerReset, Terminating
from doorward.engine import last_words
from doorward.engine.joint import joint
from doorward.engine.last_words import discard, hear_out

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
# More than two kernels hold for one connection.
MUCH = b"x" * (16 * 2**20)


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every moment is short here."""
    monkeypatch.setattr(last_words, "LINGER_S", 0.02)


async def test_a_client_that_ends_too_is_closed_at_once(make_rig: MakeRig) -> None:
    client, leg = make_rig().client()
    await leg.send(b"bye")
    await client.send(b"late")
    client.end()
    await hear_out(leg)
    assert await client.rest() == b"bye"
    assert not leg.open
    assert leg.received == 4


async def test_a_client_hears_the_end_before_it_ends_itself(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_words, "LINGER_S", 60.0)
    rig = make_rig()
    client, leg = rig.client()
    await leg.send(b"bye")
    hearing = rig.start(hear_out(leg))
    assert await client.rest() == b"bye"
    assert leg.open
    client.end()
    await hearing


async def test_a_client_that_has_taken_everything_is_waited_for_a_moment_only(make_rig: MakeRig) -> None:
    client, leg = make_rig().client()
    await leg.send(b"bye")
    await hear_out(leg)
    assert not leg.open
    assert await client.rest() == b"bye"


async def test_a_client_that_is_slow_and_goes_on_sending_is_waited_for(make_rig: MakeRig) -> None:
    rig = make_rig()
    client, leg = rig.client()
    count = 0
    while (sent := await _some(leg, MUCH[count:])) is not None:
        count += sent
    assert leg.unsent > 0
    hearing = rig.start(hear_out(leg))
    for _ in range(20):
        await client.send(b"x" * 100_000)
        await asyncio.wait([hearing], timeout=0.005)
    assert not hearing.done()
    got = 0
    while chunk := await client.recv(2**20):
        got += len(chunk)
    assert got == count
    await hearing
    assert leg.unsent == 0


async def _some(leg: object, data: bytes) -> int | None:
    """What goes without a wait."""
    try:
        async with asyncio.timeout(0.01):
            return await leg.send_some(data)  # type: ignore[attr-defined,no-any-return]  # a leg
    except TimeoutError:
        return None


async def test_a_client_that_resets_meanwhile_is_told_apart(make_rig: MakeRig) -> None:
    rig = make_rig()
    client, leg = rig.client()
    await leg.send(b"bye")
    hearing = rig.start(hear_out(leg))
    await wait_for(lambda: leg.busy, "it listens")
    client.reset()
    with pytest.raises(PeerReset):
        await hearing


async def test_a_front_end_in_memory_is_heard_out_too() -> None:
    near, far = joint()
    await far.send(b"bye")
    hearing = asyncio.get_running_loop().create_task(hear_out(far))
    for _ in range(5):
        await near.send(b"late")
        await asyncio.wait([hearing], timeout=0.02)
    assert not hearing.done()
    assert [await near.recv(), await near.recv()] == [b"bye", b""]
    await hearing
    with pytest.raises(PeerReset):
        await near.send(b"too late")


async def test_what_nobody_listens_to_is_let_through_until_it_ends() -> None:
    near, far = joint()
    discarding = asyncio.get_running_loop().create_task(discard(far))
    for _ in range(10):
        await near.send(b"x" * 200_000)
    await near.shutdown()
    await discarding
    assert far.incoming.size == 0


async def test_discarding_ends_with_its_neighbour_and_says_nothing() -> None:
    near, far = joint()
    discarding = asyncio.get_running_loop().create_task(discard(far))
    await near.send(b"x")
    near.abort(Terminating("over"))
    await discarding
