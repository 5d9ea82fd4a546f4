"""Stream filters at work: neighbours of this kind are run together, one task for each direction, no queue between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from doorward.api.errors import FilterFailed
from doorward.api.filters import StreamFilter

if TYPE_CHECKING:
    from doorward.api.contracts import Connection
    from doorward.api.sockets import Socket
    from doorward.engine.supervision import Holder, Watchdog


class StreamRun:
    """A run of stream filters, from the client's side to the server's. Fulfils `DataFilter.pump`."""

    def __init__(self, filters: Sequence[StreamFilter], watchdog: Watchdog, holder: Holder) -> None:
        self.filters = tuple(filters)
        self._watchdog = watchdog
        self._holder = holder
        self._lanes: tuple[_Lane, ...] = ()
        self.failed: StreamFilter | None = None

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        """Carry both directions until both have ended, or every filter has seen enough.

        A client's bytes meet the filters in their order, a server's bytes in the opposite one.
        """
        for stream_filter in self.filters:
            stream_filter.connection = connection
            self.call(stream_filter, stream_filter.start)
        if self.enough:
            return
        outward = _Lane(self, internal, external, [_Outward(f) for f in self.filters])
        inward = _Lane(self, external, internal, [_Inward(f) for f in reversed(self.filters)])
        self._lanes = (outward, inward)
        try:
            async with asyncio.TaskGroup() as group:
                for lane in self._lanes:
                    lane.task = group.create_task(lane.carry())
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    @property
    def enough(self) -> bool:
        """Whether every filter has seen enough."""
        return all(f.finished for f in self.filters)

    def call(self, stream_filter: StreamFilter, function: Callable[..., object], *arguments: object) -> bytes:
        """Run one function of a filter under the watchdog. Raises what it raises, FilterFailed for a wrong answer.

        `failed` is then the filter.
        """
        try:
            data = self._watchdog.run(self._holder, function, *arguments)
        except Exception:
            self.failed = stream_filter
            raise
        except asyncio.CancelledError as error:  # nobody waits in here, so nobody was cancelled
            self.failed = stream_filter
            raise FilterFailed("CancelledError") from error
        if data is None and not arguments:
            return b""
        if not isinstance(data, bytes | bytearray | memoryview):
            self.failed = stream_filter
            raise FilterFailed(f"a stream filter returned {type(data).__name__} in place of bytes")
        return data if isinstance(data, bytes) else bytes(data)

    def stop(self, current: _Lane) -> None:
        """Enough: end the other lane if it only waits for bytes; if it is sending, it ends by itself afterwards."""
        for lane in self._lanes:
            if lane is not current and lane.receiving and lane.task is not None:
                lane.task.cancel()


class _Outward:
    """The client's side of a stream filter."""

    __slots__ = ("data", "end", "filter")

    def __init__(self, stream_filter: StreamFilter) -> None:
        self.filter = stream_filter
        self.data: Callable[[bytes], bytes] = stream_filter.client_data
        self.end: Callable[[], bytes] = stream_filter.client_end


class _Inward(_Outward):
    """The server's side of a stream filter."""

    __slots__ = ()

    def __init__(self, stream_filter: StreamFilter) -> None:
        super().__init__(stream_filter)
        self.data = stream_filter.server_data
        self.end = stream_filter.server_end


class _Lane:
    """One direction."""

    __slots__ = ("_run", "_sink", "_source", "_steps", "receiving", "task")

    def __init__(self, run: StreamRun, source: Socket, sink: Socket, steps: Sequence[_Outward]) -> None:
        self._run = run
        self._source = source
        self._sink = sink
        self._steps = steps
        self.receiving = False
        self.task: asyncio.Task[None] | None = None

    async def carry(self) -> None:
        """Until end of stream, or enough. Only a wait for bytes may be cancelled: it has consumed nothing."""
        run = self._run
        while not run.enough:
            self.receiving = True
            data = await self._source.recv()
            self.receiving = False
            out = self._through(data) if data else self._rest()
            if out:
                await self._sink.send(out)
            if not data:
                await self._sink.shutdown()
                return
        run.stop(self)

    def _through(self, data: bytes) -> bytes:
        for step in self._steps:
            if not step.filter.finished:
                data = self._run.call(step.filter, step.data, data)
                if not data:
                    break
        return data

    def _rest(self) -> bytes:
        """End of stream: what each filter kept goes through those after it."""
        data = b""
        for step in self._steps:
            if step.filter.finished:
                continue
            if data:
                data = self._run.call(step.filter, step.data, data)
            data += self._run.call(step.filter, step.end)
        return data
