"""What both commands share; what is left of it to say is in test_run.py and test_learn.py."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from doorward.cli import launching
from doorward.cli.launching import Wish


def wish(policy: Path | None = None, log: Path | None = None, *, learn: bool = False) -> Wish:
    return Wish(
        ("true",), policy, (), log, private_sockets=False, close_fds=False, log_command=False, learn=learn
    )


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No policy in any of the usual places."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    monkeypatch.delenv("DOORWARD_POLICY", raising=False)
    monkeypatch.setattr("doorward.config.find.SYSTEM_DIRECTORY", tmp_path / "etc")


def test_to_run_there_must_be_a_policy_and_to_learn_there_need_not(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(click.exceptions.Exit):
        launching._configuration(wish())
    assert "no policy file found" in capsys.readouterr().err
    assert launching._configuration(wish(learn=True)).policy.rules == ()


def test_a_policy_with_mistakes_is_nobodys(capsys: pytest.CaptureFixture[str]) -> None:
    Path("doorward.toml").write_text("[nonsense]\n")
    with pytest.raises(click.exceptions.Exit):
        launching._configuration(wish(learn=True))


def test_records_go_where_they_are_sent(tmp_path: Path) -> None:
    assert launching._configuration(wish(log=Path("x.db"), learn=True)).log.path == tmp_path / "x.db"


def test_what_was_not_run_is_said_without_what_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    assert launching._not_run("a\x1b[2J", "no\nroom") == launching.EXIT_NOT_RUN
    told = capsys.readouterr().err
    assert "\x1b" not in told
    assert told.count("\n") == 1


def test_a_mistake_of_ours_is_not_taken_for_the_commands_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Broken:
        closed = False

        def __init__(self, _: object) -> None:
            pass

        def hold(self, *_: object, **__: object) -> None:
            raise RuntimeError("broken")

        def close(self) -> None:
            Broken.closed = True

    def end(status: int) -> None:
        raise SystemExit(status)

    monkeypatch.setattr(launching, "Launch", Broken)
    monkeypatch.setattr("os._exit", end)
    monkeypatch.setattr("gc.disable", lambda: None)
    with pytest.raises(SystemExit) as ended:
        launching.launch(wish(), lambda _: None)
    assert ended.value.code == launching.EXIT_NOT_RUN
    assert "RuntimeError: broken" in capsys.readouterr().err
    assert Broken.closed
