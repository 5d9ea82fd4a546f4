from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.trees import plant
from tools.house import main

GOOD = {
    "src/doorward/__init__.py": '__version__ = "1"\n',
    "src/doorward/wire/errors.py": 'class ProtocolError(Exception):\n    slug = "bad_port"\n',
    "tests/wire/test_errors.py": "",
    "docs/reasons.md": "| `bad_port` | … |\n",
}


def test_a_tree_in_order_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(plant(tmp_path, GOOD))]) == 0
    assert capsys.readouterr().out == "the house is in order\n"


def test_every_check_has_its_say_and_the_status_is_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = {
        "src/doorward/wire/late.py": "import socket\n",
        "src/doorward/wire/long.py": "\n" * 401,
        "tests/wire/test_long.py": "# TO" + "DO\n",
        "docs/reasons.md": "| `bad_port` | … |\n| `bad_luck` | … |\n",
    }
    assert main([str(plant(tmp_path, GOOD | bad))]) == 1
    *lines, last = capsys.readouterr().out.splitlines()
    assert [line.split(": ")[0] for line in lines] == [
        "docs/reasons.md:2",
        "src/doorward/wire/late.py:1",
        "src/doorward/wire/late.py:1",
        "src/doorward/wire/long.py:1",
        "tests/wire/test_long.py:1",
    ]
    assert last == "5 breaches"


def test_a_file_that_is_not_python_is_a_breach_and_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plant(tmp_path, GOOD | {"src/doorward/wire/errors.py": "def keep[\n"})
    assert main([str(tmp_path)]) == 1
    assert "src/doorward/wire/errors.py:1: not Python of this version" in capsys.readouterr().out


def test_more_than_one_tree_is_a_mistake_of_the_caller(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["a", "b"]) == 2
    assert "usage" in capsys.readouterr().err
