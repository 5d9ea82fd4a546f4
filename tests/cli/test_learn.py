"""`doorward learn`: a policy and its test, from what a command has used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.capture.inside import need_address, needs_namespaces
from tests.cli.child import COMMAND, environment

pytestmark = needs_namespaces

USES = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.sendto(b'x', ('198.51.100.7', 5000))"


def learn(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, "learn", *words],
        cwd=home,
        env=environment(),
        text=True,
        capture_output=True,
        timeout=15,
        check=False,
    )


def test_what_was_used_is_a_policy_that_passes_its_test(tmp_path: Path) -> None:
    need_address()  # a machine without a network has no way to that address
    done = learn(
        tmp_path, "--output", "mine.toml", "--", sys.executable, "-c", f"{USES}; raise SystemExit(5)"
    )
    assert done.returncode == 5, done.stderr
    assert "1 destinations are in mine.toml" in done.stderr
    assert '"198.51.100.7"' in (tmp_path / "mine.toml").read_text()
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "doorward").write_text(f'#!/bin/sh\nexec {sys.executable} -m doorward "$@"\n')
    (tools / "doorward").chmod(0o755)
    variables = environment()
    variables["PATH"] = f"{tools}{os.pathsep}{variables['PATH']}"
    tested = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_mine.py"],
        cwd=tmp_path, env=variables, text=True, capture_output=True, timeout=18, check=False,
    )  # fmt: skip
    assert tested.returncode == 0, tested.stdout
    assert "4 passed" in tested.stdout


def test_files_that_are_there_are_left_alone_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "test_learnt.py").write_text("mine")
    done = learn(tmp_path, "touch", "ran")
    assert done.returncode == 2
    assert not (tmp_path / "ran").exists()
    assert learn(tmp_path, "--force", "touch", "ran").returncode == 0
    assert (tmp_path / "test_learnt.py").read_text() != "mine"


def test_guards_stay_closed_and_are_told(tmp_path: Path) -> None:
    code = "import socket\ntry: socket.create_connection(('169.254.169.254', 80), 5).recv(1)\nexcept OSError: pass"
    done = learn(tmp_path, sys.executable, "-c", code)
    assert "guarded_metadata" in done.stderr
    assert "169.254" not in (tmp_path / "learnt.toml").read_text().split("[[rule]]", 1)[-1].split("#")[0]


def test_a_policy_that_was_named_must_be_there(tmp_path: Path) -> None:
    done = learn(tmp_path, "--policy", "none.toml", "touch", "ran")
    assert done.returncode == 78
    assert not (tmp_path / "ran").exists()


def test_where_nothing_can_be_written_nothing_is_run(tmp_path: Path) -> None:
    done = learn(tmp_path, "--output", "nowhere/mine.toml", "touch", "ran")
    assert done.returncode == 2
    assert "nowhere/mine.toml cannot be written" in done.stderr
    assert not (tmp_path / "ran").exists()
