"""Health: who failed rests, longer each time, and nobody but the upstream itself can put it to rest."""

from __future__ import annotations

from tests.net.wires import Clock

from doorward.net.upstream.health import REST_MAX_S, Health


def _rest_s(health: Health, clock: Clock) -> float:
    """How long it rests from now on."""
    start = clock.now
    while health.resting(["corp"]):
        clock.advance(0.5)
    return clock.now - start


def test_a_failure_is_a_rest_and_each_further_one_a_longer_rest_up_to_a_minute() -> None:
    clock = Clock(1000)
    health = Health(clock)
    assert not health.resting(["corp"])
    rests = []
    for _ in range(9):
        health.trying(["corp"])
        health.failed("corp")
        assert not health.resting(["backup"])
        rests.append(_rest_s(health, clock))
    assert rests == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert rests[-1] == REST_MAX_S


def test_many_failures_at_once_are_one() -> None:
    clock = Clock(0)
    health = Health(clock)
    for _ in range(100):
        health.failed("corp")
    assert _rest_s(health, clock) == 1


def test_after_a_rest_one_connection_finds_out_and_the_others_are_spared() -> None:
    clock = Clock(0)
    health = Health(clock)
    health.failed("corp")
    clock.advance(1)
    assert not health.resting(["corp"])
    health.trying(["corp"])
    assert health.resting(["corp"])
    health.well(["corp"])
    assert not health.resting(["corp"])


def test_doing_well_forgets_how_long_it_rested() -> None:
    clock = Clock(0)
    health = Health(clock)
    for _ in range(4):
        health.trying(["corp"])
        health.failed("corp")
        _rest_s(health, clock)
    health.well(["corp"])
    health.failed("corp")
    assert _rest_s(health, clock) == 1


def test_a_way_rests_if_one_of_its_hops_does() -> None:
    health = Health(Clock(0))
    health.failed("edge")
    assert health.resting(["edge", "corp"])
    assert not health.resting(["corp"])


def test_silence_about_one_destination_is_no_failure_however_often_it_is_asked_for() -> None:
    health = Health(Clock(0))
    for _ in range(100):
        health.silent("corp", "198.51.100.7 443")
        health.silent("corp", "198.51.100.8 443")
    assert not health.resting(["corp"])


def test_silence_about_everything_is_a_failure() -> None:
    health = Health(Clock(0))
    for number in range(3):
        assert not health.resting(["corp"])
        health.silent("corp", f"198.51.100.{number} 443")
    assert health.resting(["corp"])


def test_an_answer_in_between_makes_silences_start_anew() -> None:
    health = Health(Clock(0))
    for number in range(20):
        health.silent("corp", f"198.51.100.{number} 443")
        assert not health.resting(["corp"])
        if number % 2:
            health.well(["corp"])
