"""The chain of data filters of a mapping, or of one destination of it.

    client's side ── stage ── stage ── … ── far ends

A stage is one data filter. Each has a queue for each direction; there are no joints, since a datagram needs no order,
no end and no back-pressure. A stage whose filter has returned is stepped over, and what was in its queues goes on.
Stream filters see each datagram as a chunk: at once, in no task; what they return empty is dropped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from doorward.api.errors import DoorwardError, FilterFailed, Terminating
from doorward.api.filters import StreamFilter
from doorward.engine.at_work import as_work_of, entry_of
from doorward.engine.chain import Attached, Failure
from doorward.engine.containment import contained
from doorward.engine.supervision import Holder, Supervisor, Watchdog, Watched, is_being_cancelled
from doorward.engine.udp.destination import AT_DESTINATION
from doorward.engine.udp.ends import DatagramEnd, DatagramQueue, OnSend

if TYPE_CHECKING:
    from doorward.api.contracts import Connection
    from doorward.api.filters import DataFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.udp.destination import Destination

OnFailure: TypeAlias = Callable[[Failure, BaseException], None]


class Stage:
    """One place in the chain."""

    __slots__ = ("attached", "done", "external", "from_external", "from_internal", "internal", "stream")

    def __init__(self, attached: Attached, outward: OnSend, inward: OnSend, peer: SocketName | None) -> None:
        self.attached = attached
        self.done = False
        self.from_internal = DatagramQueue()
        self.from_external = DatagramQueue()
        self.internal = DatagramEnd(self.from_internal, inward, peer)
        self.external = DatagramEnd(self.from_external, outward, peer)
        is_stream = isinstance(attached.data_filter, StreamFilter)
        self.stream: StreamFilter | None = attached.data_filter if is_stream else None  # type: ignore[assignment]  # it is

    @property
    def dropped(self) -> int:
        return self.from_internal.dropped + self.from_external.dropped

    def end(self, error: DoorwardError) -> None:
        """Its filter holds nothing any more."""
        self.internal.end(error)
        self.external.end(error)


class DatagramChain:
    """Runs the stages. `to_external` and `to_internal` take what has passed them all.

    `on_failure` is told once, of the first stage that raises; `on_returned` once all have returned. `peer` is the
    one far end of a destination's chain, None for a mapping's; `destination` is what filters are said to work for.
    """

    def __init__(
        self,
        connection: Connection,
        attached: Sequence[Attached],
        *,
        to_external: OnSend,
        to_internal: OnSend,
        peer: SocketName | None,
        destination: Destination | None = None,
        watchdog: Watchdog,
        on_failure: OnFailure,
        on_returned: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._destination = destination
        self._to_external = to_external
        self._to_internal = to_internal
        self._watchdog = watchdog
        self._holder = Holder()  # of its own: a mapping may have hundreds of chains, and a holder has a cap
        self._on_failure = on_failure
        self._on_returned = on_returned
        self._closed = False
        self._returned = False
        self._tasks: set[asyncio.Task[None]] = set()
        self.stages = [
            Stage(item, self._sender(index + 1, outward=True), self._sender(index - 1, outward=False), peer)
            for index, item in enumerate(sorted(attached, key=lambda a: a.priority))
        ]

    @property
    def dropped(self) -> int:
        """Datagrams for which a filter's queue had no room."""
        return sum(stage.dropped for stage in self.stages)

    def start(self, supervisor: Supervisor) -> None:
        """Let the filters begin, each in a task of the supervisor's."""
        for stage in self.stages:
            if stage.stream is None:
                supervisor.spawn(self._run(stage), name="udp filter")
            else:
                stage.stream.connection = self._connection
                self._call(stage, stage.stream.start)
        self._look_whether_done()

    def outward(self, data: bytes, name: SocketName) -> None:
        """A datagram from the client's side, to `name`."""
        self._pass_outward(0, data, name)

    def inward(self, data: bytes, name: SocketName) -> None:
        """A datagram from `name`, for the client."""
        self._pass_inward(len(self.stages) - 1, data, name)

    def close(self, error: DoorwardError | None = None) -> None:
        """End every filter at once; what is in the queues is lost. Idempotent."""
        self._closed = True
        for stage in self.stages:
            stage.end(error or Terminating("the mapping has ended"))
        for task in tuple(self._tasks):
            task.cancel()
        self._holder.end()

    def _sender(self, index: int, *, outward: bool) -> OnSend:
        """What a filter's `send_to` leads to."""
        if outward:
            return lambda data, name: self._pass_outward(index, data, name)
        return lambda data, name: self._pass_inward(index, data, name)

    def _pass_outward(self, index: int, data: bytes, name: SocketName) -> None:
        for stage in self.stages[index:]:
            if stage.done:
                continue
            if stage.stream is None:
                stage.from_internal.put(data, name)
                return
            data = self._call(stage, stage.stream.client_data, data)
            if not data or self._closed:
                return
        if not self._closed:
            self._to_external(data, name)

    def _pass_inward(self, index: int, data: bytes, name: SocketName) -> None:
        for stage in reversed(self.stages[: index + 1]):
            if stage.done:
                continue
            if stage.stream is None:
                stage.from_external.put(data, name)
                return
            data = self._call(stage, stage.stream.server_data, data)
            if not data or self._closed:
                return
        if not self._closed:
            self._to_internal(data, name)

    def _call(self, stage: Stage, function: Callable[..., object], *arguments: object) -> bytes:
        """One step of a stream filter, contained; empty when it has failed."""
        assert stage.stream is not None
        before = AT_DESTINATION.set(self._destination)
        try:
            data = self._watchdog.run(self._holder, function, *arguments)
            if data is None and not arguments:
                data = b""
            if not isinstance(data, bytes | bytearray | memoryview):
                raise FilterFailed(f"a stream filter returned {type(data).__name__} in place of bytes")
        except (Exception, asyncio.CancelledError) as error:
            self._fail(stage, error)
            return b""
        finally:
            AT_DESTINATION.reset(before)
        if stage.stream.finished:
            stage.done = True
            self._look_whether_done()
        return bytes(data)

    async def _run(self, stage: Stage) -> None:
        """One filter's pump, contained. Nothing is raised but cancellation."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        AT_DESTINATION.set(self._destination)  # in this task
        pump = _pump(stage.attached.data_filter, stage, self._connection)
        try:
            if not self._closed:
                entry = entry_of(self._connection, stage.attached.name)
                await Watched(self._watchdog, self._holder, as_work_of(entry, pump))
        except asyncio.CancelledError as error:
            if is_being_cancelled() or self._closed:
                raise
            self._fail(stage, error)
        except Exception as error:
            self._fail(stage, error)
        else:
            self._step_over(stage)
        finally:
            pump.close()
            self._tasks.discard(task)
            stage.end(Terminating("this filter's pump is over"))

    def _step_over(self, stage: Stage) -> None:
        """Its filter has seen enough: what waits for it goes on, oldest first."""
        if self._closed:
            return
        stage.done = True
        index = self.stages.index(stage)
        for data, name in stage.from_internal.take_all():
            self._pass_outward(index + 1, data, name)
        for data, name in stage.from_external.take_all():
            self._pass_inward(index - 1, data, name)
        self._look_whether_done()

    def _look_whether_done(self) -> None:
        if not self._closed and not self._returned and all(stage.done for stage in self.stages):
            self._returned = True
            self._holder.end()
            self._on_returned()

    def _fail(self, stage: Stage, cause: BaseException) -> None:
        """The first failure ends the chain; what is raised because it has ended is no failure."""
        if self._closed:
            return
        failing = asyncio.current_task()
        self._tasks = {task for task in self._tasks if task is not failing}
        self.close()
        self._on_failure(Failure(contained(cause), stage.attached.name), cause)


async def _pump(data_filter: DataFilter, stage: Stage, connection: Connection) -> None:
    """The call itself is filter code, too."""
    await data_filter.pump(stage.internal, stage.external, connection)
