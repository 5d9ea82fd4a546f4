from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.cli.conftest import Run
from tests.entry.world import HEAD, RULE

from doorward.cli.main import cli
from doorward.config.loading import load
from doorward.config.passwords import verify_password

COMMENTED = HEAD + "# who may come in\n" + RULE + "# the end\n"


@pytest.fixture(autouse=True)
def policy(home: Path) -> None:
    (home / "doorward.toml").write_text(COMMENTED)


def add(run: Run, name: str, *words: str) -> None:
    assert run("user", "add", name, "--password-stdin", *words, given="secret\n").exit_code == 0


def test_a_user_is_added_changed_listed_and_removed_and_comments_stay(run: Run, home: Path) -> None:
    add(run, "kim", "--group", "staff", "--group", "night")
    add(run, "lee")
    assert json.loads(run("user", "list", "--json").stdout) == [
        {"name": "kim", "groups": ["night", "staff"]},
        {"name": "lee", "groups": []},
    ]
    assert run("user", "list").stdout == "kim  night staff\nlee\n"
    assert run("user", "password", "kim", "--password-stdin", given="other\n").exit_code == 0
    users = load(home / "doorward.toml").users
    assert verify_password(users["kim"].password, "other")
    assert verify_password(users["lee"].password, "secret")
    text = (home / "doorward.toml").read_text()
    assert "secret" not in text
    assert "# who may come in" in text
    for name in ("kim", "lee"):
        assert run("user", "remove", name).exit_code == 0
    assert (home / "doorward.toml").read_text().split() == COMMENTED.split()


def test_the_password_may_be_typed_and_must_be_typed_twice(run: Run, home: Path) -> None:
    result = run("user", "add", "kim", given="secret\nsecret\n")
    assert result.exit_code == 0
    assert "secret" not in result.output
    assert verify_password(load(home / "doorward.toml").users["kim"].password, "secret")
    assert run("user", "add", "lee", given="secret\nother\n").exit_code == 1


@pytest.mark.parametrize(
    ("words", "given"),
    [
        (["add", "kim"], "secret\n"),
        (["add", "a b"], "secret\n"),
        (["add", "new"], "\n"),
        (["add", "new"], ""),
        (["add", "new"], "x" * 256 + "\n"),
        (["password", "nobody"], "secret\n"),
        (["password", "kim"], "\n"),
    ],
)
def test_what_cannot_be_done_changes_nothing(run: Run, home: Path, words: list[str], given: str) -> None:
    add(run, "kim")
    before = (home / "doorward.toml").read_bytes()
    result = run("user", *words, "--password-stdin", given=given)
    assert result.exit_code == 1
    assert result.stderr.startswith("doorward: ")
    assert (home / "doorward.toml").read_bytes() == before


def test_a_user_that_is_not_there_cannot_be_removed(run: Run) -> None:
    assert run("user", "remove", "nobody").exit_code == 1


def test_a_policy_with_mistakes_is_not_touched(run: Run, home: Path) -> None:
    (home / "doorward.toml").write_text("[nonsense]\n")
    assert run("user", "add", "kim", "--password-stdin", given="secret\n").exit_code == 1
    assert run("user", "list").exit_code == 1
    assert (home / "doorward.toml").read_text() == "[nonsense]\n"


@pytest.mark.parametrize("command", ["add", "password", "remove"])
def test_a_hostile_name_cannot_steer_a_terminal(run: Run, command: str) -> None:
    words = ["--password-stdin"] if command != "remove" else []
    output = run("user", command, "a\x1b[2J\x07", *words, given="secret\n").output
    assert "doorward: " in output
    assert not {"\x1b", "\x07"} & set(output)


def test_a_hostile_group_is_refused_in_plain_text(run: Run) -> None:
    result = run("user", "add", "kim", "--group", "a\x1b[2J", "--password-stdin", given="secret\n")
    assert result.exit_code == 1
    assert "\x1b" not in result.output


def test_bytes_that_are_no_text_are_no_password(run: Run, home: Path) -> None:
    result = CliRunner().invoke(cli, ["user", "add", "kim", "--password-stdin"], input=b"\xff\xfe\n")
    assert result.exit_code == 1
    assert isinstance(result.exception, SystemExit), result.exception
    assert (home / "doorward.toml").read_text() == COMMENTED
    assert run("user", "list").stdout == ""
