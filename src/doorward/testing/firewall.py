"""What an application filter sees of the process, for a test: `api.Firewall`, with everything asked of it kept.

TLS is not laid here: what a filter lays over a leg passes in clear, so that a test reads and writes what is meant.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from doorward.api.errors import BadArgument, DoorwardError, NameNotFound, Side, Terminating
from doorward.api.ip_filter import IpFilter
from doorward.engine.supervision import Supervisor
from doorward.engine.target import target_of
from doorward.policy.address import BadHost, canonical
from doorward.testing.session import ScriptedSession

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.sockets import Socket
    from doorward.testing.ground import Ground
    from doorward.testing.sockets import ScriptedDatagramSocket, ScriptedSocket

T = TypeVar("T")
STOP_TIMEOUT_S = 5.0


class Said(NamedTuple):
    """One line of the log, or one alert."""

    name: str
    fields: dict[str, object]


class ClearTLS:
    """A `TLSSocket` without TLS. `side` and `server_name` are what the filter asked for."""

    version = "TLSv1.3"
    peer_certificate: bytes | None = None

    def __init__(self, leg: Socket, side: str, server_name: str | None, alpn: str | None) -> None:
        self.side = side
        self.server_name = server_name
        self.alpn = alpn
        self.recv = leg.recv
        self.send = leg.send
        self.recv_from = leg.recv_from
        self.send_to = leg.send_to
        self.shutdown = leg.shutdown
        self.close = leg.close


class ScriptedFirewall:
    """See the module. `tls_error`, if it is set, is what the next handshake fails with."""

    def __init__(self, ground: Callable[[], Ground], session: ScriptedSession) -> None:
        self.logged: list[Said] = []
        self.alerts: list[Said] = []
        self.tls: list[ClearTLS] = []
        self.tls_error: DoorwardError | None = None
        self.private_sessions: list[ScriptedSession] = []
        self.task_errors: list[BaseException] = []
        self._ground = ground
        self._tasks = Supervisor(lambda _, error: self.task_errors.append(error))
        self._sessions = {session.client_address: session} if session.user is None else {}
        self._next_id = session.id + 1
        self._closed = False

    def create_network_socket(
        self, transport: TransportName = "tcp"
    ) -> ScriptedSocket | ScriptedDatagramSocket:
        """See `api.Firewall`."""
        self._expect_alive()
        return self._ground().socket(transport, None)

    async def create_ssl_network_socket(
        self,
        leg: Socket,
        side: Literal["server", "client"],
        *,
        server_name: str | None = None,
        alpn: Sequence[str] = (),
        certificate_file: str | None = None,
        key_file: str | None = None,
        ca_file: str | None = None,
        ask_client_certificate: Literal["no", "optional", "required"] = "no",
        verify: bool = True,
        timeout_s: float = 10.0,
    ) -> ClearTLS:
        """See `api.Firewall`. Files are not looked at."""
        self._expect_alive()
        if side == "client" and verify and server_name is None:
            raise BadArgument("for which name is the certificate to be good? server_name, or verify=False")
        if side == "server" and (server_name is not None or not verify):
            raise BadArgument("server_name and verify are for a client")
        error, self.tls_error = self.tls_error, None
        if error is not None:
            raise error
        made = ClearTLS(leg, side, server_name, next(iter(alpn), None))
        self.tls.append(made)
        return made

    def create_ip_filter(self, ranges: Iterable[str] = ()) -> IpFilter:
        """See `api.Firewall`."""
        return IpFilter(*ranges)

    def create_private_session(
        self, client_address: str, user: str | None = None, groups: Iterable[str] = ()
    ) -> ScriptedSession:
        """See `api.Firewall`."""
        self._expect_alive()
        made = self._session(_address(client_address), user, frozenset(groups), private=True)
        self.private_sessions.append(made)
        return made

    def client_session(self, client_address: str) -> ScriptedSession:
        """See `api.Firewall`: the harness's own if it is that one."""
        self._expect_alive()
        address = _address(client_address)
        if address not in self._sessions:
            self._sessions[address] = self._session(address, None, frozenset(), private=False)
        return self._sessions[address]

    async def resolve(self, name: str) -> tuple[str, ...]:
        """See `api.Firewall`."""
        self._expect_alive()
        try:
            target = target_of(name, 0)
        except BadHost as error:
            raise NameNotFound(error.detail, side=Side.OURS) from None
        if target.host is None:
            return (str(target.address),)
        return tuple(map(str, await self._ground().resolver.resolve(target.host)))

    async def resolve_address(self, address: str) -> tuple[str, ...]:
        """See `api.Firewall`."""
        self._expect_alive()
        return await self._ground().resolver.resolve_address(ipaddress.ip_address(_address(address)))

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        """See `api.Firewall`. What it raises goes to `task_errors`; `close` ends it."""
        if self._closed:
            coroutine.close()
            self._expect_alive()
        self._tasks.spawn(coroutine, name=name)

    async def run_blocking(self, call: Callable[..., T], *arguments: object) -> T:
        """See `api.Firewall`; here in the test's own thread."""
        return call(*arguments)

    def log(self, event: str, **fields: object) -> None:
        """See `api.Firewall`."""
        self.logged.append(Said(event, fields))

    def alert(self, name: str, **fields: object) -> None:
        """See `api.Firewall`; each is kept, however many there are."""
        self.alerts.append(Said(name, fields))

    async def close(self) -> None:
        """The filter has left: what it has started ends. Idempotent."""
        self._closed = True
        await self._tasks.close(STOP_TIMEOUT_S)
        for session in self.private_sessions:
            session.close()

    def _session(
        self, address: str, user: str | None, groups: frozenset[str], *, private: bool
    ) -> ScriptedSession:
        number, self._next_id = self._next_id, self._next_id + 1
        return ScriptedSession(self._ground, number, address, user, groups, private=private)

    def _expect_alive(self) -> None:
        if self._closed:
            raise Terminating("the filter has left")


def _address(text: str) -> str:
    try:
        return str(canonical(ipaddress.ip_address(text.partition("%")[0])))
    except ValueError:
        raise BadArgument(f"{text!r} is no address") from None
