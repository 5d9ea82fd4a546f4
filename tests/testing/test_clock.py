"""A clock that the test moves."""

from __future__ import annotations

import pytest

from doorward.testing import Clock


def test_it_stands_still_until_it_is_told_to_go_on() -> None:
    clock = Clock(10.0)
    assert [clock(), clock()] == [10.0, 10.0]
    clock.advance(2.5)
    assert clock() == 12.5


def test_it_never_goes_back() -> None:
    clock = Clock()
    with pytest.raises(ValueError, match="back"):
        clock.advance(-0.1)
