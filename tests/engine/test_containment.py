"""Whatever filter code does costs its own connection, closed and on record with a reason, and no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from tests.engine.filters import Copying, Leaving, Pumping
from tests.engine.rig import Plugin, Rig, attaching, entry, wait_for

from doorward.api import Connection, DataFilter, PeerReset, Refuse, Socket, StreamFilter, Terminating
from doorward.engine.containment import contained

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


@pytest.mark.parametrize(
    ("errors", "reason"),
    [
        ([ConnectionError("x")], "filter_failed"),
        ([Refuse("no")], "no"),
        ([ExceptionGroup("inner", [Refuse("no")])], "no"),
        ([PeerReset("x"), Terminating("x")], "reset"),
        ([PeerReset("x"), Refuse("no")], "no"),
        ([Terminating("x"), ValueError("mine")], "filter_failed"),
        ([TimeoutError()], "filter_stalled"),
    ],
)
def test_of_a_group_of_errors_what_the_filter_did_counts_before_what_it_met(
    errors: list[Exception], reason: str
) -> None:
    assert contained(ExceptionGroup("a task group", errors)).reason == reason


async def test_refuse_inside_a_task_group_is_a_refusal(make_rig: MakeRig) -> None:
    async def refuse(internal: Socket, external: Socket) -> None:
        await internal.recv()
        raise Refuse("not_today")

    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(refuse(internal, external))
            group.create_task(external.recv())

    rig = make_rig(entry(Plugin("it", [], connect=attaching(Pumping(pump)))))
    talk = await rig.converse()
    await talk.client.send(b"x")
    assert await talk.client.is_reset()
    record = await rig.record()
    assert (record.action, record.reason) == ("deny", "not_today")


async def test_refuse_resets_both_sides_with_its_reason_on_record(make_rig: MakeRig) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        await external.send(await internal.recv())
        raise Refuse("not_today", "it said please")

    plugin = Plugin("strict", [], connect=attaching(Pumping(pump)))
    rig = make_rig(entry(plugin))
    talk = await rig.converse()
    await talk.client.send(b"please")
    assert await talk.client.is_reset()
    assert await talk.server.is_reset()
    record = await rig.record()
    assert (record.action, record.reason, record.end, record.ended_by) == (
        "deny",
        "not_today",
        "not_today",
        "ours",
    )
    assert record.filters == '[["strict","attached",""],["strict","denied","not_today"]]'
    assert record.bytes_sent == 6
    assert rig.failures == []
    await wait_for(lambda: bool(plugin.ends), "it hears of the end")
    assert (plugin.ends[0].end, plugin.ends[0].bytes_sent) == ("not_today", 6)


@pytest.mark.parametrize("moment", ["before", "during", "after"])
@pytest.mark.parametrize("neighbours", [0, 1])
async def test_a_filter_that_raises_costs_its_own_connection_and_no_other(
    make_rig: MakeRig, moment: str, neighbours: int
) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        if connection.id == 1:
            if moment == "before":
                raise ZeroDivisionError("mine")
            await external.send(await internal.recv())
            if moment == "after":
                await external.send(await internal.recv())
            raise ZeroDivisionError("mine")
        await Copying().pump(internal, external, connection)

    async def attach(event: object) -> None:
        await attaching(Pumping(pump), *(Copying() for _ in range(neighbours)))(event)

    rig = make_rig(entry(Plugin("broken", [], connect=attach)))
    bad = await rig.converse()
    good = await rig.converse()
    await good.both_ways(b"meanwhile")
    if moment != "before":
        await bad.client.send(b"bytes")
        await bad.server.exactly(5)
    if moment == "after":
        await bad.client.send(b"more")
    assert await bad.client.is_reset()
    assert await bad.server.is_reset()
    record = await rig.record()
    assert (record.connection, record.action, record.reason) == (1, "fail", "filter_failed")
    assert record.detail == "ZeroDivisionError: mine"
    assert record.filters is not None
    assert '["broken","failed","filter_failed"]' in record.filters
    assert [name for name, _ in rig.failures] == ["broken"]
    await good.both_ways(b"afterwards")


@pytest.mark.parametrize(
    "error",
    [SystemExit(3), asyncio.CancelledError(), TimeoutError("mine"), Refuse("no")],
    ids=lambda e: type(e).__name__,
)
@pytest.mark.parametrize("neighbours", [0, 1])
async def test_nothing_that_a_pump_raises_opens_the_connection_or_ends_the_process(
    make_rig: MakeRig, error: BaseException, neighbours: int
) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        raise error

    attach = attaching(Pumping(pump), *(Leaving(0) for _ in range(neighbours)))
    rig = make_rig(entry(Plugin("odd", [], connect=attach)))
    talk = await rig.converse()
    assert await talk.client.is_reset()
    assert await talk.server.is_reset()
    record = await rig.record()
    assert record.action in ("fail", "deny")
    assert record.reason in ("filter_failed", "filter_stalled", "no")


async def test_a_pump_that_is_no_coroutine_fails_closed(make_rig: MakeRig) -> None:
    class Plain(DataFilter):
        def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:  # type: ignore[override]  # the mistake in question
            return None

    rig = make_rig(entry(Plugin("plain", [], connect=attaching(Plain()))))
    talk = await rig.converse()
    assert await talk.client.is_reset()
    assert (await rig.record()).reason == "filter_failed"


async def test_a_stream_filter_that_returns_something_else_fails_under_its_own_name(
    make_rig: MakeRig,
) -> None:
    class Wrong(StreamFilter):
        def client_data(self, data: bytes) -> bytes:
            return "text"  # type: ignore[return-value]  # the mistake in question

    plugins = [
        entry(Plugin("fine", [], connect=attaching(StreamFilter()))),
        entry(Plugin("wrong", [], connect=attaching(Wrong()))),
    ]
    rig = make_rig(*plugins)
    talk = await rig.converse()
    await talk.client.send(b"x")
    assert await talk.client.is_reset()
    record = await rig.record()
    assert (record.reason, record.detail) == (
        "filter_failed",
        "a stream filter returned str in place of bytes",
    )
    assert record.filters is not None
    assert '["wrong","failed","filter_failed"]' in record.filters


@pytest.mark.parametrize("where", ["pump", "on_connect"])
async def test_tasks_that_filter_code_leaves_behind_end_with_the_connection(
    make_rig: MakeRig, where: str
) -> None:
    ended = asyncio.Event()

    async def leak() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    def start() -> None:
        _ = asyncio.create_task(leak())  # noqa: RUF006, TID251 - the mistake in question

    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        if where == "pump":
            start()
        await Copying().pump(internal, external, connection)

    async def attach(event: object) -> None:
        if where == "on_connect":
            start()
        await attaching(Pumping(pump))(event)

    rig = make_rig(entry(Plugin("leaky", [], connect=attach)))
    talk = await rig.converse()
    await talk.both_ways(b"x")
    assert not ended.is_set()
    await talk.end()
    await rig.record()
    async with asyncio.timeout(2):
        await ended.wait()


async def test_a_task_that_goes_on_reading_after_its_pump_fails_the_connection_closed(
    make_rig: MakeRig,
) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        _ = asyncio.create_task(internal.recv())  # noqa: RUF006, TID251 - the mistake in question
        await asyncio.sleep(0)

    rig = make_rig(entry(Plugin("leaky", [], connect=attaching(Pumping(pump)))))
    talk = await rig.converse()
    assert await talk.client.is_reset()
    record = await rig.record()
    assert record.reason == "filter_failed"
    assert record.detail is not None
    assert "still waits" in record.detail


async def test_a_task_that_the_pump_cancels_on_leaving_is_no_fault(make_rig: MakeRig) -> None:
    async def pump(internal: Socket, external: Socket, connection: Connection) -> None:
        reading = asyncio.create_task(internal.recv())  # noqa: TID251 - as authors write it
        await asyncio.sleep(0)
        reading.cancel()

    rig = make_rig(entry(Plugin("brisk", [], connect=attaching(Pumping(pump)))))
    talk = await rig.converse()
    await wait_for(lambda: talk.connection.relay_id is not None, "the relay has it")
    await talk.both_ways(b"on it goes")
