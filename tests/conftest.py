"""What every test shares: asynchronous tests run on the standard asyncio loop."""

from __future__ import annotations

import pytest

# Before anybody imports them: what these helpers assert is then shown like a test's own.
pytest.register_assert_rewrite(
    *(f"tests.net.{name}" for name in ("relay_bytes", "relay_ends", "relay_life", "relay_reclaim")),
    *(f"tests.net.{name}" for name in ("relay_schedules", "relay_world", "wires")),
    *(f"tests.net.{name}" for name in ("carrier_bytes", "carrier_ends", "carrier_world", "tls_client")),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"
