"""What is in force, as the relay is told of it."""

from __future__ import annotations

from doorward.config.model import Limits
from doorward.engine.association import Associations
from doorward.engine.ruling import Ruling
from doorward.net.relay import Limits as PairLimits
from doorward.policy.evaluation import Policy
from doorward.policy.model import Protocols


def test_the_relay_is_held_to_the_limits_of_the_policy_file() -> None:
    limits = Limits(idle_timeout_s=7.0, bytes_max_per_direction=11, bytes_per_second=13)
    ruling = Ruling(Policy([], "revision"), Associations([], Protocols()), limits)
    assert ruling.pair_limits == PairLimits(idle_s=7.0, bytes_max=11, bytes_per_second=13)
