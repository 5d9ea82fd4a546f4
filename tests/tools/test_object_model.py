"""The table of the object model names tests that exist."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.trees import plant
from tools.object_model import PAGE, check

TEST = "def test_it_holds() -> None: ...\nclass TestAll:\n    async def test_within(self) -> None: ...\n"
HEAD = "# The object model\n\n| original | ours | proved by |\n| --- | --- | --- |\n"


def told(root: Path, row: str) -> list[str]:
    plant(root, {PAGE: HEAD + row + "\n", "tests/a/test_b.py": TEST})
    return [str(breach) for breach in check(root)]


@pytest.mark.parametrize(
    "row",
    [
        "| Deny | `deny` | `tests/a/test_b.py::test_it_holds` |",
        "| Deny | `deny` | `tests/a/test_b.py::TestAll::test_within`, `tests/a/test_b.py::test_it_holds` |",
        "| Deny | none | not here: nobody needs it |",
        "Deny is not in a table.",
    ],
)
def test_a_row_with_its_tests_passes(tmp_path: Path, row: str) -> None:
    assert told(tmp_path, row) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| Deny | `deny` | `tests/a/test_b.py::test_gone` |", "no test test_gone in tests/a/test_b.py"),
        (
            "| Deny | `deny` | `tests/a/test_c.py::test_it_holds` |",
            "no test test_it_holds in tests/a/test_c.py",
        ),
        (
            "| Deny | `deny` | `tests/a/test_b.py::test_it_holds`, `tests/a/test_b.py::test_gone` |",
            "no test test_gone",
        ),
        ("| Deny | `deny` | of course |", "names no test"),
        ("| Deny | `deny` | |", "names no test"),
        ("| Deny | `tests/a/test_b.py::test_it_holds` | of course |", "names no test"),
    ],
)
def test_a_row_without_its_tests_is_a_breach(tmp_path: Path, row: str, problem: str) -> None:
    (breach,) = told(tmp_path, row)
    assert breach.startswith(f"{PAGE}:5: ")
    assert problem in breach


def test_without_the_page_there_is_nothing_to_check(tmp_path: Path) -> None:
    assert list(check(tmp_path)) == []
