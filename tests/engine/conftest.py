"""Engines for tests, each checked for what it leaves behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from tests.engine.rig import Rig


@pytest.fixture
async def make_rig(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Callable[..., Rig]]:
    """Make engines; see `Rig` for what may be said."""
    made: list[Rig] = []

    def make(*entries: object, **options: object) -> Rig:
        made.append(Rig(tmp_path, entries, **options))  # type: ignore[arg-type]  # Rig says what it takes
        return made[-1]

    yield make
    for rig in reversed(made):
        await rig.close()
