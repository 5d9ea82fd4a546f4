"""The engine that filters stand on here: the real one, without a wire, a policy, a record or a resolver.

So a call is legal here where it is legal in the product, and means the same. Promises, ports and legs are the
test's own (`promises`, `sockets`); names are those that the test gives.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from doorward.api.errors import BadArgument, ConnectionRefused, NameNotFound, Side
from doorward.api.filters import ClientKind
from doorward.config.model import Limits
from doorward.engine.association import Associations, FilterEntry
from doorward.engine.dispatch import HandlerFailed
from doorward.engine.engine import Engine
from doorward.engine.joint import JointEnd, joint
from doorward.engine.judgement import inputs_of
from doorward.engine.operation import Operation
from doorward.engine.origin import Origin
from doorward.engine.ruling import Ruling
from doorward.engine.session import SessionTable
from doorward.engine.supervision import Supervisor, Watchdog
from doorward.engine.target import Target, checked_target
from doorward.net.own_addresses import OwnAddresses
from doorward.net.poller import Poller
from doorward.net.resolve import Addresses, Resolver
from doorward.policy.evaluation import RULE_ALLOW, RULE_DENY, Policy
from doorward.policy.model import Action, Decision, IPAddress, Protocols, Transport
from doorward.testing.ports import ScriptedArrivals
from doorward.testing.promises import OUR_NAME, RecordingGrants
from doorward.testing.sockets import ScriptedDatagramSocket, ScriptedSocket

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.filters import ApplicationFilter
    from doorward.engine.chain import ChainFailed
    from doorward.engine.connection import Connection
    from doorward.engine.session import Session

REVISION: Final = "test"
RULE: Final = "a rule of the test"
CLIENT_PORT: Final = 40_000
# Whoever needs more in one test has a loop that does not end.
TABLE_MAX: Final = 65_536

# Whether policy allows it: the protocol as it was named, the host, the port if one was named.
Allows: TypeAlias = Callable[[str, str, "int | None"], bool]
Names: TypeAlias = Mapping[str, tuple[str, ...]]


class Ground(Engine):
    """See the module. One of each harness; to be made inside a running loop."""

    def __init__(self, names: Names, allows: Allows, timeout_s: float) -> None:
        loop = asyncio.get_running_loop()
        self.limits = Limits(
            event_timeout_s=timeout_s, binds_per_client_max=TABLE_MAX, idle_timeout_s=2 * timeout_s
        )
        super().__init__(
            poller=_NoWire(loop),
            resolver=_Names(names),
            own_addresses=_Own(lambda: 0.0),
            sessions=SessionTable(loop.time, TABLE_MAX, timeout_s),
            watchdog=Watchdog(timeout_s),
            supervisor=Supervisor(lambda _, error: self.failures.append(error)),
            recorder=_NoRecord(),
            ruling=self._ruling(),
            on_filter_failure=lambda _, __, error: self.failures.append(error),
        )
        self.allows = allows
        self.timeout_s = timeout_s
        self.failures: list[BaseException] = []  # what filters have raised
        self.promises = RecordingGrants(self)
        self.grants = self.promises
        self.ports = ScriptedArrivals(self, self.promises.given)
        self.arrivals = self.ports
        self.sockets: list[ScriptedSocket | ScriptedDatagramSocket] = []
        self._servers: dict[tuple[str, int], deque[JointEnd]] = defaultdict(deque)

    def put_in_force(
        self, application_filter: ApplicationFilter, settings: Mapping[str, Any] | None
    ) -> FilterEntry:
        """This filter and no other, for whatever happens from now on. `settings` are what a rule says to it."""
        own = getattr(application_filter, "settings", {})  # nobody has to call the base class's __init__
        compiled = application_filter.compile_settings({**own, **(settings or {})})
        name, interest = type(application_filter).__name__, application_filter.interest
        entry = FilterEntry(name, application_filter, interest, rule_settings={None: compiled})
        self.ruling = self._ruling(entry)
        return entry

    def make(
        self,
        session: Session,
        target: Target,
        operation: Operation = Operation.CONNECT,
        transport: TransportName = "tcp",
        protocol: str | None = None,
    ) -> Connection:
        """A connection that policy has allowed, and that concerns the filter in force."""
        origin = Origin("test", ClientKind.SOCKS, session.client_address, CLIENT_PORT)
        connection = self.begin(session, target, origin, operation, transport)
        connection.protocol = protocol
        arrives = operation in (Operation.BIND, Operation.ACCEPT)
        decision = self.decision(session, target, "tcp-in" if arrives else transport)
        connection.judged = decision
        if target.address is not None:
            connection.addresses = {target.address: decision}
        connection.entries = self.ruling.associations.entries
        return connection

    def decision(
        self, session: Session, target: Target, transport: Transport, *, allowed: bool = True
    ) -> Decision:
        """Policy's answer, as the test wants it."""
        inputs = inputs_of(session, target, session.user, 0.0, self.own_addresses.is_own, transport)
        action, reason = (Action.ALLOW, RULE_ALLOW) if allowed else (Action.DENY, RULE_DENY)
        return Decision(action, reason, inputs, REVISION, RULE)

    def chain_failed(self, connection: Connection, failed: ChainFailed) -> None:
        """See `Engine`; what was raised is kept for the test."""
        self.failures.append(failed.cause)
        super().chain_failed(connection, failed)

    def socket(
        self, transport: TransportName, session: Session | None
    ) -> ScriptedSocket | ScriptedDatagramSocket:
        """One of a filter's own; without a session the firewall's. Raises BadArgument."""
        if transport not in ("tcp", "udp"):
            raise BadArgument(f"{transport!r} is neither tcp nor udp")
        made = (ScriptedSocket if transport == "tcp" else ScriptedDatagramSocket)(self, session)
        self.sockets.append(made)
        return made

    def serve(self, host: str, port: int) -> JointEnd:
        """A server is there, once: its end of the connection that a filter will make."""
        near, far = joint()
        self._servers[self._key(host, port)].append(near)
        return far

    def dial(self, host: str, port: int) -> JointEnd:
        """The end of who connects there. Raises ConnectionRefused, BadArgument."""
        waiting = self._servers[self._key(host, port)]
        if not waiting:
            raise ConnectionRefused(f"the test has no server at {host} port {port}", side=Side.EXTERNAL)
        return waiting.popleft()

    async def settle(self) -> None:
        """What connections have to say at their end is said. Raises what a filter raised meanwhile."""
        await self.supervisor.close(self.timeout_s)
        if self.failures:
            raise self.failures.pop(0)

    @staticmethod
    def _key(host: str, port: int) -> tuple[str, int]:
        target = checked_target(host, port)
        return str(target.host or target.address), port

    def _ruling(self, *entries: FilterEntry) -> Ruling:
        return Ruling(Policy((), REVISION), Associations(entries, Protocols()), self.limits)


class _NoWire(Poller):
    """A loop to wait in, and nothing to wait for."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.now = loop.time()

    def watch(self, fd: int, target: object) -> None:
        raise AssertionError("there are no wires here")


class _Names(Resolver):
    """Names that the test gives, and no others."""

    def __init__(self, names: Names) -> None:
        self._names = names

    async def resolve(self, name: str) -> Addresses:
        found = self._names.get(name.lower(), ())
        if not found:
            raise NameNotFound(f"the test has no name {name!r}", side=Side.EXTERNAL)
        return tuple(ipaddress.ip_address(text) for text in found)

    async def resolve_address(self, address: IPAddress) -> tuple[str, ...]:
        found = tuple(
            name for name, texts in self._names.items() if address in map(ipaddress.ip_address, texts)
        )
        if not found:
            raise NameNotFound(f"the test has no name for {address}", side=Side.EXTERNAL)
        return found


class _Own(OwnAddresses):
    """The one address that is ours, whatever machine the test runs on."""

    def is_own(self, address: IPAddress) -> bool:
        return str(address) == OUR_NAME[0]


class _NoRecord:
    """Keeps nothing."""

    def append(self, record: object) -> None:
        """It is gone."""

    def refuses(self) -> str | None:
        return None


@contextmanager
def as_raised() -> Iterator[None]:
    """What a handler raised, in place of the engine's word for it."""
    try:
        yield
    except HandlerFailed as failed:
        raise failed.cause from None
