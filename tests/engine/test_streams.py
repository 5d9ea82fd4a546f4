"""Stream filters in one run: one task for each direction, no queue between, and enough is enough."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from tests.engine.rig import wait_for

from doorward.api import FilterFailed, PeerReset, StreamFilter
from doorward.engine.joint import JointEnd, joint
from doorward.engine.streams import StreamRun
from doorward.engine.supervision import Holder, Watchdog

pytestmark = pytest.mark.anyio

CONNECTION = cast(Any, object())


class Once(StreamFilter):
    """Has seen enough after the first chunk of one side."""

    def __init__(self, side: str) -> None:
        self.side = side
        self.chunks: list[bytes] = []

    def client_data(self, data: bytes) -> bytes:
        return self._look("client", data)

    def server_data(self, data: bytes) -> bytes:
        return self._look("server", data)

    def _look(self, side: str, data: bytes) -> bytes:
        self.chunks.append(data)
        if side == self.side:
            self.seen_enough()
        return data


def run_of(*filters: StreamFilter) -> tuple[JointEnd, asyncio.Task[None], JointEnd]:
    (client, internal), (external, server) = joint(), joint()
    run = StreamRun(filters, Watchdog(5.0), Holder())
    task = asyncio.get_running_loop().create_task(run.pump(internal, external, CONNECTION))
    return client, task, server


async def finished(task: asyncio.Task[None]) -> None:
    await wait_for(task.done, "the run is over")
    task.result()


async def test_start_comes_once_before_the_first_byte_and_knows_the_connection() -> None:
    class Starting(StreamFilter):
        starts = 0

        def start(self) -> None:
            assert self.connection is CONNECTION
            self.starts += 1
            self.seen_enough()

    one, two = Starting(), Starting()
    _, task, _ = run_of(one, two)
    await finished(task)
    assert (one.starts, two.starts) == (1, 1)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_enough_on_one_side_ends_the_run_though_the_other_side_is_silent(side: str) -> None:
    client, task, server = run_of(Once(side))
    near, far = (client, server) if side == "client" else (server, client)
    await near.send(b"one")
    assert await far.recv() == b"one"
    await finished(task)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_enough_with_the_very_first_bytes_at_hand_ends_the_run_too(side: str) -> None:
    (client, internal), (external, server) = joint(), joint()
    await (client if side == "client" else server).send(b"one")
    run = StreamRun([Once(side)], Watchdog(5.0), Holder())
    await finished(asyncio.get_running_loop().create_task(run.pump(internal, external, CONNECTION)))


async def test_who_has_seen_enough_is_left_out_while_another_still_looks() -> None:
    one, two = Once("client"), Once("server")
    client, task, server = run_of(one, two)
    for data in (b"a", b"b"):
        await client.send(data)
        assert await server.recv() == data
    assert not task.done()
    assert (one.chunks, two.chunks) == ([b"a"], [b"a", b"b"])
    await server.send(b"c")
    assert await client.recv() == b"c"
    await finished(task)
    assert (one.chunks, two.chunks) == ([b"a"], [b"a", b"b", b"c"])


async def test_a_chunk_that_a_filter_keeps_is_not_sent_and_not_shown_to_the_next() -> None:
    class Keeping(StreamFilter):
        def client_data(self, data: bytes) -> bytes:
            return b"" if data == b"keep" else data

    after = Once("server")
    client, task, server = run_of(Keeping(), after)
    await client.send(b"keep")
    await client.send(b"pass")
    assert await server.recv() == b"pass"
    assert after.chunks == [b"pass"]
    task.cancel()


async def test_each_direction_ends_by_itself_with_what_was_kept() -> None:
    class Ending(StreamFilter):
        def client_end(self) -> bytes:
            return b"client's last"

        def server_end(self) -> bytes:
            return b"server's last"

    client, task, server = run_of(Ending())
    await client.shutdown()
    assert [await server.recv(), await server.recv()] == [b"client's last", b""]
    await server.send(b"still here")
    assert await client.recv() == b"still here"
    await server.shutdown()
    assert [await client.recv(), await client.recv()] == [b"server's last", b""]
    await finished(task)


@pytest.mark.parametrize("answer", ["text", None, 7, ["x"]])
async def test_an_answer_that_is_not_bytes_is_a_failure_of_that_filter(answer: object) -> None:
    class Wrong(StreamFilter):
        def client_data(self, data: bytes) -> bytes:
            return cast(bytes, answer)

    (client, internal), (external, _) = joint(), joint()
    right, wrong = StreamFilter(), Wrong()
    run = StreamRun([right, wrong], Watchdog(5.0), Holder())
    await client.send(b"x")
    with pytest.raises(FilterFailed, match="in place of bytes"):
        await run.pump(internal, external, CONNECTION)
    assert run.failed is wrong


@pytest.mark.parametrize("answer", [bytearray(b"x"), memoryview(b"x")])
async def test_other_kinds_of_bytes_are_bytes(answer: object) -> None:
    class Other(StreamFilter):
        def client_data(self, data: bytes) -> bytes:
            return cast(bytes, answer)

    client, task, server = run_of(Other())
    await client.send(b"y")
    assert await server.recv() == b"x"
    task.cancel()


async def test_what_a_filter_raises_ends_the_run_and_names_it() -> None:
    class Broken(StreamFilter):
        def server_data(self, data: bytes) -> bytes:
            raise ZeroDivisionError("mine")

    (_, internal), (external, server) = joint(), joint()
    broken = Broken()
    run = StreamRun([StreamFilter(), broken, StreamFilter()], Watchdog(5.0), Holder())
    await server.send(b"x")
    with pytest.raises(ZeroDivisionError):
        await run.pump(internal, external, CONNECTION)
    assert run.failed is broken


async def test_a_reset_of_one_side_ends_the_run_and_is_no_filters_fault() -> None:
    (client, internal), (external, _) = joint(), joint()
    run = StreamRun([StreamFilter()], Watchdog(5.0), Holder())
    client.abort(PeerReset("gone"))
    with pytest.raises(PeerReset):
        await run.pump(internal, external, CONNECTION)
    assert run.failed is None
