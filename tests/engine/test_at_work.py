"""Whose code is running is known in every handler and pump, and in the tasks that they start; nowhere else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.filters import Pumping
from tests.engine.rig import Plugin, Rig, entry

from doorward.api import Connection, EventKind, Socket
from doorward.engine.at_work import AT_WORK, as_work_of, entry_of

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]


def at_work() -> str | None:
    found = AT_WORK.get()
    return None if found is None else found.name


async def test_in_every_handler_pump_and_task_of_a_filter(make_rig: MakeRig) -> None:
    seen: list[tuple[str, str | None]] = []

    def note(what: str) -> Callable[[Any], Any]:
        async def handler(event: Any) -> None:
            await asyncio.sleep(0)
            seen.append((what, at_work()))

        return handler

    def pump(what: str) -> Pumping:
        async def run(internal: Socket, external: Socket, connection: Connection) -> None:
            async with asyncio.TaskGroup() as group:
                group.create_task(note(what)(None))

        return Pumping(run)

    async def attach(event: Any) -> None:
        event.connection.attach_data_filter(pump("pump"))
        await note("connect")(event)

    events = (EventKind.CONNECT, EventKind.ESTABLISHED, EventKind.RESOLVE)
    rig = make_rig(
        entry(Plugin("one", [], connect=attach, established=note("established"), terminating=note("end"))),
        entry(Plugin("two", [], connect=attach, resolve=note("resolve")), events=events),
    )
    talk = await rig.converse()
    await talk.both_ways(b"hello")
    talk.connection.kill()
    await rig.record()
    assert set(seen) == {
        ("connect", "one"),
        ("connect", "two"),
        ("established", "one"),
        ("end", "one"),
        ("pump", "one"),
        ("pump", "two"),
    }
    assert at_work() is None


async def test_one_within_the_other_and_nobody_after_a_failure() -> None:
    one, two = entry(Plugin("one", [])), entry(Plugin("two", []))

    async def inner() -> None:
        assert AT_WORK.get() is two
        raise ValueError("a mistake")

    async def outer() -> None:
        assert AT_WORK.get() is one
        with pytest.raises(ValueError, match="a mistake"):
            await as_work_of(two, inner())
        assert AT_WORK.get() is one

    await as_work_of(one, outer())
    assert AT_WORK.get() is None


async def test_what_is_given_up_may_be_closed_anywhere() -> None:
    async def wait() -> None:
        await asyncio.sleep(1)

    given_up = as_work_of(entry(Plugin("one", [])), wait())
    given_up.send(None)
    await asyncio.get_running_loop().create_task(_close(given_up))
    AT_WORK.set(None)


async def _close(coroutine: Any) -> None:
    coroutine.close()
    assert AT_WORK.get() is None


async def test_who_takes_part_is_found_by_name(make_rig: MakeRig) -> None:
    taking_part = entry(Plugin("one", []))
    rig = make_rig(taking_part)
    connection = await rig.connect()
    assert entry_of(connection, "one") is taking_part
    assert entry_of(connection, "two") is None
    connection.kill()
