"""Tasks have owners, and code that holds the loop costs its own connection and not the firewall."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import pytest
from tests.engine.filters import Copying, Pumping
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for

from doorward.api import (
    Connection,
    DoorwardError,
    FilterFailed,
    FilterStalled,
    Socket,
    StreamFilter,
    Terminating,
)
from doorward.engine.supervision import ADOPTED_MAX, Holder, Supervisor, Watchdog, Watched

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
STALL_S = 0.2
# Long enough to be told from a stall that was cut short, short enough not to be waited for in vain.
BLOCK_S = 4.0


def block() -> None:
    time.sleep(BLOCK_S)


def spin() -> None:
    while True:
        pass


def spin_stubbornly() -> None:
    while True:
        try:
            time.sleep(0.01)
        except Exception:  # noqa: S110 - the mistake in question
            pass


WAYS = pytest.mark.parametrize("hold", [block, spin, spin_stubbornly])


async def expect_contained(rig: Rig, reason: str = "filter_stalled") -> None:
    """Connection 1 has failed, and another one still works."""
    await wait_for(lambda: bool(rig.recorder.records), "a record")
    (record,) = rig.recorder.records
    assert (record.connection, record.action, record.reason) == (1, "fail", reason)


@WAYS
async def test_a_handler_that_holds_the_loop_costs_its_own_connection(
    make_rig: MakeRig, hold: Callable[[], None]
) -> None:
    async def handle(event: object) -> None:
        if event.connection.id == 1:  # type: ignore[attr-defined]  # a ConnectEvent
            hold()

    rig = make_rig(entry(Plugin("it", [], connect=handle)), stall_s=STALL_S)
    connection = await rig.connect()
    assert connection.refusal is not None
    await expect_contained(rig)
    await (await rig.converse()).both_ways(b"afterwards")


@WAYS
async def test_a_pump_that_holds_the_loop_costs_its_own_connection(
    make_rig: MakeRig, hold: Callable[[], None]
) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        if connection.id == 1:
            await internal.recv()
            hold()
        await Copying().pump(internal, external, connection)

    async def attach(event: object) -> None:
        await attaching(Pumping(pump))(event)

    rig = make_rig(entry(Plugin("it", [], connect=attach)), stall_s=STALL_S)
    bad, good = await rig.converse(), await rig.converse()
    await bad.client.send(b"x")
    await good.both_ways(b"meanwhile")
    assert await bad.client.is_reset()
    assert await bad.server.is_reset()
    await expect_contained(rig)
    await good.both_ways(b"afterwards")


@WAYS
async def test_a_stream_filter_that_holds_the_loop_costs_its_own_connection(
    make_rig: MakeRig, hold: Callable[[], None]
) -> None:
    class Holding(StreamFilter):
        def client_data(self, data: bytes) -> bytes:
            if self.connection.id == 1:
                hold()
            return data

    async def attach(event: object) -> None:
        await attaching(Holding(), StreamFilter())(event)

    rig = make_rig(entry(Plugin("it", [], connect=attach)), stall_s=STALL_S)
    bad, good = await rig.converse(), await rig.converse()
    await bad.client.send(b"x")
    assert await bad.client.is_reset()
    await expect_contained(rig)
    await good.both_ways(b"afterwards")


async def test_a_task_of_a_filter_that_holds_the_loop_is_cut_short_too(make_rig: MakeRig) -> None:
    ended: list[BaseException] = []

    async def hold() -> None:
        try:
            block()
        except BaseException as error:
            ended.append(error)
            raise

    async def handle(_: object) -> None:
        _ = asyncio.create_task(hold())  # noqa: RUF006, TID251 - the mistake in question

    rig = make_rig(entry(Plugin("it", [], connect=handle)), stall_s=STALL_S)
    began = time.monotonic()
    talk = await rig.converse()
    await talk.both_ways(b"x")
    assert len(ended) == 1
    assert time.monotonic() - began < BLOCK_S


async def test_a_task_of_a_filter_that_asks_to_exit_does_not_end_the_process(make_rig: MakeRig) -> None:
    async def leave() -> None:
        raise SystemExit(1)

    async def handle(_: object) -> None:
        _ = asyncio.create_task(leave())  # noqa: RUF006, TID251 - the mistake in question

    rig = make_rig(entry(Plugin("it", [], connect=handle)))
    await (await rig.converse()).both_ways(b"x")


async def test_code_that_only_waits_holds_nothing(make_rig: MakeRig) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv()
        await asyncio.sleep(STALL_S * 2)
        await external.send(b"done")

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(pump)))), stall_s=STALL_S)
    talk = await rig.converse()
    await talk.client.send(b"x")
    assert await talk.server.exactly(4) == b"done"


async def test_what_a_supervised_task_raises_is_told_with_its_name() -> None:
    told: list[tuple[str, BaseException]] = []

    async def fail() -> None:
        raise ValueError("mine")

    supervisor = Supervisor(lambda name, error: told.append((name, error)))
    supervisor.spawn(fail(), name="it")
    assert len(supervisor) == 1
    await wait_for(lambda: len(supervisor) == 0, "it has ended")
    assert [(name, str(error)) for name, error in told] == [("it", "mine")]


async def test_closing_cancels_what_runs_and_tells_nobody() -> None:
    told: list[str] = []
    supervisor = Supervisor(lambda name, error: told.append(name))
    supervisor.spawn(asyncio.Event().wait(), name="it")  # type: ignore[arg-type]  # what it returns is nobody's business
    await supervisor.close(5.0)
    assert len(supervisor) == 0
    assert told == []


async def test_last_words_are_heard_even_if_they_had_not_begun_and_those_of_the_cancelled_too() -> None:
    said: list[str] = []
    supervisor = Supervisor(lambda name, error: None)

    async def say(what: str) -> None:
        await asyncio.sleep(0)
        said.append(what)

    async def serve() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            supervisor.spawn(say("second"), name="words", last_words=True)

    supervisor.spawn(serve(), name="serving")
    await asyncio.sleep(0)
    supervisor.spawn(say("first"), name="words", last_words=True)
    await supervisor.close(5.0)
    assert said == ["first", "second"]
    assert len(supervisor) == 0


async def test_last_words_without_end_are_cut_short_at_the_deadline() -> None:
    cut: list[str] = []

    async def say() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cut.append("written all the same")

    supervisor = Supervisor(lambda name, error: None)
    supervisor.spawn(say(), name="words", last_words=True)
    await supervisor.close(0.05)
    assert cut == ["written all the same"]


async def test_a_process_task_that_a_filter_asks_for_outlives_its_connection(make_rig: MakeRig) -> None:
    done = asyncio.Event()
    ended: list[bool] = []

    async def work() -> None:
        await done.wait()
        ended.append(True)

    async def handle(_: object) -> None:
        rig.supervisor.spawn(work(), name="filter task")

    rig = make_rig(entry(Plugin("it", [], connect=handle)))
    (await rig.connect()).kill()
    await rig.record()
    done.set()
    await wait_for(lambda: bool(ended), "it ran to its end")


async def test_a_filter_has_a_limit_of_tasks() -> None:
    holder = Holder()
    loop = asyncio.get_running_loop()
    for _ in range(ADOPTED_MAX):
        holder.adopt(loop.create_task(asyncio.Event().wait()))
    one_more = loop.create_task(asyncio.Event().wait())
    with pytest.raises(FilterFailed, match="tasks at once"):
        holder.adopt(one_more)
    holder.end()
    await wait_for(lambda: not holder.tasks and one_more.done(), "all have ended")


async def test_nothing_can_be_started_after_the_end() -> None:
    holder = Holder()
    holder.end()
    task = asyncio.get_running_loop().create_task(asyncio.Event().wait())
    with pytest.raises(Terminating):
        holder.adopt(task)
    await wait_for(task.done, "it has ended")
    assert task.cancelled()


async def test_the_watchdog_can_be_closed_twice_and_before_it_was_started() -> None:
    watchdog = Watchdog(1.0)
    watchdog.close()
    watchdog.close()


async def test_a_watched_coroutine_is_a_coroutine_like_any_other() -> None:
    async def inner(value: str) -> str:
        await asyncio.sleep(0)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return value
        return "never"

    watchdog, holder = Watchdog(1.0), Holder()
    task = asyncio.get_running_loop().create_task(Watched(watchdog, holder, inner("result")))
    for _ in range(3):
        await asyncio.sleep(0)
    task.cancel()
    assert await task == "result"
    assert watchdog.running is None


@pytest.mark.parametrize(("error", "kind"), [(SystemExit(1), FilterFailed), (KeyError("x"), KeyError)])
def test_what_would_end_the_process_becomes_a_failure_and_the_rest_stays_what_it_is(
    error: BaseException, kind: type[BaseException]
) -> None:
    def fail() -> None:
        raise error

    watchdog = Watchdog(1.0)
    with pytest.raises(kind):
        watchdog.run(Holder(), fail)
    assert watchdog.running is None
    assert issubclass(FilterStalled, DoorwardError)


async def test_a_task_that_has_not_begun_when_the_process_ends_comes_to_its_finally() -> None:
    supervisor = Supervisor(lambda name, error: None)
    told: list[str] = []

    async def hold() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            told.append("closed")

    supervisor.spawn(hold(), name="hold")
    await supervisor.close(1.0)
    assert told == ["closed"]
