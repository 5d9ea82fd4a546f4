"""The process that becomes the program: forked early, captured, and held at a gate until the firewall stands.

It is the launcher's own child, with the launcher's terminal, directory, signals and descriptors, and so is the
program: nothing stands between it and whoever started it but that its network is another.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple, NoReturn

from doorward.capture import kernel, unix_sockets

# What root keeps of its rights, over its own namespace only: those of files, processes and users. None of them
# reaches the network: no NET_ADMIN, NET_RAW, SYS_ADMIN, SYS_PTRACE. Numbers of linux/capability.h.
_KEPT_BY_ROOT: Final = frozenset(
    {
        0,  # CHOWN
        1,  # DAC_OVERRIDE
        2,  # DAC_READ_SEARCH
        3,  # FOWNER
        4,  # FSETID
        5,  # KILL
        6,  # SETGID
        7,  # SETUID
        10,  # NET_BIND_SERVICE
        14,  # IPC_LOCK
        18,  # SYS_CHROOT
        23,  # SYS_NICE
        24,  # SYS_RESOURCE
        28,  # LEASE
        29,  # AUDIT_WRITE
        31,  # SETFCAP
    }
)
# What Python changes for itself, and what a program expects as it was.
_PYTHONS_SIGNALS: Final = (signal.SIGPIPE, signal.SIGXFSZ)
_REPORT_BYTES_MAX: Final = 4096
_STANDARD: Final = 3


class ProgramNotRun(Exception):
    """The program was not run. `number` is the errno of what failed; the text is for the operator."""

    def __init__(self, message: str, number: int) -> None:
        self.number = number
        super().__init__(message)


class _Surroundings(NamedTuple):
    """Which program it will be and where: two namespaces, and what it will not see."""

    path: str | None
    user: int
    net: int
    hidden: list[Path]


class Program:
    """A held process. It waits at a gate; if that is closed without a word, it ends."""

    def __init__(self, process: int, gate: int, report: int) -> None:
        self.process = process
        self._gate = gate
        self._report = report

    def release(self) -> None:
        """Let it become the program, and wait until it has. Raises ProgramNotRun; it has ended then."""
        try:
            os.write(self._gate, b"\n")
        except OSError:
            pass  # it has given up already, and its report says why
        said = os.read(self._report, _REPORT_BYTES_MAX).decode(errors="replace")
        self._close()
        if said:
            os.waitpid(self.process, 0)
            number, _, message = said.partition(" ")
            raise ProgramNotRun(message, int(number))

    def abandon(self) -> None:
        """If it was not released, it is not to become anything, and ends. Idempotent."""
        if self._gate >= 0:
            self._close()
            os.waitpid(self.process, 0)

    def _close(self) -> None:
        os.close(self._gate)
        os.close(self._report)
        self._gate = self._report = -1


def hold(
    command: Sequence[str],
    path: str | None,
    user: int,
    net: int,
    *,
    close_descriptors: bool,
    hidden: list[Path],
) -> Program:
    """Fork the process in these namespaces (descriptors), without these paths. Raises OSError.

    `command` is not empty; `path` is the program it names, None to look for it by then.
    """
    gate, opened = os.pipe()
    report, told = os.pipe()
    process = os.fork()
    if not process:
        os.close(opened)
        os.close(report)
        around = _Surroundings(path, user, net, hidden)
        _become(command, around, gate, told, close_descriptors=close_descriptors)
    os.close(gate)
    os.close(told)
    return Program(process, opened, report)


def _become(
    command: Sequence[str], around: _Surroundings, gate: int, told: int, *, close_descriptors: bool
) -> NoReturn:
    """Everything up to the program itself. Nothing of ours is inherited by it: our descriptors close by themselves."""
    step = "the program could not enter its namespaces"
    try:
        for number in _PYTHONS_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        if (
            signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
        ):  # a shell's background job ignores it, and goes on so
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        _enter(around)
        step = ""
        if not os.read(gate, 1):
            os._exit(0)
        if close_descriptors:
            _close_all_but(told)
        if around.path is None:
            os.execvp(command[0], list(command))  # noqa: S606  (running it is what we are for)
        os.execv(around.path, list(command))  # noqa: S606
    except OSError as error:
        what = step or command[0]
        os.write(
            told, f"{0 if step else error.errno or 0} {what}: {error.strerror}".encode()[:_REPORT_BYTES_MAX]
        )
    except BaseException as error:
        os.write(told, f"0 {step or command[0]}: {error!r}".encode()[:_REPORT_BYTES_MAX])
    os._exit(127)


def _enter(around: _Surroundings) -> None:
    """Into the namespaces, and out of every right over them. Raises OSError."""
    is_root = os.geteuid() == 0
    kernel.enter(around.user, kernel.NEW_USER)
    kernel.enter(around.net, kernel.NEW_NET)
    unix_sockets.hide(around.hidden)
    kernel.limit_capabilities(_KEPT_BY_ROOT if is_root else frozenset())
    if not is_root:
        kernel.no_new_privileges()


def _close_all_but(kept: int) -> None:
    """Every descriptor past the standard ones, and not the one that closes by itself."""
    os.closerange(_STANDARD, kept)
    kernel.close_from(kept + 1)
