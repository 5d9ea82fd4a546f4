"""Everything once, and never too much of it."""

from __future__ import annotations

import pytest

from doorward.packetfilter import planting
from doorward.packetfilter.intervals import Interval
from doorward.packetfilter.model import Outcome
from doorward.packetfilter.planting import Planting

DENY = Outcome("deny", "r", 1, "rule_deny")


def test_the_same_step_is_planted_once_and_one_that_decides_nothing_never() -> None:
    found = Planting()
    deny = found.outcome(DENY)
    assert found.outcome(DENY) == deny
    pieces = [
        (Interval(0, 9), found.up),
        (Interval(10, 19), deny),
        (Interval(20, 29), deny),
        (Interval(30, 99), 0),
    ]
    step = found.step("port", 4, pieces, 0)
    assert step == found.step("port", 4, pieces, 0) == -1
    assert [(c.first, c.last, c.target) for c in found.steps[0].cases] == [(10, 29, deny)]
    assert found.steps[0].otherwise == found.up
    assert found.step("port", 4, [(Interval(0, 9), deny), (Interval(10, 99), deny)], 0) == deny
    assert found.left_out == 0


@pytest.mark.parametrize("limit", ["STEPS_MAX", "CASES_MAX", "OUTCOMES_MAX", "WORK_MAX"])
def test_what_is_too_much_is_left_out_and_counted(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    found = Planting()
    monkeypatch.setattr(planting, limit, 0)
    if limit == "OUTCOMES_MAX":
        assert found.outcome(DENY, 7) == 7
    elif limit == "WORK_MAX":
        assert not found.may_look_at(1)
    else:
        assert found.step("port", 4, [(Interval(0, 9), 0), (Interval(10, 99), 1)], 7) == 7
    assert found.left_out == 1
