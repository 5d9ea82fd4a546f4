"""What one application filter sees of the process: `api.Firewall`, its own for each filter.

So that what a filter has started, opened or made ends with it.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final, Literal, TypeVar

from doorward.api.errors import BadArgument, OutOfResources, Side, Terminating, TimedOut
from doorward.api.ip_filter import IpFilter
from doorward.engine.at_work import as_work_of
from doorward.engine.lookup import meant_host
from doorward.engine.sockets.kept import end_those_of
from doorward.engine.sockets.network_socket import system_socket
from doorward.engine.sockets.tls_socket import accept_over, connect_over
from doorward.engine.supervision import Holder, Supervisor, Watchdog, Watched
from doorward.engine.system import NOBODY
from doorward.policy.address import canonical
from doorward.service.alerts import Alerts, plain
from doorward.service.blocking import BlockingCalls
from doorward.service.tls_files import TLSContexts, Wanted

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.sockets import NetworkSocket, Socket
    from doorward.engine.association import FilterEntry
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session
    from doorward.engine.sockets.tls_socket import TLSSocket

T = TypeVar("T")

STOP_TIMEOUT_S: Final = 5.0
# Tasks that a filter's own tasks have started, at once: as many as it may have sockets.
TASKS_MAX: Final = 1_024
HANDSHAKE_TIMEOUT_S_MAX: Final = 300.0
# The rest of the table is for clients, whatever a filter forgets to close.
SESSIONS_SHARE: Final = 0.5
# Ended ones are looked for when there are this many, and then when there are twice as many as are left.
LOOK_AT_MIN: Final = 64


class FilterHost:
    """See `api.Firewall`."""

    def __init__(
        self, entry: FilterEntry, log: Any, engine: Callable[[], Engine], watchdog: Watchdog
    ) -> None:
        """`engine` is asked when something is opened: a filter may be made before there is one."""
        self._entry = entry
        self._name = name = entry.name
        self._log = log
        self._engine = engine
        self._watchdog = watchdog
        self._holder = Holder(TASKS_MAX)
        self._tasks = Supervisor(self._task_failed)
        self._blocking = BlockingCalls(name)
        self._alerts = Alerts(name, log, time.monotonic)
        self._contexts = TLSContexts()
        self._own_session: Session | None = None  # that of its system sockets
        self._sessions: list[Session] = []  # private ones, some of which may have ended
        self._look_at = LOOK_AT_MIN
        self._closed = False

    def create_network_socket(self, transport: TransportName = "tcp") -> NetworkSocket:
        """See `api.Firewall`. Raises OutOfResources."""
        self._expect_alive()
        if self._own_session is None:
            self._own_session = self._engine().sessions.private(NOBODY, None, frozenset())
        return system_socket(self._engine(), self._own_session, transport, self._entry)

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
    ) -> TLSSocket:
        """See `api.Firewall`. The deadline is for all of it; `leg` is untouched if the files cannot be used."""
        self._expect_alive()
        if side not in ("server", "client"):
            raise BadArgument(f"{side!r} is neither server nor client")
        if ask_client_certificate not in ("no", "optional", "required"):
            raise BadArgument(f"{ask_client_certificate!r} is neither no, optional nor required")
        if not 0 < timeout_s <= HANDSHAKE_TIMEOUT_S_MAX:
            raise BadArgument(
                f"a handshake of {timeout_s:g} s; up to {HANDSHAKE_TIMEOUT_S_MAX:g} are possible"
            )
        if isinstance(alpn, str):
            raise BadArgument(f"ALPN is a sequence of names: [{alpn!r}]")
        if side == "client" and verify and server_name is None:
            raise BadArgument("for which name is the certificate to be good? server_name, or verify=False")
        if side == "server" and (server_name is not None or not verify):
            raise BadArgument("server_name and verify are for a client")
        wanted = Wanted(
            side, tuple(alpn), certificate_file, key_file, ca_file, ask_client_certificate, verify
        )
        context = await self._context(wanted, timeout_s)
        self._expect_alive()
        if side == "client":
            return await connect_over(leg, context, server_name, timeout_s=timeout_s)
        return await accept_over(leg, context, timeout_s=timeout_s)

    def create_ip_filter(self, ranges: Iterable[str] = ()) -> IpFilter:
        """See `api.Firewall`."""
        return IpFilter(*ranges)

    def create_private_session(
        self, client_address: str, user: str | None = None, groups: Iterable[str] = ()
    ) -> Session:
        """See `api.Firewall`. Raises BadArgument for what is no address, user or set of groups."""
        self._expect_alive()
        address = _address(client_address)
        if user == "" or isinstance(groups, str):
            raise BadArgument(f"no user is called {user!r}, or groups are no sequence of names: {groups!r}")
        sessions = self._engine().sessions
        most = int(sessions.sessions_max * SESSIONS_SHARE)
        if len(self._sessions) >= min(self._look_at, most):
            self._sessions = [session for session in self._sessions if not session.ended]
            self._look_at = max(LOOK_AT_MIN, 2 * len(self._sessions))
        if len(self._sessions) >= most:
            raise OutOfResources(f"this filter has {most} private sessions already", side=Side.OURS)
        session = sessions.private(address, user, frozenset(groups))
        self._sessions.append(session)
        return session

    def client_session(self, client_address: str) -> Session:
        """See `api.Firewall`. Raises BadArgument, OutOfResources."""
        self._expect_alive()
        return self._engine().sessions.get(_address(client_address), None)

    async def resolve(self, name: str) -> tuple[str, ...]:
        """See `api.Firewall`."""
        self._expect_alive()
        meant = meant_host(name)
        if not isinstance(meant, str):
            return (str(meant),)
        return tuple(map(str, await self._engine().resolver.resolve(meant)))

    async def resolve_address(self, address: str) -> tuple[str, ...]:
        """See `api.Firewall`. Raises BadArgument for what is no address."""
        self._expect_alive()
        return await self._engine().resolver.resolve_address(ipaddress.ip_address(_address(address)))

    def spawn(self, coroutine: Coroutine[Any, Any, None], *, name: str) -> None:
        """See `api.Firewall`. Raises Terminating after the filter's end."""
        if self._closed:
            coroutine.close()
            self._expect_alive()
        self._tasks.spawn(self._watched(coroutine), name=name)

    async def run_blocking(self, call: Callable[..., T], *arguments: object) -> T:
        """See `api.Firewall`. Raises OutOfResources for too many at once."""
        return await self._blocking.run(call, *arguments)

    def log(self, event: str, **fields: object) -> None:
        """See `api.Firewall`."""
        self._log.info(str(event), **{**plain(fields), "filter": self._name})

    def alert(self, name: str, **fields: object) -> None:
        """See `api.Firewall`."""
        self._alerts.alert(name, fields)

    async def run(self, call: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """The filter's own `start` or `stop`. Raises what it raises, FilterStalled if it holds the loop."""

        async def calling() -> None:
            await call()

        await self._watched(calling())

    async def close(self) -> None:
        """End what the filter has started, opened and made. Idempotent."""
        self._closed = True
        await self._tasks.close(STOP_TIMEOUT_S)
        self._holder.end()
        self._blocking.close()
        end_those_of(self._entry.application_filter)
        for session in (self._own_session, *self._sessions):
            if session is not None:
                session.close()
        self._sessions.clear()
        self._alerts.close()

    async def _context(self, wanted: Wanted, timeout_s: float) -> Any:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._contexts.get(wanted)
        except TimeoutError:
            raise TimedOut("the files for TLS could not be read in time", side=Side.OURS) from None

    def _watched(self, coroutine: Coroutine[Any, Any, None]) -> Watched[None]:
        """A busy loop in there costs the task and not the firewall."""
        return Watched(self._watchdog, self._holder, as_work_of(self._entry, coroutine))

    def _expect_alive(self) -> None:
        if self._closed:
            raise Terminating("the filter has left")

    def _task_failed(self, name: str, error: BaseException) -> None:
        if isinstance(
            error, Terminating
        ):  # what it waited for was ended, as at a stop: no mistake of the filter's
            self._log.info("a task of a filter was ended", filter=self._name, task=name, error=error)
            return
        self._log.error("a task of a filter failed", filter=self._name, task=name, error=error)


def _address(text: str) -> str:
    """As sessions know it. Raises BadArgument."""
    try:
        return str(canonical(ipaddress.ip_address(text.partition("%")[0])))
    except ValueError:
        raise BadArgument(f"{text!r} is no address") from None
