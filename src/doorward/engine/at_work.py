"""Which filter's code is running: what it makes for itself is on record under its name, and ends with it.

Tasks that a filter starts inherit it.
"""

from __future__ import annotations

from collections.abc import Coroutine, Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, TypeVar

if TYPE_CHECKING:
    from doorward.api.contracts import Connection
    from doorward.engine.association import FilterEntry

T = TypeVar("T")

AT_WORK: Final[ContextVar[FilterEntry | None]] = ContextVar("filter_at_work", default=None)


def entry_of(connection: Connection, name: str) -> FilterEntry | None:
    """The filter of this name that takes part in a connection; None for one that nobody has in force (a factory's)."""
    joined: Iterable[FilterEntry] = getattr(connection, "joined", ())
    return next((entry for entry in joined if entry.name == name), None)


async def as_work_of(entry: FilterEntry | None, work: Coroutine[Any, Any, T]) -> T:
    """Run it as this filter's; None: as nobody's. Raises what it raises."""
    before = AT_WORK.get()
    AT_WORK.set(entry)
    try:
        return await work
    finally:
        # Not by a token: what is given up may be closed in another context.
        AT_WORK.set(before)
