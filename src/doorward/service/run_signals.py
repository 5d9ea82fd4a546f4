"""Signals of a launched program: what was sent to the launcher alone is passed on, what the terminal sends both of
them is not, and when the program is stopped so is the launcher.

The launcher waits for signals in a thread, with their senders: only so can it know the terminal's from a person's.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

# Those that people and supervisors send; whatever else a signal does to the launcher, it does.
PASSED_ON: Final = frozenset(
    {
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGTSTP,
        signal.SIGCONT,
    }
)
_WAITED_FOR: Final = PASSED_ON | {signal.SIGCHLD}
_FROM_KERNEL: Final = 0


class Signals:
    """To be made in the main thread, before there are others: they inherit that these signals are not for them."""

    def __init__(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)

    def follow(self, process: int, ended: Callable[[int], None]) -> None:
        """Begin, inside a running loop. `ended` is called in it with the status that waitpid gave, once."""
        loop = asyncio.get_running_loop()

        def tell(status: int) -> None:
            try:
                loop.call_soon_threadsafe(ended, status)
            except RuntimeError:
                pass  # the loop has ended before the program

        thread = threading.Thread(target=_follow, args=(process, tell), name="signals", daemon=True)
        thread.start()


def exit_status(status: int) -> int:
    """What a shell would call it: the program's own, or 128 and the signal that ended it."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _follow(process: int, ended: Callable[[int], None]) -> None:
    """Until the program has ended. It may have before we began, so look first."""
    while (status := _ended(process)) is None:
        received = signal.sigwaitinfo(_WAITED_FOR)
        if received.si_signo != signal.SIGCHLD and received.si_pid not in (_FROM_KERNEL, process):
            os.kill(process, received.si_signo)
    ended(status)


def _ended(process: int) -> int | None:
    """Its status if it has ended. If it was stopped, so are we, until somebody lets us go on, and it with us."""
    while True:
        found, status = os.waitpid(process, os.WNOHANG | os.WUNTRACED)
        if not found:
            return None
        if not os.WIFSTOPPED(status):
            return status
        os.kill(os.getpid(), signal.SIGSTOP)
        os.kill(process, signal.SIGCONT)
