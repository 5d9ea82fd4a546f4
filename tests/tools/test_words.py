from __future__ import annotations

from pathlib import Path

import pytest
from tests.tools.trees import places, plant
from tools.words import Allowed, check

# Put together from halves, as in the tool: this file is checked too.
BAD = {
    "machine": "/ro" + "ot/doorward",
    "machine at the end of a word": 'open("/wo' + 'rk/main")',
    "somebody's home": "/ho" + "me/kim",
    "registry": "https://pyp" + "i.org/simple",
    "files of a registry": "files.pythonh" + "osted.org",
    "left to do": "# TO" + "DO: more",
    "left to mend": "FIX" + "ME",
    "left to think": "X" + "XX",
    "not for long": "good enough for " + "now.",
    "not the real thing": "A simpli" + "fied parser",
    "not there": "this is a ST" + "UB",
    "a list of ours": "see issue" + " #12",
}
GOOD = [
    "https://example.org/wo" + "rk/x",
    "src/ro" + "ot/a",
    "/homes",
    "mkstemp X" + "XXXXX",
    "st" + "ubborn",
    "to do",
    "for nowhere",
]


@pytest.mark.parametrize("text", BAD.values(), ids=list(BAD))
def test_a_forbidden_word_is_told_at_its_line(tmp_path: Path, text: str) -> None:
    plant(tmp_path, {"docs/guide.md": f"A guide.\n\n{text}\n"})
    assert places(check(tmp_path, {})) == [("docs/guide.md", 3)]


@pytest.mark.parametrize("text", GOOD)
def test_what_only_looks_like_one_is_good(tmp_path: Path, text: str) -> None:
    plant(tmp_path, {"docs/guide.md": text})
    assert list(check(tmp_path, {})) == []


def test_every_occurrence_is_told_in_every_kind_of_file(tmp_path: Path) -> None:
    text = "FIX" + "ME\nFIX" + "ME\n"
    plant(tmp_path, {"Makefile": text, "src/a.py": text})
    expected = [("Makefile", 1), ("Makefile", 2), ("src/a.py", 1), ("src/a.py", 2)]
    assert places(check(tmp_path, {})) == expected


def test_a_permission_holds_for_its_file_and_word_and_goes_when_unused(tmp_path: Path) -> None:
    text = "No st" + "ub here.\n"
    plant(tmp_path, {"a.md": text, "b.md": text})
    allowed = {Allowed("a.md", "st" + "ub"): "it says that there is none"}
    assert places(check(tmp_path, allowed)) == [("b.md", 1)]
    plant(tmp_path, {"a.md": "", "b.md": ""})
    (breach,) = check(tmp_path, allowed)
    assert breach.path == "a.md"
    assert "delete its line" in breach.message


def test_a_file_that_is_not_text_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe FIX" + b"ME")
    assert list(check(tmp_path, {})) == []
