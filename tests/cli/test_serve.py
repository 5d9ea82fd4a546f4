from __future__ import annotations

import signal
from pathlib import Path

import pytest
from tests.cli.child import doorward, reply_code, serving
from tests.entry.filters import NOT_STARTING
from tests.entry.world import HEAD, RULE

BAD = HEAD + '[[rule]]\nname = "a"\naction = "alow"\nprotocols = ["any"]\n'


def test_it_says_where_it_listens_what_is_in_force_and_what_to_try(home: Path) -> None:
    with serving(home) as (child, port):
        output = "".join(child.output)
        assert f"curl --socks5-hostname 127.0.0.1:{port}" in output
        assert str(home / "doorward.toml") in output
        assert "1 rules" in output
        assert "relay" in output
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == 0


def test_what_to_try_names_a_policy_that_would_not_be_found(home: Path) -> None:
    with serving(home) as (child, _):
        assert "--policy" not in "".join(child.output)
    (home / "doorward.toml").rename(home / "my own.toml")
    with serving(home, "--policy", "my own.toml") as (child, _):
        assert "explain --policy 'my own.toml' --to" in "".join(child.output)


def test_doubts_about_the_policy_are_told_and_do_not_stop_it(home: Path) -> None:
    unused = '[networks]\nunused = ["192.0.2.0/24"]\n'
    (home / "doorward.toml").write_text(HEAD + unused + RULE)
    with serving(home) as (child, port):
        child.wait_for("networks.unused: warning", error=True)
        assert reply_code(port, 9) == 5


@pytest.mark.parametrize(
    ("policy", "words", "status", "told"),
    [
        (BAD, [], 78, "rule[0].action"),
        (HEAD + RULE, ["--policy", "nowhere.toml"], 78, "nowhere.toml"),
        (HEAD.replace("127.0.0.1:0", "192.0.2.1:1080") + RULE, [], 1, "192.0.2.1 port 1080"),
        (HEAD.replace("log.db", "/proc/nowhere/log.db") + RULE, [], 1, "/proc/nowhere/log.db"),
        (HEAD.replace('"control"', '"/proc/nowhere/control"') + RULE, [], 1, "/proc/nowhere"),
        (HEAD + RULE, ["--filter", "not_starting.py"], 1, "no licence"),
        (HEAD + RULE, ["--filter", "nowhere.py"], 2, "nowhere.py"),
    ],
)
def test_what_keeps_it_from_starting_is_said_without_a_traceback(
    home: Path, policy: str, words: list[str], status: int, told: str
) -> None:
    (home / "doorward.toml").write_text(policy)
    (home / "not_starting.py").write_text(NOT_STARTING)
    done = doorward("serve", *words, home=home)
    assert done.returncode == status, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert "is ready" not in done.stdout
    assert not (home / "control").exists()


def test_a_second_one_is_refused_and_the_first_goes_on(home: Path) -> None:
    with serving(home) as (_, port):
        done = doorward("serve", home=home)
        assert done.returncode == 1
        assert "another doorward is running" in done.stderr
        assert reply_code(port, 9) == 5
