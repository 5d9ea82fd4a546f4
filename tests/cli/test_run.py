"""`doorward run`: exit statuses, what is told, and what it never does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.capture.inside import NOBODY, needs_namespaces
from tests.cli.child import COMMAND, environment

NOTHING_ALLOWED = '[log]\npath = "log.db"\n'
REFUSED = (
    f"import socket\ntry: socket.create_connection(('{NOBODY[4]}', 80), 5).recv(1)\nexcept OSError: pass"
)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "doorward.toml").write_text(NOTHING_ALLOWED)
    return tmp_path


def run(home: Path, *words: str, given: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "run", *words], cwd=home, env=environment(), input=given,
        text=True, capture_output=True, timeout=15, check=False,
    )  # fmt: skip


@needs_namespaces
def test_the_commands_output_input_and_status_are_its_own(home: Path) -> None:
    done = run(home, "--", "sh", "-c", "cat; echo out; echo err >&2; exit 3", given="in\n")
    assert (done.returncode, done.stdout, done.stderr) == (3, "in\nout\n", "err\n")


@needs_namespaces
def test_a_command_that_a_signal_ends_has_the_status_of_a_shell(home: Path) -> None:
    done = run(home, "sh", "-c", "kill -TERM $$")
    assert done.returncode == 128 + signal.SIGTERM


@needs_namespaces
def test_words_after_the_command_are_the_commands(home: Path) -> None:
    done = run(home, "-q", "echo", "--policy", "-q", "--", "--help")
    assert done.stdout == "--policy -q -- --help\n"


@needs_namespaces
def test_its_environment_and_directory_are_as_without_it(home: Path) -> None:
    done = run(home, sys.executable, "-c", "import os; print(os.getcwd(), sorted(os.environ))")
    assert done.stdout.split(" ", 1)[0] == str(home)
    assert "proxy" not in done.stdout.lower()
    assert "doorward" not in done.stdout.lower().split(" ", 1)[1]


@needs_namespaces
def test_what_was_refused_is_told_with_a_rule_to_paste(home: Path) -> None:
    done = run(home, sys.executable, "-c", REFUSED)
    assert done.returncode == 0
    assert f"refused    1x  tcp {NOBODY[4]}:80  default_deny  rule: none" in done.stderr
    rule = done.stderr[done.stderr.index("[[rule]]") :]
    (home / "doorward.toml").write_text(NOTHING_ALLOWED + rule)
    checked = subprocess.run(
        [*COMMAND, "check"],
        cwd=home,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=15,
        check=False,
    )
    assert checked.returncode == 0, checked.stderr


@needs_namespaces
def test_quiet_tells_nothing_and_a_file_has_it_all(home: Path) -> None:
    done = run(home, "--quiet", "--json", "refused.json", sys.executable, "-c", REFUSED)
    assert done.stderr == ""
    (one,) = json.loads((home / "refused.json").read_text())["refused"]
    assert (one["host"], one["port"], one["count"], one["reason"]) == (NOBODY[4], 80, 1, "default_deny")


@needs_namespaces
def test_a_file_that_cannot_be_written_costs_no_status(home: Path) -> None:
    done = run(home, "--json", "nowhere/refused.json", "sh", "-c", "exit 4")
    assert done.returncode == 4
    assert "cannot write" in done.stderr


@needs_namespaces
@pytest.mark.parametrize(("command", "status"), [("./no-such-program", 127), ("./doorward.toml", 126)])
def test_what_cannot_be_run_has_the_usual_status(home: Path, command: str, status: int) -> None:
    done = run(home, command)
    assert done.returncode == status
    assert command in done.stderr


@needs_namespaces
def test_records_go_where_they_were_sent(home: Path) -> None:
    run(home, "-q", "--log", "other.db", sys.executable, "-c", REFUSED)
    assert (home / "other.db").exists()
    assert not (home / "log.db").exists()


@needs_namespaces
def test_descriptors_are_inherited_unless_told_otherwise(home: Path) -> None:
    reading, writing = os.pipe()
    try:
        for words, status in (([], 0), (["--close-fds"], 1)):
            done = subprocess.run(
                [*COMMAND, "run", *words, sys.executable, "-c", f"import os; os.fstat({writing})"],
                cwd=home, env=environment(), capture_output=True, timeout=15, check=False, pass_fds=[writing],
            )  # fmt: skip
            assert done.returncode == status
    finally:
        os.close(reading)
        os.close(writing)


@needs_namespaces
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_what_is_closed_for_us_is_closed_for_the_command_and_nothing_else_takes_its_place(
    home: Path, closed: str
) -> None:
    (home / "look.py").write_text(
        "import os\n"
        "there = [fd for fd in range(3) if os.path.exists(f'/proc/self/fd/{fd}')]\n"
        "with open('seen', 'w') as seen: seen.write(repr(there))\nraise SystemExit(7)\n"
    )
    look = f"{sys.executable} look.py"
    shells = [f"{look} {closed}", f"{' '.join(COMMAND)} run -- {look} {closed}"]
    seen = []
    for words in shells:
        done = subprocess.run(
            ["sh", "-c", words], cwd=home, env=environment(), capture_output=True, timeout=15, check=False
        )
        assert done.returncode == 7
        seen.append((home / "seen").read_text())
    assert seen[0] == seen[1]


@needs_namespaces
def test_a_policy_with_a_mistake_runs_nothing(home: Path) -> None:
    (home / "doorward.toml").write_text("[nonsense]\n")
    done = run(home, "touch", "ran")
    assert done.returncode == 78
    assert "does not pass its check" in done.stderr
    assert not (home / "ran").exists()


@needs_namespaces
def test_a_filter_that_does_not_load_runs_nothing(home: Path) -> None:
    (home / "bad.py").write_text("raise ValueError('no')\n")
    done = run(home, "--filter", "bad.py", "touch", "ran")
    assert done.returncode == 125
    assert "was not run" in done.stderr
    assert not (home / "ran").exists()


def test_without_namespaces_it_says_what_is_missing_and_runs_nothing(home: Path) -> None:
    """Here they are forbidden by the limit that every user namespace may lower for those inside it."""
    forbid = (
        "from doorward.capture import kernel, maps\nimport os, sys\n"
        "kernel.unshare(kernel.NEW_USER)\n"
        "open('/proc/self/setgroups', 'w').write('deny')\n"
        "open('/proc/self/uid_map', 'w').write('0 %d 1' % OWN_ID)\n"
        "open('/proc/sys/user/max_user_namespaces', 'w').write('0')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'doorward', 'run', 'touch', 'ran'])"
    ).replace("OWN_ID", str(os.geteuid()))
    if not _can_forbid():
        pytest.skip("no user namespace here in which to forbid them")
    done = subprocess.run(
        [sys.executable, "-c", forbid],
        cwd=home,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=15,
        check=False,
    )
    assert done.returncode == 125, done.stderr
    assert "max_user_namespaces" in done.stderr
    assert "was not run" in done.stderr
    assert not (home / "ran").exists()


def _can_forbid() -> bool:
    code = "from doorward.capture import kernel; kernel.unshare(kernel.NEW_USER)"
    return (
        subprocess.run(
            [sys.executable, "-c", code], env=environment(), capture_output=True, check=False
        ).returncode
        == 0
    )


def test_there_must_be_a_command(home: Path) -> None:
    assert run(home).returncode == 2
    assert run(home, "--").returncode == 2
