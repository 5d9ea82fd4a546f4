"""A directory with a policy, short enough for the name of a Unix socket, and commands run in it."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from click.testing import CliRunner, Result
from tests.entry.world import HEAD, RULE, short_home

from doorward.cli.main import cli

Run: TypeAlias = Callable[..., Result]


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with short_home() as path:
        (path / "doorward.toml").write_text(HEAD + RULE)
        monkeypatch.chdir(path)
        monkeypatch.delenv("DOORWARD_POLICY", raising=False)
        monkeypatch.setenv("HOME", "/nonexistent")
        yield path


@pytest.fixture
def run(home: Path) -> Run:
    """Run a command in `home`; an exception that is not an exit fails the test. Colours and escapes are kept."""

    def run_command(*words: str | Path, given: str | None = None, **more: Any) -> Result:
        held = signal.pthread_sigmask(
            signal.SIG_BLOCK, ()
        )  # `serve` that cannot start goes on holding SIGHUP
        try:
            result = CliRunner().invoke(
                cli, list(map(str, words)), input=given, prog_name="doorward", color=True, **more
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run_command
