"""The packet filter at start, at reload and at the end, with a kernel that only remembers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.packetfilter.helpers import helping
from tests.service.test_packet_filter_table import HEAD, configured

from doorward.service.packet_filter import CannotFilterPackets, GatewayFilter

pytestmark = pytest.mark.anyio


class Log:
    def __init__(self) -> None:
        self.told: list[str] = []

    def warning(self, text: str, **_: object) -> None:
        self.told.append(text)


@asynccontextmanager
async def world() -> AsyncIterator[tuple[GatewayFilter, Any, Log]]:
    log, tasks = Log(), []

    async with asyncio.TaskGroup() as group:

        def spawn(coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
            tasks.append(group.create_task(coroutine, name=name))

        engine = SimpleNamespace(
            supervisor=SimpleNamespace(spawn=spawn),
            arrivals=SimpleNamespace(openings=None),
            recorder=SimpleNamespace(append=lambda record: None),
        )
        found = GatewayFilter(log, engine)  # type: ignore[arg-type]
        yield found, engine, log
        found.close()
        for task in tasks:
            task.cancel()


def with_socket(path: Path, more: str = "") -> Any:
    return configured(f'{HEAD}packet_filter = "{path}"\n{more}')


async def test_without_one_nothing_is_told_and_nothing_begins() -> None:
    async with world() as (found, engine, _):
        await found.prepare(configured(), [])
        found.commit(configured(), [("0.0.0.0", 1)])
        await found.abandon()
        assert await found.told() == {}
        assert found.filter is None
        assert engine.arrivals.openings is None


async def test_a_reload_loads_and_a_refused_one_puts_the_old_table_back(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with helping(path) as helped:
        async with world() as (found, engine, _):
            first = with_socket(path)
            await found.prepare(first, [])
            found.commit(first, [("0.0.0.0", 1080)])
            assert engine.arrivals.openings is not None
            second = with_socket(path, '[[rule]]\nname = "second"\naction = "deny"\nprotocols = ["tcp/25"]\n')
            await found.prepare(second, [])
            assert "deny: second" in str(helped.nft.transactions[-1])
            await found.abandon()
            assert "deny: second" not in str(helped.nft.transactions[-1])
            await found.prepare(second, [])
            found.commit(second, [])
            count = len(helped.nft.transactions)
            await found.abandon()
            assert len(helped.nft.transactions) == count


async def test_what_cannot_be_put_in_force_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s"
    async with world() as (found, _, _log):
        with pytest.raises(CannotFilterPackets, match="no packet filter's helper answers"):
            await found.prepare(with_socket(path), [])
        with helping(path) as helped:
            helped.nft.unwanted = ["prerouting"]
            with pytest.raises(CannotFilterPackets, match="unwanted"):
                await found.prepare(with_socket(path), [])
            helped.nft.unwanted = []
            await found.prepare(with_socket(path), [])
            for other in (with_socket(tmp_path / "t"), configured()):
                with pytest.raises(CannotFilterPackets, match="restart"):
                    await found.prepare(other, [])
