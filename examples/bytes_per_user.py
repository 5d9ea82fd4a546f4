"""Counts how many bytes each user sends and receives, and tells the totals in the operational log.

    [[filter]]
    name = "bytes-per-user"
    use = "bytes_per_user.py"
    settings = { every_s = 60 }

It attaches nothing and sees no byte: `on_terminating` brings the numbers that the firewall keeps anyway, so the
bytes themselves stay in the relay. A client that did not say who it is counts under its address. Totals are told
every minute if they have changed, and when the filter leaves. They begin anew when the filter does; the log of
decisions has every connection, for longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from doorward.api import (
    ApplicationFilter,
    Firewall,
    Interest,
    Session,
    SessionFilter,
    TerminatingEvent,
)

# A table that strangers can fill needs a limit; who comes later is counted together.
NAMES_MAX = 10_000
EVERYBODY_ELSE = "everybody else"


@dataclass(slots=True)
class Total:
    """Bytes from the client to servers, and back, over so many connections."""

    sent: int = 0
    received: int = 0
    connections: int = 0
    told: bool = False


class BytesPerUser(ApplicationFilter):
    """Keeps the totals of all sessions."""

    interest = Interest.of("any")

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.every_s = float(self.settings.get("every_s", 60))
        self.totals: dict[str, Total] = {}
        self.firewall: Firewall | None = None
        self.leaving = asyncio.Event()

    async def start(self, firewall: Firewall) -> None:
        self.firewall = firewall
        firewall.spawn(self.tell_again_and_again(), name="bytes per user")

    async def stop(self) -> None:
        self.leaving.set()
        self.tell()

    def session_filter(self, session: Session) -> SessionFilter:
        return Count(self, session.user or session.client_address)

    def total_of(self, name: str) -> Total:
        if name not in self.totals and len(self.totals) >= NAMES_MAX:
            name = EVERYBODY_ELSE
        return self.totals.setdefault(name, Total())

    async def tell_again_and_again(self) -> None:
        while not self.leaving.is_set():
            try:
                async with asyncio.timeout(self.every_s):
                    await self.leaving.wait()
            except TimeoutError:
                self.tell()

    def tell(self) -> None:
        """One line for each total that has changed since it was told."""
        assert self.firewall is not None
        for name, total in self.totals.items():
            if not total.told:
                total.told = True
                self.firewall.log(
                    "bytes per user",
                    user=name,
                    sent=total.sent,
                    received=total.received,
                    connections=total.connections,
                )


class Count(SessionFilter):
    """One session: adds each connection that ends."""

    def __init__(self, counter: BytesPerUser, name: str) -> None:
        self.counter = counter
        self.name = name

    async def on_terminating(self, event: TerminatingEvent) -> None:
        total = self.counter.total_of(self.name)
        total.sent += event.bytes_sent
        total.received += event.bytes_received
        total.connections += 1
        total.told = False
