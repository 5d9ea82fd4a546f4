"""Promises for servers' answers: for each request one peer may come, from the server's own address and no other.

A request that is sent again takes the place of the same one before it. What waits for an answer has a cap, and a
promise ends with the answer, after a while, and with the client's association.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from doorward.api import IpFilter
from doorward.wire.errors import ProtocolError

if TYPE_CHECKING:
    from doorward.api import Connection, Grant

# Servers answer at once or not at all; a client that waits longer has asked again.
ANSWER_TIMEOUT_S: Final = 30.0
# Different requests of one client to one server without an answer: some boot loaders ask for a few files at once.
WAITING_MAX: Final = 32
TOO_MANY: Final = "tftp_too_many"


class Answers:
    """Of one client from one server."""

    def __init__(self, connection: Connection, server: str) -> None:
        self._connection = connection
        self._server = IpFilter(server)
        self._waiting: dict[bytes, Grant] = {}  # by request, the oldest first

    def expect(self, request: bytes) -> None:
        """Let the server answer. Raises ProtocolError `tftp_too_many`, OutOfResources, Terminating."""
        before = self._waiting.pop(request, None)
        if before is not None:
            before.cancel()
        self._waiting = {asked: grant for asked, grant in self._waiting.items() if grant.active}
        if len(self._waiting) >= WAITING_MAX:
            raise ProtocolError(TOO_MANY, f"{WAITING_MAX} requests wait for their answers")
        self._waiting[request] = self._connection.session.retroactive_allow_bind(
            "udp",
            self._connection.external_socket_name,
            ip_filter=self._server,
            parent=self._connection,
            timeout_s=ANSWER_TIMEOUT_S,
        )

    def came_otherwise(self) -> None:
        """The server has answered from the port that was asked: the oldest promise is not needed."""
        for request, grant in self._waiting.items():
            if grant.active:
                grant.cancel()
                del self._waiting[request]
                return

    def close(self) -> None:
        """No answer is expected any more. Transfers that have begun go on."""
        for grant in self._waiting.values():
            grant.cancel()
        self._waiting.clear()
