"""The filters in force: started before their first event, stopped after they have left."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from doorward.api.filters import ApplicationFilter
from doorward.config.model import Configuration, FilterSetting
from doorward.engine.association import FilterEntry
from doorward.service.filter_host import FilterHost
from doorward.service.filters import FilterNotLoaded, LoadedFilter, load_filters

if TYPE_CHECKING:
    from doorward.engine.engine import Engine
    from doorward.engine.supervision import Watchdog


class FilterSet:
    """Loads, starts and stops. `extra` are filters named on the command line, after those of the policy file."""

    def __init__(
        self, log: Any, extra: Sequence[FilterSetting], engine: Callable[[], Engine], watchdog: Watchdog
    ) -> None:
        self._watchdog = watchdog
        self._log = log
        self._engine = engine
        self._hosts: dict[ApplicationFilter, FilterHost] = {}
        self._extra = tuple(extra)
        self._leaving: list[LoadedFilter] = []
        self.loaded: list[LoadedFilter] = []

    @property
    def entries(self) -> list[FilterEntry]:
        """As the engine wants them."""
        return [loaded.entry for loaded in self.loaded]

    @property
    def names(self) -> list[str]:
        """What the log calls them, in calling order."""
        return [loaded.setting.name for loaded in self.loaded]

    async def prepare(self, configuration: Configuration) -> list[LoadedFilter]:
        """Load what a configuration names and start what is new. Raises FilterNotLoaded, with nothing new running."""
        settings = configuration.filters + self._extra
        # In a thread: a filter's file is its author's code, and may take its time.
        wanted = await asyncio.get_running_loop().run_in_executor(
            None, load_filters, settings, configuration.protocols, self.loaded
        )
        started: list[LoadedFilter] = []
        for loaded in _without(wanted, self.loaded):
            application_filter = loaded.entry.application_filter
            host = FilterHost(loaded.entry, self._log, self._engine, self._watchdog)
            self._hosts[application_filter] = host
            try:
                async with asyncio.timeout(configuration.limits.event_timeout_s):
                    await host.run(partial(application_filter.start, host))
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                await self._hosts.pop(application_filter).close()
                await self.stop(started, configuration)
                raise FilterNotLoaded(_not_started(loaded.setting, error)) from error
            started.append(loaded)
        return wanted

    def commit(self, wanted: list[LoadedFilter]) -> None:
        """From now on these. Those that have left are stopped by `stop_unused`."""
        self._leaving += _without(self.loaded, wanted)
        self.loaded = wanted

    async def abandon(self, prepared: list[LoadedFilter], configuration: Configuration) -> None:
        """Stop what was started for nothing."""
        await self.stop(_without(prepared, self.loaded), configuration)

    async def stop_unused(self, used: Iterable[FilterEntry], configuration: Configuration) -> None:
        """Stop the filters that have left and that no live connection uses any more."""
        if not self._leaving:
            return
        alive = {id(entry.application_filter) for entry in used}
        unused = [loaded for loaded in self._leaving if id(loaded.entry.application_filter) not in alive]
        self._leaving = _without(self._leaving, unused)
        await self.stop(unused, configuration)

    async def stop(self, filters: Sequence[LoadedFilter], configuration: Configuration) -> None:
        """Stop filters; what one raises is logged."""
        for loaded in filters:
            host = self._hosts.pop(loaded.entry.application_filter, None)
            if host is None:
                continue
            try:
                async with asyncio.timeout(configuration.limits.event_timeout_s):
                    await host.run(loaded.entry.application_filter.stop)
            except (Exception, SystemExit, KeyboardInterrupt) as error:
                self._log.error("a filter failed to stop", filter=loaded.setting.name, error=error)
            await host.close()


def _without(some: Sequence[LoadedFilter], others: Sequence[LoadedFilter]) -> list[LoadedFilter]:
    known = {id(loaded.entry.application_filter) for loaded in others}
    return [loaded for loaded in some if id(loaded.entry.application_filter) not in known]


def _not_started(setting: FilterSetting, error: BaseException) -> str:
    told = "did not start in time" if isinstance(error, TimeoutError) else f"{type(error).__name__}: {error}"
    return f'filter "{setting.name}" ({setting.use}): {told}'
