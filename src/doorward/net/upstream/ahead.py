"""A carrier with bytes ahead of what it will receive: what came behind a handshake, where no leg takes it back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from doorward.api.errors import DoorwardError
from doorward.net.carrier import StreamOnly

if TYPE_CHECKING:
    from doorward.net.carrier import Carrier
    from doorward.net.limiter import LegLimits, Limiter


class Ahead(StreamOnly):
    """A carrier like the one under it. Counts anew: only what passes here, the bytes ahead included.

    `limits` hold for what passes here, as a leg's do; None: no limits.
    """

    __slots__ = ("_ahead", "_carrier", "limits", "received", "sent")

    def __init__(self, carrier: Carrier, ahead: bytes) -> None:
        self._carrier = carrier
        self._ahead = ahead
        self.sent = 0
        self.received = len(ahead)  # they have arrived, whether or not anybody reads them
        self.limits: LegLimits | None = None

    @property
    def open(self) -> bool:
        return self._carrier.open

    @property
    def busy(self) -> bool:
        return self._carrier.busy

    async def recv(self, bytes_max: int | None = None) -> bytes:
        """See `Carrier.recv`."""
        if self.limits is not None:
            await self.limits.receiving.ready()
        if self._ahead:
            size = len(self._ahead) if bytes_max is None else bytes_max
            data, self._ahead = self._ahead[:size], self._ahead[size:]
        else:
            data = await self._carrier.recv(bytes_max)
            self.received += len(data)
        if self.limits is not None:
            self._spend(self.limits.receiving, len(data))
        return data

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """See `Carrier.send`."""
        rest = memoryview(data)
        while rest:
            rest = rest[await self.send_some(rest) :]

    async def send_some(self, data: bytes | bytearray | memoryview) -> int:
        """See `Carrier.send_some`."""
        if self.limits is not None:
            await self.limits.sending.ready()
        count = await self._carrier.send_some(data)
        self.sent += count
        if self.limits is not None:
            self._spend(self.limits.sending, count)
        return count

    def _spend(self, limiter: Limiter, count: int) -> None:
        try:
            limiter.spend(count)
        except DoorwardError as error:
            self.abort(error)
            raise

    async def shutdown(self, *, abortive: bool = False) -> None:
        """See `Carrier.shutdown`."""
        if abortive:
            self._ahead = b""
        await self._carrier.shutdown(abortive=abortive)

    async def close(self, *, abortive: bool = False) -> None:
        """See `Carrier.close`."""
        self._ahead = b""
        await self._carrier.close(abortive=abortive)

    def close_now(self, *, abortive: bool = False) -> None:
        """See `Carrier.close_now`."""
        self._ahead = b""
        self._carrier.close_now(abortive=abortive)

    def abort(self, error: DoorwardError) -> None:
        """See `Carrier.abort`."""
        self._ahead = b""
        self._carrier.abort(error)
