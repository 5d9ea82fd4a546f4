"""Ports that filters have opened for a client, as far as they can be open without a wire.

Each call of `api.Session` that listens is checked as the engine checks it, and leaves the same connections and
promises behind.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.errors import AddressInUse, BadArgument, NotFound, Side
from doorward.engine.extra import checked_name, client_name
from doorward.engine.grants import Ports, connect_promise
from doorward.engine.operation import Operation
from doorward.engine.outcome import End
from doorward.engine.ports.admittance import Terms
from doorward.engine.ports.arrivals import Arrivals
from doorward.engine.ports.binding import arrives_at
from doorward.engine.ports.listening import GRANT_ENDED, Port
from doorward.engine.ports.promised import begin_promised, check_wanted, listening_address, promise_bind
from doorward.engine.ports.redirecting import TARGETS_MAX
from doorward.policy.model import PORT_MAX
from doorward.testing.promises import OUR_NAME, Given

if TYPE_CHECKING:
    from collections.abc import Callable

    from doorward.api.contracts import TransportName
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.chain import Attached
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.grants import ConnectPromise, Offer, Promise
    from doorward.engine.ports.wanted import Wanted
    from doorward.engine.session import Session

# Of those that are taken where nobody has said which.
FIRST_PORT: Final = 40_001


class ScriptedArrivals(Arrivals):
    """See the module. `handed_over` are the peers that emulators of binds have given to clients."""

    def __init__(self, engine: Engine, given: list[Given]) -> None:
        super().__init__(engine)
        self.handed_over: list[Connection] = []
        self._given = given
        self._bound: dict[tuple[TransportName, SocketName], Connection] = {}  # by clients
        self._taken: dict[tuple[TransportName, SocketName], Callable[[], bool]] = {}
        self._next_port = FIRST_PORT

    def open_here(self, connection: Connection, transport: TransportName, name: SocketName) -> None:
        """A port that the client itself has asked for, for one peer; filters may promise it."""
        Port(self, connection, Terms())
        self._bound[transport, name] = connection
        self.take(transport, name, lambda: connection.end is not None)
        connection.target = connection.target._replace(port=name[1])

    def free(self, transport: TransportName, address: str, port: int, count: int = 1) -> int:
        """The first of so many free ports in a row; `take` must follow. Raises AddressInUse."""
        for first in (port,) if port else range(self._next_port, PORT_MAX + 2 - count):
            if all(self._is_free(transport, address, first + index) for index in range(count)):
                if not port:
                    self._next_port = first + count
                return first
        raise AddressInUse(f"{count} ports from {port or 'anywhere'} are not to be had", side=Side.OURS)

    def take(self, transport: TransportName, name: SocketName, is_over: Callable[[], bool]) -> None:
        """The port is somebody's until that is over."""
        self._taken[transport, name] = is_over

    async def bind_for_client(self, session: Session, wanted: Wanted, offer: Offer) -> list[Connection]:
        """See `api.Session`."""
        session.expect_alive()
        check_wanted(session, wanted)
        address = listening_address(wanted, offer.parent) or OUR_NAME[0]
        first = self.free(wanted.transport, address, wanted.port, wanted.ports)
        made: list[Connection] = []
        try:
            for index in range(wanted.ports):  # one by one: those made so far must end if one fails
                made += [self._bind(session, wanted, offer, (address, first + index), index)]
        except BaseException:
            for connection in made:
                connection.kill()
            raise
        return made

    def retroactive_allow_bind(
        self,
        session: Session,
        transport: TransportName,
        bound: SocketName,
        ip_filter: IpFilter,
        offer: Offer,
    ) -> Promise:
        """See `api.Session`."""
        session.expect_alive()
        name = checked_name(bound)
        connection = self._bound.get((transport, name))
        port = None if connection is None else connection.extra.listening
        if not isinstance(port, Port) or port.closed or port.session is not session or port.terms.promise:
            raise NotFound(f"this client has no port bound at {name[0]} port {name[1]}")
        promise = promise_bind(session, transport, name[1], offer)
        promise.socket_name = name
        if port.admittance.admits_already(ip_filter, name[1]):
            promise.cancel()
        else:
            port.admittance.admit(promise, ip_filter)
        self._given.append(
            Given(
                "retroactive_allow_bind",
                promise,
                *name,
                transport=transport,
                admitted=ip_filter.clone(),
                connection=connection,
            )
        )
        return promise

    async def redirect_connections(
        self, session: Session, targets: Sequence[SocketName], address: str, offer: Offer
    ) -> list[Promise]:
        """See `api.Session`."""
        session.expect_alive()
        if not 1 <= len(targets) <= TARGETS_MAX:
            raise BadArgument(f"{len(targets)} targets; 1 to {TARGETS_MAX} are possible at once")
        here = checked_name((address, 0))[0] if address else OUR_NAME[0]
        names = [checked_name(target) for target in targets]
        first = self.free("tcp", here, 0, len(names))
        made: list[ConnectPromise] = []
        try:
            for index, name in enumerate(names):
                promise = connect_promise(session, "tcp", name[0], Ports(name[1], name[1]), offer)
                made.append(promise)
                promise.socket_name = here, first + index
        except BaseException:
            for unused in made:
                unused.cancel()
            raise
        for promise, name in zip(made, names, strict=True):
            assert promise.socket_name is not None
            self.take("tcp", promise.socket_name, partial(_is_over, promise))
            self._given.append(Given("redirect_connections", promise, *promise.socket_name, target=name))
        return [*made]

    async def emulate_client_bind(
        self, session: Session, client_address: SocketName, advertised: SocketName, *, full_proxy: bool
    ) -> Connection:
        """See `api.Session`."""
        connection = await super().emulate_client_bind(
            session, client_address, advertised, full_proxy=full_proxy
        )
        connection.opened = False  # who is handed over waits for the test, and nobody dials the client
        name = connection.external_socket_name
        self._given.append(Given("emulate_client_bind", None, *name, connection=connection))
        return connection

    def emulate(
        self, listening: Connection, emulator: Attached, remote: SocketName, local: SocketName
    ) -> Connection:
        """See `api.Connection.emulate_connection`."""
        connection = super().emulate(listening, emulator, remote, local)
        self.handed_over.append(connection)
        return connection

    def _bind(
        self, session: Session, wanted: Wanted, offer: Offer, name: SocketName, index: int
    ) -> Connection:
        """One port of the run."""
        transport = wanted.transport
        promise = promise_bind(session, transport, name[1], offer)
        operation = Operation.UDP if transport == "udp" else Operation.BIND
        connection = begin_promised(session, promise, name[1], operation)
        extra = connection.extra
        extra.leads_to_client, extra.full_proxy = True, wanted.full_proxy
        if wanted.client_address is not None:
            address, port = wanted.client_address
            extra.client_name = client_name(session, (address, port + index))
        extra.ip_filter = None if wanted.ip_filter is None else wanted.ip_filter.clone()
        if transport == "tcp":
            Port(self, connection, Terms(multiple=promise.multiple, promise=promise))
        else:
            extra.listening = _Closing(promise.cancel)
            promise.on_end = partial(self._end_unused, connection, promise)
        self.take(transport, name, lambda: connection.end is not None)
        arrives_at(connection, name[1])
        extra.socket_name, connection.opened = name, True
        self._given.append(
            Given("bind_for_client", promise, *name, transport=transport, connection=connection)
        )
        return connection

    def _is_free(self, transport: TransportName, address: str, port: int) -> bool:
        is_over = self._taken.get((transport, (address, port)))
        return is_over is None or is_over()

    def _end_unused(self, connection: Connection, promise: Promise) -> None:
        if not promise.uses:
            self.engine.ended(connection, End(GRANT_ENDED, Side.OURS))


def _is_over(promise: Promise) -> bool:
    return not promise.active


class _Closing(NamedTuple):
    """Ends with its connection; see `extra.Listening`."""

    close: Callable[[], None]
