"""A firewall for one program: ready before it, ended with it, and in nobody's way."""

from __future__ import annotations

import getpass
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.capture.inside import NOBODY, need_address, needs_namespaces
from tests.cli.child import COMMAND, environment

from doorward.record import reader
from doorward.record.query import Query

pytestmark = needs_namespaces


@pytest.fixture
def home(tmp_path: Path) -> Path:
    address = need_address()
    rule = f'[[rule]]\nname = "here"\naction = "allow"\nto = ["{address}"]\nprotocols = ["any"]\n'
    (tmp_path / "doorward.toml").write_text('[log]\npath = "log.db"\n' + rule)
    return tmp_path


@contextmanager
def server() -> Iterator[tuple[str, socket.socket]]:
    address = need_address()
    with socket.create_server((address, 0)) as listening:
        listening.settimeout(10)
        yield f"('{address}', {listening.getsockname()[1]})", listening


def started(home: Path, *words: str, python: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", "import socket, os, sys, time\n" + python] if python else []
    return subprocess.Popen(
        [*COMMAND, "run", *words, *command], cwd=home, env=environment(), text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_what_a_program_left_under_way_arrives(home: Path) -> None:
    size = 8 * 2**20
    with server() as (where, listening):
        python = f"s = socket.create_connection({where}); s.sendall(bytes({size}))"
        with started(home, python=python) as running:
            accepted, _ = listening.accept()
            with accepted:
                accepted.settimeout(10)
                time.sleep(0.2)  # the program has filled what there is to fill, and is about to end
                got = 0
                while data := accepted.recv(65_536):
                    got += len(data)
            assert got == size
            running.communicate(timeout=10)
            assert running.returncode == 0


def test_a_server_that_does_not_end_holds_nobody_up(home: Path) -> None:
    with server() as (where, listening):
        with started(home, python=f"s = socket.create_connection({where}); s.send(b'x')") as running:
            accepted, _ = listening.accept()
            with accepted:
                began = time.monotonic()
                running.communicate(timeout=10)
                assert time.monotonic() - began < 5


def test_what_outlives_the_program_has_no_network_and_holds_nobody_up(home: Path) -> None:
    outliving = (
        "if os.fork(): sys.exit(0)\n"
        "os.setsid()\n"
        "for n in range(200):\n"
        "    time.sleep(0.01)\n"
        "    try: socket.create_connection({where}, 2).close()\n"
        "    except ConnectionRefusedError: open('refused', 'w').close(); break\n"
    )
    with server() as (where, _):
        with started(home, "--quiet", python=outliving.replace("{where}", where)) as running:
            began = time.monotonic()
            running.wait(10)
            assert time.monotonic() - began < 5
        deadline = time.monotonic() + 5
        while not (home / "refused").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_when_the_firewall_is_killed_nothing_goes_out(home: Path) -> None:
    python = (
        "s = socket.create_connection({where}); s.send(b'x'); print('up', flush=True); input()\n"
        "for address in ({where}, ('{nobody}', 80)):\n"
        "    try: socket.create_connection(address, 5); print('out')\n"
        "    except ConnectionRefusedError: print('refused')\n"
        "try: print(s.recv(10))\n"
        "except OSError as e: print('reset')\n"
        "open('done', 'w').write('yes')\n"
    )
    with server() as (where, listening):
        python = python.replace("{where}", where).replace("{nobody}", NOBODY[4])
        with started(home, python=python) as running:
            accepted, _ = listening.accept()
            assert running.stdout is not None
            assert running.stdin is not None
            assert running.stdout.readline() == "up\n"
            running.kill()
            running.wait(10)
            running.stdin.write("go on\n")
            running.stdin.flush()
            assert running.stdout.readline() == "refused\n"
            assert running.stdout.readline() == "refused\n"
            assert running.stdout.readline() in ("reset\n", "b''\n")
            accepted.close()
        deadline = time.monotonic() + 5
        while not (home / "done").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_arguments_are_on_record_only_if_asked_for(home: Path) -> None:
    python = f"import socket; socket.socket().connect_ex(('{NOBODY[4]}', 9))"
    for words in ((), ("--log-command",)):
        with started(home, "-q", *words, python=python) as running:
            running.communicate(timeout=10)
    plain, whole = reader.read(home / "log.db", Query(), newest_first=False)
    assert plain.process == sys.executable
    assert whole.process is not None
    assert whole.process.startswith(f"{sys.executable} -c ")
    assert NOBODY[4] in whole.process


def test_filters_know_who_was_launched(home: Path) -> None:
    (home / "tell.py").write_text(
        "from pathlib import Path\n"
        "from doorward.api import ApplicationFilter, SessionFilter\n"
        "class Ask(SessionFilter):\n"
        "    async def on_connect(self, event):\n"
        "        Path(__file__).with_name('told').write_text(repr(event.connection.session.launched))\n"
        "class Tell(ApplicationFilter):\n"
        "    def session_filter(self, session):\n"
        "        return Ask()\n"
    )
    with server() as (where, _):
        python = f"print(os.getpid()); socket.create_connection({where})"
        with started(home, "-q", "--filter", "tell.py", python=python) as running:
            printed, errors = running.communicate(timeout=10)
    assert errors == ""
    told = (home / "told").read_text()
    assert f"process_id={int(printed)}, command=('{sys.executable}', '-c', " in told
    assert f"program='{sys.executable}'" in told
    assert f"user='{getpass.getuser()}'" in told


def test_two_at_a_time_have_a_log_each(home: Path) -> None:
    with started(home, python="print('up', flush=True); input()") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "up\n"
        with started(home, python="pass") as second:
            _, told = second.communicate(timeout=10)
            assert second.returncode == 0
        assert "another firewall has the policy's log" in told
        own = list(home.glob("log-run-*.db"))
        assert len(own) == 1
        assert str(own[0]) in told
        first.communicate("x\n", timeout=10)
        assert first.returncode == 0


def test_it_answers_to_no_operator(home: Path) -> None:
    with started(home, python="print('up', flush=True); input()") as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "up\n"
        assert not (home / "var").exists()
        running.communicate("x\n", timeout=10)


def test_nothing_is_left_after_many_launches(home: Path) -> None:
    mark = f"mark-of-{home.name}-{time.monotonic_ns()}"  # stands in the command line of all that is ours
    for _ in range(3):
        with started(home, "-q", "sh", "-c", "true", mark) as running:
            running.communicate(timeout=10)
            assert running.returncode == 0
    deadline = time.monotonic() + 5
    while left := [process for process in Path("/proc").iterdir() if _has(process, mark)]:
        assert time.monotonic() < deadline, left
        time.sleep(0.01)


def test_a_signal_that_comes_early_ends_everything(home: Path) -> None:
    for delay_s in (0.0, 0.02, 0.1):
        with started(home, "-q", "sleep", "30") as running:
            threading.Timer(delay_s, running.send_signal, (signal.SIGTERM,)).start()
            assert running.wait(10) in (-signal.SIGTERM, 128 + signal.SIGTERM)


def _has(process: Path, mark: str) -> bool:
    try:
        return process.name.isdigit() and mark.encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False
