"""The engine: makes connections, carries them, ends them, and writes down each one.

It owns what is alive (sessions, connections, pairs in the relay) and holds what is in force (the ruling). It
knows nothing of SOCKS or HTTP; a front end asks for a connection and is given one, or a refusal.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from doorward.api.errors import (
    AccessDenied,
    DoorwardError,
    LinkError,
    OutOfResources,
    Refuse,
    Side,
    Terminating,
)
from doorward.engine.admission import Admission
from doorward.engine.chain import NOTHING, Chain, ChainFailed, Leftover, moved, pass_on
from doorward.engine.connecting import open_connect
from doorward.engine.connection import Connection
from doorward.engine.dispatch import HandlerFailed, dispatch_terminating, hear_of_ends
from doorward.engine.grants import Grants, has_secondary
from doorward.engine.judgement import local_minute
from doorward.engine.last_words import hear_out
from doorward.engine.operation import Operation
from doorward.engine.outcome import End, Refusal, end_of
from doorward.engine.ports.arrivals import Arrivals
from doorward.engine.recording import record_of
from doorward.engine.udp.table import Mappings
from doorward.net.leg import Leg
from doorward.net.limiter import LegLimits
from doorward.net.quiet import QuietWatch
from doorward.net.upstream.ahead import Ahead
from doorward.policy.model import Unknown, Verdict

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.engine.origin import Origin
    from doorward.engine.ruling import Ruling
    from doorward.engine.session import Session, SessionTable
    from doorward.engine.supervision import Supervisor, Watchdog
    from doorward.engine.target import Target
    from doorward.net.carrier import Carrier
    from doorward.net.own_addresses import OwnAddresses
    from doorward.net.poller import Poller
    from doorward.net.relay import Completion, Relay
    from doorward.net.resolve import Resolver
    from doorward.record.model import Record


class Recorder(Protocol):
    """Takes records; says when it cannot."""

    def append(self, record: Record) -> None: ...
    def refuses(self) -> str | None:
        """Why new connections must be refused now, or None."""
        ...


# The connection, if it was for one, the filter's name, and what it raised.
OnFilterFailure = Callable[[Connection | None, str, BaseException], None]


class Engine:
    """See the module."""

    def __init__(
        self,
        *,
        poller: Poller,
        resolver: Resolver,
        own_addresses: OwnAddresses,
        sessions: SessionTable,
        watchdog: Watchdog,
        supervisor: Supervisor,
        recorder: Recorder,
        ruling: Ruling,
        on_filter_failure: OnFilterFailure,
        first_id: int = 1,
    ) -> None:
        self.poller = poller
        self.resolver = resolver
        self.own_addresses = own_addresses
        self.sessions = sessions
        self.watchdog = watchdog
        self.supervisor = supervisor
        self.recorder = recorder
        self.ruling = ruling
        self.filter_failed = on_filter_failure
        self.connections: dict[int, Connection] = {}
        self.grants = Grants(poller.loop, lambda: self.ruling.limits.grants_max_per_session)
        self.arrivals = Arrivals(self)
        self.udp = Mappings(self)
        self.admission = Admission(poller.loop.time)
        self.relayed: dict[int, Connection] = {}
        self._relay: Relay | None = None
        self.next_id = first_id
        sessions.engine = self

    @property
    def relay(self) -> Relay:
        """Who carries the bytes that nobody reads."""
        assert self._relay is not None
        return self._relay

    @relay.setter
    def relay(self, relay: Relay) -> None:
        self._relay = relay

    async def connect(
        self, session: Session, target: Target, origin: Origin, *, user: str | Unknown | None
    ) -> Connection:
        """Judge, ask the filters, dial. Look at `refusal`: it says why not, and the connection has then ended.

        `user` is UNKNOWN if the client could still be asked, and the session's user otherwise. After
        cancellation the connection has ended, with a record.
        """
        connection = self.begin(session, target, origin)
        await self.open(connection, open_connect(self, connection, user))
        return connection

    def begin(
        self,
        session: Session,
        target: Target,
        origin: Origin,
        operation: Operation = Operation.CONNECT,
        transport: TransportName = "tcp",
        *,
        limited: bool = True,
    ) -> Connection:
        """A connection that nothing is known of yet but who wants what. `open` must follow; look at `refusal` first.

        Without `limited`, what one client may have at once and within a minute does not count.
        """
        connection = Connection(
            self, self.ruling, self.next_id, session, target, origin, operation, transport
        )
        self.next_id += 1
        self.connections[connection.id] = connection
        self.sessions.enter(session)
        refusal = self.admission.enter(session.client_address, self.ruling.limits)
        connection.refusal = refusal if limited else None
        if connection.refusal is None and (why := self.recorder.refuses()) is not None:
            connection.refusal = Refusal("fail", "log_unavailable", OutOfResources.hint, None, why)
        return connection

    async def open(self, connection: Connection, opening: Coroutine[Any, Any, None]) -> None:
        """Run what makes it stand. It is `opened` then, or it has a `refusal` and has ended, with a record.

        `opening` raises DoorwardError, HandlerFailed, or leaves a refusal. After cancellation the connection has ended.
        """
        try:
            if connection.refusal is None:
                await opening
            else:
                opening.close()
        except HandlerFailed as failed:
            self._handler_failed(connection, failed)
        except AccessDenied as error:
            connection.refusal = Refusal("deny", error.reason, error.hint, None, error.detail)
        except DoorwardError as error:
            if connection.refusal is None:
                connection.refuse_by_error(error)
        except BaseException:
            connection.refuse_by_error(Terminating("the client went away", side=Side.INTERNAL))
            self._finish(connection, None)
            raise
        if connection.refusal is not None:
            self._finish(connection, None)
        else:
            connection.opened = True

    async def carry(self, connection: Connection, internal: Carrier) -> None:
        """Carry bytes until they are the relay's, or over. The connection ends by itself; nothing is raised."""
        connection.internal = internal
        external = connection.external
        emulated = connection.emulator is not None
        if connection.end is not None or not (emulated or (external is not None and external.open)):
            internal.abort(Terminating("the connection has ended"))
            return
        if emulated:
            self._hold_to_limits(connection, internal)
            connection.bytes_received -= internal.sent  # what the front end has said is not the emulator's
        elif isinstance(internal, Leg):
            connection.apply_buffer_size(internal)
        try:
            leftover: Leftover | None = NOTHING
            both_wires = isinstance(internal, Leg) and isinstance(external, Leg)
            if connection.attached or emulated or not both_wires:
                leftover = await self._carry_here(connection, internal, external)
            if (
                leftover is not None
                and isinstance(internal, Leg)
                and isinstance(external, Leg)
                and internal.open
                and external.open
            ):
                self._hand_over(connection, internal, external, leftover)
                return
        except ChainFailed as failed:
            self.chain_failed(connection, failed)
        except DoorwardError as error:
            self._finish(connection, end_of(error))
        except BaseException:
            self._finish(connection, End("killed", Side.OURS))
            raise
        self._finish(connection, End("closed", Side.OURS))

    def still_allowed(self, connection: Connection) -> bool:
        """Whether what is in force now would allow the same again, to the same address."""
        decision = connection.judged
        if connection.end is not None or decision is None:
            return False
        address = connection.peer or decision.inputs.address  # nobody dials for who is emulated
        now = decision.inputs._replace(address=address, minute_of_week=local_minute(time.time()))
        return self.ruling.policy.judge(now).allowed

    def ended(self, connection: Connection, end: End) -> None:
        """A front end that carried the bytes itself is done with it."""
        self._finish(connection, end)

    def kill(self, connection: Connection, how: str = "killed") -> None:
        """Reset both sides. Idempotent."""
        if connection.end is not None:
            return
        if connection.relay_id is not None:
            connection.killed_as = how
            connection.release()  # now, and not when the relay has said that it is done
            self.relay.kill(connection.relay_id)
            return
        if not connection.opened:
            connection.refuse_by_kill(how)
        self._finish(connection, End(how, Side.OURS))

    def completed(self, completions: list[Completion]) -> None:
        """Pairs that the relay has done with."""
        for done in completions:
            connection = self.relayed.pop(done.id, None)
            if connection is not None:
                connection.relay_id = None
                connection.bytes_sent += done.bytes_sent
                connection.bytes_received += done.bytes_received
                how = connection.killed_as or done.end if done.end == "killed" else done.end
                if done.end == "killed" and not connection.opened:
                    connection.refuse_by_kill(how)
                self._finish(connection, End(how, done.ended_by))

    def close_session(self, session: Session) -> None:
        """End a session, its grants and everything that goes on in it."""
        self.sessions.remove(session)
        for connection in [c for c in self.connections.values() if c.session is session]:
            self.kill(connection, "session_ended")

    def take_external(self, connection: Connection, carrier: Carrier) -> None:
        """The outer leg stands."""
        connection.external = carrier
        connection.opened = True
        self._hold_to_limits(connection, carrier)

    def _hold_to_limits(self, connection: Connection, carrier: Carrier) -> None:
        limits = connection.ruling.pair_limits
        if isinstance(carrier, Leg | Ahead) and (limits.bytes_max or limits.bytes_per_second):
            carrier.limits = LegLimits(self.poller.loop, limits)
        if isinstance(carrier, Leg):
            connection.apply_buffer_size(carrier)

    async def _carry_here(
        self, connection: Connection, internal: Carrier, external: Carrier | None
    ) -> Leftover | None:
        """Run the chain to its end; what is left over goes out first. None if nothing is left to carry."""
        attached, connection.attached = connection.attached, []
        if connection.emulator is not None:
            attached = [*attached, connection.emulator]
        chain = (
            Chain(connection, attached, internal, external, self.watchdog, connection.holder)
            if attached
            else None
        )
        quiet = QuietWatch(
            self.poller.loop,
            connection.ruling.limits.idle_timeout_s,
            lambda: moved(chain, internal, external),
            lambda: self.kill(connection, "idle_timeout"),
            lambda: has_secondary(connection),
        )
        connection.chain_scope = asyncio.timeout(None)
        try:
            async with connection.chain_scope:
                leftover = await chain.run() if chain is not None else NOTHING
                if external is None:
                    if internal.open:
                        await hear_out(internal)
                    return None
                relayable = isinstance(internal, Leg) and isinstance(external, Leg)
                if relayable and not leftover.partly_over:
                    return leftover
                if internal.open and external.open:
                    await pass_on(internal, external, leftover)
                return None
        except TimeoutError:
            raise Terminating("the connection has ended") from None
        finally:
            connection.chain_scope = None
            quiet.stop()

    def _hand_over(self, connection: Connection, internal: Leg, external: Leg, leftover: Leftover) -> None:
        """Both wires to the relay. Raises OutOfResources."""
        self._count(connection, external)
        connection.external = connection.internal = None
        to_external = leftover.to_external + internal.take_back()
        to_internal = leftover.to_internal + external.take_back()
        connection.bytes_received -= len(to_internal)  # the leg has counted them, and the relay will
        limits = connection.ruling.pair_limits
        relay_id = self.relay.add(
            internal.detach(), external.detach(), limits, to_external=to_external, to_internal=to_internal
        )
        connection.relay_id = relay_id
        self.relayed[relay_id] = connection

    def _handler_failed(self, connection: Connection, failed: HandlerFailed) -> None:
        if isinstance(failed.error, Refuse):
            connection.refuse_by_filter(failed.error.reason, failed.filter, failed.error.detail)
        else:
            self.filter_failed(connection, failed.filter, failed.cause)
            connection.refuse_by_error(failed.error)

    def chain_failed(self, connection: Connection, failed: ChainFailed) -> None:
        """A filter ended its connection, or a peer did and the filter let it be known."""
        error, name = failed.failure.error, failed.failure.filter
        if connection.end is not None:
            return  # what it raised is what it met
        if isinstance(error, LinkError | Terminating):
            self._finish(connection, end_of(error))
            return
        if isinstance(error, Refuse):
            connection.verdicts.append(Verdict(name, "denied", error.reason))
            connection.refuse_by_filter(error.reason, name, error.detail)
        else:
            connection.verdicts.append(Verdict(name, "failed", error.reason))
            connection.refuse_by_error(error)
            self.filter_failed(connection, name, failed.cause)
        self._finish(connection, end_of(error), error)

    def _finish(self, connection: Connection, end: End | None, error: DoorwardError | None = None) -> None:
        """It is over: free what it held, tell the filters that joined, write the record. Only the first call counts."""
        if connection.end is not None:
            return
        connection.end = end or End("refused", Side.OURS)
        connection.release()
        del self.connections[connection.id]
        self.sessions.leave(connection.session)
        self.admission.leave(connection.session.client_address)
        self._close_legs(connection, error)
        if connection.chain_scope is not None:
            connection.chain_scope.reschedule(0)  # whatever a filter waits for, it waits no longer
        record = record_of(connection)
        if connection.joined and hear_of_ends(connection):
            self.supervisor.spawn(self._terminate(connection, record), name="terminating", last_words=True)
        else:
            self._write(connection, record)

    def _close_legs(self, connection: Connection, error: DoorwardError | None) -> None:
        """Whatever is still open is reset: an orderly end has closed it before."""
        external, internal = connection.external, connection.internal
        assert connection.end is not None
        abortive = connection.end.how != "closed"
        reason = error or Terminating(connection.end.how)
        if external is not None:
            self._count(connection, external)
            external.close_now(abortive=abortive)
        if connection.emulator is not None and internal is not None:
            connection.bytes_received += internal.sent
        if internal is not None:
            if abortive:
                internal.abort(reason)
            else:
                internal.close_now()

    def _count(self, connection: Connection, external: Carrier) -> None:
        connection.bytes_sent += external.sent
        connection.bytes_received += external.received

    async def _terminate(self, connection: Connection, record: Record) -> None:
        assert connection.end is not None
        try:
            await dispatch_terminating(connection, connection.end.how)
        finally:
            self._write(connection, record)

    def _write(self, connection: Connection, record: Record) -> None:
        connection.end_tasks()
        self.recorder.append(record)
