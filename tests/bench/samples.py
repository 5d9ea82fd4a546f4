"""Samples made up for tests of what is reckoned from them."""

from __future__ import annotations

from bench.figures import FIGURES, Figure, Sample, sample
from bench.load import Window


def figure(name: str) -> Figure:
    return next(one for one in FIGURES if one.name == name)


def made(name: str, peer: str, round_number: int, operations: int, cpu_s: float = 0.5) -> Sample:
    """One second in which so many operations went through, at that cost."""
    window = Window(operations, 1.0, cpu_s, 1000, 2000, 0.5, 0.5, 0.0, 0, "")
    return sample(figure(name), peer, round_number, window)
