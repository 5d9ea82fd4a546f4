"""What is in force: policy, filters, limits. One object, swapped as a whole by a reload."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from doorward.config.model import Limits
from doorward.engine.association import Associations
from doorward.engine.judgement import Judgements
from doorward.net.relay import Limits as PairLimits
from doorward.policy.evaluation import Policy

if TYPE_CHECKING:
    from doorward.net.upstream.ways import Ways


@dataclass(frozen=True, slots=True)
class Ruling:
    """A connection keeps the ruling it was judged by for as long as it lives.

    `ways` lead to upstreams; None if everything goes direct. `pair_limits` are what the relay is to hold a pair to;
    `judgements` are those of the last moment.
    """

    policy: Policy
    associations: Associations
    limits: Limits
    ways: Ways | None = None
    pair_limits: PairLimits = field(init=False)
    judgements: Judgements = field(init=False, compare=False)

    def __post_init__(self) -> None:
        limits = self.limits
        pair_limits = PairLimits(
            limits.idle_timeout_s, limits.bytes_max_per_direction, limits.bytes_per_second
        )
        object.__setattr__(self, "pair_limits", pair_limits)
        object.__setattr__(self, "judgements", Judgements())
