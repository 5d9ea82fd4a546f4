"""What a data filter holds is good for as long as its pump runs, and not beneath TLS."""

from __future__ import annotations

import asyncio

import pytest

from doorward.api import Terminating
from doorward.engine.handle import Handle
from doorward.engine.joint import joint

pytestmark = pytest.mark.anyio


async def expect_barred(handle: Handle) -> None:
    calls = (handle.recv(), handle.send(b"x"), handle.recv_from(), handle.send_to(b"x", ("192.0.2.1", 9)))
    for call in (*calls, handle.shutdown(), handle.close()):
        with pytest.raises(Terminating):
            await call


async def test_it_is_the_carrier_until_it_is_revoked() -> None:
    near, far = joint()
    handle = Handle(near)
    await handle.send(b"hello")
    assert await far.recv() == b"hello"
    before = handle.barred
    handle.revoke()
    assert (before, handle.barred) == (False, True)
    await expect_barred(handle)
    assert near.open


async def test_what_is_covered_is_barred_and_knows_what_lies_over_it() -> None:
    below, middle, top = joint()[0], joint()[0], joint()[0]
    handle = Handle(below)
    handle.cover(middle)
    assert handle.carrier is middle
    await expect_barred(handle)
    over = Handle(middle, handle)
    over.cover(top)
    assert handle.carrier is over.carrier is top
    await expect_barred(over)
    handle.revoke()
    handle.cover(middle)  # what was revoked stays so
    assert handle.barred


async def test_a_revoked_call_does_not_end_who_waits_already() -> None:
    near, far = joint()
    handle = Handle(near)
    reading = asyncio.get_running_loop().create_task(handle.recv())
    await asyncio.sleep(0)
    handle.revoke()
    await far.send(b"late")
    assert await reading == b"late"
