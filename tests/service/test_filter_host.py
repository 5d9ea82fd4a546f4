"""What a filter has started ends with it, and what it says carries its name."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from doorward.service.filter_host import FilterHost

pytestmark = pytest.mark.anyio


class Told:
    """A log that remembers."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, Any]]] = []
        self.errors: list[dict[str, Any]] = []

    def info(self, event: str, **fields: Any) -> None:
        self.lines.append((event, fields))

    def error(self, event: str, **fields: Any) -> None:
        self.errors.append(fields)


async def test_what_a_filter_says_carries_its_name() -> None:
    told = Told()
    FilterHost("counting", told).log("total", bytes=7)
    assert told.lines == [("total", {"filter": "counting", "bytes": 7})]


async def test_what_a_filter_has_spawned_ends_with_it() -> None:
    host = FilterHost("ticking", Told())
    ended = asyncio.Event()

    async def tick() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    host.spawn(tick(), name="tick")
    await asyncio.sleep(0)
    await host.close()
    assert ended.is_set()


async def test_what_a_task_raises_is_logged_and_nothing_more() -> None:
    told = Told()
    host = FilterHost("broken", told)

    async def task() -> None:
        raise ValueError("a mistake")

    host.spawn(task(), name="mine")
    for _ in range(5):
        await asyncio.sleep(0)
    assert (told.errors[0]["filter"], told.errors[0]["task"]) == ("broken", "mine")
    assert isinstance(told.errors[0]["error"], ValueError)


async def test_blocking_functions_run_in_another_thread() -> None:
    host = FilterHost("asking", Told())
    assert await host.run_blocking(threading.get_ident) != threading.get_ident()
