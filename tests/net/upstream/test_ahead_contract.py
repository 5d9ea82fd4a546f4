"""A carrier with bytes ahead keeps the contract of everything that carries bytes: over wires, and over TLS."""

from __future__ import annotations

import pytest
from tests.net.carrier_contract import CarrierContract, MakeEnds
from tests.net.certificates import Authority
from tests.net.tls_ends import Contexts
from tests.net.wires import connected

from doorward.api.errors import Side
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.upstream.ahead import Ahead


def _legs(poller: Poller, buffer_bytes: int) -> tuple[Leg, Leg]:
    one, other = connected(buffer_bytes)
    return Leg(poller, one, Side.INTERNAL), Leg(poller, other, Side.EXTERNAL)


class TestOverWires(CarrierContract):
    """See `carrier_contract`; nothing is ahead any more."""

    @pytest.fixture
    def make_ends(self, poller: Poller) -> MakeEnds:
        async def make(buffer_bytes: int) -> tuple[Ahead, Leg]:
            near, far = _legs(poller, buffer_bytes)
            return Ahead(near, b""), far

        return make


class TestOverTLS(CarrierContract):
    """As a tunnel through an upstream with TLS is."""

    @pytest.fixture
    def make_ends(self, poller: Poller, authority: Authority) -> MakeEnds:
        contexts = Contexts(authority)

        async def make(buffer_bytes: int) -> tuple[Ahead, Ahead]:
            near, far = await contexts.over(*_legs(poller, buffer_bytes))
            return Ahead(near, b""), Ahead(far, b"")

        return make
