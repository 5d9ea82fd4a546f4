"""A port that is open on a client's behalf: what happens to those who come, and when it closes.

    arrived ─▶ admitted? ─▶ limits ─▶ on_accept ─▶ the port's one peer? ─▶ client's leg ─▶ on_established ─▶ carried
       │           │           │          │               │                    │
       └───────────┴───────────┴──────────┴───────────────┴────────────────────┘ reset, with a reason on record

Behind it stands the listening connection, and each peer becomes a connection of its own before the client's leg is
made. A port for one peer closes when that peer has passed its event. With a port whose bind a filter emulates
nothing listens: the filter hands over peers itself.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final

from doorward.api.errors import (
    AccessDenied,
    AlreadyExists,
    BadContext,
    DoorwardError,
    Side,
    Terminating,
)
from doorward.api.events import AcceptEvent, EventKind
from doorward.engine.connecting import expect_alive, was_denied
from doorward.engine.dispatch import dispatch, dispatch_established
from doorward.engine.extra import checked_name
from doorward.engine.operation import Operation
from doorward.engine.outcome import End, end_of
from doorward.engine.ports.admittance import Admittance, Leave
from doorward.engine.target import Target
from doorward.net.acceptor import Acceptor, reset
from doorward.net.leg import Leg
from doorward.policy.address import canonical

if TYPE_CHECKING:
    import socket

    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.chain import Attached
    from doorward.engine.connection import Connection
    from doorward.engine.ports.admittance import Take, Terms, Visit
    from doorward.engine.ports.arrivals import Arrivals
    from doorward.engine.session import Session
    from doorward.net.openings import Way
    from doorward.policy.model import IPAddress

BIND_USED: Final = "bind_used"
BIND_CLOSED: Final = "bind_closed"
GRANT_ENDED: Final = "grant_ended"


class Port:
    """See the module. Ends with its connection, and fulfils `extra.Listening`."""

    def __init__(self, arrivals: Arrivals, connection: Connection, terms: Terms) -> None:
        """Nothing is open yet. Raises OutOfResources if the client has enough ports."""
        self.connection = connection
        self.terms = terms
        self.closed = False
        self.taken = False
        self.on_close: Callable[[], None] | None = None
        # Nobody can come any more, and everybody who came is over or the relay's.
        self.over = asyncio.Event()
        self.admittance = Admittance(connection, terms)
        self._arrivals = arrivals
        self._engine = arrivals.engine
        self._acceptor: Acceptor | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._early: list[Connection] = []  # handed over before the bind was through its events
        self._changed = asyncio.Event()  # the client's address is known, or it is too late
        self._pending = 0
        self._running = 0
        if not terms.system and terms.welcome is None:
            arrivals.enter(self)
        connection.extra.listening = self
        if terms.promise is not None:
            terms.promise.on_end = self._promise_over

    @property
    def session(self) -> Session:
        """Whose it is."""
        return self.connection.session

    @property
    def name(self) -> SocketName:
        """Where it is, or is said to be."""
        name = self.connection.extra.socket_name
        assert name is not None
        return name

    def listen(self, sock: socket.socket) -> None:
        """Open it on a bound socket, which it owns from now on. Raises AddressInUse, OutOfResources."""
        terms = self.terms
        on_peer = self._arrived if terms.welcome is None else partial(terms.welcome, self)
        self._acceptor = Acceptor(
            self._engine.poller,
            sock,
            terms.backlog,
            on_peer,
            lambda: self._pending < terms.pending_max and terms.room(),
        )
        if self._arrivals.openings is not None and terms.welcome is None:
            extra = self.connection.extra
            extra.ways = [self._arrivals.openings.way("tcp", self._acceptor.name, extra.ip_filter)]

    def way(self, peers: IpFilter) -> Way | None:
        """One more way here, for these peers; None where no packet filter stands before it, or nothing listens."""
        openings = self._arrivals.openings
        if openings is None or self._acceptor is None:
            return None
        return openings.way("tcp", self._acceptor.name, peers)

    def start(self) -> None:
        """Let peers in, from now to the deadline. Raises OutOfResources; it is closed then."""
        if self.closed:
            return
        if self.terms.timeout_s is not None:
            loop = self._engine.poller.loop
            self._timer = loop.call_later(self.terms.timeout_s, self._end, "timed_out", Side.EXTERNAL)
        if self._acceptor is not None:
            try:
                self._acceptor.start()
            except DoorwardError as error:
                self._end(error.reason, error.side)
                raise
        early, self._early = self._early, []
        for connection in early:
            self._run(connection)

    def client_known(self) -> None:
        """It is known now where peers are led."""
        self._changed.set()

    def close(self) -> None:
        """Its connection has ended. Who has come through goes on. Idempotent."""
        if self.closed:
            return
        self.closed = True
        self.connection.extra.close_ways()
        if self._acceptor is not None:
            self._acceptor.close()
        if self._timer is not None:
            self._timer.cancel()
        if self.terms.promise is not None:
            self.terms.promise.cancel()
        self.admittance.end()
        for connection in self._early:
            connection.kill()
        self._arrivals.leave(self)
        self._changed.set()
        if self.on_close is not None:
            self.on_close()
        self._look_over()

    def is_at(self, name: SocketName) -> bool:
        """Whether it listens there, or the client was told so."""
        return self._acceptor is not None and name in (self.name, self._acceptor.name)

    def emulate(self, emulator: Attached, remote: SocketName, local: SocketName) -> Connection:
        """A peer that the emulating filter hands over. Raises AlreadyExists, BadArgument, BadContext, Terminating."""
        if self.connection.extra.socket_name is None:
            raise BadContext("set_socket_name must come first")
        remote, local = checked_name(remote), checked_name(local)
        if not self.terms.multiple and (self.taken or self._pending or self._early):
            raise AlreadyExists("this bind is for one peer, which it has had")
        peer = canonical(ipaddress.ip_address(remote[0]))
        listening = self.connection.decision
        decision = listening._replace(inputs=listening.inputs._replace(address=peer))
        connection = self._begin(peer, remote, Leave(decision, self.terms.promise))
        connection.emulator = emulator
        connection.extra.socket_name = local
        if self.connection.opened:
            self._run(connection)
        else:
            self._early.append(connection)
        return connection

    def _arrived(self, sock: socket.socket, name: SocketName) -> None:
        """A peer, of whom nothing is known but where it comes from."""
        peer, name = plain(name)
        leave = self.admittance.leave_for(peer, self.name[1])
        if leave is None or not leave.decision.allowed:
            reset(sock)
            self.admittance.turn_away(name, leave)
            return
        self.take_in(Leg(self._engine.poller, sock, Side.EXTERNAL), name, leave)

    def take_in(self, leg: Leg, name: SocketName, leave: Leave, visit: Visit | None = None) -> None:
        """A peer that may come, under this name. It is served from now on, or refused, and its leg is owned."""
        peer, name = plain(name)
        connection = self._begin(peer, name, leave)
        if visit is not None:
            connection.extra.listening = visit
            connection.refusal = connection.refusal or visit.refusal
        self._engine.take_external(connection, leg)
        try:
            # The relay takes the leg, and the name with it.
            _, connection.extra.socket_name = plain(leg.local_name)
            leg.report_reset(partial(self._peer_reset, connection))
        except DoorwardError as error:
            self._peer_reset(connection, error)
            return
        self._run(connection)

    def _begin(self, peer: IPAddress, name: SocketName, leave: Leave) -> Connection:
        """The connection of who has arrived. It may be refused already, for a limit."""
        listening, engine, system = self.connection, self._engine, self.terms.system
        target = Target(None, peer, self.name[1])
        limited = not system and self.terms.welcome is None
        connection = engine.begin(
            listening.session, target, listening.origin, Operation.ACCEPT, limited=limited
        )
        connection.judged = leave.decision
        connection.promise = leave.promise
        connection.peer = peer
        extra = connection.extra
        extra.peer_name, extra.parent = name, listening
        # Who is led to the client's address comes from ours, whatever was asked for.
        extra.full_proxy = listening.extra.leads_to_client
        if system:
            connection.verdicts += listening.verdicts
        else:
            associations = connection.ruling.associations
            connection.entries = associations.of(connection.way, leave.decision.rule)
        return connection

    def _run(self, connection: Connection) -> None:
        self._pending += 1
        self._running += 1
        self._engine.supervisor.spawn(self._serve(connection), name="arrival")

    async def _serve(self, connection: Connection) -> None:
        """One peer, to its end or into the relay."""
        try:
            try:
                await self._engine.open(connection, self._open(connection))
            finally:
                self._pending -= 1
                if self._acceptor is not None:
                    self._acceptor.resume()
            if connection.refusal is not None:
                return
            if isinstance(connection.external, Leg):
                connection.external.report_reset(None)
            if self.terms.take is not None:
                self._give(connection, self.terms.take)
            elif connection.internal is not None:
                await self._engine.carry(connection, connection.internal)
        finally:
            self._running -= 1
            self._look_over()

    async def _open(self, connection: Connection) -> None:
        """From the event to both legs. A refusal is left on it; raises DoorwardError, HandlerFailed."""
        if connection.entries and not await self._tell_accept(connection):
            return
        expect_alive(connection)
        address = canonical(ipaddress.ip_address(self.name[0]))
        connection.attached += self._engine.grants.attach(connection, EventKind.ACCEPT, address, self.name[1])
        # As long as a chain would: whatever ends the connection ends the wait.
        connection.chain_scope = asyncio.timeout(None)
        try:
            async with connection.chain_scope:
                if connection.extra.full_proxy:
                    await self._client_to_lead_to()
                self._claim(connection)
                if self.terms.deliver is not None:
                    connection.internal = await self.terms.deliver(connection)
        except TimeoutError:
            raise Terminating("the connection has ended") from None
        finally:
            connection.chain_scope = None
            if connection.end is not None and connection.internal is not None:
                connection.internal.abort(Terminating("the connection has ended"))
        expect_alive(connection)
        if connection.entries or connection.promise is not None:
            await dispatch_established(connection)
            expect_alive(connection)

    def _give(self, connection: Connection, take: Take) -> None:
        try:
            take(connection)
        except DoorwardError as error:
            self._engine.ended(connection, end_of(error))

    async def _tell_accept(self, connection: Connection) -> bool:
        """`on_accept` to everybody but who emulates; False if one denied it."""
        extra, entries = connection.extra, connection.entries
        assert extra.peer_name is not None
        emulator = self.connection.extra.bind_emulator
        local = extra.socket_name or self.name
        event = AcceptEvent(
            connection,
            self.connection,
            extra.peer_name,
            local,
            connection.protocol,
            connection.is_secondary,
        )
        for entry in entries:
            if entry.name == emulator:  # it hears of the end, which is how it learns of a refusal
                connection.joined.setdefault(entry, connection.session.filter_of(entry))
        connection.entries = tuple(entry for entry in entries if entry.name != emulator)
        await dispatch(connection, EventKind.ACCEPT, event)
        connection.entries = entries
        return not was_denied(connection)

    async def _client_to_lead_to(self) -> None:
        """Until the client's address is known, or nobody can say it any more."""
        if self.connection.extra.client_name is None:
            await self._changed.wait()

    def _claim(self, connection: Connection) -> None:
        """This peer has passed. Raises AccessDenied if the port was closed meanwhile, or had its one peer."""
        promise = connection.promise
        if self.closed or (promise is not None and not promise.active):
            raise AccessDenied(BIND_USED if self.taken else BIND_CLOSED)
        self.taken = True
        if promise is not None:
            promise.use()
        if not self.terms.multiple:
            self._end("closed", Side.OURS)

    def _peer_reset(self, connection: Connection, error: DoorwardError) -> None:
        """It did not wait for us."""
        connection.refuse_by_error(error)
        self._engine.ended(connection, end_of(error))

    def _promise_over(self) -> None:
        """Used up, expired, taken back, or ended with its parent: the hole closes at once."""
        used_up = self.taken and not self.terms.multiple
        self._end("closed" if used_up else GRANT_ENDED, Side.OURS)

    def _end(self, how: str, side: Side) -> None:
        """End the listening connection, and with it the port."""
        if self.closed:
            return
        if not self.connection.opened and self.connection.refusal is None:
            self.connection.refuse_by_kill(how)
        self._engine.ended(self.connection, End(how, side))

    def _look_over(self) -> None:
        if self.closed and not self._running:
            self.over.set()


def plain(name: SocketName) -> tuple[IPAddress, SocketName]:
    """A peer's address, and the name without IPv6's clothes: a port of both families sees IPv4 in those."""
    address = canonical(ipaddress.ip_address(name[0].partition("%")[0]))
    return address, (str(address), name[1]) if address.version == 4 else name
