"""Filter code that will not be cancelled costs its own connection and nothing else, and not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.emulators import being
from tests.engine.filters import Copying, Pumping
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for

from doorward.api import Connection, Socket
from doorward.config.model import Limits
from doorward.engine import supervision

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervision, "LAST_TURN_S", 0.05)


async def waits_on() -> None:
    """Ignores every cancellation, and waits for what never comes."""
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue


async def turns_on() -> None:
    """Ignores every cancellation, and gives the loop its turns."""
    while True:
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            continue


async def ignores_everything() -> None:
    """Not even its end, the first time."""
    ends = 0
    while ends < 2:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            continue
        except GeneratorExit:
            ends += 1


async def waits_for_another() -> None:
    """A task of its own that ignores every cancellation."""
    async with asyncio.TaskGroup() as group:
        group.create_task(waits_on())


async def waits_at_its_end() -> None:
    """A `finally` that never comes to its own end."""
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.Event().wait()


STUBBORN = [waits_on, turns_on, ignores_everything, waits_for_another, waits_at_its_end]
stubborn = pytest.mark.parametrize("behave", STUBBORN)


@stubborn
@pytest.mark.parametrize("handler", ["connect", "established"])
async def test_a_stubborn_handler_loses_its_connection_after_its_deadline(
    make_rig: MakeRig, behave: Callable[[], Any], handler: str
) -> None:
    rig = make_rig(
        entry(Plugin("it", [], **{handler: lambda _: behave()})), limits=Limits(event_timeout_s=0.05)
    )
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_stalled"
    assert (await rig.record()).reason == "filter_stalled"
    rig.failures.clear()


@stubborn
async def test_a_stubborn_last_word_does_not_keep_the_record(
    make_rig: MakeRig, behave: Callable[[], Any]
) -> None:
    rig = make_rig(
        entry(Plugin("it", [], terminating=lambda _: behave())), limits=Limits(event_timeout_s=0.05)
    )
    (await rig.connect()).kill()
    assert (await rig.record()).end == "killed"
    rig.failures.clear()


@stubborn
@pytest.mark.parametrize("others", [0, 1])
async def test_a_stubborn_pump_ends_soon_after_its_connection(
    make_rig: MakeRig, behave: Callable[[], Any], others: int
) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv()
        await behave()

    rig = make_rig(
        entry(Plugin("it", [], connect=attaching(Pumping(pump), *(Copying() for _ in range(others)))))
    )
    talk = await rig.converse()
    await talk.client.send(b"x")
    talk.connection.kill()
    assert await talk.client.is_reset()
    assert await talk.server.is_reset()
    await asyncio.wait([talk.carried], timeout=5)
    assert talk.carried.done()
    assert (await rig.record()).end == "killed"


@stubborn
async def test_a_stubborn_server_ends_soon_after_its_connection(
    make_rig: MakeRig, behave: Callable[[], Any]
) -> None:
    async def serve(internal: Socket, connection: Connection) -> None:
        await behave()

    rig = make_rig(being(serve, Copying()))
    talk = await rig.emulated()
    await wait_for(lambda: talk.connection.chain_scope is not None, "it runs")
    talk.carried.cancel()
    await asyncio.wait([talk.carried], timeout=5)
    talk.client.close()
    assert talk.carried.done()
    await rig.record()
    rig.failures.clear()


async def test_who_gives_up_on_a_stubborn_handler_has_given_up(make_rig: MakeRig) -> None:
    asked = asyncio.Event()

    async def handle(_: object) -> None:
        asked.set()
        await waits_on()

    async def connect() -> None:
        await rig.connect()

    rig = make_rig(entry(Plugin("it", [], connect=handle)))
    connecting = rig.start(connect())
    await asked.wait()
    connecting.cancel()
    await asyncio.wait([connecting], timeout=5)
    assert connecting.cancelled()
    assert (await rig.record()).reason == "terminating"


async def test_deadlines_of_its_own_do_not_count_as_being_cancelled(make_rig: MakeRig) -> None:
    async def waits_long() -> None:
        """Longer than a last turn."""
        late = asyncio.Event()
        asyncio.get_running_loop().call_later(0.1, late.set)
        await late.wait()

    async def waits(turns: int) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(turns):
                await asyncio.sleep(0)

    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        for turns in range(3):
            try:
                async with asyncio.timeout(0.001):
                    await waits(turns)
            except TimeoutError:
                await waits_long()
        task = asyncio.get_running_loop().create_task(asyncio.Event().wait())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        await waits_long()
        await Copying().pump(internal, external, connection)

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(pump)))))
    talk = await rig.converse()
    await talk.both_ways(b"hello")
    await talk.end()
    assert (await rig.record()).end == "closed"


async def test_cleaning_up_within_its_last_turn_is_no_fault(make_rig: MakeRig) -> None:
    cleaned: list[str] = []

    async def handle(_: object) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append("up")

    rig = make_rig(entry(Plugin("it", [], connect=handle)), limits=Limits(event_timeout_s=0.02))
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.refusal.detail.startswith("an event handler did not come back")
    assert cleaned == ["up"]
    rig.failures.clear()
