from __future__ import annotations

from pathlib import Path

import click
import pytest

from doorward.cli.common import EXIT_BAD_CONFIGURATION, fail, found_policy, read_policy


def test_what_is_wrong_goes_to_standard_error_with_a_status(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.exceptions.Exit) as caught:
        fail("no", 3)
    assert caught.value.exit_code == 3
    assert capsys.readouterr() == ("", "doorward: no\n")


def test_nothing_in_a_message_can_steer_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(click.exceptions.Exit):
        fail("user \x1b]0;title\x07\x1b[2J\r\u202e\nnext line")
    assert capsys.readouterr().err == "doorward: user \\x1b]0;title\\x07\\x1b[2J\\x0d\\u202e\nnext line\n"


def test_a_named_policy_comes_before_the_usual_places(home: Path) -> None:
    other = home / "other.toml"
    other.write_text("")
    assert found_policy(other) == other
    assert found_policy(None).name == "doorward.toml"
    with pytest.raises(click.exceptions.Exit) as caught:
        found_policy(home / "nowhere.toml")
    assert caught.value.exit_code == EXIT_BAD_CONFIGURATION


def test_a_policy_with_mistakes_ends_the_command_with_all_of_them(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "doorward.toml").write_text("[lisen]\n[limits]\nidle_timeout_s = -1\n")
    with pytest.raises(click.exceptions.Exit) as caught:
        read_policy(None)
    assert caught.value.exit_code == EXIT_BAD_CONFIGURATION
    errors = capsys.readouterr().err
    assert "doorward.toml:1: lisen" in errors
    assert "doorward.toml:3: limits.idle_timeout_s" in errors
