from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.child import doorward, environment
from tests.cli.conftest import Run

import doorward as package
from doorward.cli.main import COMMANDS

USER_COMMANDS = ["add", "password", "remove", "list"]


@pytest.mark.parametrize("words", [[name] for name in COMMANDS] + [["user", name] for name in USER_COMMANDS])
@pytest.mark.parametrize("help_option", ["--help", "-h"])
def test_every_command_explains_itself(run: Run, words: list[str], help_option: str) -> None:
    result = run(*words, help_option)
    assert result.exit_code == 0
    assert result.output.startswith(f"Usage: doorward {' '.join(words)}")


def test_every_command_is_listed_with_a_line_of_its_own(run: Run) -> None:
    output = run("--help").output
    for name in COMMANDS:
        command = importlib.import_module(COMMANDS[name]).command
        assert f"  {name} " in output
        assert command.get_short_help_str(90) in output


@pytest.mark.parametrize(
    "words",
    [["nonsense"], ["check", "--nonsense"], ["explain"], ["completion", "powershell"], ["user", "add"]],
)
def test_wrong_words_are_status_2(run: Run, words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_the_version_is_said(run: Run) -> None:
    assert run("--version").output == f"doorward {package.__version__}\n"


@pytest.mark.parametrize(
    "words", [["check"], ["explain", "--to", "tcp://a.test:1"], ["log"], ["reload"], ["serve"]]
)
def test_without_a_policy_it_is_said_where_it_was_looked_for(run: Run, home: Path, words: list[str]) -> None:
    (home / "doorward.toml").unlink()
    result = run(*words)
    assert result.exit_code == 78
    assert str(home / "doorward.toml") in result.stderr


def test_a_command_starts_without_loading_the_others() -> None:
    code = "import sys; from doorward.cli.main import cli; print('doorward.service.firewall' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"


def test_the_module_is_the_command_too(home: Path) -> None:
    assert doorward("--version", home=home).stdout == f"doorward {package.__version__}\n"
