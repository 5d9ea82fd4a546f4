"""What the Python relay remembers of a pair: two descriptors, and a flow each way. No system call is made here
but the few that need a socket object.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol, TypeVar

from doorward.net.leg import reset_on_close
from doorward.net.poller import ENDING, READ, WRITE

if TYPE_CHECKING:
    from doorward.net.allowance import Allowance
    from doorward.net.pipes import Pipe
    from doorward.net.relay import EndedBy, Limits

T = TypeVar("T")


class Pump(Protocol):
    """Whoever moves a pair's bytes."""

    def pump(self, flow: Flow) -> None:
        """Carry until the kernel says wait."""
        ...

    def ask_for_reset(self, flow: Flow) -> None:
        """The source may have reset, and nobody reads it."""
        ...


class Flow:
    """One direction: from `source` to `sink`."""

    __slots__ = ("allowance", "done", "ending", "eof", "held", "in_pipe", "moved", "pair", "pipe", "sink",
                 "small_reads", "source", "spliceable", "splicing")  # fmt: skip

    def __init__(self, pair: Pair, source: int, sink: int) -> None:
        self.pair = pair
        self.source = source
        self.sink = sink
        self.held: memoryview | None = None
        self.pipe: Pipe | None = None
        self.in_pipe = 0
        self.moved = 0
        self.ending = False  # the source has said something beyond data: read until the kernel says wait
        self.eof = False
        self.done = False
        self.splicing = False
        self.spliceable = True
        self.small_reads = 0
        self.allowance: Allowance | None = None  # for a limited rate only


class Pair:
    """Two sockets and the flow each way. `last` is the loop's time of the last byte."""

    __slots__ = ("_pump", "external", "first_eof", "id", "internal", "inward", "last", "limited", "limits", "outward",
                 "over")  # fmt: skip

    def __init__(
        self, pump: Pump, pair_id: int, internal: int, external: int, limits: Limits, now: float
    ) -> None:
        self._pump = pump
        self.id = pair_id
        self.internal = internal
        self.external = external
        self.limits = limits
        self.limited = bool(limits.bytes_max or limits.bytes_per_second)
        self.last = now
        self.first_eof: EndedBy | None = None
        self.over = False
        self.outward = Flow(self, internal, external)
        self.inward = Flow(self, external, internal)

    def ready(self, fd: int, events: int) -> None:
        """An edge: try to read from this side, and to write to it what was held."""
        reading, writing = (self.outward, self.inward) if fd == self.internal else (self.inward, self.outward)
        if events & WRITE and (writing.held is not None or writing.in_pipe):
            self._pump.pump(writing)
        if events & READ and not self.over:
            if events & ENDING:
                reading.ending = True
            if events & select.EPOLLPRI:
                reading.spliceable = False  # splice cannot pass an urgent mark
            if not reading.done:
                self._pump.pump(reading)
            if events & select.EPOLLERR and not self.over:
                self._pump.ask_for_reset(reading)

    @property
    def idle_s(self) -> float:
        """How long it may be silent."""
        return self.limits.idle_s

    def close(self, *, abortive: bool) -> None:
        """Close both descriptors, with RST if abortive."""
        for fd in (self.internal, self.external):
            if abortive:
                with_socket(fd, reset_on_close)
            os.close(fd)


def side_of_source(flow: Flow) -> EndedBy:
    """Who sends in this direction."""
    return "internal" if flow is flow.pair.outward else "external"


def side_of_sink(flow: Flow) -> EndedBy:
    """Who receives in this direction."""
    return "external" if flow is flow.pair.outward else "internal"


def end_sending(sock: socket.socket) -> None:
    """FIN."""
    sock.shutdown(socket.SHUT_WR)


def with_socket(fd: int, call: Callable[[socket.socket], T]) -> T:
    """The few calls that need more than a descriptor. The family is named so that Python need not ask for it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fd)
    try:
        return call(sock)
    finally:
        sock.detach()
