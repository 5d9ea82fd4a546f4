"""What is reckoned from samples."""

from __future__ import annotations

import pytest
from bench.figures import FIGURES, GROUPS, ratio
from tests.bench.samples import made


def test_a_ratio_is_the_median_of_ratios_within_rounds_and_not_of_medians() -> None:
    samples = [
        *(made("messages", "a", number, rate) for number, rate in ((1, 100), (2, 400), (3, 90))),
        *(made("messages", "b", number, rate) for number, rate in ((1, 50), (2, 400), (3, 30))),
    ]
    assert ratio(samples, "a", "b") == pytest.approx(2.0)


def test_a_ratio_of_cost_sets_cpu_per_operation_side_by_side() -> None:
    samples = [made("messages", "a", 1, 100, cpu_s=0.5), made("messages", "b", 1, 200, cpu_s=0.5)]
    assert ratio(samples, "a", "b", "cpu") == pytest.approx(2.0)


def test_rounds_that_only_one_of_them_has_do_not_count() -> None:
    samples = [made("messages", "a", 1, 100), made("messages", "b", 2, 100)]
    assert ratio(samples, "a", "b") is None


def test_a_peer_that_cost_nothing_measurable_is_no_divisor() -> None:
    samples = [made("messages", "a", 1, 100), made("messages", "b", 1, 100, cpu_s=0.0)]
    assert ratio(samples, "a", "b", "cpu") is None


def test_bytes_are_told_in_gigabits_and_gigabytes() -> None:
    one = made("download-8", "a", 1, 2_000_000_000, cpu_s=0.5)
    assert one.rate == pytest.approx(16.0)
    assert one.cpu == pytest.approx(0.25)


def test_every_figure_has_a_name_of_its_own_and_a_known_group() -> None:
    assert len({figure.name for figure in FIGURES}) == len(FIGURES)
    assert {figure.group for figure in FIGURES} < set(GROUPS)
