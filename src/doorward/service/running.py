"""From a configuration to a served and orderly ended process: signals, and what each of them means.

SIGTERM   drain, then stop; a second one stops at once
SIGINT    stop at once
SIGHUP    reload; while we start, as soon as that is done
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

from doorward.config.model import Configuration, FilterSetting
from doorward.engine.supervision import Supervisor
from doorward.service.control import Answer
from doorward.service.firewall import Firewall
from doorward.service.joined import JoinServer
from doorward.service.share import worker_count
from doorward.service.status import Status
from doorward.service.supervisor import WorkerSupervisor

GC_ALLOCATIONS: Final = 20_000
RELOAD_END_TIMEOUT_S: Final = 5.0


class Service(Protocol):
    """What serves clients: a firewall, or the supervisor of several."""

    configuration: Configuration

    async def start(self) -> None:
        """Raises StartRefused."""
        ...

    async def reload(self) -> Answer:
        """All or nothing."""
        ...

    async def status(self) -> Status:
        """What it has to say of itself."""
        ...

    async def drain(self, timeout_s: float) -> None:
        """Take no more clients, and wait so long for those that are here."""
        ...

    async def stop(self) -> None:
        """End everything. Idempotent."""
        ...


Ready = Callable[[Configuration, Status], None]


async def run(
    configuration: Configuration,
    log: Any,
    *,
    extra_filters: Sequence[FilterSetting] = (),
    log_level: str = "info",
    ready: Ready = lambda configuration, status: None,
) -> None:
    """Serve until a signal ends it. `ready` is called once clients can come. Raises StartRefused."""
    service: Service
    joins: JoinServer | None = None
    if worker_count(configuration) == 1:
        service = firewall = Firewall(configuration, log, extra_filters)
        joins = JoinServer(firewall, log)
    else:
        service = WorkerSupervisor(configuration, log, extra_filters, log_level)
    tasks = Supervisor(lambda name, error: log.error("a task failed", task=name, error=error))
    started, ending, at_once = asyncio.Event(), asyncio.Event(), asyncio.Event()
    _handle_hangup(service, tasks, started, ending)
    await service.start()
    try:
        _handle_ends(ending, at_once)
        if joins is not None:
            joins.start()
        started.set()
        settle()
        ready(service.configuration, await service.status())
        await ending.wait()
        if not at_once.is_set():
            log.info("draining", seconds=service.configuration.limits.drain_timeout_s)
            if joins is not None:
                joins.drain()
            await drain(service, service.configuration.limits.drain_timeout_s, at_once)
    finally:
        await tasks.close(RELOAD_END_TIMEOUT_S)
        if joins is not None:
            await joins.close()
        await service.stop()


def settle() -> None:
    """What exists now lives as long as the process: the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    # A connection leaves few cycles behind; looking for them as often as Python does by default costs some percent.
    gc.set_threshold(GC_ALLOCATIONS)


async def drain(service: Service | Firewall, timeout_s: float, at_once: asyncio.Event) -> None:
    """Drain, unless somebody is in a hurry."""
    loop = asyncio.get_running_loop()
    draining = loop.create_task(service.drain(timeout_s))
    hurry = loop.create_task(at_once.wait())
    await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, hurry):
        task.cancel()


def hold_hangup() -> None:
    """Keep SIGHUP waiting until `run` can answer it: by default it would end a process that has just begun."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})


def _handle_hangup(
    service: Service, tasks: Supervisor, started: asyncio.Event, ending: asyncio.Event
) -> None:
    async def reload() -> None:
        await started.wait()
        await service.reload()

    def on_hangup() -> None:
        if not ending.is_set():
            tasks.spawn(reload(), name="reload")

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, on_hangup)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def _handle_ends(ending: asyncio.Event, at_once: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_term() -> None:
        if ending.is_set():
            at_once.set()
        ending.set()

    def on_interrupt() -> None:
        at_once.set()
        ending.set()

    loop.add_signal_handler(signal.SIGTERM, on_term)
    loop.add_signal_handler(signal.SIGINT, on_interrupt)
