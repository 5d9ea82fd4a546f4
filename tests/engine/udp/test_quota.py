from __future__ import annotations

import pytest

from doorward.api import ByteLimitReached
from doorward.engine.udp.quota import Quota


def test_without_limits_everything_passes() -> None:
    quota = Quota(0, 0, 0.0)
    assert not quota.limited
    assert all(quota.take(10**9, 0.0, outward=True) for _ in range(5))


def test_each_direction_has_its_own_bytes() -> None:
    quota = Quota(10, 0, 0.0)
    assert quota.limited
    assert quota.take(10, 0.0, outward=True)
    assert quota.take(10, 0.0, outward=False)
    with pytest.raises(ByteLimitReached):
        quota.take(1, 0.0, outward=True)


def test_a_rate_lets_a_part_pass_at_once_and_more_with_time() -> None:
    quota = Quota(0, 1000, 0.0)
    passed = sum(quota.take(10, 0.0, outward=True) for _ in range(100))
    assert 1 <= passed < 50
    assert not quota.take(10, 0.0, outward=True)
    assert quota.take(10, 0.0, outward=False)
    assert quota.take(10, 1.0, outward=True)


def test_what_was_dropped_does_not_count() -> None:
    quota = Quota(100, 20, 0.0)
    while quota.take(1, 0.0, outward=True):
        pass
    moved = quota._moved[True]
    assert not quota.take(50, 0.0, outward=True)
    assert quota._moved[True] == moved
