"""What every front end needs: one client's leg, who it is, and where failures go."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.errors import Side, TimedOut
from doorward.engine.connection import Connection
from doorward.engine.origin import Origin
from doorward.engine.outcome import End
from doorward.engine.recording import record_of_stranger
from doorward.net.leg import Leg

if TYPE_CHECKING:
    from doorward.engine.engine import Engine
    from doorward.entry.authentication import Authenticator

HANDSHAKE_BYTES: Final = 4096


class Lobby:
    """Clients between two requests. When the firewall drains, nobody need wait for them."""

    def __init__(self) -> None:
        self.closing = False
        self._waiting: set[Leg] = set()

    def enter(self, leg: Leg) -> None:
        """This client has nothing under way."""
        self._waiting.add(leg)

    def leave(self, leg: Leg) -> None:
        """It has again, or is gone. Idempotent."""
        self._waiting.discard(leg)

    def close(self) -> None:
        """Part from everybody who waits, and let nobody wait any more."""
        self.closing = True
        for leg in tuple(self._waiting):
            leg.close_now()


class Client(NamedTuple):
    """One accepted client."""

    engine: Engine
    authenticator: Authenticator
    lobby: Lobby
    leg: Leg
    address: str
    port: int
    answered: bool = False  # a front has told it already that it needs no password
    waited_s: float = 0.0  # and has listened to it for so long

    def stranger(
        self,
        origin: Origin,
        action: str,
        reason: str,
        *,
        user: str | None = None,
        host: str | None = None,
        port: int = 0,
        detail: str = "",
    ) -> None:
        """Put on record that this client never got as far as a connection."""
        record = record_of_stranger(origin, action, reason, user=user, host=host, port=port, detail=detail)
        self.engine.recorder.append(record)

    def gone(self, connection: Connection) -> None:
        """The client went away before it was told of its connection."""
        self.engine.ended(connection, End("abandoned", Side.INTERNAL))

    async def tell(self, data: bytes) -> None:
        """Send a short answer to a client that has more to ask. Raises DoorwardError; TimedOut if it does not read."""
        try:
            async with asyncio.timeout(self.engine.ruling.limits.handshake_timeout_s):
                await self.leg.send(data)
        except TimeoutError:
            raise TimedOut("the client does not read its answers", side=Side.INTERNAL) from None
