"""What is in force: policy, filters, limits. One immutable object, swapped as a whole by a reload."""

from __future__ import annotations

from typing import NamedTuple

from doorward.config.model import Limits
from doorward.engine.association import Associations
from doorward.net.relay import Limits as PairLimits
from doorward.policy.evaluation import Policy


class Ruling(NamedTuple):
    """A connection keeps the ruling it was judged by for as long as it lives."""

    policy: Policy
    associations: Associations
    limits: Limits

    @property
    def pair_limits(self) -> PairLimits:
        """What the relay is to hold a pair to."""
        limits = self.limits
        return PairLimits(limits.idle_timeout_s, limits.bytes_max_per_direction, limits.bytes_per_second)
