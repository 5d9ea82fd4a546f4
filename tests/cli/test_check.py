from __future__ import annotations

import json
from pathlib import Path

from tests.cli.conftest import Run
from tests.entry.filters import WATCH, use
from tests.entry.world import HEAD, RULE

MISTAKES = HEAD + '[[rule]]\nname = "a"\naction = "alow"\nprotocols = ["gopher"]\nto = ["300.1.1.1"]\n'


def test_a_good_file_is_said_to_be_good(run: Run, home: Path) -> None:
    result = run("check")
    assert result.exit_code == 0
    assert "good: 1 rules, 0 users, 0 filters" in result.stdout
    assert run("check", home / "doorward.toml").exit_code == 0


def test_every_mistake_is_a_line_with_its_place(run: Run, home: Path) -> None:
    (home / "doorward.toml").write_text(MISTAKES)
    result = run("check")
    assert result.exit_code == 1
    lines = MISTAKES.splitlines()
    for text, key in (("alow", "action"), ("gopher", "protocols"), ("300.1.1.1", "to")):
        number = next(n for n, line in enumerate(lines, 1) if text in line)
        assert any(f"doorward.toml:{number}: rule[0].{key}" in line for line in result.stderr.splitlines()), (
            key
        )
    assert result.stdout == ""


def test_the_same_as_json(run: Run, home: Path) -> None:
    (home / "doorward.toml").write_text(MISTAKES)
    result = run("check", "--json")
    assert result.exit_code == 1
    told = json.loads(result.stdout)
    assert not told["ok"]
    assert [p["path"][2] for p in told["problems"]] == ["action", "protocols", "to"]
    (home / "doorward.toml").write_text(HEAD + RULE)
    result = run("check", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (0, {"ok": True, "problems": []})


def test_a_file_that_is_not_there_or_no_file_is_a_mistake(run: Run, home: Path) -> None:
    for path in (home / "nowhere.toml", home):
        result = run("check", path)
        assert result.exit_code in (1, 78)
        assert str(path) in result.stderr


def test_filters_are_loaded_unless_that_is_not_wanted(run: Run, home: Path) -> None:
    (home / "doorward.toml").write_text(HEAD + use("watch") + RULE)
    (home / "watch.py").write_text(WATCH)
    assert run("check").exit_code == 0
    (home / "watch.py").write_text("import nowhere_to_be_found")
    result = run("check")
    assert result.exit_code == 1
    assert "line 1" in result.stderr
    assert run("check", "--no-filters").exit_code == 0
    told = json.loads(run("check", "--json").stdout)
    assert (told["ok"], told["problems"][0]["path"]) == (False, ["filter"])


def test_nothing_in_a_file_or_its_filters_can_steer_a_terminal(run: Run, home: Path) -> None:
    evil = "\\u001b[2J\\u0007"
    (home / "doorward.toml").write_text(
        f'[[rule]]\nname = "{evil}"\naction = "{evil}"\nprotocols = ["{evil}"]\n'
    )
    output = run("check").output
    assert "\x1b" not in output
    assert "\x07" not in output
    (home / "doorward.toml").write_text(HEAD + use("watch") + RULE)
    (home / "watch.py").write_text('raise ValueError("\\x1b[2J\\x07")')
    output = run("check").output
    assert "\\x1b" in output
    assert "\x1b" not in output
