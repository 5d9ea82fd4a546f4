"""One worker as its supervisor sees it: a child process that is asked things, and that may die at any moment."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import site
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

import doorward
from doorward.service.channel import Channel, Order, Reply, close_all

_decoder = msgspec.json.Decoder(Reply)
# Orders that nobody has answered yet: more means that it does not read.
QUESTIONS_MAX: Final = 100
# Between its last word and its death.
END_TIMEOUT_S: Final = 5.0
_SOURCE: Final = str(Path(doorward.__file__).resolve().parents[1])


class WorkerFailed(Exception):
    """It is dead, does not answer, or has a problem. The message says which."""


class WorkerProcess:
    """A running child. `ended` is done when it has died and nothing of it is left, with its status as Popen has it."""

    def __init__(
        self, place: int, admit: Callable[[socket.socket], None], on_breach: Callable[[str], None]
    ) -> None:
        """Start it for this place (from 0). `admit` gets our end for its records. Raises OSError.

        `on_breach` is called when it says what is no answer; it ought to be killed then.
        """
        self.place = place
        self.started = time.monotonic()
        self.serving = False
        self.reachable = True
        """Whether it still listens to what it is told."""
        self._on_breach = on_breach
        self._numbers = itertools.count(1)
        self._questions: dict[int, asyncio.Future[Reply]] = {}
        self._loop = asyncio.get_running_loop()
        self.ended: asyncio.Future[int] = self._loop.create_future()
        control, their_control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        records, their_records = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with their_control, their_records:
            try:
                self._popen = _start(their_control.fileno(), their_records.fileno())
                self._pidfd = os.pidfd_open(self._popen.pid)
            except BaseException:
                control.close()
                records.close()
                raise
        admit(records)
        self._channel = Channel(control, self._receive, self._lose, descriptors=False)
        self._loop.add_reader(self._pidfd, self._bury)

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def uptime_s(self) -> float:
        return time.monotonic() - self.started

    def send(self, order: Order) -> None:
        """An order whose reply nobody waits for. Raises WorkerFailed if it cannot be sent."""
        self._ordered(order, ()).add_done_callback(_heard)

    async def ask(self, order: Order, timeout_s: float, descriptors: Sequence[int] = ()) -> Reply:
        """The reply to an order. Raises WorkerFailed, also for a problem that it has."""
        try:
            async with asyncio.timeout(timeout_s):
                reply = await self._ordered(order, descriptors)
        except TimeoutError:
            raise WorkerFailed(self._told(f"has not answered within {timeout_s:g} s")) from None
        if reply.problem is not None:
            raise WorkerFailed(reply.problem)
        return reply

    def kill(self) -> None:
        """SIGKILL. Idempotent; `ended` follows."""
        if not self.ended.done():
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def _ordered(self, order: Order, descriptors: Sequence[int]) -> asyncio.Future[Reply]:
        """Send an order; its reply comes. Raises WorkerFailed if it cannot be sent."""
        if not self.reachable:
            raise WorkerFailed(self._told("has ended"))
        if len(self._questions) >= QUESTIONS_MAX:
            raise WorkerFailed(self._told("does not answer"))
        order.question = next(self._numbers)
        try:
            self._channel.send(order, descriptors)
        except OSError as error:
            raise WorkerFailed(self._told(f"cannot be told anything: {error}")) from error
        reply: asyncio.Future[Reply] = self._loop.create_future()
        self._questions[order.question] = reply
        reply.add_done_callback(lambda _: self._questions.pop(order.question, None))
        return reply

    def _receive(self, data: bytes, descriptors: list[int]) -> None:
        close_all(descriptors)
        try:
            reply = _decoder.decode(data)
        except (msgspec.DecodeError, RecursionError) as error:
            self._on_breach(f"its answer cannot be read: {error}")
            return
        question = self._questions.get(reply.question)
        if question is not None and not question.done():
            question.set_result(reply)

    def _lose(self) -> None:
        """It has closed its end, which it does last of all."""
        self.reachable = False
        self._fail_questions()
        self._loop.call_later(END_TIMEOUT_S, self.kill)

    def _fail_questions(self) -> None:
        """It will answer nothing any more."""
        for question in tuple(self._questions.values()):
            if not question.done():
                question.set_exception(WorkerFailed(self._told("has ended")))

    def _bury(self) -> None:
        """It has died."""
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        status = self._popen.wait()
        self._channel.close()
        self.reachable = False
        self.ended.set_result(status)
        self._fail_questions()

    def _told(self, what: str) -> str:
        return f"worker {self.place + 1} {what}"


def _heard(reply: asyncio.Future[Reply]) -> None:
    """Nobody asked to know, and nothing is to be printed about it."""
    if not reply.cancelled():
        reply.exception()


def _start(control: int, records: int) -> subprocess.Popen[bytes]:
    """A child with the same interpreter and the same Doorward. Raises OSError.

    Not forked: threads, locks and an event loop are no inheritance.
    """
    # -P: a directory called doorward where we were started is not us.
    words = [sys.executable, "-P", "-m", "doorward", "worker", str(control), str(records), str(os.getpid())]
    environment = dict(os.environ)
    installed = [Path(path).resolve() for path in (*site.getsitepackages(), site.getusersitepackages())]
    if Path(_SOURCE) not in installed:
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = f"{_SOURCE}{os.pathsep}{known}" if known else _SOURCE
    return subprocess.Popen(  # noqa: S603 - our own interpreter, our own words
        words, pass_fds=(control, records), stdin=subprocess.DEVNULL, env=environment
    )
