"""How much one session may ask, and how often it is written down that it may not."""

from __future__ import annotations

from doorward.engine.names.asked import (
    BURST_QUERIES,
    QUERIES_PER_SECOND,
    REFUSALS_MAX,
    SAME_REFUSAL_S,
    WAITING_MAX,
    NamesAsked,
)


def test_a_burst_is_taken_and_then_so_many_a_second() -> None:
    asked = NamesAsked(100.0)
    assert all(asked.may_ask(100.0) for _ in range(BURST_QUERIES))
    assert not asked.may_ask(100.0)
    assert sum(asked.may_ask(101.0) for _ in range(BURST_QUERIES)) == QUERIES_PER_SECOND
    assert sum(asked.may_ask(10_000.0) for _ in range(2 * BURST_QUERIES)) == BURST_QUERIES


def test_who_waits_for_too_many_answers_gets_no_more() -> None:
    asked = NamesAsked(0.0)
    asked.waiting = WAITING_MAX
    assert not asked.may_ask(0.0)
    asked.waiting -= 1
    assert asked.may_ask(0.0)


def test_the_same_refusal_is_new_again_after_a_while() -> None:
    asked = NamesAsked(0.0)
    assert asked.is_new_refusal("a.org", "rule_deny", 0.0)
    assert not asked.is_new_refusal("a.org", "rule_deny", SAME_REFUSAL_S - 0.1)
    assert asked.is_new_refusal("a.org", "default_deny", 0.0)
    assert asked.is_new_refusal("b.org", "rule_deny", 0.0)
    assert asked.is_new_refusal("a.org", "rule_deny", SAME_REFUSAL_S)


def test_the_memory_of_refusals_has_a_cap() -> None:
    asked = NamesAsked(0.0)
    for number in range(REFUSALS_MAX + 1):
        assert asked.is_new_refusal(f"{number}.org", "rule_deny", 0.0)
    assert not asked.is_new_refusal("1.org", "rule_deny", 0.0)
    assert asked.is_new_refusal("0.org", "rule_deny", 0.0), "it has left to make room"
