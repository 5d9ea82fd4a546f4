"""Ends what was silent for its whole limit. Thousands of idle pairs share one timer, and moving a byte costs one store.

Each entry of the heap is a guess: when it is due, the item is asked when it last moved, and either ends or is
looked at again later.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar

# Due items are looked for in steps, so that those due at nearly the same time share a turn.
STEP_S: Final = 0.05
# Entries of ended items are swept out once they outnumber the living by this many.
ENTRIES_MIN: Final = 1024


class Idler(Protocol):
    """Something that may fall silent. `last` is the loop's time of its last byte; `over` once it has ended."""

    @property
    def last(self) -> float: ...
    @property
    def over(self) -> bool: ...
    @property
    def id(self) -> int: ...
    @property
    def idle_s(self) -> float: ...


I = TypeVar("I", bound=Idler)  # noqa: E741 - an idler


class IdleQueue(Generic[I]):
    """Calls `on_idle` for each item that was silent for its `idle_s`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_idle: Callable[[I], None]) -> None:
        self._loop = loop
        self._on_idle = on_idle
        self._heap: list[tuple[float, int, I]] = []
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def watch(self, item: I, alive: int) -> None:
        """Look after this item until it is over. `alive` is how many there are, to know when to sweep."""
        if len(self._heap) > ENTRIES_MIN + 2 * alive:
            self._heap = [entry for entry in self._heap if not entry[2].over]
            heapq.heapify(self._heap)
        heapq.heappush(self._heap, (item.last + item.idle_s, item.id, item))
        self._schedule()

    def close(self) -> None:
        """Stop looking."""
        if self._timer is not None:
            self._timer.cancel()
        self._heap.clear()

    def _schedule(self) -> None:
        if not self._heap:
            return
        at = max(self._heap[0][0], self._loop.time() + STEP_S)
        if self._timer is not None:
            if self._timer.when() <= at:
                return
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        while self._heap and self._heap[0][0] <= now:
            _, item_id, item = heapq.heappop(self._heap)
            if item.over:
                continue
            expires = item.last + item.idle_s
            if expires <= now:
                self._on_idle(item)
            else:
                heapq.heappush(self._heap, (expires, item_id, item))
        self._schedule()
