"""Signals of a launched program, each in a launcher of its own: what is passed on, and what follows a stop."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from doorward.service.run_signals import exit_status

LAUNCHER = """
import asyncio, os, sys
from doorward.service.run_signals import Signals, exit_status
process = os.fork()
if not process:
    os.execvp(sys.argv[1], sys.argv[1:])
signals = Signals()
async def main():
    ended = asyncio.get_running_loop().create_future()
    signals.follow(process, ended.set_result)
    return exit_status(await ended)
sys.exit(asyncio.run(main()))
"""
PROGRAM = """
import os, signal, sys
def told(number, frame):
    os.write(1, signal.Signals(number).name.encode() + b"\\n")
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP):
    signal.signal(number, told)
os.write(1, b"%d\\n" % os.getpid())
while True:
    line = sys.stdin.readline()
    if not line:
        sys.exit(7)
"""


@contextmanager
def launched(*command: str) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A launcher, and the process id that its program has said."""
    with subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as launcher:
        try:
            assert launcher.stdout is not None
            yield launcher, int(launcher.stdout.readline())
        finally:
            launcher.kill()


def line(launcher: subprocess.Popen[bytes]) -> str:
    assert launcher.stdout is not None
    return launcher.stdout.readline().decode().strip()


@pytest.mark.parametrize(
    ("status", "code"), [(0, 0), (3 << 8, 3), (signal.SIGTERM, 143), (signal.SIGKILL | 0x80, 137)]
)
def test_the_status_is_what_a_shell_would_say(status: int, code: int) -> None:
    assert exit_status(status) == code


def test_the_programs_status_is_the_launchers() -> None:
    with launched(sys.executable, "-c", PROGRAM) as (launcher, _):
        assert launcher.stdin is not None
        launcher.stdin.close()
        assert launcher.wait(10) == 7


def test_a_program_that_has_ended_before_anybody_looked_is_found() -> None:
    with launched("sh", "-c", "echo $$; exit 5") as (launcher, _):
        assert launcher.wait(10) == 5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_what_is_sent_to_the_launcher_alone_reaches_the_program(number: signal.Signals) -> None:
    with launched(sys.executable, "-c", PROGRAM) as (launcher, _):
        launcher.send_signal(number)
        assert line(launcher) == number.name
        assert launcher.poll() is None


def test_what_the_program_sends_its_launcher_does_not_come_back_to_it() -> None:
    code = PROGRAM.replace("while True:", "os.kill(os.getppid(), signal.SIGTERM)\nwhile True:")
    with launched(sys.executable, "-c", code) as (launcher, process):
        os.kill(process, signal.SIGUSR1)
        assert line(launcher) == "SIGUSR1"


def test_a_program_that_is_stopped_stops_the_launcher_and_goes_on_with_it() -> None:
    with launched(sys.executable, "-c", PROGRAM) as (launcher, process):
        os.kill(process, signal.SIGSTOP)
        _, status = os.waitpid(launcher.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        launcher.send_signal(signal.SIGCONT)
        os.kill(process, signal.SIGUSR1)
        assert line(launcher) == "SIGUSR1"
        assert launcher.stdin is not None
        launcher.stdin.close()
        assert launcher.wait(10) == 7


def test_the_terminals_own_signals_are_not_sent_twice() -> None:
    """Ctrl-C in a terminal reaches both of them; the program must hear it once."""
    ours, theirs = os.openpty()
    code = PROGRAM.replace("while True:", "os.write(1, b'ready\\n')\nwhile True:")
    terminal = "import fcntl, os, sys, termios\nfcntl.ioctl(0, termios.TIOCSCTTY, 0)\n" + LAUNCHER
    with subprocess.Popen(
        [sys.executable, "-c", terminal, sys.executable, "-c", code],
        stdin=theirs, stdout=subprocess.PIPE, start_new_session=True,
    ) as launcher:  # fmt: skip
        try:
            process = int(line(launcher))
            assert line(launcher) == "ready"
            os.write(ours, b"\x03")
            assert line(launcher) == "SIGINT"
            os.kill(process, signal.SIGUSR1)
            assert line(launcher) == "SIGUSR1"
        finally:
            launcher.kill()
            os.close(ours)
            os.close(theirs)
