"""The relay in native code, on this loop: a thin dress for `doorward_native.Relay`.

Threads without Python pump the pairs; what they report waits behind one eventfd, which the loop watches: it rings
seldom, and belongs to no connection, so it is not among the poller's. This module imports without the native package;
`is_available` says whether there is one, and `NativeRelay` needs it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from doorward.api.errors import OutOfResources, Side
from doorward.net.poller import Poller
from doorward.net.relay import Completion, Counts, Limits, OnCompletions, Reclaimed

if TYPE_CHECKING:
    import doorward_native as native

    from doorward.net.front import Front
else:
    try:
        import doorward_native as native
    except ImportError:  # not built, or built for another machine
        native = None

# The border of the native package that this module was written for.
BORDER_VERSION: Final = 2
# More threads bring nothing below a dozen cores: one pumps more than most networks carry.
THREADS: Final = 1
_NUMBER_MAX: Final = 2**64 - 1


def is_available() -> bool:
    """Is there a native package, and one of our version?"""
    return getattr(native, "BORDER_VERSION", 0) == BORDER_VERSION


class NativeRelay:
    """See `Relay`."""

    name = "native"

    def __init__(self, poller: Poller, on_completions: OnCompletions, *, threads: int = THREADS) -> None:
        """Raises OSError when descriptors or threads have run out, with nothing left behind."""
        self.poller = poller
        self._on_completions = on_completions
        self.native = native.Relay(threads)
        self._front: Front | None = None
        try:
            poller.loop.add_reader(self.native.fileno(), self._hear)
        except OSError:
            self.native.close()
            raise

    def __len__(self) -> int:
        return len(self.native)

    def join(self, front: Front) -> None:
        """Clients come by this front as well, under numbers of this relay."""
        self._front = front

    def add(
        self,
        internal_fd: int,
        external_fd: int,
        limits: Limits,
        *,
        to_external: bytes = b"",
        to_internal: bytes = b"",
    ) -> int:
        """See `Relay.add`."""
        idle_s, bytes_max, bytes_per_second = limits
        try:
            return self.native.add(
                internal_fd,
                external_fd,
                idle_s,
                min(bytes_max, _NUMBER_MAX),
                min(bytes_per_second, _NUMBER_MAX),
                to_external,
                to_internal,
            )
        except OSError as error:
            raise OutOfResources(os.strerror(error.errno or 0), side=Side.OURS) from None

    def counts(self, pair_id: int) -> Counts | None:
        """See `Relay.counts`."""
        counts = self.native.counts(pair_id)
        return Counts._make(counts) if counts is not None else None

    def kill(self, pair_id: int) -> None:
        """See `Relay.kill`. A client of the front that is being connected has failed then, without a completion."""
        # In this order: it may go on to the relay in between.
        if self._front is None or not self._front.kill(pair_id):
            self.native.kill(pair_id)

    def reclaim(self, pair_id: int) -> Reclaimed | None:
        """See `Relay.reclaim`."""
        reclaimed = self.native.reclaim(pair_id)
        if reclaimed is None:
            return None
        internal_fd, external_fd, to_external, to_internal, counts = reclaimed
        return Reclaimed(internal_fd, external_fd, to_external, to_internal, Counts._make(counts))

    def close(self) -> None:
        """See `Relay.close`. Waits for the threads, which takes them one turn of one flow."""
        if (bell := self.native.fileno()) >= 0:
            self.poller.loop.remove_reader(bell)
        self._tell(self.native.close())

    def _hear(self) -> None:
        """The bell has rung."""
        told = self.native.completions()
        if self._front is not None:
            self._front.hear()  # that it stood was told before it ended
        self._tell(told)

    def _tell(self, told: list[tuple[int, int, int, str, str, int]]) -> None:
        if told:
            self._on_completions([*map(Completion._make, told)])
