"""The policies that judgements are measured with."""

from __future__ import annotations

import pytest
from bench.policy import asked_for, cases, measure, rule

from doorward.policy.evaluation import Policy


@pytest.mark.parametrize("number", range(80, 100))
def test_what_is_asked_for_meets_the_rule_it_was_made_for(number: int) -> None:
    decision = Policy([rule(n) for n in range(100)], "test").judge(asked_for(number))
    assert decision.rule == f"rule {number}"


def test_every_case_is_asked_of_every_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.policy.JUDGEMENTS_PER_ROUND", 3)
    monkeypatch.setattr("bench.policy.IN_TURN", (3,))
    monkeypatch.setattr("bench.policy.ROUNDS", 1)
    measured = measure([20, 40])
    assert list(measured) == list(cases(20))
    assert all(len(times) == 2 and min(times) > 0 for times in measured.values())
