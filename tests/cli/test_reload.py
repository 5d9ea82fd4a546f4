from __future__ import annotations

import json
from pathlib import Path

from tests.cli.child import doorward, reply_code, serving
from tests.cli.conftest import Run
from tests.entry.world import HEAD, RULE

DENY = HEAD + '[[rule]]\nname = "nothing"\naction = "deny"\nprotocols = ["any"]\n'


def test_without_a_firewall_that_is_said_with_status_69(run: Run, home: Path) -> None:
    result = run("reload")
    assert result.exit_code == 69
    assert "no doorward is running" in result.stderr
    assert run("reload", "--socket", home / "other").exit_code == 69


def test_a_good_policy_is_in_force_afterwards_and_a_bad_one_is_not(home: Path) -> None:
    with serving(home) as (_, port):
        assert reply_code(port, 9) == 5
        (home / "doorward.toml").write_text(DENY)
        done = doorward("reload", home=home)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("policy ")
        assert reply_code(port, 9) == 2
        (home / "doorward.toml").write_text(
            HEAD + '[[rule]]\nname = "a"\naction = "alow"\nprotocols = ["any"]\n'
        )
        done = doorward("reload", home=home)
        assert (done.returncode, done.stdout) == (1, "")
        assert "rule[0].action" in done.stderr
        assert "the old policy stays in force" in done.stderr
        told = json.loads(doorward("reload", "--json", home=home).stdout)
        assert (told["ok"], len(told["problems"])) == (False, 1)
        assert reply_code(port, 9) == 2


def test_a_socket_at_another_place_is_found_by_name(home: Path) -> None:
    with serving(home):
        other = home / "elsewhere"
        other.mkdir()
        done = doorward("reload", "--socket", home / "control", "--json", home=other)
        assert json.loads(done.stdout)["ok"]


def test_a_policy_that_has_become_unreadable_still_reaches_its_firewall_at_the_usual_place(
    home: Path,
) -> None:
    usual = (HEAD + RULE).replace('"control"', '"var/doorward.sock"')
    (home / "doorward.toml").write_text(usual)
    with serving(home):
        (home / "doorward.toml").write_text("nonsense")
        done = doorward("reload", home=home)
        assert done.returncode == 1
        assert "the old policy stays in force" in done.stderr
