"""Who owns tasks, and what keeps filter code from holding the loop.

Every task has an owner that waits for it: the process's `Supervisor`, or the `Holder` of one connection, which
adopts whatever tasks a filter starts and ends them with the connection. While filter code runs, the `Watchdog`
knows whose it is; when one step of it holds the loop for too long, a signal raises FilterStalled inside that
code, so that a busy loop or a blocking call costs its own connection and not the firewall.
"""

from __future__ import annotations

import asyncio
import signal
import threading
import time
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, TypeVar

from doorward.api.errors import FilterFailed, FilterStalled

T = TypeVar("T")

# Tasks one connection's filters may have running at once.
ADOPTED_MAX: Final = 256
STALL_SIGNAL: Final = signal.SIGRTMIN + 5

OnFailure = Callable[[str, BaseException], None]


class Supervisor:
    """Runs tasks that belong to the process. What one raises goes to `on_failure` with its name."""

    def __init__(self, on_failure: OnFailure) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._on_failure = on_failure

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        """Run it until it ends."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    async def close(self, timeout_s: float) -> None:
        """Cancel what runs and wait for it, no longer than the deadline."""
        tasks = set(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=timeout_s)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)


class Holder:
    """What belongs to one connection's filters: the tasks they started."""

    __slots__ = ("tasks",)

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Take over a task that filter code started."""
        if len(self.tasks) >= ADOPTED_MAX:
            task.cancel()
            raise FilterFailed(f"more than {ADOPTED_MAX} tasks at once")
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def end(self) -> None:
        """Cancel what still runs."""
        for task in tuple(self.tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its connection has been told in its own way; nothing is to be printed at exit


class Watchdog:
    """Knows whose filter code is running. `enter` and `leave` are on the path of every filtered chunk: two stores."""

    def __init__(self, stall_s: float) -> None:
        self.stall_s = stall_s
        self.running: Holder | None = None
        self.turn = 0
        self._accused = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def enter(self, holder: Holder) -> None:
        """Filter code begins."""
        self.turn += 1
        self.running = holder

    def leave(self) -> None:
        """Filter code is over."""
        self.running = None

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Watch from a thread, and adopt the tasks that filters start. To be called in the main thread."""
        loop.set_task_factory(self._make_task)
        signal.signal(STALL_SIGNAL, self._interrupt)
        self._thread = threading.Thread(
            target=self._watch, args=(threading.get_ident(),), daemon=True, name="watchdog"
        )
        self._thread.start()

    def close(self) -> None:
        """Stop watching. Idempotent."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _make_task(
        self,
        loop: asyncio.AbstractEventLoop,
        coroutine: Coroutine[Any, Any, T] | Generator[Any, None, T],
        **kw: Any,
    ) -> asyncio.Task[T]:
        holder = self.running
        if holder is None:
            return asyncio.Task(coroutine, loop=loop, **kw)
        task: asyncio.Task[T] = asyncio.Task(Watched(self, holder, coroutine), loop=loop, **kw)  # type: ignore[arg-type]  # never a generator here
        holder.adopt(task)
        return task

    def _watch(self, main_thread: int) -> None:
        seen, since = -1, 0.0
        while not self._stop.wait(self.stall_s / 4):
            if self.running is None or self.turn != seen:
                seen, since = self.turn, time.monotonic()
            elif time.monotonic() - since >= self.stall_s:
                self._accused = seen
                signal.pthread_kill(main_thread, STALL_SIGNAL)
                since = time.monotonic()

    def _interrupt(self, number: int, frame: object) -> None:
        """Runs in the main thread, in the middle of whatever it does; only the accused step is interrupted."""
        if self.running is not None and self.turn == self._accused:
            raise FilterStalled(f"filter code held the loop for {self.stall_s:g} s")


class Watched(Coroutine[Any, Any, T]):
    """A coroutine of filter code, each step of which is known to the watchdog."""

    __slots__ = ("_coroutine", "_holder", "_watchdog")

    def __init__(self, watchdog: Watchdog, holder: Holder, coroutine: Coroutine[Any, Any, T]) -> None:
        self._watchdog = watchdog
        self._holder = holder
        self._coroutine = coroutine

    def send(self, value: Any) -> Any:
        """One step."""
        self._watchdog.enter(self._holder)
        try:
            return self._coroutine.send(value)
        finally:
            self._watchdog.leave()

    def throw(self, *args: Any) -> Any:
        """One step that begins with an exception."""
        self._watchdog.enter(self._holder)
        try:
            return self._coroutine.throw(*args)
        finally:
            self._watchdog.leave()

    def close(self) -> None:
        """No more steps."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, T]:
        try:
            wanted = self.send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]  # what the coroutine returned
        return (yield from self.drive(wanted))

    def drive(self, wanted: Any) -> Generator[Any, Any, T]:
        """Go on to the end after a step that waits for `wanted`; whatever is thrown in belongs to the coroutine."""
        while True:
            thrown: BaseException | None = None
            value: Any = None
            try:
                value = yield wanted
            except GeneratorExit:
                self.close()
                raise
            except BaseException as error:
                thrown = error
            try:
                wanted = self.send(value) if thrown is None else self.throw(thrown)
            except StopIteration as stop:
                return stop.value  # type: ignore[no-any-return]  # what the coroutine returned
