"""Blocking calls of one filter: a few threads of its own, so that it can hold up nobody but itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from doorward.api.errors import OutOfResources, Side, Terminating
from doorward.engine.supervision import is_being_cancelled

T = TypeVar("T")

THREADS: Final = 4
# Calls that run or wait. A call that was given up still counts until it comes back.
CALLS_MAX: Final = 256


class BlockingCalls:
    """See the module. Threads are started when they are needed."""

    def __init__(self, filter_name: str) -> None:
        self._name = filter_name
        self._threads: ThreadPoolExecutor | None = None
        self._calls = 0
        self._closed = False

    async def run(self, call: Callable[..., T], *arguments: object) -> T:
        """What the call returns or raises. When cancelled, the call goes on by itself, and its outcome is lost.

        Raises OutOfResources for too many calls at once, Terminating after the end.
        """
        if self._closed:
            raise Terminating("the filter has left")
        if self._calls >= CALLS_MAX:
            raise OutOfResources(f"{CALLS_MAX} blocking calls of this filter are under way", side=Side.OURS)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=f"filter {self._name}")
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(self._threads, call, *arguments)
        self._calls += 1
        running.add_done_callback(self._done)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if running.cancelled() and not is_being_cancelled():
                raise Terminating("the filter has left") from None
            raise

    def close(self) -> None:
        """Calls that have not begun never will; those that run end by themselves."""
        self._closed = True
        if self._threads is not None:
            self._threads.shutdown(wait=False, cancel_futures=True)

    def _done(self, running: asyncio.Future[T]) -> None:
        self._calls -= 1
        if not running.cancelled():
            running.exception()  # whoever waited has met it; nobody may have
