"""What every test shares: asynchronous tests run on the standard asyncio loop."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
