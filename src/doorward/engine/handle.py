"""A socket as one data filter holds it: four calls, good for as long as its `pump` runs.

TLS may be laid over it (`tls_socket.py`). Then it is the TLS socket's own, and what came through it in clear text
before must not go on as if nothing had happened: a filter stays until TLS is over, or its connection ends.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from doorward.api.errors import FilterFailed, Terminating
from doorward.net.tls_leg import TLSLeg

if TYPE_CHECKING:
    from doorward.net.carrier import Carrier


class Handle:
    """See the module. `carrier` is what stands behind it, with all that was laid over that."""

    __slots__ = ("below", "carrier", "close", "recv", "recv_from", "send", "send_to", "shutdown")

    def __init__(self, carrier: Carrier, below: Handle | None = None) -> None:
        """`below` is the handle over which this one's TLS was laid."""
        self.carrier = carrier
        self.below = below
        self.recv = carrier.recv
        self.send = carrier.send
        self.recv_from = carrier.recv_from
        self.send_to = carrier.send_to
        self.shutdown = carrier.shutdown
        self.close = carrier.close

    def cover(self, carrier: Carrier) -> None:
        """TLS was laid over it."""
        handle: Handle | None = self
        while handle is not None:
            handle.carrier = carrier
            handle = handle.below
        if self.recv is not _revoked:
            self._bar(_covered)

    @property
    def barred(self) -> bool:
        """Whether its own calls are good for nothing any more."""
        return self.recv is _revoked or self.recv is _covered

    def expect_uncovered(self) -> None:
        """The pump is over. Raises FilterFailed if TLS is not: its records would flow on unread."""
        carrier = self.carrier
        if isinstance(carrier, TLSLeg) and carrier.open and not carrier.over:
            raise FilterFailed("its pump was over before the TLS that it had laid over a socket")

    def revoke(self) -> None:
        """Every later call raises Terminating."""
        self._bar(_revoked)

    def _bar(self, refusal: Any) -> None:
        self.recv = self.send = self.recv_from = self.send_to = self.shutdown = self.close = refusal


async def _revoked(*_: Any, **__: Any) -> Any:
    raise Terminating("this filter's pump is over")


async def _covered(*_: Any, **__: Any) -> Any:
    raise Terminating("TLS was laid over this socket: use that")
