"""Several workers as one firewall: started, reloaded, counted and ended together, and one that dies replaced.

    policy text, sockets ──▶ workers ──▶ records ──▶ one log

The supervisor serves no client and runs no filter. It owns the listening sockets, the control socket and the log, and
trusts nothing that a worker says. A reload is all or nothing: every worker prepares, and only then all commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import os
import socket
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import doorward
from doorward.config.loading import REVISION_LENGTH
from doorward.config.model import Configuration, FilterSetting
from doorward.config.problems import ConfigurationRefused
from doorward.config.source import read_source
from doorward.engine.supervision import Supervisor
from doorward.record.desk import RecordDesk
from doorward.record.model import StoreError
from doorward.record.packets import first_number
from doorward.service.channel import Abandon, Begin, Commit, Drain, Order, Prepare, Reply, Serve, Stop, Tell
from doorward.service.control import Answer, ControlServer, ControlUnavailable
from doorward.service.firewall import StartRefused
from doorward.service.listeners import CannotListen
from doorward.service.pauses import Pauses
from doorward.service.reloading import PolicyText, read_policy, refused, reloaded
from doorward.service.share import worker_count
from doorward.service.sockets import Groups, SharedSockets, wanted_by
from doorward.service.status import State, Status, WorkerStatus, counts_of, shown_address
from doorward.service.worker_process import WorkerFailed, WorkerProcess

START_TIMEOUT_S: Final = 60.0
# All of a reload has to fit into what `doorward reload` waits.
PREPARE_TIMEOUT_S: Final = 45.0
COMMIT_TIMEOUT_S: Final = 5.0
STATUS_TIMEOUT_S: Final = 2.0
# After its deadline a worker resets what is alive and writes its last records.
STOP_TIMEOUT_S: Final = 15.0


@dataclass(slots=True)
class Place:
    """Where a worker is, or its successor will be."""

    number: int
    worker: WorkerProcess | None = None
    restarts: int = 0


class WorkerSupervisor:
    """See the module. To be made inside a running loop, in the main thread."""

    def __init__(
        self,
        configuration: Configuration,
        log: Any,
        extra_filters: Sequence[FilterSetting] = (),
        log_level: str = "info",
    ) -> None:
        self.configuration = configuration
        self._text = b""  # of the policy in force
        self._log = log
        self._log_level = log_level
        self._extra = [(setting.name, setting.use) for setting in extra_filters]
        self._places = [Place(number) for number in range(worker_count(configuration))]
        self._sockets = SharedSockets(len(self._places))
        self._desk = RecordDesk(configuration.log, on_event=self._desk_event)
        commands = {"reload": self.reload, "status": self._answer_status}
        self._control = ControlServer(configuration.control_path, commands)
        self._tasks = Supervisor(self._task_failed)
        # Whoever changes what is in force, or brings a worker to it, does so alone.
        self._one_at_a_time = asyncio.Lock()
        self._starts = 0
        self._ending = False
        self._started = time.monotonic()
        self._relay = ""
        self._filters: list[str] = []

    async def start(self) -> None:
        """All workers, accepting clients. Raises StartRefused, with nothing left behind but files."""
        try:
            policy = await self._policy()
            self.configuration, self._text = policy
            await self._control.start()
            self._desk.start()
            self._sockets.commit(self._sockets.prepare(wanted_by(self.configuration)))
            await _all(self._begin(place) for place in self._places)
            await _all(self._ask(place, Serve(), COMMIT_TIMEOUT_S) for place in self._places)
        except ConfigurationRefused as error:
            await self.stop()
            raise StartRefused(f"the policy file has changed meanwhile: {error}") from error
        except (ControlUnavailable, StoreError, CannotListen, WorkerFailed, OSError) as error:
            await self.stop()
            raise StartRefused(str(error)) from error
        for place in self._places:
            self._tasks.spawn(self._keep(place), name=f"worker {place.number + 1}")

    async def reload(self) -> Answer:
        """Read the policy file again. Either all workers have all of it in force afterwards, or nothing has changed."""
        async with self._one_at_a_time:
            old = self.configuration
            loop = asyncio.get_running_loop()
            try:
                if self._ending:
                    raise WorkerFailed("the firewall is ending")
                policy = await loop.run_in_executor(None, read_policy, old.path)
                groups = self._sockets.prepare(wanted_by(policy.configuration))
                try:
                    await self._prepare_all(policy, groups)
                except BaseException:
                    self._sockets.abandon(groups)
                    raise
            except (ConfigurationRefused, CannotListen, WorkerFailed, OSError) as error:
                return refused(self._log, old, error)
            self.configuration, self._text = policy
            self._sockets.commit(groups)
            await asyncio.gather(*(self._commit(place) for place in self._places))
        return reloaded(self._log, old, self.configuration, len(self._filters))

    async def status(self) -> Status:
        """All of them together, and each by itself."""
        workers = await asyncio.gather(*(self._status_of(place) for place in self._places))
        return Status(
            version=doorward.__version__,
            policy=self.configuration.revision,
            path=str(self.configuration.path),
            pid=os.getpid(),
            uptime_s=time.monotonic() - self._started,
            relay=self._relay,
            listening=[shown_address(*name) for name in self._sockets.addresses],
            filters=self._filters,
            counts=counts_of(self._desk.tally),
            workers=list(workers),
        )

    async def drain(self, timeout_s: float) -> None:
        """Take no more clients; give those that are here so long to end by themselves."""
        self._end()
        for place in self._places:
            self._send(place, Drain(timeout_s=timeout_s))
        await self._wait_for_ends(timeout_s + STOP_TIMEOUT_S)

    async def stop(self) -> None:
        """Bound every worker, write every record. Idempotent."""
        self._end()
        for place in self._places:
            self._send(place, Stop())
        await self._wait_for_ends(STOP_TIMEOUT_S)
        for worker in self._alive():
            self._log.error("a worker does not end, and is killed", worker=worker.place + 1, pid=worker.pid)
            worker.kill()
        await self._wait_for_ends(STOP_TIMEOUT_S)
        await self._tasks.close(STOP_TIMEOUT_S)
        await self._control.close()
        await asyncio.get_running_loop().run_in_executor(None, self._desk.close)

    def _end(self) -> None:
        """From now on nobody comes in, and nobody who dies is replaced."""
        self._ending = True
        self._sockets.close()

    async def _policy(self) -> PolicyText:
        """The policy that we were made for with its text, or what the file has become. Raises ConfigurationRefused."""
        path = self.configuration.path
        text = read_source(path)
        if hashlib.sha256(text).hexdigest()[:REVISION_LENGTH] == self.configuration.revision:
            return PolicyText(self.configuration, text)
        return await asyncio.get_running_loop().run_in_executor(None, read_policy, path)

    async def _begin(self, place: Place) -> None:
        """Start a worker and have it get ready. Raises WorkerFailed, OSError; it is dead then."""
        self._starts += 1
        first_id = first_number(self._starts)
        breach = partial(self._breach, place)
        loop = asyncio.get_running_loop()

        def admit(records: socket.socket) -> None:
            self._desk.admit(records, first_id, lambda why: _later(loop, breach, why))

        worker = WorkerProcess(place.number, admit, breach)
        place.worker = worker
        listen, descriptors = self._sockets.of(place.number)
        order = Begin(
            worker=place.number + 1,
            workers=len(self._places),
            first_id=first_id,
            path=str(self.configuration.path),
            log_level=self._log_level,
            listen=listen,
            filters=self._extra,
        )
        try:
            reply = await self._ask_with_policy(worker, order, START_TIMEOUT_S, self._text, descriptors)
        except BaseException:
            worker.kill()
            raise
        self._relay, self._filters = reply.relay, reply.filters

    async def _keep(self, place: Place) -> None:
        """Replace a worker that dies, for as long as the firewall serves."""
        pauses = Pauses()
        while (worker := place.worker) is not None:
            status = await asyncio.shield(worker.ended)
            if self._ending:
                if status:
                    self._log.error(
                        "a worker ended badly", worker=place.number + 1, pid=worker.pid, **_end(status)
                    )
                return
            pause_s = pauses.after(worker.uptime_s if worker.serving else 0.0)
            self._log.error(
                "a worker ended", worker=place.number + 1, pid=worker.pid, again_in_s=pause_s, **_end(status)
            )
            await asyncio.sleep(pause_s)
            await self._replace(place)

    async def _replace(self, place: Place) -> None:
        """A new worker, with what is in force when it begins. It may fail: then it is dead, and comes to be kept."""
        async with self._one_at_a_time:
            if self._ending:
                return
            place.restarts += 1
            try:
                await self._begin(place)
                await self._ask(place, Serve(), COMMIT_TIMEOUT_S)
            except (WorkerFailed, OSError) as error:
                self._log.error("a worker cannot start", worker=place.number + 1, error=str(error))
                if place.worker is not None:
                    place.worker.kill()
                return
        assert place.worker is not None
        self._log.info("a worker was started again", worker=place.number + 1, pid=place.worker.pid)

    async def _prepare_all(self, policy: PolicyText, groups: Groups) -> None:
        """Every worker that serves is ready to commit; or none is, and WorkerFailed is raised."""
        asked = [place for place in self._places if place.worker is not None and place.worker.serving]
        new = self._sockets.new(groups)
        results = await asyncio.gather(
            *(self._prepare(place, policy, new) for place in asked), return_exceptions=True
        )
        failures = [result for result in results if isinstance(result, BaseException)]
        if failures:
            await asyncio.gather(*(self._abandon(place) for place in asked))
            raise failures[0]

    async def _prepare(self, place: Place, policy: PolicyText, new: Groups) -> None:
        assert place.worker is not None
        listen, descriptors = self._sockets.of(place.number, new)
        order = Prepare(path=str(policy.configuration.path), listen=listen)
        await self._ask_with_policy(place.worker, order, PREPARE_TIMEOUT_S, policy.text, descriptors)

    async def _abandon(self, place: Place) -> None:
        """Who cannot be told to forget must not go on with half a policy."""
        try:
            await self._ask(place, Abandon(), COMMIT_TIMEOUT_S)
        except WorkerFailed as error:
            self._kill(place, str(error))

    async def _commit(self, place: Place) -> None:
        """Who does not do it is replaced by one that has the new policy."""
        if place.worker is None or not place.worker.serving:
            return
        try:
            await self._ask(place, Commit(), COMMIT_TIMEOUT_S)
        except WorkerFailed as error:
            self._kill(place, str(error))

    async def _status_of(self, place: Place) -> WorkerStatus:
        worker, number = place.worker, place.number + 1
        if worker is None or worker.ended.done():
            return WorkerStatus(worker=number, pid=0, state="down", restarts=place.restarts)
        try:
            status = (await worker.ask(Tell(), STATUS_TIMEOUT_S)).status
        except WorkerFailed:
            status = None
        if status is None:
            state: State = "silent" if worker.serving else "starting"
            return WorkerStatus(number, worker.pid, state, worker.uptime_s, place.restarts)
        status.worker, status.pid, status.restarts = number, worker.pid, place.restarts
        status.uptime_s = worker.uptime_s
        return status

    async def _ask(self, place: Place, order: Order, timeout_s: float) -> Reply:
        """Raises WorkerFailed."""
        assert place.worker is not None
        reply = await place.worker.ask(order, timeout_s)
        if isinstance(order, Serve):
            place.worker.serving = True
        return reply

    async def _ask_with_policy(
        self, worker: WorkerProcess, order: Order, timeout_s: float, text: bytes, sockets: list[int]
    ) -> Reply:
        """An order that comes with a policy's text. Raises WorkerFailed, OSError."""
        descriptor = _sealed(text)
        try:
            return await worker.ask(order, timeout_s, [descriptor, *sockets])
        finally:
            os.close(descriptor)

    def _send(self, place: Place, order: Order) -> None:
        """An order whose answer nobody waits for. Who cannot be told is killed."""
        if place.worker is None or not place.worker.reachable:
            return
        try:
            place.worker.send(order)
        except WorkerFailed as error:
            self._kill(place, str(error))

    def _kill(self, place: Place, why: str) -> None:
        worker = place.worker
        if worker is not None and not worker.ended.done():
            self._log.error("a worker is killed", worker=place.number + 1, pid=worker.pid, why=why)
            worker.kill()

    def _breach(self, place: Place, why: str) -> None:
        """A worker has said what none of ours says."""
        self._kill(place, why)

    def _alive(self) -> list[WorkerProcess]:
        workers = [place.worker for place in self._places if place.worker is not None]
        return [worker for worker in workers if not worker.ended.done()]

    async def _wait_for_ends(self, timeout_s: float) -> None:
        if alive := self._alive():
            await asyncio.wait([worker.ended for worker in alive], timeout=timeout_s)

    async def _answer_status(self) -> Answer:
        status = await self.status()
        return Answer(True, f"policy {status.policy} is in force", [], status)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._log.error("a task failed", task=name, error=error)

    def _desk_event(self, name: str, /, **fields: object) -> None:
        """From the desk's thread."""
        self._log.warning(name, **fields)


def _later(loop: asyncio.AbstractEventLoop, function: Callable[[str], None], why: str) -> None:
    """Call it in the loop, from another thread; not at all if the loop is over."""
    with contextlib.suppress(RuntimeError):
        loop.call_soon_threadsafe(function, why)


async def _all(coroutines: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run them together to the end of each, and raise what the first of those that failed has raised."""
    for result in await asyncio.gather(*coroutines, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _end(status: int) -> dict[str, object]:
    """How a process ended, as the log tells it."""
    return {"signal": -status} if status < 0 else {"status": status}


def _sealed(text: bytes) -> int:
    """A descriptor from which the text can be read, and through which nobody can change it. Raises OSError."""
    descriptor = os.memfd_create("policy", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(text)
        seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
