"""A namespace, its helper, its program: made here, in the order that keeps the program from ever being uncaught.

    fork helper ─▶ map users ─▶ fork program (held) ─▶ sockets ─▶ release ─▶ … ─▶ close

All of it comes before the process has threads, a loop, or anything else that a fork would carry along.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from doorward.capture import helper, passing, unix_sockets
from doorward.capture.executable import Executable, find
from doorward.capture.maps import write_maps
from doorward.capture.obstacles import why_no_namespace
from doorward.capture.program import Program, hold
from doorward.capture.sockets import Place, place_of

# Forty messages to the kernel and a few forks; a machine that swaps takes longer than the usual three milliseconds.
_TIMEOUT_S: Final = 10.0


class CannotCapture(Exception):
    """There is no namespace to run a program in. The text says what is missing and how to get it."""


class Launch:
    """One launched program. A failure leaves nothing behind but what `close` removes."""

    def __init__(self, meanwhile: Callable[[], object] = lambda: None) -> None:
        """The namespace exists afterwards, and the helper is at work in it. Raises CannotCapture.

        `meanwhile` is called while it is made, which takes some milliseconds; it must not start threads.
        """
        try:
            self._helper, self.channel = helper.start()
        except OSError as error:
            raise CannotCapture(f"no helper could be started: {error.strerror}") from None
        self.channel.settimeout(_TIMEOUT_S)
        self.program: Program | None = None
        self.executable: Executable | None = None
        self._namespaces: list[int] = []
        try:
            meanwhile()
            self._expect(helper.APART)
            write_maps(self._helper)
            for name in ("user", "net"):
                self._namespaces.append(
                    os.open(f"/proc/{self._helper}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
                )
            passing.send(self.channel, helper.MAPPED)
        except OSError as error:
            self.close()
            raise CannotCapture(f"{why_no_namespace(error.errno or 0)} ({error.strerror})") from None
        except BaseException:
            self.close()
            raise

    def hold(
        self, command: Sequence[str], *, close_descriptors: bool = False, private_sockets: bool = False
    ) -> Program:
        """The process that will be the program. Raises CannotCapture.

        `executable` is that program then; None if there seems to be none, and releasing the process will say why.
        """
        self.executable = find(command[0], os.get_exec_path())
        hidden = unix_sockets.hidden(private=private_sockets, environment=os.environ, user=os.getuid())
        try:
            self.program = hold(
                command,
                None if self.executable is None else self.executable.path,
                *self._namespaces,
                close_descriptors=close_descriptors,
                hidden=hidden,
            )
        except OSError as error:
            raise CannotCapture(f"no process for the program: {error.strerror}") from None
        return self.program

    def sockets(self) -> dict[Place, socket.socket]:
        """What catches the program's traffic; once. They are the caller's, bound and non-blocking.

        The channel does not block afterwards. Raises CannotCapture.
        """
        text, descriptors = self._expect(helper.READY)
        self.channel.setblocking(False)
        made = [socket.socket(fileno=fd) for fd in descriptors]
        for sock in made:
            sock.setblocking(False)
        return dict(zip((place_of(word) for word in text.split()[1:]), made, strict=True))

    def has_others(self) -> bool:
        """Whether a process is in the namespace, besides the helper: one that outlived the program."""
        own = os.fstat(self._namespaces[1])
        for process in Path("/proc").iterdir():
            if process.name.isdigit() and int(process.name) != self._helper:
                try:
                    found = (process / "ns/net").stat()
                except OSError:
                    continue  # it is somebody else's, or gone
                if (found.st_dev, found.st_ino) == (own.st_dev, own.st_ino):
                    return True
        return False

    def close(self) -> None:
        """End the helper and, if it was never released, the program's process. Idempotent."""
        if self.program is not None:
            self.program.abandon()
        try:
            self.channel.shutdown(
                socket.SHUT_RDWR
            )  # for whoever else has it, too: a firewall that was joined
        except OSError:
            pass  # the helper has ended, or it is closed
        self.channel.close()
        for fd in self._namespaces:
            os.close(fd)
        self._namespaces.clear()
        if self._helper:
            os.waitpid(self._helper, 0)
            self._helper = 0

    def _expect(self, word: str) -> tuple[str, list[int]]:
        """What the helper says next. Raises CannotCapture with its own words if it is not this."""
        try:
            text, descriptors = passing.receive(self.channel)
        except OSError as error:
            raise CannotCapture(f"the helper does not answer: {error}") from None
        said, _, rest = text.partition(" ")
        if said != word:
            raise CannotCapture(rest if said == helper.FAILED else "the helper has ended before it was ready")
        return text, descriptors
