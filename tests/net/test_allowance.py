"""A limited rate: what may pass is a second's worth at most, and what was overdrawn is waited for."""

from __future__ import annotations

from doorward.net.allowance import STEP_S, Allowance


def test_a_new_flow_may_begin_with_a_step_of_its_rate() -> None:
    assert Allowance(1000, 10.0).available(10.0) == 1000 * STEP_S


def test_allowance_grows_with_time_up_to_one_second_of_the_rate() -> None:
    allowance = Allowance(1000, 0.0)
    assert allowance.available(0.5) == 550
    assert allowance.available(60.0) == 1000


def test_what_was_spent_is_gone_and_what_was_overdrawn_is_waited_for() -> None:
    allowance = Allowance(1000, 0.0)
    allowance.available(0.0)
    allowance.spend(550)
    assert allowance.available(0.0) == 0
    assert allowance.wait_s == 0.5
    assert allowance.available(1.0) == 500


def test_a_rate_of_one_byte_a_second_lets_one_byte_pass_each_second() -> None:
    allowance = Allowance(1, 0.0)
    assert allowance.available(0.5) == 0
    assert allowance.available(1.0) == 1
    assert allowance.wait_s >= STEP_S
