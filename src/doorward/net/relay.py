"""The border to the relay: pairs of connected sockets, pumped both ways by somebody who reads nothing.

A relay knows no policy, no protocol, no session. It takes descriptors and gives back descriptors and numbers.
The native relay and the Python one meet the same contract suite (tests/net/relay_contract.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol, TypeAlias

EndedBy: TypeAlias = Literal["internal", "external", "ours"]
End: TypeAlias = Literal["closed", "reset", "idle_timeout", "byte_limit", "killed", "failed"]


class Limits(NamedTuple):
    """Limits of one pair; zero means none. Rate and byte limits hold for each direction by itself."""

    idle_s: float = 0.0
    bytes_max: int = 0
    bytes_per_second: int = 0


class Completion(NamedTuple):
    """How one pair ended. Sent bytes ran from internal to external; a byte counts once the kernel took it."""

    id: int
    bytes_sent: int
    bytes_received: int
    ended_by: EndedBy
    end: End
    errno: int


class Counts(NamedTuple):
    """Bytes carried so far."""

    bytes_sent: int
    bytes_received: int


class Reclaimed(NamedTuple):
    """A pair given back. `to_external` was read from the internal side and not yet written, and the other way round."""

    internal_fd: int
    external_fd: int
    to_external: bytes
    to_internal: bytes
    counts: Counts


OnCompletions: TypeAlias = Callable[[list[Completion]], None]


class Relay(Protocol):
    """Pumps pairs. `name` goes into the start-up line."""

    @property
    def name(self) -> str: ...

    def add(
        self,
        internal_fd: int,
        external_fd: int,
        limits: Limits,
        *,
        to_external: bytes = b"",
        to_internal: bytes = b"",
    ) -> int:
        """Take over both descriptors (non-blocking, connected) and begin. Returns the pair's number, never reused.

        `to_external` was read from the internal side before and goes out first, and the other way round; both
        count as bytes of this pair. Raises OutOfResources, with both descriptors closed.
        """
        ...

    def counts(self, pair_id: int) -> Counts | None:
        """Bytes so far; None when the pair is gone."""
        ...

    def kill(self, pair_id: int) -> None:
        """Reset both sides. The completion comes as for any other end. Idempotent."""
        ...

    def reclaim(self, pair_id: int) -> Reclaimed | None:
        """Give the pair back with nothing lost; no completion follows. None when it has ended already."""
        ...

    def __len__(self) -> int:
        """Pairs alive."""
        ...

    def close(self) -> None:
        """Kill every pair and stop. Completions are delivered before this returns."""
        ...
