"""TLS keeps the contract of everything that carries bytes: over wires, and over TLS."""

from __future__ import annotations

import ssl

import pytest
from tests.net.carrier_contract import CarrierContract, MakeEnds
from tests.net.certificates import Authority
from tests.net.tls_ends import Contexts
from tests.net.wires import connected

from doorward.api.errors import Side
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.tls_leg import TLSLeg


def legs(poller: Poller, buffer_bytes: int) -> tuple[Leg, Leg]:
    """Two wires."""
    one, other = connected(buffer_bytes)
    return Leg(poller, one, Side.INTERNAL), Leg(poller, other, Side.EXTERNAL)


class TestOverWires(CarrierContract):
    """See `carrier_contract`; the client's end is one, the server's the other."""

    @pytest.fixture(params=[ssl.TLSVersion.TLSv1_3, ssl.TLSVersion.TLSv1_2], ids=lambda v: v.name)
    def make_ends(self, poller: Poller, authority: Authority, request: pytest.FixtureRequest) -> MakeEnds:
        contexts = Contexts(authority, request.param)

        async def make(buffer_bytes: int) -> tuple[TLSLeg, TLSLeg]:
            return await contexts.over(*legs(poller, buffer_bytes))

        return make


class TestOverTLS(CarrierContract):
    """TLS in TLS."""

    @pytest.fixture
    def make_ends(self, poller: Poller, authority: Authority) -> MakeEnds:
        contexts = Contexts(authority)

        async def make(buffer_bytes: int) -> tuple[TLSLeg, TLSLeg]:
            return await contexts.over(*await contexts.over(*legs(poller, buffer_bytes)))

        return make
