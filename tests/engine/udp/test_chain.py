from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.engine.filters import Marking, Pumping
from tests.engine.rig import tasks, wait_for

from doorward.api import Connection, DataFilter, Priority, Refuse, Socket, Terminating
from doorward.engine.chain import Attached, Failure
from doorward.engine.supervision import Supervisor, Watchdog
from doorward.engine.udp.chain import DatagramChain

pytestmark = pytest.mark.anyio

NAME = ("192.0.2.1", 53)


class World:
    """One chain, with both its ends in lists."""

    def __init__(self) -> None:
        self.out: list[bytes] = []
        self.back: list[bytes] = []
        self.failures: list[Failure] = []
        self.returned = 0
        self.watchdog = Watchdog(5.0)
        self.watchdog.start(asyncio.get_running_loop())
        self.supervisor = Supervisor(lambda *_: None)
        self.chains: list[DatagramChain] = []

    def chain(self, *filters: DataFilter) -> DatagramChain:
        connection: Any = object()
        chain = DatagramChain(
            connection,
            [Attached(f.priority, f, type(f).__name__) for f in filters],
            to_external=lambda data, _: self.out.append(data),
            to_internal=lambda data, _: self.back.append(data),
            peer=NAME,
            watchdog=self.watchdog,
            on_failure=lambda failure, _: self.failures.append(failure),
            on_returned=self._count,
        )
        self.chains.append(chain)
        chain.start(self.supervisor)
        return chain

    def _count(self) -> None:
        self.returned += 1


@pytest.fixture
async def world(anyio_backend: str) -> AsyncIterator[World]:
    before = tasks()
    world = World()
    yield world
    for chain in world.chains:
        chain.close()
    await world.supervisor.close(5.0)
    world.watchdog.close()
    asyncio.get_running_loop().set_task_factory(None)
    assert tasks() <= before


async def echo(internal: Socket, external: Socket, connection: Connection) -> None:
    while True:
        await external.send(await internal.recv())


async def test_the_clients_datagrams_meet_the_filters_in_their_order_and_answers_the_other_way(
    world: World,
) -> None:
    chain = world.chain(Marking(b"2", Priority.EXTERNAL), Marking(b"1", Priority.NAT))
    chain.outward(b">", NAME)
    chain.inward(b"<", NAME)
    assert (world.out, world.back) == ([b">12"], [b"<21"])


async def test_a_mixed_chain_keeps_the_order(world: World) -> None:
    async def mark(internal: Socket, external: Socket, connection: Connection) -> None:
        while True:
            await external.send(await internal.recv() + b"2")

    chain = world.chain(Marking(b"1", Priority.NAT), Pumping(mark), Marking(b"3", Priority.EXTERNAL))
    chain.outward(b">", NAME)
    await wait_for(lambda: world.out == [b">123"], "it has passed them all")


async def test_a_filter_that_fails_ends_the_chain_once(world: World) -> None:
    async def fail(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv()
        raise Refuse("no")

    met: list[str] = []

    async def wait(internal: Socket, external: Socket, connection: Connection) -> None:
        try:
            await internal.recv()
        except Terminating as error:
            met.append(error.reason)
            raise

    chain = world.chain(Pumping(fail, Priority.NAT), Pumping(wait))
    chain.outward(b"x", NAME)
    await wait_for(lambda: bool(world.failures), "the failure")
    await wait_for(lambda: not len(world.supervisor), "both end")
    assert [failure.error.reason for failure in world.failures] == ["no"]
    chain.outward(b"late", NAME)
    chain.inward(b"late", NAME)
    assert (world.out, world.back, world.returned) == ([], [], 0)


@pytest.mark.parametrize("error", [ZeroDivisionError(), Refuse("no"), asyncio.CancelledError()])
async def test_a_stream_filter_that_raises_is_a_failure_and_its_datagram_is_lost(
    world: World, error: BaseException
) -> None:
    class Bad(Marking):
        def client_data(self, data: bytes) -> bytes:
            raise error

    world.chain(Bad(b"")).outward(b"x", NAME)
    assert len(world.failures) == 1
    assert world.out == []


async def test_a_stream_filter_that_returns_no_bytes_is_a_failure(world: World) -> None:
    class Bad(Marking):
        def server_data(self, data: bytes) -> bytes:
            return "text"  # type: ignore[return-value]  # the mistake

    world.chain(Bad(b"")).inward(b"x", NAME)
    assert [failure.error.reason for failure in world.failures] == ["filter_failed"]


async def test_a_stream_filter_may_have_seen_enough_before_the_first_datagram(world: World) -> None:
    class Gone(Marking):
        def start(self) -> None:
            self.seen_enough()

    world.chain(Gone(b"!"))
    assert world.returned == 1


async def test_what_a_filter_left_unread_goes_on_in_order_both_ways(world: World) -> None:
    go = asyncio.Event()

    async def leave(internal: Socket, external: Socket, connection: Connection) -> None:
        await go.wait()

    chain = world.chain(Marking(b"1", Priority.NAT), Pumping(leave), Marking(b"3", Priority.EXTERNAL))
    for payload in (b"a", b"b"):
        chain.outward(payload, NAME)
        chain.inward(payload, NAME)
    go.set()
    await wait_for(lambda: len(world.back) == 2, "they go on")
    assert (world.out, world.back) == ([b"a13", b"b13"], [b"a31", b"b31"])
    assert world.returned == 0  # the two stream filters are still there


async def test_returned_is_told_once(world: World) -> None:
    async def leave(internal: Socket, external: Socket, connection: Connection) -> None:
        return

    chain = world.chain(Pumping(leave), Pumping(leave))
    await wait_for(lambda: world.returned == 1, "both have returned")
    chain.outward(b"x", NAME)
    assert world.out == [b"x"]
    assert world.returned == 1


async def test_sockets_are_dead_after_the_pump(world: World) -> None:
    kept: list[Socket] = []

    async def keep(internal: Socket, external: Socket, connection: Connection) -> None:
        kept.extend([internal, external])

    world.chain(Pumping(keep))
    await wait_for(lambda: world.returned == 1, "it has returned")
    for held in kept:
        with pytest.raises(Terminating):
            await held.send(b"x")
        with pytest.raises(Terminating):
            await held.recv()


async def test_tasks_that_a_filter_started_end_with_the_chain(world: World) -> None:
    ended: list[bool] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def start(internal: Socket, external: Socket, connection: Connection) -> None:
        _ = asyncio.get_running_loop().create_task(linger())
        await asyncio.Event().wait()

    chain = world.chain(Pumping(start))
    for _ in range(3):
        await asyncio.sleep(0)
    chain.close()
    await wait_for(lambda: ended == [True], "the task ends")


async def test_tasks_that_a_filter_left_behind_end_when_all_have_returned(world: World) -> None:
    ended: list[bool] = []

    async def linger() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def start(internal: Socket, external: Socket, connection: Connection) -> None:
        _ = asyncio.get_running_loop().create_task(linger())
        await asyncio.sleep(0)

    world.chain(Pumping(start))
    await wait_for(lambda: ended == [True], "the task ends")
    assert world.returned == 1


async def test_closing_before_the_first_step_runs_nothing(world: World) -> None:
    ran: list[bool] = []

    async def run(internal: Socket, external: Socket, connection: Connection) -> None:
        ran.append(True)

    world.chain(Pumping(run)).close()
    await wait_for(lambda: not len(world.supervisor), "its task ends")
    assert ran == []


async def test_what_a_filter_has_no_room_for_is_counted(world: World) -> None:
    chain = world.chain(Pumping(echo))
    for _ in range(300):
        chain.outward(b"x", NAME)
    assert chain.dropped == 44
