"""The chain of data filters of one connection: who stands where, what happens when one returns, and when all have.

    client's wire ── stage ──joint── stage ──joint── stage ── server's wire

A stage is one data filter, or a run of neighbouring stream filters. A stage whose filter has returned passes
bytes on unread. When every stage has returned, the passing stops between two system calls, whatever was on
its way is handed over in order, and the wires belong to the relay. A stage that raises ends the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from doorward.api.contracts import Priority
from doorward.api.errors import DoorwardError, FilterFailed, FilterStalled, Terminating
from doorward.api.filters import DataFilter, StreamFilter
from doorward.engine.joint import JointEnd, joint
from doorward.engine.streams import StreamRun
from doorward.engine.supervision import Holder, Watchdog, Watched

if TYPE_CHECKING:
    from doorward.api.contracts import Connection, Socket
    from doorward.net.leg import Leg


class Attached(NamedTuple):
    """One data filter in its place. `name` is the application filter's, for the record."""

    priority: Priority
    data_filter: DataFilter
    name: str


class Leftover(NamedTuple):
    """Bytes on their way when the chain ended, oldest first; they go out before anything newer."""

    to_external: bytes
    to_internal: bytes


NOTHING: Final = Leftover(b"", b"")


class Failure(NamedTuple):
    """Which filter ended the connection, and how."""

    error: DoorwardError
    filter: str


class ChainFailed(Exception):
    """A stage raised. Not an error of the API: the connection turns it into an end with a reason."""

    def __init__(self, failure: Failure, cause: BaseException) -> None:
        super().__init__(failure.error.reason)
        self.failure = failure
        self.cause = cause


class Handle:
    """A socket as one data filter holds it. Revoked when its `pump` is over, so that nothing leaks past it."""

    __slots__ = ("close", "recv", "send", "shutdown")

    def __init__(self, socket: Socket) -> None:
        self.recv = socket.recv
        self.send = socket.send
        self.shutdown = socket.shutdown
        self.close = socket.close

    def revoke(self) -> None:
        """Every later call raises Terminating."""
        self.recv = self.send = self.shutdown = self.close = _revoked


async def _revoked(*_: Any, **__: Any) -> Any:
    raise Terminating("this filter's pump is over")


class Stage:
    """One place in the chain."""

    def __init__(
        self, names: Sequence[str], filter_: DataFilter | StreamRun, near: Leg | JointEnd, far: Leg | JointEnd
    ):
        self.name = names[0] if len(names) == 1 else "+".join(names)
        self.filter = filter_
        self.near = near
        self.far = far
        self.passing: Passing | None = None


class Chain:
    """Runs the stages of one connection."""

    def __init__(
        self,
        connection: Connection,
        attached: Sequence[Attached],
        internal: Leg | JointEnd,
        external: Leg,
        watchdog: Watchdog,
        holder: Holder,
    ) -> None:
        self._connection = connection
        self._watchdog = watchdog
        self._holder = holder
        self._internal = internal
        self._external = external
        self.stages = self._build(sorted(attached, key=lambda a: a.priority))

    async def run(self) -> Leftover:
        """Until every filter has returned. Raises ChainFailed; both wires are then to be reset by the caller."""
        if len(self.stages) == 1:
            await self._run_stage(self.stages[0])
            return NOTHING
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._run_stage(stage)) for stage in self.stages]
                for stage, task in zip(self.stages, running, strict=True):
                    task.add_done_callback(partial(self._pass_on, stage, running))
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            await self._stop_passing()
        if (failed := next((s for s in self.stages if s.passing and s.passing.failure), None)) is not None:
            assert failed.passing is not None
            error = failed.passing.failure
            assert error is not None
            raise ChainFailed(Failure(error, failed.name), error)
        return Leftover(self._collect(outward=True), self._collect(outward=False))

    async def pass_rest(self, leftover: Leftover) -> None:
        """Carry on in Python where the internal side is no wire and no relay can take it. Raises LinkError kinds."""
        passing = Passing(self._internal, self._external, leftover)
        await passing.run()
        if passing.failure is not None:
            raise passing.failure

    def _build(self, attached: Sequence[Attached]) -> list[Stage]:
        groups: list[list[Attached]] = []
        for item in attached:
            if (
                groups
                and isinstance(item.data_filter, StreamFilter)
                and isinstance(groups[-1][0].data_filter, StreamFilter)
            ):
                groups[-1].append(item)
            else:
                groups.append([item])
        stages: list[Stage] = []
        near: Leg | JointEnd = self._internal
        for index, group in enumerate(groups):
            far: Leg | JointEnd = self._external
            following: Leg | JointEnd = self._external
            if index < len(groups) - 1:
                far, following = joint()
            stages.append(Stage([a.name for a in group], self._member(group), near, far))
            near = following
        return stages

    def _member(self, group: Sequence[Attached]) -> DataFilter | StreamRun:
        streams = [a.data_filter for a in group if isinstance(a.data_filter, StreamFilter)]
        return StreamRun(streams, self._watchdog, self._holder) if streams else group[0].data_filter

    async def _run_stage(self, stage: Stage) -> None:
        """One filter's pump, contained."""
        internal, external = Handle(stage.near), Handle(stage.far)
        pump = stage.filter.pump(internal, external, self._connection)
        try:
            if isinstance(stage.filter, StreamRun):
                await pump
            else:
                await Watched(self._watchdog, self._holder, pump)
        except asyncio.CancelledError:
            raise
        except (DoorwardError, Exception) as error:
            raise ChainFailed(Failure(contained(error), stage.name), error) from error
        finally:
            internal.revoke()
            external.revoke()

    def _pass_on(self, stage: Stage, running: Sequence[asyncio.Task[None]], done: asyncio.Task[None]) -> None:
        """A stage has returned while others have not: from now on its bytes go past it."""
        if done.cancelled() or done.exception() is not None or all(task.done() for task in running):
            return
        stage.passing = Passing(stage.near, stage.far)
        stage.passing.start()

    async def _stop_passing(self) -> None:
        for stage in self.stages:
            if stage.passing is not None:
                await stage.passing.stop()

    def _collect(self, *, outward: bool) -> bytes:
        """What is on its way in one direction, oldest first: nearest to the sink."""
        parts: list[bytes] = []
        for stage in reversed(self.stages) if outward else self.stages:
            if stage.passing is not None:
                parts.append(stage.passing.held(outward=outward))
            source = stage.near if outward else stage.far
            if isinstance(source, JointEnd) and source is not self._internal:
                parts.append(source.incoming.take_all())
        return b"".join(parts)


class Passing:
    """Carries bytes past a stage. Stopping loses nothing: what was taken and not sent is `held`."""

    def __init__(
        self, internal: Leg | JointEnd, external: Leg | JointEnd, leftover: Leftover = NOTHING
    ) -> None:
        self._outward = _Pass(internal, external, leftover.to_external)
        self._inward = _Pass(external, internal, leftover.to_internal)
        self._task: asyncio.Task[None] | None = None
        self.failure: DoorwardError | None = None

    def start(self) -> None:
        """Begin; `stop` waits for the end."""
        self._task = asyncio.get_running_loop().create_task(self.run())

    async def run(self) -> None:
        """Until both directions have ended; a failure is kept, and told to both neighbours."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outward.run())
                group.create_task(self._inward.run())
        except BaseExceptionGroup as failures:
            self.failure = contained(failures.exceptions[0])
            self._outward.source.abort(self.failure)
            self._outward.sink.abort(self.failure)

    async def stop(self) -> None:
        """Stop between two calls."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    def held(self, *, outward: bool) -> bytes:
        """Taken and not sent."""
        return bytes((self._outward if outward else self._inward).rest)


class _Pass:
    """One direction past a stage."""

    def __init__(self, source: Leg | JointEnd, sink: Leg | JointEnd, rest: bytes) -> None:
        self.source = source
        self.sink = sink
        self.rest = memoryview(rest)

    async def run(self) -> None:
        while True:
            while self.rest:
                count = await self.sink.send_some(self.rest)
                self.rest = self.rest[count:]
            data = await self.source.recv()
            if not data:
                await self.sink.shutdown()
                return
            self.rest = memoryview(data)


def contained(error: BaseException) -> DoorwardError:
    """What a filter raised, as one of our errors."""
    if isinstance(error, DoorwardError):
        return error
    if isinstance(error, TimeoutError):
        return FilterStalled(str(error) or "a deadline of its own passed")
    return FilterFailed(f"{type(error).__name__}: {error}")
