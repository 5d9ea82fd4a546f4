"""Ports of ours as a packet filter in front of them sees them: who may come to each, from when on, and until when.

Only a gateway has such a filter. Whoever listens tells it by these two protocols, and needs to know nothing of it;
without one nobody is told anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName


class Way(Protocol):
    """Into one port of ours."""

    def admit(self, peers: IpFilter | None) -> None:
        """These may come from now on, and no others; None is nobody. The filter is copied."""

    def close(self) -> None:
        """Nobody may come by it any more. Idempotent."""


class Openings(Protocol):
    """The packet filter."""

    def way(self, transport: TransportName, name: SocketName, peers: IpFilter | None) -> Way:
        """One more way to what is bound to `name`, for these peers; several to the same port add up. At once."""

    async def settled(self) -> None:
        """What was asked for before now is so in the kernel, or has failed and is on record. Soon; never raises."""
