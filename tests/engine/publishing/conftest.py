"""Streets on checked rigs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from tests.engine.publishing.houses import Street
from tests.engine.rig import Rig


@pytest.fixture
async def make_street(make_rig: Callable[..., Rig]) -> AsyncIterator[Callable[..., Street]]:
    """Make streets, each with a rig of its own; what may be said is what `Rig` says."""
    made: list[Street] = []

    def make(*entries: object, **options: object) -> Street:
        made.append(Street(make_rig(*entries, **options)))
        return made[-1]

    yield make
    for street in made:
        street.close()
