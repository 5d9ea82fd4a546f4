"""What makes a filter of a DataFilter class alone: it is attached wherever an event of its interest allows that.

Its instances are told the settings of the rule that allowed the traffic; nothing else is kept anywhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from doorward.api.events import AcceptEvent, BindEvent, ConnectEvent, UdpDestinationEvent
from doorward.api.filters import ApplicationFilter, DataFilter, SessionFilter
from doorward.api.sessions import Session

Attaching: TypeAlias = ConnectEvent | AcceptEvent | UdpDestinationEvent | BindEvent


class AttachEach(ApplicationFilter):
    """A new instance of one DataFilter class for each connection, or each UDP destination, of its interest."""

    def __init__(self, data_filter: type[DataFilter], settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        self.data_filter = data_filter
        self.interest = data_filter.interest  # type: ignore[misc]  # this class has no interest of its own

    def session_filter(self, session: Session) -> SessionFilter:
        """One object serves every session: it keeps nothing."""
        return _Attach(self)


class _Attach(SessionFilter):
    def __init__(self, plugin: AttachEach) -> None:
        self._plugin = plugin

    async def on_connect(self, event: ConnectEvent) -> None:
        self._attach(event)

    async def on_accept(self, event: AcceptEvent) -> None:
        self._attach(event)

    async def on_udp_destination(self, event: UdpDestinationEvent) -> None:
        self._attach(event)

    async def on_bind(self, event: BindEvent) -> None:
        """A TCP port carries no bytes itself: what arrives there has events of its own."""
        if event.transport == "udp":
            self._attach(event)

    def _attach(self, event: Attaching) -> None:
        data_filter = self._plugin.data_filter()
        data_filter.settings = event.settings  # type: ignore[assignment]  # `compile_settings` of AttachEach left it so
        event.connection.attach_data_filter(data_filter)
