"""What whoever carries one side of a connection must do: see `doorward.net.carrier`. Only that border is used.

Subclass `CarrierContract` in a test module that has a fixture `make_ends`: it makes two carriers that face each
other, with small buffers between them if it is asked for and there are any. The suite runs both ways round, closes
both, and checks that no task is left; descriptors and watches are the fixture's to check.
"""

from __future__ import annotations

from tests.net.carrier_bytes import BytesContract
from tests.net.carrier_ends import AbortContract, EndsContract
from tests.net.carrier_world import MakeEnds

__all__ = ["CarrierContract", "MakeEnds"]


class CarrierContract(BytesContract, EndsContract, AbortContract):
    """All of it."""
