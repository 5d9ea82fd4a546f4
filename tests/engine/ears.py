"""A plugin that hears of look-ups, and the names that there are in their tests."""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Awaitable, Callable
from typing import Any

from tests.engine.rig import Plugin, Rig, entry

from doorward.api import EventKind, NameNotFound, ResolveEvent
from doorward.engine.association import FilterEntry
from doorward.engine.session import Session
from doorward.net.resolve import Addresses
from doorward.policy.model import Action, Rule

NAMES = {
    "here.test": ("127.0.0.1",),
    "far.test": ("192.0.2.7", "2001:db8::7"),
    "nowhere.test": (),
}
FAR_RULE = Rule(
    "far", Action.ALLOW, to_networks=(ipaddress.ip_network("192.0.2.0/24"),), to_names=("*.test",)
)


def lookup(name: str) -> Addresses:
    found = NAMES[name]
    if not found:
        raise NameNotFound("no such name")
    return tuple(map(ipaddress.ip_address, found))


class Ears:
    """A plugin that hears of look-ups and does something at one of the two moments."""

    def __init__(self, name: str = "it", /, **does: Callable[[ResolveEvent], Awaitable[None] | None]) -> None:
        self.heard: list[tuple[str, str | None, str | None, tuple[str, ...]]] = []
        self.events: list[ResolveEvent] = []
        self._does = does
        self.plugin = Plugin(name, [], resolve=self._resolve)

    async def _resolve(self, event: ResolveEvent) -> None:
        moment = "before" if event.before else "after"
        self.heard.append((moment, event.name, event.address, event.results))
        self.events.append(event)
        if moment in self._does:
            waiting = self._does[moment](event)
            if waiting is not None:
                await waiting

    def entry(self, **options: Any) -> FilterEntry:
        return entry(self.plugin, events=[EventKind.RESOLVE], **options)


def session_of(rig: Rig) -> Session:
    return rig.engine.sessions.get("127.0.0.1", None)


Does = Callable[[ResolveEvent], Any]


def fail(_: ResolveEvent) -> None:
    raise ZeroDivisionError("mine")


def hold(_: ResolveEvent) -> None:
    while True:
        time.sleep(0.01)


async def wait(_: ResolveEvent) -> None:
    await asyncio.Event().wait()
