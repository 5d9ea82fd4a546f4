"""UDP of machines that route through this one: a captured program's UDP, of any number of strangers.

Sources are easily invented, so mappings have a cap of their own, and one that was unused for long makes room; so is
what we say to who was refused, which a stranger could have us say to others.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

from doorward.engine.udp.table import EVICTED
from doorward.entry.captured_udp import CapturedDatagrams

if TYPE_CHECKING:
    from doorward.net.datagrams import SocketAddress

# Sockets of all clients together. Each costs one of ours.
MAPPINGS_MAX: Final = 16_384
# Of all clients together, while filters are asked; what comes for any more is dropped meanwhile.
OPENING_MAX: Final = 1024
# How many of those made first are compared when one has to make room.
LOOKED_AT_MAX: Final = 32
# As many as Linux sends by itself (net.ipv4.icmp_msgs_per_sec).
REFUSALS_PER_SECOND_MAX: Final = 1000


class RoutedDatagrams(CapturedDatagrams):
    """See the module."""

    opening_max = OPENING_MAX
    mappings_max = MAPPINGS_MAX
    _second = 0.0
    _refused = 0

    def refuse(self, client: SocketAddress, meant_for: bytes) -> None:
        """Tell the client that what it has sent is not wanted, unless too many are told within this second."""
        now = self.clients.engine.poller.loop.time()
        if now - self._second >= 1:
            self._second, self._refused = now, 0
        self._refused += 1
        if self._refused <= REFUSALS_PER_SECOND_MAX:
            super().refuse(client, meant_for)

    def end(self) -> None:
        """No client can be heard any more: their mappings end. Idempotent."""
        self.close()
        for side in tuple(self._sides.values()):
            self.clients.engine.kill(side.mapping.connection, "closed")

    def _begin(self, payload: bytes, client: SocketAddress, meant_for: bytes) -> None:
        if len(self._sides) >= self.mappings_max and client not in self._opening:
            self._make_room()
        super()._begin(payload, client, meant_for)

    def _make_room(self) -> None:
        """The longest unused of those made first goes; the others are placed anew, so that they are not asked again."""
        looked_at = list(islice(self._sides.items(), LOOKED_AT_MAX))
        _, oldest = min(looked_at, key=lambda item: item[1].mapping.last)
        for client, side in looked_at:
            del self._sides[client]
            self._sides[client] = side
        self.clients.engine.kill(oldest.mapping.connection, EVICTED)
