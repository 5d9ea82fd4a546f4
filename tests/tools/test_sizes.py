from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.trees import places, plant
from tools.sizes import check


def function(lines: int, name: str = "work") -> str:
    return f"def {name}():\n" + "    x = 1\n" * (lines - 1)


def messages(root: Path) -> list[str]:
    return [str(breach) for breach in check(root)]


def test_what_just_fits_is_good(tmp_path: Path) -> None:
    decorated = "@parametrize(\n" + "    1,\n" * 60 + ")\n" + function(50)
    plant(tmp_path, {"src/a.py": "\n" * 400, "src/b.py": decorated, "docs/long.md": "\n" * 999})
    assert messages(tmp_path) == []


def test_a_file_and_a_function_one_line_too_long_are_told(tmp_path: Path) -> None:
    plant(tmp_path, {"bench/load.c": "\n" * 401, "src/b.py": "\n\n" + function(51)})
    assert messages(tmp_path) == [
        "bench/load.c:1: 401 lines, at most 400; split it by its nouns",
        "src/b.py:3: 51 lines, at most 50; split it by its nouns",
    ]


@pytest.mark.parametrize("head", ["class Reader:\n    async ", "if True:\n    ", "def outer():\n    "])
def test_a_function_counts_wherever_it_stands(tmp_path: Path, head: str) -> None:
    inner = "def run(self):\n" + "        x = 1\n" * 50
    plant(tmp_path, {"src/a.py": head + inner})
    assert ("src/a.py", 2) in places(check(tmp_path))


def test_a_debt_is_exactly_what_is_owed_and_only_shrinks(tmp_path: Path) -> None:
    reader = "class Reader:\n    def run(self):\n" + "        x = 1\n" * 59
    plant(tmp_path, {"src/a.py": reader, "tools/debts.txt": "# why\n\nsrc/a.py::Reader.run 60\n"})
    assert messages(tmp_path) == []
    plant(tmp_path, {"tools/debts.txt": "src/a.py::Reader.run 59\n"})
    assert messages(tmp_path) == ["src/a.py:2: 60 lines, at most 59; split it by its nouns"]
    plant(tmp_path, {"tools/debts.txt": "src/a.py::Reader.run 61\n"})
    assert messages(tmp_path) == [
        "tools/debts.txt:1: src/a.py::Reader.run has shrunk; write 60 in place of 61"
    ]


@pytest.mark.parametrize("debt", ["src/a.py 500", "src/gone.py 500", "src/a.py::work 60"])
def test_a_debt_that_is_paid_has_to_go(tmp_path: Path, debt: str) -> None:
    plant(tmp_path, {"src/a.py": function(50), "tools/debts.txt": debt + "\n"})
    assert messages(tmp_path) == [
        f"tools/debts.txt:1: {debt.split()[0]} owes nothing any more; delete this line"
    ]
