"""A wire keeps the contract of everything that carries bytes."""

from __future__ import annotations

import pytest
from tests.net.carrier_contract import CarrierContract, MakeEnds
from tests.net.wires import connected

from doorward.api.errors import Side
from doorward.net.leg import Leg
from doorward.net.poller import Poller


@pytest.fixture
def make_ends(poller: Poller) -> MakeEnds:
    async def make(buffer_bytes: int) -> tuple[Leg, Leg]:
        one, other = connected(buffer_bytes)
        return Leg(poller, one, Side.INTERNAL), Leg(poller, other, Side.EXTERNAL)

    return make


class TestContract(CarrierContract):
    """See `carrier_contract`."""
