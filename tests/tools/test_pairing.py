from __future__ import annotations

from pathlib import Path

from tests.tools.trees import places, plant
from tools.pairing import check

GOOD = [
    "src/doorward/__init__.py",
    "src/doorward/__main__.py",
    "src/doorward/wire/__init__.py",
    "src/doorward/wire/model.py",
    "src/doorward/wire/basic.py",
    "src/doorward/wire/http/head.py",
    "tests/wire/test_basic.py",
    "tests/wire/test_basic_passwords.py",
    "tests/wire/samples.py",
    "tests/wire/http/test_head.py",
    "tests/end_to_end/test_curl.py",
    "tools/house.py",
    "tests/tools/test_house.py",
]


def test_a_module_with_its_test_and_a_test_outside_the_rooms_are_good(tmp_path: Path) -> None:
    assert list(check(plant(tmp_path, dict.fromkeys(GOOD, "")), {})) == []


def test_a_module_without_test_is_told_where_it_should_be(tmp_path: Path) -> None:
    plant(tmp_path, dict.fromkeys([*GOOD, "src/doorward/wire/http/body.py", "tools/sizes.py"], ""))
    assert [str(breach) for breach in check(tmp_path, {})] == [
        "src/doorward/wire/http/body.py:1: has no test; write tests/wire/http/test_body.py",
        "tools/sizes.py:1: has no test; write tests/tools/test_sizes.py",
    ]


def test_a_test_without_its_module_is_told(tmp_path: Path) -> None:
    lost = ["tests/wire/test_head.py", "tests/wire/http/test_socks.py", "tests/wire/test_bas_ic.py"]
    plant(tmp_path, dict.fromkeys([*GOOD, *lost], ""))
    assert places(check(tmp_path, {})) == [(path, 1) for path in sorted(lost)]


def test_an_exemption_holds_until_nothing_needs_it(tmp_path: Path) -> None:
    path = "src/doorward/wire/border.py"
    plant(tmp_path, dict.fromkeys([*GOOD, path], ""))
    exempt = {path: "a contract"}
    assert list(check(tmp_path, exempt)) == []
    plant(tmp_path, {"tests/wire/test_border.py": ""})
    assert ["needs no exemption" in breach.message for breach in check(tmp_path, exempt)] == [True]
    (tmp_path / path).unlink()
    (tmp_path / "tests/wire/test_border.py").unlink()
    assert ["still exempt" in breach.message for breach in check(tmp_path, exempt)] == [True]
