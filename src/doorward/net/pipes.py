"""A pool of enlarged pipes for splice. A flow holds one only while bytes are in it.

One pipe per connection would be two more descriptors each, and past the kernel's soft limit on pipe pages an
unprivileged user gets pipes of a page or two. So: few, big, shared, and copying when none is left.
"""

from __future__ import annotations

import fcntl
import os
from typing import Final, NamedTuple

# 1 MiB is the default of /proc/sys/fs/pipe-max-size, and was measured twice as fast as 64 KiB.
PIPE_BYTES: Final = 1024 * 1024
PIPES_MAX: Final = 64
PIPES_FREE_MAX: Final = 8


class Pipe(NamedTuple):
    """Both ends of one pipe, non-blocking."""

    reader: int
    writer: int


class PipePool:
    """Lends empty pipes."""

    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self.lent = 0

    def take(self) -> Pipe | None:
        """An empty pipe, or None when there is none to be had: copy instead."""
        if self._free:
            self.lent += 1
            return self._free.pop()
        if self.lent >= PIPES_MAX:
            return None
        try:
            pipe = Pipe(*os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC))
        except OSError:
            return None
        try:
            fcntl.fcntl(pipe.writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            pass  # over the user's soft limit: a small pipe still works
        self.lent += 1
        return pipe

    def give_back(self, pipe: Pipe, *, empty: bool) -> None:
        """Return a pipe; one that still holds bytes is closed, they belong to nobody else."""
        self.lent -= 1
        if empty and len(self._free) < PIPES_FREE_MAX:
            self._free.append(pipe)
        else:
            _close(pipe)

    def close(self) -> None:
        """Close the free ones."""
        while self._free:
            _close(self._free.pop())


def _close(pipe: Pipe) -> None:
    os.close(pipe.reader)
    os.close(pipe.writer)
