"""The application filter: joins control connections, and gives each its settings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from doorward.api import ApplicationFilter, EventKind, Interest, SessionFilter
from doorward.filters.ftp.control import Alert, FtpControl
from doorward.filters.ftp.settings import FtpSettings, read_settings

if TYPE_CHECKING:
    from doorward.api import ConnectEvent, Firewall, Session


class FtpFilter(ApplicationFilter):
    """FTP on the ports that the policy calls `ftp`. Without it there are control connections, and no transfers."""

    # BIND: a client may have us listen before it says for which transfer, and wait for our promise (active mode).
    interest: ClassVar[Interest] = Interest.of("ftp", events=(EventKind.CONNECT, EventKind.BIND))
    defines_protocol: ClassVar[bool] = True

    def __init__(self, settings: Mapping[str, Any] | None = None) -> None:
        """Raises ValueError for settings that cannot be."""
        super().__init__(settings)
        self._default = read_settings(self.settings)
        self._firewall: Firewall | None = None

    async def start(self, firewall: Firewall) -> None:
        self._firewall = firewall

    def compile_settings(self, settings: Mapping[str, Any]) -> FtpSettings:
        """Raises ValueError."""
        return read_settings(settings)

    def session_filter(self, session: Session) -> SessionFilter:
        """One object serves every session: it keeps nothing."""
        return _Joining(self._default, self._alert)

    def _alert(self, name: str, **fields: object) -> None:
        if self._firewall is not None:
            self._firewall.alert(name, **fields)


class _Joining(SessionFilter):
    def __init__(self, default: FtpSettings, alert: Alert) -> None:
        self._default = default
        self._alert = alert

    async def on_connect(self, event: ConnectEvent) -> None:
        settings = event.settings if isinstance(event.settings, FtpSettings) else self._default
        event.connection.attach_data_filter(FtpControl(self._alert), context=settings)
