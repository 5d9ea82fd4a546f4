"""A session whose promises, look-ups and sockets the test holds. Everything else is the engine's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from doorward.api.errors import BadArgument
from doorward.engine.session import Session
from doorward.engine.target import target_of
from doorward.policy.address import BadHost
from doorward.testing.sockets import ScriptedDatagramSocket, ScriptedSocket

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.engine.engine import Engine
    from doorward.policy.model import Decision
    from doorward.testing.ground import Ground


class ScriptedSession(Session):
    """See the module. `attached` are the names of filters that were asked to join."""

    def __init__(
        self,
        ground: Callable[[], Ground],
        session_id: int,
        client_address: str,
        user: str | None,
        groups: frozenset[str],
        *,
        private: bool = False,
    ) -> None:
        """`ground` is asked when something is done: a session may be looked at before there is a loop."""
        super().__init__(session_id, client_address, user, groups, session_id if private else 0)
        self.attached: list[str] = []
        self._ground = ground

    @property
    def engine(self) -> Engine:
        """See `Session`."""
        return self._ground()

    async def check_access(self, protocol: str, host: str, port: int | None = None) -> Decision:
        """What the test says; it may raise NotFound for a protocol. Raises BadArgument."""
        self.expect_alive()
        ground = self._ground()
        try:
            target = target_of(host, port or 0)
        except BadHost as error:
            raise BadArgument(error.detail) from None
        allowed = ground.allows(protocol, str(target.host or target.address), port)
        return ground.decision(self, target, "udp" if protocol.startswith("udp/") else "tcp", allowed=allowed)

    def attach_filter(self, name: str) -> None:
        """Noted."""
        self.expect_alive()
        self.attached.append(name)

    def create_network_socket(
        self, transport: TransportName = "tcp"
    ) -> ScriptedSocket | ScriptedDatagramSocket:
        """See `api.Session`."""
        self.expect_alive()
        return self._ground().socket(transport, self)
