"""Blocking calls run beside the loop, a few at a time, and end with their filter."""

from __future__ import annotations

import asyncio
import threading

import pytest

from doorward.api import OutOfResources, Terminating
from doorward.service.blocking import CALLS_MAX, THREADS, BlockingCalls

pytestmark = pytest.mark.anyio


async def test_what_it_returns_or_raises_comes_back() -> None:
    calls = BlockingCalls("asking")
    assert await calls.run(threading.get_ident) != threading.get_ident()
    assert await calls.run(int, "12") == 12
    with pytest.raises(ValueError, match="invalid literal"):
        await calls.run(int, "twelve")
    calls.close()


async def test_only_so_many_run_and_so_many_wait() -> None:
    calls, go, running = BlockingCalls("asking"), threading.Event(), threading.Semaphore(0)
    most = 0
    now = 0
    lock = threading.Lock()

    def block() -> None:
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        running.release()
        go.wait(5)
        with lock:
            now -= 1

    tasks = [asyncio.get_running_loop().create_task(calls.run(block)) for _ in range(CALLS_MAX)]
    await asyncio.sleep(0)
    with pytest.raises(OutOfResources):
        await calls.run(block)
    tasks[-1].cancel()
    await asyncio.sleep(0)
    with pytest.raises(OutOfResources):  # given up is not yet over
        await calls.run(block)
    go.set()
    await asyncio.wait(tasks)
    assert most <= THREADS
    assert await calls.run(int, "1") == 1
    calls.close()


async def test_after_the_end_nothing_begins_any_more() -> None:
    calls, go, ran = BlockingCalls("asking"), threading.Event(), threading.Event()
    blocking = [asyncio.get_running_loop().create_task(calls.run(go.wait, 5)) for _ in range(THREADS)]
    waiting = asyncio.get_running_loop().create_task(calls.run(ran.set))
    await asyncio.sleep(0)
    calls.close()
    with pytest.raises(Terminating):
        await calls.run(ran.set)
    go.set()
    await asyncio.wait([*blocking, waiting], timeout=5)
    assert not ran.is_set()
    with pytest.raises(Terminating):
        await waiting
