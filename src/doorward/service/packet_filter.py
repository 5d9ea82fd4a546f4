"""A gateway's packet filter in force: the policy compiled for the kernel, and the service's listeners open in it.

As with filters, everything that can fail is done before the swap: the kernel has the new table some milliseconds before
the service judges by the new policy, and gets the old one back if there is no swap after all. Without
`transparent.packet_filter` there is none of this, and nothing of it is imported.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from doorward.service.listeners import CannotListen
from doorward.service.reloading import giving_way

if TYPE_CHECKING:
    from pathlib import Path

    from doorward.config.model import Configuration
    from doorward.engine.association import FilterEntry
    from doorward.engine.engine import Engine
    from doorward.packetfilter.messages import Flow
    from doorward.packetfilter.model import Element, Table
    from doorward.packetfilter.upkeep import PacketFilter
    from doorward.service.kernel_counts import KernelCounts


class CannotFilterPackets(CannotListen):
    """The kernel's packet filter is not as the policy wants it. The message says why."""


class GatewayFilter:
    """See the module."""

    def __init__(self, log: Any, engine: Engine) -> None:
        """Ports of the engine's are told to the packet filter from its first beginning on."""
        self._log = log
        self._spawn = engine.supervisor.spawn
        self._arrivals = engine.arrivals
        self._append = engine.recorder.append
        self._path: Path | None = None
        self._before: Table | None = None
        self._static: set[Element] = set()
        self._counts: KernelCounts | None = None
        self.filter: PacketFilter | None = None

    async def prepare(self, configuration: Configuration, entries: Iterable[FilterEntry]) -> None:
        """Put the table in force in the kernel. `commit` or `abandon` must follow. Raises CannotFilterPackets."""
        settings = configuration.transparent
        path = None if settings is None else settings.packet_filter
        if path != self._path and self.filter is not None:
            raise CannotFilterPackets("another packet filter, or none, needs a restart of the service")
        if path is None:
            return
        from doorward.packetfilter.client import HelperGone, HelperRefused
        from doorward.service.packet_filter_table import table_of

        table: Table = await giving_way(table_of, configuration, list(entries))
        if table.left_out:
            self._log.warning(
                "the policy is too large for the kernel; more comes up", left_out=table.left_out
            )
        try:
            if self.filter is None:
                await self._begin(path, table)
            else:
                await self._replace(self.filter, table)
        except (HelperGone, HelperRefused) as error:
            raise CannotFilterPackets(f"cannot put the packet filter in force: {error}") from error

    async def _begin(self, path: Path, table: Table) -> None:
        from doorward.packetfilter.upkeep import PacketFilter
        from doorward.service.kernel_counts import KernelCounts
        from doorward.service.kernel_openings import KernelOpenings

        begun = PacketFilter(path, self._say, self._on_flows)
        await self._put(begun.start, table)
        self.filter, self._path, self._counts = begun, path, KernelCounts()
        self._arrivals.openings = KernelOpenings(begun, self._say)
        self._spawn(begun.run(), name="packet filter")

    async def _replace(self, packet_filter: PacketFilter, table: Table) -> None:
        before, counted = packet_filter.table, await packet_filter.count()
        await self._put(packet_filter.load, table)
        self._before = before
        if self._counts is not None:
            self._counts.add(before, counted)

    async def _put(self, put: Callable[[Table], Awaitable[None]], table: Table) -> None:
        """With the kernel's log, or without it, if it has none. Raises HelperGone, HelperRefused."""
        from msgspec.structs import replace

        from doorward.packetfilter.client import HelperRefused

        try:
            await put(table)
        except HelperRefused as error:
            if table.capture.log_group is None:
                raise
            await put(replace(table, capture=replace(table.capture, log_group=None)))
            self._say(f"what the kernel settles is counted, and not on record: {error}")

    def _on_flows(self, flows: tuple[Flow, ...]) -> None:
        from doorward.service.kernel_records import append_flows

        now = None if self.filter is None else self.filter.table
        append_flows(self._append, (now, self._before), flows)

    async def abandon(self) -> None:
        """Give the kernel the table that was in force before. Without a helper the next one gets it."""
        before, self._before = self._before, None
        if self.filter is None or before is None:
            return
        from doorward.packetfilter.client import HelperGone, HelperRefused

        try:
            await self.filter.load(before)
        except (HelperGone, HelperRefused) as error:
            self._say(
                f"the packet filter could not be put back, and has the policy that was refused: {error}"
            )

    def commit(self, configuration: Configuration, listening: Sequence[tuple[str, int]]) -> None:
        """Open what the policy listens for, close what it does not any more."""
        self._before = None
        if self.filter is None:
            return
        from doorward.service.packet_filter_table import openings_of

        before, self._static = self._static, openings_of(configuration, listening)
        for element in self._static - before:
            self._spawn(self._open(self.filter, element), name="opening")
        for element in before - self._static:
            self.filter.close(element)

    async def told(self) -> dict[str, int]:
        """Decisions of the kernel since the start, by what the policy calls them; see `KernelCounts`."""
        if self.filter is None or self._counts is None:
            return {}
        return self._counts.with_those_of(self.filter.table, await self.filter.count())

    def close(self) -> None:
        """What is open is closed by the helper; the table stays. Idempotent."""
        if self.filter is not None:
            self.filter.end()

    async def _open(self, packet_filter: PacketFilter, element: Element) -> None:
        from doorward.packetfilter.client import HelperGone, HelperRefused

        try:
            await packet_filter.open(element)
        except (HelperGone, HelperRefused) as error:
            self._static.discard(element)
            self._say(f"port {element.port} is not open to clients: {error}")

    def _say(self, text: str) -> None:
        self._log.warning(text)
