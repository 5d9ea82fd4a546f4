"""The table while it grows: steps and outcomes, each once, however many ways lead there; and what is too much."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final

from doorward.packetfilter.intervals import Interval
from doorward.packetfilter.model import (
    CASES_MAX,
    OUTCOMES_MAX,
    STEPS_MAX,
    Case,
    Field,
    Outcome,
    Step,
    Version,
)

UP: Final = Outcome("up")
WORK_MAX: Final = 4_000_000
"""Rules looked at, one for each sweep that it is part of: some ten seconds."""


class Planting:
    """Steps and outcomes by their places; a target is what `model.Step` says."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.outcomes: list[Outcome] = []
        self.cases = 0
        self.work = 0
        self.left_out = 0
        self._step_places: dict[Step, int] = {}
        self._outcome_places: dict[Outcome, int] = {}
        self.up = self.outcome(UP)

    def outcome(self, outcome: Outcome, instead: int = 0) -> int:
        """The target that is this outcome; `instead` for one too many."""
        place = self._outcome_places.get(outcome)
        if place is None:
            if len(self.outcomes) >= OUTCOMES_MAX:
                self.left_out += 1
                return instead
            place = self._outcome_places[outcome] = len(self.outcomes)
            self.outcomes.append(outcome)
        return place

    def step(
        self, field: Field, version: Version, pieces: Iterable[tuple[Interval, int]], instead: int
    ) -> int:
        """The target for pieces that cover every value; `instead` if that is too much.

        A step that leads everywhere to the same is left out.
        """
        cases: list[Case] = []
        for (first, last), target in pieces:
            if cases and cases[-1].target == target:
                cases[-1] = Case(cases[-1].first, last, target)
            else:
                cases.append(Case(first, last, target))
        otherwise = Counter(case.target for case in cases).most_common(1)[0][0]
        kept = tuple(case for case in cases if case.target != otherwise)
        if not kept:
            return otherwise
        step = Step(field, version, kept, otherwise)
        place = self._step_places.get(step)
        if place is None:
            if len(self.steps) >= STEPS_MAX or self.cases + len(kept) > CASES_MAX:
                self.left_out += 1
                return instead
            place = self._step_places[step] = len(self.steps)
            self.steps.append(step)
            self.cases += len(kept)
        return -1 - place

    def may_look_at(self, rules: int) -> bool:
        """Whether there is work left to do for so many rules; if not, what they would decide comes up."""
        if self.work + rules > WORK_MAX:
            self.left_out += 1
            return False
        self.work += rules
        return True
