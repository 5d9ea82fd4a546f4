"""`doorward run --join`: as a run of one's own, with the policy, the filters and the log of whoever is running."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from tests.capture.inside import NOBODY, need_address, needs_namespaces
from tests.cli.child import COMMAND, PATIENCE_S, doorward, environment, serving
from tests.cli.conftest import Run
from tests.entry.world import HEAD, short_home

from doorward.record import reader
from doorward.record.model import Record
from doorward.record.query import Query

ONE: Final = HEAD.replace("[listen]\n", "[listen]\nworkers = 1\n")
TWO: Final = HEAD.replace("[listen]\n", "[listen]\nworkers = 2\n")
ASKS = f"import socket\ntry: socket.create_connection(('{NOBODY[4]}', 80), 5).recv(1)\nexcept OSError: pass\n"
TALKS = (
    "import socket, sys\n"
    "s = socket.create_connection(({address!r}, {port})); s.send(b'x'); print('up', flush=True); input()\n"
    "try: print(s.recv(10))\n"
    "except OSError: print('reset')\n"
    "try: socket.create_connection(({address!r}, {port}), 5); print('out')\n"
    "except ConnectionRefusedError: print('refused')\n"
    "sys.exit(7)\n"
)


@pytest.fixture
def home() -> Iterator[Path]:
    with short_home() as path:
        (path / "doorward.toml").write_text(ONE + rule())
        yield path


def rule(action: str = "allow") -> str:
    where = f'to = ["{need_address()}"]\nprotocols = ["any"]\n'
    return f'[[rule]]\nname = "here"\naction = "{action}"\nprocess = ["{sys.executable}"]\n{where}'


def started(home: Path, python: str, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, "run", "--join", *words, sys.executable, "-c", python], cwd=home, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline()


def records(home: Path) -> list[Record]:
    return list(reader.read(home / "log.db", Query(), newest_first=False))


@needs_namespaces
@pytest.mark.parametrize("head", [ONE, TWO])
def test_what_was_refused_is_told_and_is_in_the_firewalls_log(home: Path, head: str) -> None:
    (home / "doorward.toml").write_text(head + rule())
    with serving(home) as (child, _):
        done = doorward(
            "run",
            "--join",
            "--json",
            "told.json",
            sys.executable,
            "-c",
            ASKS + "raise SystemExit(5)",
            home=home,
        )
        assert done.returncode == 5, done.stderr
        assert f"refused    1x  tcp {NOBODY[4]}:80  default_deny  rule: none" in done.stderr
        assert "[[rule]]" in done.stderr
        (one,) = json.loads((home / "told.json").read_text())["refused"]
        assert (one["host"], one["count"]) == (NOBODY[4], 1)
        child.process.send_signal(signal.SIGTERM)
        assert child.end() == 0
    (record,) = records(home)
    assert (record.entry, record.process, record.action) == ("captured", sys.executable, "deny")
    assert not (home / "control.join").exists()


@needs_namespaces
def test_when_the_firewall_is_killed_the_command_has_no_network_and_goes_on(home: Path) -> None:
    with socket.create_server((need_address(), 0)) as listening, serving(home) as (child, _):
        listening.settimeout(PATIENCE_S)
        address, port = listening.getsockname()
        with started(home, TALKS.format(address=address, port=port)) as process:
            accepted, _ = listening.accept()
            assert said(process) == "up\n"
            child.process.kill()
            child.process.wait()
            told, errors = process.communicate("go on\n", timeout=PATIENCE_S)
            accepted.close()
    assert told.splitlines() in (["reset", "refused"], ["b''", "refused"])
    assert process.returncode == 7
    assert "the command has no network any more" in errors


@needs_namespaces
def test_a_killed_launcher_leaves_nothing_in_the_firewall(home: Path) -> None:
    with socket.create_server((need_address(), 0)) as listening, serving(home) as (child, _):
        listening.settimeout(PATIENCE_S)
        address, port = listening.getsockname()
        descriptors = Path(f"/proc/{child.process.pid}/fd")
        before = len(list(descriptors.iterdir()))
        with started(home, TALKS.format(address=address, port=port)) as process:
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(PATIENCE_S)
                assert said(process) == "up\n"
                assert accepted.recv(1) == b"x"
                process.kill()
                with pytest.raises(ConnectionResetError):
                    accepted.recv(1)
            assert process.stdin is not None
            process.stdin.write("go on\n")
            process.stdin.flush()
            assert said(process) in ("reset\n", "b''\n")
            assert said(process) == "refused\n"
        deadline = time.monotonic() + PATIENCE_S
        while len(list(descriptors.iterdir())) > before:
            assert time.monotonic() < deadline, list(descriptors.iterdir())
            time.sleep(0.01)


@needs_namespaces
def test_signals_are_the_commands(home: Path) -> None:
    with serving(home):
        done = doorward("run", "--join", "sh", "-c", "kill -TERM $$", home=home)
        assert done.returncode == 128 + signal.SIGTERM
        done = doorward("run", "--join", "--socket", home / "control", "./no-such-program", home=home)
        assert done.returncode == 127


@needs_namespaces
def test_where_nobody_is_running_the_command_is_not_run(home: Path) -> None:
    done = doorward("run", "--join", "touch", "ran", home=home)
    assert done.returncode == 125
    assert "no doorward is running" in done.stderr
    assert not (home / "ran").exists()


@needs_namespaces
def test_a_command_that_is_captured_cannot_join_another_firewall(home: Path) -> None:
    inner = [*COMMAND, "run", "--join", "--socket", str(home / "control"), "touch", "ran"]
    with serving(home):
        done = doorward("run", "--log", "own.db", *inner, home=home)
        assert done.returncode == 125, done.stderr
        assert "in another network" in done.stderr
        assert not (home / "ran").exists()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--join", "--filter", __file__), "has its own filters"),
        (("--join", "--log", "other.db"), "has its own log"),
        (("--join", "--socket", "a", "--policy", "b"), "use one of them"),
        (("--socket", "a"), "use it with --join"),
    ],
)
def test_options_that_make_no_sense_are_refused(run: Run, words: tuple[str, ...], why: str) -> None:
    done = run("run", *words, "true")
    assert done.exit_code == 2
    assert why in " ".join(done.output.split())
