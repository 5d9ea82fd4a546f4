"""The application filter: joins destinations that the policy calls `tftp`, and gives each its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Final

from doorward.api import ApplicationFilter, EventKind, Interest, SessionFilter
from doorward.filters.tftp.requests import TftpRequests, TftpSettings

if TYPE_CHECKING:
    from doorward.api import Session, UdpDestinationEvent

_KEYS: Final = ("read_only",)


class TftpFilter(ApplicationFilter):
    """TFTP on the ports that the policy calls `tftp`. Without it requests go out, and answers are strangers'."""

    interest: ClassVar[Interest] = Interest.of("tftp", events=(EventKind.UDP_DESTINATION,))
    defines_protocol: ClassVar[bool] = True

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for settings that cannot be."""
        super().__init__(settings)
        self._default = read_settings(self.settings)

    def compile_settings(self, settings: Mapping[str, Any]) -> TftpSettings:
        """Raises ValueError."""
        return read_settings(settings)

    def session_filter(self, session: Session) -> SessionFilter:
        """One object serves every session: it keeps nothing."""
        return _Joining(self._default)


class _Joining(SessionFilter):
    def __init__(self, default: TftpSettings) -> None:
        self._default = default

    async def on_udp_destination(self, event: UdpDestinationEvent) -> None:
        settings = event.settings if isinstance(event.settings, TftpSettings) else self._default
        event.connection.attach_data_filter(TftpRequests(event.destination.address), context=settings)


def read_settings(settings: Mapping[str, Any]) -> TftpSettings:
    """What an operator may say: `{ read_only = true }`. Raises ValueError with a sentence for the operator."""
    for key in settings:
        if key not in _KEYS:
            raise ValueError(f'unknown setting "{key}"; known are {", ".join(_KEYS)}')
    read_only = settings.get("read_only", False)
    if type(read_only) is not bool:
        raise ValueError("read_only is true or false")
    return TftpSettings(read_only)
