"""Openings are wanted, batched, renewed, and come back with the helper."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.packetfilter.helpers import Helped, helping
from tests.packetfilter.tables import HOLE, HOLE6, WEB, table_of

from doorward.packetfilter import upkeep
from doorward.packetfilter.client import HelperGone, HelperRefused
from doorward.packetfilter.model import Element
from doorward.packetfilter.upkeep import PacketFilter

pytestmark = pytest.mark.anyio
TABLE = table_of(WEB)
MANY = [Element("tcp", "10.2.0.2", "10.2.0.2", None, port) for port in range(1, 101)]


@asynccontextmanager
async def keeping(path: Path) -> AsyncIterator[tuple[PacketFilter, list[str]]]:
    said: list[str] = []
    found = PacketFilter(path, said.append)
    await found.start(TABLE)
    async with asyncio.TaskGroup() as group:
        task = group.create_task(found.run())
        try:
            yield found, said
        finally:
            task.cancel()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110  # a thread is waited for
            await asyncio.sleep(0.005)


async def test_what_is_asked_for_at_once_is_one_transaction(tmp_path: Path) -> None:
    with helping(tmp_path / "s") as helped:
        async with keeping(tmp_path / "s") as (found, _):
            before = len(helped.nft.transactions)
            await asyncio.gather(*map(found.open, MANY))
            assert len(helped.nft.transactions) == before + 1
            for element in MANY:
                found.close(element)
            found.close(HOLE)
            await until(lambda: len(helped.nft.transactions) == before + 2)
            assert str(helped.nft.transactions[-1]).count("10.2.0.2") == 2 * len(MANY)


async def test_an_opening_is_held_as_often_as_it_was_asked_for(tmp_path: Path) -> None:
    with helping(tmp_path / "s") as helped:
        async with keeping(tmp_path / "s") as (found, _):
            await asyncio.gather(found.open(HOLE), found.open(HOLE))
            await found.open(HOLE)
            before = len(helped.nft.transactions)
            for _ in range(2):
                found.close(HOLE)
            await found.open(HOLE6)
            assert len(helped.nft.transactions) == before + 1
            assert HOLE.first not in str(helped.nft.transactions[-1])
            found.close(HOLE)
            await until(lambda: len(helped.nft.transactions) == before + 2)


async def test_leases_are_renewed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upkeep, "RENEW_S", 0.05)
    with helping(tmp_path / "s") as helped:
        async with keeping(tmp_path / "s") as (found, _):
            await found.open(HOLE)
            before = len(helped.nft.transactions)
            await until(lambda: len(helped.nft.transactions) >= before + 2)
            assert "'timeout': 30" in str(helped.nft.transactions[-1])


async def test_what_is_refused_is_not_held(tmp_path: Path) -> None:
    with helping(tmp_path / "s") as helped:
        async with keeping(tmp_path / "s") as (found, said):
            helped.nft.unwanted = ["fd02::ff"]
            results = await asyncio.gather(found.open(HOLE), found.open(HOLE6), return_exceptions=True)
            assert results[0] is None
            assert isinstance(results[1], HelperRefused)
            assert said
            helped.nft.unwanted = []
            await found.open(HOLE6)


async def test_who_is_cancelled_holds_nothing(tmp_path: Path) -> None:
    with helping(tmp_path / "s") as helped:
        async with keeping(tmp_path / "s") as (found, _):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await found.open(HOLE)
            await found.open(HOLE6)
            opened = [t for t in helped.nft.transactions if HOLE.first in str(t) and "timeout" in str(t)]
            assert not opened


async def test_a_helper_that_comes_back_gets_table_and_openings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upkeep, "RETRY_S", 0.02)
    first = Helped(tmp_path / "s")
    async with keeping(tmp_path / "s") as (found, said):
        await found.open(HOLE)
        first.end()
        await until(lambda: not found.answers)
        with pytest.raises(HelperGone):
            await found.open(HOLE6)
        with pytest.raises(HelperGone):
            await found.load(table_of())
        assert await found.count() == {}
        assert found.table is TABLE
        with helping(tmp_path / "s") as second:
            second.nft.unwanted = ["prerouting"]
            await until(lambda: any("does not take" in line for line in said))
            second.nft.unwanted = []
            await until(lambda: found.answers)
            loaded = str(second.nft.transactions[-1])
            assert HOLE.first in loaded
            assert HOLE6.first not in loaded
            await found.open(HOLE6)


async def test_a_start_without_helper_or_with_a_table_that_is_refused_fails(tmp_path: Path) -> None:
    found = PacketFilter(tmp_path / "s", print)
    with pytest.raises(HelperGone):
        await found.start(TABLE)
    with helping(tmp_path / "s") as helped:
        helped.nft.unwanted = ["prerouting"]
        with pytest.raises(HelperRefused):
            await found.start(TABLE)
        assert not found.answers
        assert found.table is None
