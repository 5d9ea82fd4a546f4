"""Harnesses for tests of the kit, each checked for what it leaves behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, TypeAlias

import pytest
from tests.engine.rig import descriptors, tasks

from doorward.testing import FilterHarness

MakeHarness: TypeAlias = Callable[..., FilterHarness]


@pytest.fixture
async def make_harness(anyio_backend: str) -> AsyncIterator[MakeHarness]:
    """Make harnesses. At the end no task, no descriptor, no promise and no connection is left."""
    before = tasks(), descriptors()
    made: list[FilterHarness] = []

    def make(**options: Any) -> FilterHarness:
        made.append(FilterHarness(**options))
        return made[-1]

    yield make
    for harness in made:
        await harness.close()
        assert not any(given.active for given in harness.grants)
        assert not harness.session.promises
    await asyncio.sleep(0)
    assert tasks() <= before[0]
    assert descriptors() <= before[1]
