"""Promises for data connections: to the server's own address (passive), or from it (active), and to nobody else.

One hole at a time is open for a control connection. It closes when it has been used, when the next one is asked
for, when the transfer has failed or a passive one is over, with the control connection, and after a minute.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from doorward.api import DoorwardError, IpFilter, NotFound
from doorward.filters.ftp.settings import UNPRIVILEGED_PORT
from doorward.policy.address import canonical
from doorward.wire.ftp import Endpoint

if TYPE_CHECKING:
    from doorward.api import Connection
    from doorward.wire.ftp.endpoints import IPAddress

BOUNCE: Final = "ftp_bounce"
PRIVILEGED_PORT: Final = "ftp_privileged_port"


class HoleRefused(Exception):
    """There will be no such data connection; the reason is for client and record."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Hole:
    """One data connection that may come. `close` is idempotent; a connection that has come is not touched."""

    __slots__ = ("close", "passive")

    def __init__(self, close: Callable[[], None], *, passive: bool) -> None:
        self.close = close
        self.passive = passive


class Holes:
    """Makes them for one control connection. Raises NotConnected if that has no outer leg."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._session = connection.session
        self.server = _address(connection.external_peer_name[0])
        self.client = _address(connection.session.client_address)
        self.current: Hole | None = None

    def close(self) -> None:
        """The one that is open, if any."""
        if self.current is not None:
            self.current.close()
            self.current = None

    def passive(self, endpoint: Endpoint) -> None:
        """The client may connect to where the server says it listens. Raises HoleRefused."""
        self.close()
        self._expect_decent(endpoint, self.server)
        try:
            grant = self._session.allow_connect(str(self.server), endpoint.port, parent=self._connection)
        except DoorwardError as error:
            raise HoleRefused(error.reason) from error
        self.current = Hole(grant.cancel, passive=True)

    def passive_range(self, first: int, last: int) -> None:
        """The client may connect to these ports of the server, for as long as the control connection lives."""
        self._session.allow_connect(
            str(self.server), first, last_port=last, multiple=True, timeout_s=None, parent=self._connection
        )

    async def active(self, endpoint: Endpoint) -> Endpoint:
        """The server may connect to where the client says it listens; what to tell the server. Raises HoleRefused.

        Either the client has had us listen and names that address, or it names its own, which the server cannot
        reach: then we listen, and lead the server there. After cancellation nothing outlives the connection.
        """
        self.close()
        try:
            return self._admit(endpoint)
        except NotFound:
            self._expect_decent(endpoint, self.client)
        except DoorwardError as error:
            raise HoleRefused(error.reason) from error
        try:
            return await self._listen(endpoint)
        except DoorwardError as error:
            raise HoleRefused(error.reason) from error

    def _admit(self, endpoint: Endpoint) -> Endpoint:
        """The server, to a port that this client has had us bind. Raises NotFound if there is none.

        The server is told our address as it sees it, whatever the client was told: 0.0.0.0, loopback or one of an
        inner network would have it connect to itself, or to a stranger there.
        """
        grant = self._session.retroactive_allow_bind(
            "tcp",
            (str(endpoint.address), endpoint.port),
            ip_filter=IpFilter(str(self.server)),
            parent=self._connection,
        )
        self.current = Hole(grant.cancel, passive=False)
        return Endpoint(_address(self._ours), endpoint.port)

    async def _listen(self, endpoint: Endpoint) -> Endpoint:
        [listening] = await self._session.bind_for_client(
            (str(endpoint.address), endpoint.port),
            address=self._ours,
            ip_filter=IpFilter(str(self.server)),
            parent=self._connection,
        )
        self.current = Hole(listening.kill, passive=False)
        address, port = listening.external_socket_name
        return Endpoint(_address(address), port)

    @property
    def _ours(self) -> str:
        """The address of ours that the server sees. Raises NotConnected, Terminating."""
        return self._connection.external_socket_name[0]

    def _expect_decent(self, endpoint: Endpoint, whose: IPAddress) -> None:
        """RFC 2577 sections 3 and 5: no third party, no port of the system's own servers."""
        if canonical(endpoint.address) != whose:
            raise HoleRefused(BOUNCE)
        if endpoint.port < UNPRIVILEGED_PORT:
            raise HoleRefused(PRIVILEGED_PORT)


def _address(text: str) -> IPAddress:
    return canonical(ip_address(text.partition("%")[0]))
