"""Leads a name to another host: clients ask for one, and get the other.

    [[filter]]
    name = "staging"
    use = "rename_host.py"
    settings = { names = { "api.example" = "localhost" } }

`on_resolve` comes twice. Before the look-up, `set_result` takes its place; here the other name's addresses are asked
for and given. Policy then judges the address that came out of it like any other: a filter can lead a client
somewhere else, but not to where its rules would not let it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from doorward.api import (
    ApplicationFilter,
    EventKind,
    Firewall,
    Interest,
    ResolveEvent,
    Session,
    SessionFilter,
)


class RenameHost(ApplicationFilter):
    """The setting `names` says which name means which other one, or an address."""

    interest = Interest.of("any", events=[EventKind.RESOLVE])

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        super().__init__(settings)
        self.names: dict[str, str] = {
            str(k).lower(): str(v) for k, v in self.settings.get("names", {}).items()
        }
        self.firewall: Firewall | None = None

    async def start(self, firewall: Firewall) -> None:
        self.firewall = firewall

    def session_filter(self, session: Session) -> SessionFilter:
        return Rename(self)


class Rename(SessionFilter):
    def __init__(self, plugin: RenameHost) -> None:
        self.plugin = plugin

    async def on_resolve(self, event: ResolveEvent) -> None:
        other = self.plugin.names.get(event.name or "")
        if event.before and other is not None:
            assert self.plugin.firewall is not None
            event.set_result(*await self.plugin.firewall.resolve(other))
