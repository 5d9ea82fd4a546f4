"""What one application filter sees of the process: `api.Firewall`, its own for each filter.

So that what a filter has started ends with it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

from doorward.engine.supervision import Supervisor

T = TypeVar("T")

STOP_TIMEOUT_S: Final = 5.0


class FilterHost:
    """See `api.Firewall`."""

    def __init__(self, name: str, log: Any) -> None:
        self._name = name
        self._log = log
        self._tasks = Supervisor(self._task_failed)

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        """See `api.Firewall`."""
        self._tasks.spawn(coroutine, name=name)

    async def run_blocking(self, call: Callable[..., T], *arguments: object) -> T:
        """See `api.Firewall`."""
        return await asyncio.get_running_loop().run_in_executor(None, call, *arguments)

    def log(self, event: str, **fields: object) -> None:
        """See `api.Firewall`."""
        self._log.info(event, **{"filter": self._name, **fields})

    async def close(self) -> None:
        """End what the filter has started."""
        await self._tasks.close(STOP_TIMEOUT_S)

    def _task_failed(self, name: str, error: BaseException) -> None:
        self._log.error("a task of a filter failed", filter=self._name, task=name, error=error)
