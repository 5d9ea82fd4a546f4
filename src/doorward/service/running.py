"""From a configuration to a served and orderly ended process: signals, and what each of them means.

SIGTERM   drain, then stop; a second one stops at once
SIGINT    stop at once
SIGHUP    reload
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Sequence
from typing import Any, Final

from doorward.config.model import Configuration, FilterSetting
from doorward.service.firewall import Firewall

GC_ALLOCATIONS: Final = 20_000


async def run(
    configuration: Configuration,
    log: Any,
    *,
    extra_filters: Sequence[FilterSetting] = (),
    ready: Callable[[Firewall], None] = lambda firewall: None,
) -> None:
    """Serve until a signal ends it. `ready` is called once clients can come. Raises StartRefused."""
    firewall = Firewall(configuration, log, extra_filters)
    await firewall.start()
    ending, at_once = asyncio.Event(), asyncio.Event()
    _handle_signals(firewall, ending, at_once)
    # What exists now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    # A connection leaves few cycles behind; looking for them as often as Python does by default costs some percent.
    gc.set_threshold(GC_ALLOCATIONS)
    try:
        ready(firewall)
        await ending.wait()
        if not at_once.is_set():
            log.info("draining", seconds=firewall.configuration.limits.drain_timeout_s)
            await _drain(firewall, at_once)
    finally:
        await firewall.stop()


def _handle_signals(firewall: Firewall, ending: asyncio.Event, at_once: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()

    def on_term() -> None:
        if ending.is_set():
            at_once.set()
        ending.set()

    def on_interrupt() -> None:
        at_once.set()
        ending.set()

    def on_hangup() -> None:
        firewall.supervisor.spawn(_reload(firewall), name="reload")

    loop.add_signal_handler(signal.SIGTERM, on_term)
    loop.add_signal_handler(signal.SIGINT, on_interrupt)
    loop.add_signal_handler(signal.SIGHUP, on_hangup)


async def _reload(firewall: Firewall) -> None:
    await firewall.reload()


async def _drain(firewall: Firewall, at_once: asyncio.Event) -> None:
    loop = asyncio.get_running_loop()
    draining = loop.create_task(firewall.drain(firewall.configuration.limits.drain_timeout_s))
    hurry = loop.create_task(at_once.wait())
    await asyncio.wait([draining, hurry], return_when=asyncio.FIRST_COMPLETED)
    for task in (draining, hurry):
        task.cancel()
