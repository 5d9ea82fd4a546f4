"""Readiness of raw sockets: one edge-triggered epoll nested in the asyncio loop.

The standard loop's `add_reader` costs two system calls, a heap of Python and a callback handle for every wait.
Here a descriptor is registered once for its life; each edge reaches `ready(fd, events)` of its target directly.
An epoll descriptor is itself pollable, so the loop sees one readable descriptor for all of ours.

Edges are hints. A stale edge may reach the next owner of a reused number, so a target must only ever *try*
again, never conclude anything from the event bits.
"""

from __future__ import annotations

import asyncio
import select
from typing import Final, Protocol

READ: Final = select.EPOLLIN | select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
WRITE: Final = select.EPOLLOUT | select.EPOLLHUP | select.EPOLLERR
# Something beyond data: an end, an error, or an urgent mark, at which every read stops short of what follows it.
ENDING: Final = select.EPOLLPRI | select.EPOLLRDHUP | select.EPOLLHUP | select.EPOLLERR
_BOTH_EDGES: Final = select.EPOLLIN | select.EPOLLPRI | select.EPOLLOUT | select.EPOLLRDHUP | select.EPOLLET

# Enough to empty a busy loop's ready list in one call, few enough that timers are not kept waiting.
EVENTS_MAX: Final = 512


class Target(Protocol):
    """Whoever waits for a descriptor."""

    def ready(self, fd: int, events: int) -> None:
        """Something about this descriptor may have changed: try again."""
        ...


class Poller:
    """Owns the nested epoll. `now` is the loop's time at the start of the current batch."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.now = loop.time()
        self._epoll = select.epoll()
        self._targets: dict[int, Target] = {}
        loop.add_reader(self._epoll.fileno(), self._run)

    def watch(self, fd: int, target: Target) -> None:
        """Tell `target` of every edge. An edge that stands already is told in the next turn of the loop.

        Raises OSError (ENOMEM, ENOSPC) when the kernel's watch limit is reached.
        """
        self._epoll.register(fd, _BOTH_EDGES)
        self._targets[fd] = target

    def unwatch(self, fd: int) -> None:
        """Must come before the descriptor is closed or given away: a duplicate would keep the registration alive."""
        if self._targets.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def forget(self, fd: int) -> None:
        """For a descriptor that is closed next and has no duplicate: the kernel ends the registration with it."""
        self._targets.pop(fd, None)

    def close(self) -> None:
        """Stop telling anybody anything. Idempotent."""
        if not self._epoll.closed:
            self.loop.remove_reader(self._epoll.fileno())
            self._epoll.close()
            self._targets.clear()

    def __len__(self) -> int:
        return len(self._targets)

    def _run(self) -> None:
        self.now = self.loop.time()
        targets = self._targets
        for fd, events in self._epoll.poll(0, EVENTS_MAX):
            target = targets.get(fd)
            if target is None:
                continue
            try:
                target.ready(fd, events)
            except Exception as error:
                self.unwatch(fd)
                self.loop.call_exception_handler({"message": "a readiness target failed", "exception": error})
