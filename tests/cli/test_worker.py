from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.child import doorward
from tests.cli.conftest import Run


def test_it_is_not_for_people(run: Run) -> None:
    assert "worker" not in run("--help").output.split("Commands:")[1].split()


@pytest.mark.parametrize("words", [[], ["5", "6"], ["a", "b", "c"]])
def test_without_what_a_supervisor_says_it_does_not_run(run: Run, words: list[str]) -> None:
    assert run("worker", *words).exit_code == 2


def test_a_stranger_cannot_start_one(home: Path) -> None:
    done = doorward("worker", "100", "101", "1", home=home)
    assert done.returncode == 1
    assert done.stdout == ""
