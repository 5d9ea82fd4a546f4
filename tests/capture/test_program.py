"""The process that becomes the program: what it has, what it has not, and that it never runs uncaught."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.capture.inside import launched, needs_namespaces

from doorward.capture.launch import Launch
from doorward.capture.program import ProgramNotRun

pytestmark = needs_namespaces


def run(launch: Launch, *command: str, close: bool = False) -> int:
    """Its exit code."""
    program = launch.hold(command, close_descriptors=close)
    program.release()
    return os.waitstatus_to_exitcode(os.waitpid(program.process, 0)[1])


def said(launch: Launch, code: str) -> str:
    """What a Python program in there has printed."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        command = f"import os, socket\nos.dup2({writing}, 1)\n{code}"
        assert run(launch, sys.executable, "-c", command) == 0
        os.close(writing)
        writing = -1
        return os.read(reading, 65_536).decode()
    finally:
        os.close(reading)
        if writing >= 0:
            os.close(writing)


def test_it_is_who_it_was_and_where_it_was() -> None:
    with launched() as (launch, _):
        told = said(launch, "print(os.getuid(), os.getgid(), os.getcwd(), os.getppid(), os.getpgrp())")
        assert told.split() == [
            str(os.getuid()), str(os.getgid()), str(Path.cwd()), str(os.getpid()), str(os.getpgrp()),
        ]  # fmt: skip


def test_it_has_another_network_and_no_device_but_lo() -> None:
    with launched() as (launch, _):
        told = said(launch, "print([n for _, n in socket.if_nameindex()], os.readlink('/proc/self/ns/net'))")
        assert told.startswith("['lo']")
        assert str(Path("/proc/self/ns/net").readlink()) not in told


@pytest.mark.parametrize(
    "attempt",
    [
        "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
        "s = socket.socket(); s.setsockopt(0, 19, 1)",  # IP_TRANSPARENT
        (
            "from doorward.capture import rules\nfrom doorward.capture.netlink import *\n"
            "m = rules.table()[1]; n = Netlink(12); n.ask([rules.table()[0], m, rules.table()[-1]])"
        ),
        "from doorward.capture import kernel; kernel.unshare(kernel.NEW_NET)",
        "from doorward.capture import kernel; kernel.enter(os.open('/proc/LAUNCHER/ns/net', 0), kernel.NEW_NET)",
    ],
)
def test_it_has_no_right_to_undo_what_catches_it(attempt: str) -> None:
    with launched() as (launch, _):
        indented = attempt.replace("LAUNCHER", str(os.getpid())).replace("\n", "\n  ")
        code = f"try:\n  {indented}\n  print('done')\nexcept Exception as e: print(type(e).__name__, e)"
        told = said(launch, code)
        assert "not permitted" in told or "Permission denied" in told, told


def test_a_namespace_of_its_own_inside_gives_it_no_network() -> None:
    with launched() as (launch, _):
        told = said(
            launch,
            "from doorward.capture import kernel; kernel.unshare(kernel.NEW_USER | kernel.NEW_NET)\n"
            "try: socket.create_connection(('198.51.100.7', 80), 2); print('out')\n"
            "except OSError as e: print(e)",
        )
        assert "unreachable" in told


def test_it_cannot_look_into_the_helper_or_the_launcher() -> None:
    with launched() as (launch, _):
        for process in (launch._helper, os.getpid()):
            for what in (
                f"os.readlink('/proc/{process}/fd/0')",
                f"os.open('/proc/{process}/mem', os.O_RDWR)",
            ):
                told = said(launch, f"try: print({what})\nexcept OSError as e: print(e.strerror)")
                assert told.strip() == "Permission denied"
            told = said(
                launch,
                "import ctypes; l = ctypes.CDLL(None, use_errno=True)\n"
                f"print(l.ptrace(16, {process}, 0, 0), ctypes.get_errno())",
            )
            assert told.split() == ["-1", str(errno.EPERM)]


def test_descriptors_are_inherited_or_not_as_was_asked() -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        with launched() as (launch, _):
            code = f"import os\nos.fstat({writing})"
            assert run(launch, sys.executable, "-c", code) == 0
            assert run(launch, sys.executable, "-c", code, close=True) == 1
    finally:
        os.close(reading)
        os.close(writing)


def test_nothing_of_ours_is_inherited() -> None:
    with launched() as (launch, _):
        caught = launch.sockets()
        told = said(launch, "os.system('ls -l /proc/self/fd >&1')")
        assert "->" in told
        assert "socket:" not in told
        for sock in caught.values():
            sock.close()


@pytest.mark.parametrize(
    ("command", "number"), [("/nonexistent/program", errno.ENOENT), ("/etc/passwd", errno.EACCES)]
)
def test_what_cannot_be_run_is_said(command: str, number: int) -> None:
    with launched() as (launch, _):
        program = launch.hold([command])
        with pytest.raises(ProgramNotRun, match=command) as refused:
            program.release()
        assert refused.value.number == number
        with pytest.raises(ChildProcessError):
            os.waitpid(program.process, os.WNOHANG)


def test_a_program_that_is_abandoned_never_runs(tmp_path: Path) -> None:
    with launched() as (launch, _):
        program = launch.hold(["touch", str(tmp_path / "ran")])
        program.abandon()
        program.abandon()
        with pytest.raises(ChildProcessError):
            os.waitpid(program.process, os.WNOHANG)
    assert not (tmp_path / "ran").exists()


def test_a_namespace_that_cannot_be_entered_keeps_it_from_running(tmp_path: Path) -> None:
    with launched() as (launch, _):
        launch._namespaces[1] = os.open(os.devnull, os.O_RDONLY)
        program = launch.hold(["touch", str(tmp_path / "ran")])
        with pytest.raises(ProgramNotRun, match="namespaces"):
            program.release()
    assert not (tmp_path / "ran").exists()


def test_signals_are_as_they_were_before_python() -> None:
    """Read by a program that is no Python: those change some for themselves, and the shell changes none back."""
    ask = ["sh", "-c", "grep SigIgn /proc/$$/status"]
    ignored = int(subprocess.run(ask, check=True, capture_output=True).stdout.split()[1], 16)
    with launched() as (launch, _):
        program = launch.hold(["sh", "-c", f"grep SigIgn /proc/$$/status | grep -q {ignored:016x}"])
        program.release()
        assert os.waitstatus_to_exitcode(os.waitpid(program.process, 0)[1]) == 0
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            program = launch.hold(["sh", "-c", f"grep SigIgn /proc/$$/status | grep -q {ignored | 2:016x}"])
        finally:
            signal.signal(signal.SIGINT, before)
        program.release()
        assert os.waitstatus_to_exitcode(os.waitpid(program.process, 0)[1]) == 0
