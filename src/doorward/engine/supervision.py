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
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Final, NoReturn, TypeVar

from doorward.api.errors import DoorwardError, FilterFailed, FilterStalled, Terminating

T = TypeVar("T")

# Tasks one connection's filters may have running at once.
ADOPTED_MAX: Final = 256
STALL_SIGNAL: Final = signal.SIGRTMIN + 5
# Looks within the time that code may hold the loop, so a stall ends at most a quarter late.
LOOKS: Final = 4
# What a task still has when it is cancelled past a deadline: enough for its `finally`.
LAST_TURN_S: Final = 0.5

OnFailure = Callable[[str, BaseException], None]


class HeldLoop(BaseException):
    """What the signal raises: no `except Exception` of a filter swallows it. `Watchdog.run` makes it FilterStalled."""


def is_being_cancelled() -> bool:
    """Whether the owner of the running task has cancelled it. If not, a CancelledError is a filter's own doing."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Supervisor:
    """Runs tasks that belong to the process. What one raises goes to `on_failure` with its name."""

    def __init__(self, on_failure: OnFailure) -> None:
        self._tasks: dict[asyncio.Task[None], bool] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_failure = on_failure

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str, last_words: bool = False) -> None:
        """Run it until it ends. Last words (a record to be written) are waited for at the end, not cancelled."""
        # Not through the loop's factory: a filter that asks for this must not have it die with its connection.
        if self._loop is None:  # kept: asking for it is a system call
            self._loop = asyncio.get_running_loop()
        task = asyncio.Task(coroutine, loop=self._loop, name=name)
        self._tasks[task] = last_words
        task.add_done_callback(self._ended)

    async def close(self, timeout_s: float) -> None:
        """Cancel what runs, hear last words to their end, and wait for both, no longer than the deadline."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        cancelled: set[asyncio.Task[None]] = set()
        await asyncio.sleep(0)  # one that has not begun when it is cancelled never comes to its `finally`
        while (
            self._tasks and (left_s := deadline - loop.time()) > 0
        ):  # one that ends may have started another
            for task in [t for t, last_words in self._tasks.items() if not last_words and t not in cancelled]:
                task.cancel()
                cancelled.add(task)
            await asyncio.wait(self._tasks, timeout=left_s, return_when=asyncio.FIRST_COMPLETED)
        for task in tuple(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LAST_TURN_S)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_failure(task.get_name(), error)


class Holder:
    """What belongs to one connection's filters, or to a filter itself: the tasks they started."""

    __slots__ = ("ended", "tasks", "tasks_max")

    def __init__(self, tasks_max: int = ADOPTED_MAX) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.tasks_max = tasks_max
        self.ended = False

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Take over a task that filter code started. Raises FilterFailed for too many, Terminating after the end."""
        if self.ended:
            task.cancel()
            raise Terminating("this connection has ended")
        if len(self.tasks) >= self.tasks_max:
            task.cancel()
            raise FilterFailed(f"more than {self.tasks_max} tasks at once")
        self.tasks.add(task)
        task.add_done_callback(self._ended)

    def end(self) -> None:
        """Cancel what still runs; nothing may be started from now on."""
        self.ended = True
        for task in tuple(self.tasks):
            task.cancel()

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self.tasks.discard(task)
        if not task.cancelled():
            task.exception()  # its connection has been told in its own way; nothing is to be printed at exit


class Watchdog:
    """Knows whose filter code is running. `run` is on the path of every filtered chunk: a call and two stores."""

    def __init__(self, stall_s: float) -> None:
        self.stall_s = stall_s
        self.running: Holder | None = None
        self.turn = 0
        self._accused = -1
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def run(self, holder: Holder, function: Callable[..., T], *arguments: Any) -> T:
        """One step of filter code. Raises what it raises; what would end the process becomes FilterFailed."""
        self.turn += 1
        before, self.running = (
            self.running,
            holder,
        )  # a filter's own socket may have other filters asked meanwhile
        try:
            return function(*arguments)
        except (HeldLoop, SystemExit, KeyboardInterrupt, GeneratorExit) as error:
            raise _as_failure(error) from error
        finally:
            self.running = before

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
        task: asyncio.Task[T] = asyncio.Task(Watched(self, holder, coroutine, adopted=True), loop=loop, **kw)  # type: ignore[arg-type]  # never a generator here
        holder.adopt(task)
        return task

    def _watch(self, main_thread: int) -> None:
        """Looks are counted and no time is taken: a process that was stopped for a while accuses nobody."""
        seen, looks = -1, 0
        while not self._stop.wait(self.stall_s / LOOKS):
            if self.running is None or self.turn != seen:
                seen, looks = self.turn, 0
                continue
            looks += 1
            if looks >= LOOKS:
                self._accused = seen
                signal.pthread_kill(main_thread, STALL_SIGNAL)
                looks = 0

    def _interrupt(self, number: int, frame: object) -> None:
        """Runs in the main thread, in the middle of whatever it does; only the accused step is interrupted."""
        if self.running is not None and self.turn == self._accused:
            raise HeldLoop(f"filter code held the loop for {self.stall_s:g} s")


def _as_failure(error: BaseException) -> DoorwardError:
    if isinstance(error, HeldLoop):
        return FilterStalled(str(error))
    return FilterFailed(f"{type(error).__name__}: {error}")


class Watched(Coroutine[Any, Any, T]):
    """A coroutine of filter code, each step of which is known to the watchdog."""

    __slots__ = ("_adopted", "_coroutine", "_holder", "_last_turn", "_watchdog")

    def __init__(
        self, watchdog: Watchdog, holder: Holder, coroutine: Coroutine[Any, Any, T], *, adopted: bool = False
    ) -> None:
        """`adopted`: it is a task of its own, which a filter has started."""
        self._watchdog = watchdog
        self._holder = holder
        self._coroutine = coroutine
        self._adopted = adopted
        self._last_turn: _LastTurn | None = None

    def send(self, value: Any) -> Any:
        """One step."""
        if self._last_turn is not None:
            return self._wind_up(self._last_turn, self._coroutine.send, value)
        return self._watchdog.run(self._holder, self._coroutine.send, value)

    def throw(self, *args: Any) -> Any:
        """One step that begins with an exception."""
        if self._last_turn is not None:
            return self._wind_up(self._last_turn, self._coroutine.throw, *args)
        wanted = self._watchdog.run(self._holder, self._coroutine.throw, *args)
        if isinstance(args[0], asyncio.CancelledError) and is_being_cancelled():
            self._last_turn = _LastTurn(wanted)
        return wanted

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

    def _wind_up(self, last_turn: _LastTurn, step: Callable[..., Any], *arguments: Any) -> Any:
        """One step of who was cancelled and waits on. Raises FilterStalled when its time is over.

        A deadline of its own that has passed looks the same, until it is out of its block.
        """
        if last_turn.over:
            self._give_up()
        try:
            last_turn.wanted = self._watchdog.run(self._holder, step, *arguments)
        except BaseException:  # its end
            last_turn.timer.cancel()
            raise
        if not is_being_cancelled():
            last_turn.timer.cancel()
            self._last_turn = None
        return last_turn.wanted

    def _give_up(self) -> NoReturn:
        try:
            self._watchdog.run(self._holder, self._coroutine.close)
        except Exception as error:
            raise FilterStalled("it would not be cancelled, nor closed") from error
        if self._adopted:
            raise asyncio.CancelledError  # what its owner, a filter, has asked for
        raise FilterStalled(f"it went on for {LAST_TURN_S:g} s after it was cancelled")


class _LastTurn:
    """The moment that is left to who was cancelled; after it, whatever it waits for ends the waiting."""

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted
        self.over = False
        self.timer = asyncio.get_running_loop().call_later(LAST_TURN_S, self._end)

    def _end(self) -> None:
        self.over = True
        if self.wanted is not None:
            self.wanted.cancel()
