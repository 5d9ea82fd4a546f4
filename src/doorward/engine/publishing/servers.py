"""The machines behind one published server: which is tried first, and how each fares.

    well ──a connect fails──▶ resting ──its rest is over, or a probe is answered──▶ well
      └────a probe fails────▶ down ─────a probe is answered────────────────────────▶ well

Clients' own connects are what is known without probes. A machine that rests is tried after the others, since what was
met may be over; one that a probe has found down is not tried at all.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from doorward.config.model import Published
    from doorward.policy.model import IPAddress

REST_MIN_S: Final = 1.0
REST_MAX_S: Final = 60.0
# One that answers every other time changes with each visitor; the operator hears of it no more often than this.
TOLD_PAUSE_S: Final = 10.0
ALL_DOWN: Final = "probes have found every server down"


class Server:
    """One machine. `name` is how people write it."""

    __slots__ = ("address", "is_down", "name", "port", "rest_s", "rests_until", "told_at", "told_well")

    def __init__(self, address: IPAddress, port: int) -> None:
        self.address = address
        self.port = port
        self.name = f"[{address}]:{port}" if address.version == 6 else f"{address}:{port}"
        self.is_down = False  # a probe says so
        self.rest_s = 0.0  # above 0: it has failed, and not been well since
        self.rests_until = 0.0
        self.told_well = True
        self.told_at = -TOLD_PAUSE_S

    @property
    def is_well(self) -> bool:
        """Whether nothing is known against it."""
        return not self.is_down and not self.rest_s


# The machine, and why it is not well; empty if it is again.
OnChange: TypeAlias = Callable[[Server, str], None]


class Servers:
    """All of one published server, in the policy's order. `clock` gives seconds."""

    def __init__(self, published: Published, clock: Callable[[], float], on_change: OnChange) -> None:
        self._clock = clock
        self._on_change = on_change
        self._by_client = published.balance == "client"
        self.every = tuple(Server(address, port) for address, port in published.to)

    def order(self, client: IPAddress) -> list[Server]:
        """Those to try, in turn; empty if all are down. Whose rest is over is tried by this client, and by no other
        until it is known how that went.
        """
        found = [server for server in self.every if not server.is_down]
        if len(found) < 2:
            return found
        if self._by_client:
            found.sort(key=lambda server: _affinity(client, server), reverse=True)
        now = self._clock()
        found.sort(key=lambda server: now < server.rests_until)
        first = found[0]
        if first.rest_s and now >= first.rests_until:
            first.rests_until = now + first.rest_s
        return found

    def failed(self, server: Server, why: str) -> None:
        """It could not be connected to: it rests, twice as long as the last time, if it has not been well since."""
        now = self._clock()
        server.rest_s = min(2 * server.rest_s, REST_MAX_S) or REST_MIN_S
        server.rests_until = now + server.rest_s
        self._tell(server, why)

    def well(self, server: Server) -> None:
        """It was connected to."""
        server.is_down, server.rest_s, server.rests_until = False, 0.0, 0.0
        if not server.told_well:
            self._tell(server, "")

    def down(self, server: Server, why: str) -> None:
        """A probe was not answered: nobody is led there until one is."""
        server.is_down = True
        self._tell(server, why)

    def _tell(self, server: Server, why: str) -> None:
        """The operator, if that is news, and not too soon after the last; then it is told when it is met again."""
        is_well, now = not why, self._clock()
        if server.told_well == is_well or now - server.told_at < TOLD_PAUSE_S:
            return
        server.told_well, server.told_at = is_well, now
        self._on_change(server, why)


def _affinity(client: IPAddress, server: Server) -> bytes:
    """Rendezvous hashing: a client has the same server as long as that is well, whatever becomes of the others."""
    return blake2b(f"{client} {server.name}".encode(), digest_size=8).digest()
