"""Two carriers under test that face each other, and what tests of them share: see `carrier_contract`."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, NamedTuple, TypeAlias

import pytest
from tests.net.wires import SMALL_BUFFER_BYTES, turns, until

from doorward.api.errors import DoorwardError
from doorward.net.carrier import Carrier

MIB = 1024 * 1024
# What may be on its way while nobody reads: two small kernel buffers, and what a carrier itself may keep.
ON_ITS_WAY_BYTES_MAX = MIB
PATIENCE_S = 8.0


class Ends(NamedTuple):
    """Two carriers that face each other."""

    near: Carrier
    far: Carrier


MakeEnds: TypeAlias = Callable[[int], Coroutine[Any, Any, tuple[Carrier, Carrier]]]


def start(coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Run it beside the test."""
    return asyncio.get_running_loop().create_task(coroutine)


async def exactly(end: Carrier, count: int) -> bytes:
    """So many bytes."""
    found = bytearray()
    async with asyncio.timeout(PATIENCE_S):
        while len(found) < count:
            data = await end.recv(count - len(found))
            assert data, f"the stream ended after {len(found)} of {count} bytes"
            found += data
    return bytes(found)


async def to_the_end(end: Carrier) -> bytes:
    """Everything up to an orderly end."""
    found = bytearray()
    async with asyncio.timeout(PATIENCE_S):
        while data := await end.recv():
            found += data
    return bytes(found)


async def fill(end: Carrier) -> bytes:
    """Send until no more is taken, not even after many turns; what was taken."""
    noise = os.urandom(64 * 1024)
    sent = bytearray()
    while True:
        task = start(end.send_some(noise))
        await turns(30)
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            return bytes(sent)
        sent += noise[: task.result()]
        assert len(sent) <= 64 * MIB, "there is no end to what is taken"


async def waiting(coroutine: Coroutine[Any, Any, Any], turns_to_wait: int = 5) -> asyncio.Task[Any]:
    """A task that waits."""
    task = start(coroutine)
    await turns(turns_to_wait)
    assert not task.done()
    return task


async def failure(coroutine: Coroutine[Any, Any, Any]) -> DoorwardError:
    """What it raises, which must be an error of ours."""
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(DoorwardError) as caught:
            await coroutine
    return caught.value


def digest(data: bytes) -> str:
    """Shown in place of megabytes when a test fails."""
    return hashlib.sha256(data).hexdigest()


@pytest.mark.anyio
class Contract:
    """The ends, made before each test and closed after it."""

    @pytest.fixture(params=["this way", "the other way"])
    async def opened(
        self, request: pytest.FixtureRequest, make_ends: MakeEnds
    ) -> AsyncIterator[Callable[[int], Coroutine[Any, Any, Ends]]]:
        made: list[Ends] = []
        before = len(asyncio.all_tasks())

        async def opened(buffer_bytes: int) -> Ends:
            one, other = await make_ends(buffer_bytes)
            made.append(Ends(one, other) if request.param == "this way" else Ends(other, one))
            return made[-1]

        yield opened
        for end in (end for ends in made for end in ends):
            end.close_now()
            assert not end.open
        await until(lambda: len(asyncio.all_tasks()) <= before, "the end of every task")
        assert not any(end.busy for ends in made for end in ends)

    @pytest.fixture
    async def ends(self, opened: Callable[[int], Coroutine[Any, Any, Ends]]) -> Ends:
        return await opened(0)

    @pytest.fixture
    async def narrow(self, opened: Callable[[int], Coroutine[Any, Any, Ends]]) -> Ends:
        """Buffers so small that sending soon has to wait."""
        return await opened(SMALL_BUFFER_BYTES)


async def outcome(task: asyncio.Task[Any]) -> Any:
    """What the task returns, or raises."""
    return await task
