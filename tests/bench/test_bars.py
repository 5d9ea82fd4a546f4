"""Whether a run reached the bars."""

from __future__ import annotations

import pytest
from bench.bars import BARS, KIB, Bar, outcomes, verdict
from bench.figures import DEFAULT_GROUPS, FIGURES, Judgement, Memory
from bench.peers import DEFAULT, PEERS
from tests.bench.samples import made


@pytest.mark.parametrize(
    ("factor", "bound", "limit", "said"),
    [
        (2.0, "at least", 2.0, "met"),
        (2.1, "at least", 2.0, "met"),
        (1.5, "at least", 2.0, "missed by 25 %"),
        (1.999, "at least", 2.0, "missed by 1 %"),
        (0.5, "at most", 0.5, "met"),
        (0.4, "at most", 0.5, "met"),
        (1.0, "at most", 0.5, "missed by 100 %"),
    ],
)
def test_a_bar_is_met_or_missed_by_a_part_of_its_limit(
    factor: float, bound: str, limit: float, said: str
) -> None:
    assert verdict(factor, bound, limit) == said


def test_a_bar_says_what_was_reached_beside_whom() -> None:
    samples = [
        made("connections", "doorward", 1, 9000, cpu_s=0.9),
        made("connections", "dante", 1, 5000, cpu_s=1.0),
    ]
    found = outcomes(["connections"], samples, [], [])
    fast, cheap = (o for o in found if "dante" in o.bar and o.ours.startswith("doorward "))
    assert fast.factor == pytest.approx(1.8)
    assert (fast.theirs, fast.verdict) == ("5,000", "missed by 10 %")
    assert cheap.factor == pytest.approx(0.5)
    assert cheap.verdict == "met"


def test_what_was_not_measured_is_told_and_never_met() -> None:
    found = outcomes(DEFAULT_GROUPS, [], [], [])
    assert len(found) == len(BARS) + 3
    assert {(o.factor, o.verdict) for o in found} == {(None, "not measured")}


def test_bars_of_figures_that_nobody_asked_for_are_left_out() -> None:
    assert [o.figure for o in outcomes(["messages"], [], [], [])] == ["messages, CPU µs/message"]


def test_memory_that_could_not_be_held_or_that_shrank_is_not_measured() -> None:
    shrunk = Memory("doorward", 100, 2 * KIB, KIB)
    assert outcomes(["memory"], [], [shrunk], [])[0].verdict == "not measured"
    held, lost = Memory("doorward", 100, 0, 200 * KIB), Memory("doorward-workers", 100, 0, 0, failed="closed")
    first, second = outcomes(["memory"], [], [held, lost], [])
    assert first.factor == pytest.approx(0.5)
    assert first.verdict == "met"
    assert second.verdict == "not measured"


def test_the_worst_case_of_the_judgements_counts() -> None:
    judgements = [Judgement("one", 2.0, 2.0), Judgement("another", 1.0, 1.8)]
    (found,) = outcomes(["judgements"], [], [], judgements)
    assert found.factor == pytest.approx(1.8)
    assert found.verdict == "missed by 20 %"


@pytest.mark.parametrize("bar", BARS, ids=lambda bar: f"{bar.figure}-{bar.ours}-{bar.theirs}-{bar.quantity}")
def test_both_sides_of_a_bar_take_part_by_default_in_the_figure_it_is_about(bar: Bar) -> None:
    group = next(figure.group for figure in FIGURES if figure.name == bar.figure)
    assert {bar.ours, bar.theirs} <= set(DEFAULT)
    assert all(group in PEERS[side].takes_part_in for side in (bar.ours, bar.theirs))
