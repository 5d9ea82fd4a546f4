"""A joint, and TLS over a joint, keep the contract of everything that carries bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.net.carrier_contract import CarrierContract, MakeEnds
from tests.net.certificates import Authority, usual
from tests.net.tls_ends import Contexts

from doorward.engine.joint import JointEnd, joint
from doorward.net.tls_leg import TLSLeg


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return usual(Path(tmp_path_factory.mktemp("certificates")))


class TestJoint(CarrierContract):
    """See `carrier_contract`."""

    @pytest.fixture
    def make_ends(self) -> MakeEnds:
        async def make(buffer_bytes: int) -> tuple[JointEnd, JointEnd]:
            return joint()

        return make


class TestTLSOverAJoint(CarrierContract):
    """As a filter meets it that speaks TLS with its neighbour."""

    @pytest.fixture
    def make_ends(self, authority: Authority) -> MakeEnds:
        contexts = Contexts(authority)

        async def make(buffer_bytes: int) -> tuple[TLSLeg, TLSLeg]:
            return await contexts.over(*joint())

        return make
