"""The chain of data filters of one connection: who stands where, what happens when one returns, and when all have.

    client's wire ── stage ──joint── stage ──joint── stage ── server's wire

A stage is one data filter, or a run of neighbouring stream filters. A stage whose filter has returned passes
bytes on unread. When every stage has returned, the passing stops between two system calls, whatever was on
its way is handed over in order, and the wires belong to the relay. A stage that raises ends the connection.

An emulated connection has no server's wire: its last stage is the filter that emulates, and returning from its
`pump` is the server's end. What it has said still reaches the client.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.contracts import Priority
from doorward.api.errors import DoorwardError, FilterFailed
from doorward.api.filters import DataFilter, StreamFilter
from doorward.engine.at_work import as_work_of, entry_of
from doorward.engine.containment import contained
from doorward.engine.handle import Handle
from doorward.engine.joint import JointEnd, joint
from doorward.engine.last_words import discard
from doorward.engine.streams import StreamRun
from doorward.engine.supervision import Holder, Watchdog, Watched, is_being_cancelled

if TYPE_CHECKING:
    from doorward.api.contracts import Connection
    from doorward.net.carrier import Carrier


# Turns of the loop in which a task that a pump has cancelled on leaving must have let go of its socket.
TURNS_TO_END: Final = 3


class Attached(NamedTuple):
    """One data filter in its place. `name` is the application filter's, for the record."""

    priority: Priority
    data_filter: DataFilter
    name: str


class Leftover(NamedTuple):
    """Bytes on their way when the chain ended, oldest first; they go out before anything newer.

    A direction that is over takes no more from its wire: a filter has ended it, and the end is still on its way.
    """

    to_external: bytes
    to_internal: bytes
    outward_over: bool = False
    inward_over: bool = False

    @property
    def partly_over(self) -> bool:
        """Whether an end is on its way behind the bytes, which no relay can be told."""
        return self.outward_over or self.inward_over


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


class Stage:
    """One place in the chain."""

    def __init__(
        self,
        attached: Sequence[Attached],
        filter_: DataFilter | StreamRun,
        near: Carrier,
        far: Carrier | None,
    ) -> None:
        """`far` is None for who emulates."""
        self.attached = attached
        self.filter = filter_
        self.near = near
        self.far = far
        self.passing: Passing | None = None

    @property
    def culprit(self) -> str:
        """Who failed; all of its names when that is not known."""
        failed = self.filter.failed if isinstance(self.filter, StreamRun) else None
        names = [a.name for a in self.attached if failed is None or a.data_filter is failed]
        return "+".join(dict.fromkeys(names))

    async def expect_idle(self) -> None:
        """The pump is over. Raises FilterFailed if a task of its own still waits for one of its sockets."""
        for _ in range(TURNS_TO_END):
            if not (self.near.busy or (self.far is not None and self.far.busy)):
                return
            await asyncio.sleep(0)
        raise FilterFailed("a task that it started still waits for a socket after its pump")


class Chain:
    """Runs the stages of one connection."""

    def __init__(
        self,
        connection: Connection,
        attached: Sequence[Attached],
        internal: Carrier,
        external: Carrier | None,
        watchdog: Watchdog,
        holder: Holder,
    ) -> None:
        """Without an external side, the last of them in order of priority is the server."""
        self._connection = connection
        self._watchdog = watchdog
        self._holder = holder
        self._internal = internal
        self._external = external
        self._joints: list[tuple[JointEnd, JointEnd]] = []
        self._discarding: asyncio.Task[None] | None = None
        self.server_over = False  # who emulates has said all
        self.stages = self._build(sorted(attached, key=lambda a: a.priority))

    async def run(self) -> Leftover:
        """Until every filter has returned. Raises ChainFailed; both wires are then to be reset by the caller.

        Nothing is left over of an emulated connection; what its server has said has been passed on, with its end.
        """
        if len(self.stages) == 1:
            await self._run_stage(self.stages[0])
            self.server_over = self._external is None
            return NOTHING
        try:
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(self._run_stage(stage)) for stage in self.stages]
                for stage, task in zip(self.stages, running, strict=True):
                    task.add_done_callback(partial(self._pass_on, stage, running))
            if self._external is None:
                for stage in self.stages:
                    if stage.passing is not None:
                        await stage.passing.all_said()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            await self._stop_passing()
        if (failed := next((s for s in self.stages if s.passing and s.passing.failure), None)) is not None:
            assert failed.passing is not None
            error = failed.passing.failure
            assert error is not None
            raise ChainFailed(Failure(error, failed.culprit), error)
        if self._external is None:
            return NOTHING
        self._expect_open()
        return await self._leftover()

    async def pass_rest(self, leftover: Leftover) -> None:
        """Carry on in Python, to the end, what no relay can take. Raises LinkError kinds."""
        assert self._external is not None
        await pass_on(self._internal, self._external, leftover)

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
        near: Carrier = self._internal
        for index, group in enumerate(groups):
            far: Carrier | None = self._external
            following: Carrier = self._internal  # of nobody, after the last
            if index < len(groups) - 1:
                far, following = joint()
                self._joints.append((far, following))
            stages.append(Stage(group, self._member(group), near, far))
            near = following
        return stages

    def _member(self, group: Sequence[Attached]) -> DataFilter | StreamRun:
        streams = [a.data_filter for a in group if isinstance(a.data_filter, StreamFilter)]
        return StreamRun(streams, self._watchdog, self._holder) if streams else group[0].data_filter

    async def _run_stage(self, stage: Stage) -> None:
        """One filter's pump, contained."""
        internal = Handle(stage.near)
        external = Handle(stage.far) if stage.far is not None else None
        try:
            if isinstance(stage.filter, StreamRun) and external is not None:
                await stage.filter.pump(internal, external, self._connection)
            else:
                pump = _pump(stage.filter, internal, external, self._connection)
                entry = entry_of(self._connection, stage.attached[0].name)
                await Watched(self._watchdog, self._holder, as_work_of(entry, pump))
                await stage.expect_idle()
            if external is not None:
                internal.expect_uncovered()
                external.expect_uncovered()
            elif internal.carrier.open:
                await internal.carrier.shutdown()
        except asyncio.CancelledError as error:
            if is_being_cancelled():
                raise
            raise ChainFailed(Failure(contained(error), stage.culprit), error) from error
        except Exception as error:
            raise ChainFailed(Failure(contained(error), stage.culprit), error) from error
        finally:
            internal.revoke()
            if external is not None:
                external.revoke()

    def _pass_on(self, stage: Stage, running: Sequence[asyncio.Task[None]], done: asyncio.Task[None]) -> None:
        """A stage has returned while others have not: from now on its bytes go past it."""
        if done.cancelled() or done.exception() is not None:
            return
        if stage.far is None:  # the server: nothing is beyond it
            self.server_over = True
            self._discarding = asyncio.get_running_loop().create_task(discard(stage.near))
            return
        if all(task.done() for task in running) and (self._external is not None or not stage.near.open):
            return
        stage.passing = Passing(stage.near, stage.far)
        stage.passing.start()

    async def _stop_passing(self) -> None:
        """Between two calls. All are told before any is waited for: the waiting itself may be cancelled."""
        started = [stage.passing.task for stage in self.stages if stage.passing is not None]
        tasks = [task for task in (*started, self._discarding) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _expect_open(self) -> None:
        """Raises ChainFailed if a filter closed its side of a joint: what is closed must not be joined up again."""
        for stage, (end, _) in zip(self.stages, self._joints, strict=False):
            error = end.outgoing.failure or end.incoming.failure
            if error is not None:
                raise ChainFailed(Failure(error, stage.culprit), error)

    async def _leftover(self) -> Leftover:
        """What is on its way. An end with no bytes before it is passed on at once."""
        assert self._external is not None
        if not (self._internal.open and self._external.open):
            return NOTHING
        to_external, to_internal = self._collect(outward=True), self._collect(outward=False)
        outward_over = any(end.outgoing.ended for end, _ in self._joints)
        inward_over = any(end.incoming.ended for end, _ in self._joints)
        if outward_over and not to_external:
            await self._external.shutdown()
            outward_over = False
        if inward_over and not to_internal:
            await self._internal.shutdown()
            inward_over = False
        return Leftover(to_external, to_internal, outward_over, inward_over)

    def _collect(self, *, outward: bool) -> bytes:
        """What is on its way in one direction, oldest first: nearest to the sink."""
        parts: list[bytes] = []
        sources = {id(end) for ends in self._joints for end in ends}
        for stage in reversed(self.stages) if outward else self.stages:
            if stage.passing is not None:
                parts.append(stage.passing.held(outward=outward))
            source = stage.near if outward else stage.far
            if isinstance(source, JointEnd) and id(source) in sources:  # not a wire's own
                parts.append(source.incoming.take_all())
        return b"".join(parts)


def moved(chain: Chain | None, internal: Carrier, external: Carrier | None) -> int:
    """What tells life from silence: bytes. Once an emulator has said all, only what the client takes of it counts."""
    if chain is not None and chain.server_over:
        return internal.sent
    outer = 0 if external is None else external.sent + external.received
    return internal.sent + internal.received + outer


class Passing:
    """Carries bytes past a stage. Stopping loses nothing: what was taken and not sent is `held`."""

    def __init__(self, internal: Carrier, external: Carrier, leftover: Leftover = NOTHING) -> None:
        self._outward = _Pass(internal, external, leftover.to_external, over=leftover.outward_over)
        self._inward = _Pass(external, internal, leftover.to_internal, over=leftover.inward_over)
        self.task: asyncio.Task[None] | None = None
        self._inward_over = asyncio.Event()
        self.failure: DoorwardError | None = None

    def start(self) -> None:
        """Begin; `task` is then to be cancelled and waited for by whoever began."""
        self.task = asyncio.get_running_loop().create_task(self.run())

    async def run(self) -> None:
        """Until both directions have ended; a failure is kept, and told to both neighbours."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._outward.run())
                group.create_task(self._inward.run()).add_done_callback(lambda _: self._inward_over.set())
        except BaseExceptionGroup as failures:
            self.failure = contained(failures.exceptions[0])
            self._outward.source.abort(self.failure)
            self._outward.sink.abort(self.failure)

    async def all_said(self) -> None:
        """Until what came from outside has gone on to the inside, with its end; or it cannot any more."""
        await self._inward_over.wait()

    def held(self, *, outward: bool) -> bytes:
        """Taken and not sent."""
        return bytes((self._outward if outward else self._inward).rest)


class _Pass:
    """One direction past a stage."""

    def __init__(self, source: Carrier, sink: Carrier, rest: bytes, *, over: bool) -> None:
        self.source = source
        self.sink = sink
        self.rest = memoryview(rest)
        self._over = over

    async def run(self) -> None:
        while True:
            while self.rest:
                count = await self.sink.send_some(self.rest)
                self.rest = self.rest[count:]
            if self._over:
                await self.sink.shutdown()
                return
            data = await self.source.recv()
            self._over = not data
            self.rest = memoryview(data)


async def pass_on(internal: Carrier, external: Carrier, leftover: Leftover = NOTHING) -> None:
    """Carry bytes both ways in Python, to the end. Raises LinkError kinds."""
    passing = Passing(internal, external, leftover)
    await passing.run()
    if passing.failure is not None:
        raise passing.failure


async def _pump(
    data_filter: DataFilter | StreamRun, internal: Handle, external: Handle | None, connection: Connection
) -> None:
    """The call itself is filter code, too."""
    await data_filter.pump(internal, external, connection)  # type: ignore[arg-type]  # a stream filter has a far side
