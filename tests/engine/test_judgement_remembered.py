"""The same question within a second is answered from memory, and any other question is not."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from doorward.engine import judgement
from doorward.engine.judgement import Judged, Judgements
from doorward.engine.session import Session
from doorward.engine.target import target_of
from doorward.policy.model import UNKNOWN, Action, Decision, Inputs, Unknown

NOW_S = 1_700_000_000.25
TARGET = target_of("192.0.2.1", 443)


def session(number: int = 1, user: str | None = None) -> Session:
    return Session(number, "127.0.0.1", user, frozenset())


def judged(reason: str) -> Judged:
    address = ip_address("192.0.2.1")
    inputs = Inputs("tcp", ip_address("127.0.0.1"), None, address, 443, None, frozenset(), 0)
    return Judged(Decision(Action.DENY, reason, inputs, "revision"), {})


def test_the_same_question_is_remembered_for_the_rest_of_its_second() -> None:
    answers, asker, answer = Judgements(), session(), judged("rule_deny")
    assert answers.recall(asker, TARGET, None, NOW_S) is None
    answers.keep(asker, TARGET, None, answer)
    assert answers.recall(asker, TARGET, None, NOW_S + 0.5) is answer
    assert answers.recall(asker, TARGET, None, NOW_S + 0.75) is None, (
        "another second, and perhaps another minute"
    )


@pytest.mark.parametrize(
    ("asker", "target", "user"),
    [
        (session(2), TARGET, None),
        (None, target_of("192.0.2.1", 80), None),
        (None, target_of("192.0.2.2", 443), None),
        (None, target_of("a.test", 443), None),
        (None, TARGET, UNKNOWN),
        (None, TARGET, "kim"),
    ],
)
def test_another_question_is_not_answered_by_this_one(
    asker: Session | None, target: object, user: str | Unknown | None
) -> None:
    answers, first = Judgements(), session()
    answers.recall(first, TARGET, None, NOW_S)
    answers.keep(first, TARGET, None, judged("rule_deny"))
    assert answers.recall(asker or first, target, user, NOW_S) is None  # type: ignore[arg-type]  # targets, all


def test_the_memory_has_a_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(judgement, "REMEMBERED_MAX", 2)
    answers, asker = Judgements(), session()
    answers.recall(asker, TARGET, None, NOW_S)
    for port in (1, 2, 3):
        answers.keep(asker, target_of("192.0.2.1", port), None, judged("rule_deny"))
    assert answers.recall(asker, target_of("192.0.2.1", 2), None, NOW_S) is not None
    assert answers.recall(asker, target_of("192.0.2.1", 3), None, NOW_S) is None
