"""Who may come through a port that is open on a client's behalf, and what becomes of the others.

In this order: a promise made when the port was open already; the connection's IP filter, which admits nobody while it
is unset; then the promise behind the port, or policy, which is asked anew for each peer. A filter can narrow this and
never widen it, save by a promise.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol, TypeAlias

from msgspec import Struct

from doorward.api.errors import UpstreamNoBind
from doorward.engine.connecting import NOT_ADMITTED, decision_of
from doorward.engine.judgement import inputs_of
from doorward.engine.recording import record_of_peer
from doorward.engine.target import Target
from doorward.policy.model import Action

if TYPE_CHECKING:
    import socket

    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.grants import Promise
    from doorward.engine.outcome import Refusal
    from doorward.engine.ports.listening import Port
    from doorward.net.carrier import Carrier
    from doorward.net.openings import Way
    from doorward.policy.model import Decision, IPAddress

# Makes the client's leg of a connection that has arrived. Raises DoorwardError; after failure or cancellation
# nothing of its own is left.
Deliver: TypeAlias = "Callable[[Connection], Awaitable[Carrier]]"
# Is given a connection that stands and has no client's leg, and carries it. Raises DoorwardError: then it is reset.
Take: TypeAlias = "Callable[[Connection], None]"

# Looks at a peer that has arrived at a published port, and resets it or gives it to `Port.take_in`.
Welcome: TypeAlias = "Callable[[Port, socket.socket, SocketName], None]"

# Peers of one port that are in their events or wait for the client; others wait in the kernel.
PENDING_MAX: Final = 16
# Peers that may wait in the kernel for us to take them.
BACKLOG: Final = 16
# Peers not admitted that get a record each; the rest of a port scan is counted on the listening connection's.
TURNED_AWAY_TOLD_MAX: Final = 3
# Peers that are looked at one by one to see whether they are admitted already.
ADDRESSES_ASKED_MAX: Final = 16


class Terms(Struct, frozen=True):
    """On what terms a port is open: where peers are led (one of `deliver` and `take`), how many, until when.

    With a `promise` policy is not asked. `system` is the firewall's own: no policy, no filter hears of it, and no
    client's limits apply. With `welcome` it is nobody's own but published: that looks at who arrives, and the limits
    of a client who has asked for a port do not apply. `pending_max`: peers between their arrival and their being
    carried; others wait in the kernel, as all do while there is no `room`.
    """

    deliver: Deliver | None = None
    take: Take | None = None
    multiple: bool = False
    promise: Promise | None = None
    system: bool = False
    timeout_s: float | None = None
    backlog: int = BACKLOG
    welcome: Welcome | None = None
    pending_max: int = PENDING_MAX
    room: Callable[[], bool] = lambda: True


class Visit(Protocol):
    """What a published server keeps of one who has come; fulfils `extra.Listening`, and ends with the connection."""

    @property
    def refusal(self) -> Refusal | None:
        """Why it is one too many, if it is."""
        ...

    def close(self) -> None:
        """It is over. Idempotent."""
        ...


class Leave(NamedTuple):
    """Why a peer may come, or may not; `promise` if a filter has promised it."""

    decision: Decision
    promise: Promise | None


class Admittance:
    """Of one port."""

    def __init__(self, connection: Connection, terms: Terms) -> None:
        self.turned_away = 0
        self._connection = connection
        self._terms = terms
        self._later: list[tuple[Promise, IpFilter]] = []

    def admit(self, promise: Promise, peers: IpFilter, way: Way | None = None) -> None:
        """These peers may come as well, by this way, whatever policy says, until the promise ends."""
        admission = (promise, peers.clone())
        self._later.append(admission)

        def forget() -> None:
            self._later.remove(admission)
            if way is not None:
                way.close()

        promise.on_end = forget

    def end(self) -> None:
        """Nobody can come any more: what was promised is over."""
        for promise, _ in tuple(self._later):
            promise.cancel()

    def leave_for(self, peer: IPAddress, number: int) -> Leave | None:
        """Whether this peer may come to port `number` of ours; None for who is not even asked about."""
        connection, engine = self._connection, self._connection.engine
        session, target = connection.session, Target(None, peer, number)
        is_own = engine.own_addresses.is_own
        inputs = inputs_of(session, target, session.user, time.time(), is_own, "tcp-in")
        for promise, peers in self._later:
            if peer in peers:
                return Leave(decision_of(engine, promise, inputs), promise)
        ip_filter = connection.extra.ip_filter
        if ip_filter is None or peer not in ip_filter:
            return None
        if self._terms.promise is not None:
            return Leave(decision_of(engine, self._terms.promise, inputs), self._terms.promise)
        if self._terms.system:
            return Leave(connection.decision._replace(inputs=inputs), None)
        return Leave(_expected_direct(engine, engine.ruling.policy.judge(inputs)), None)

    def admits_already(self, peers: IpFilter, number: int) -> bool:
        """Whether each of these could come now. Of ranges nobody knows; one more promise does no harm."""
        ranges = peers.ranges
        if not ranges or len(ranges) > ADDRESSES_ASKED_MAX or any("-" in text for text in ranges):
            return False
        leaves = [self.leave_for(ipaddress.ip_address(text), number) for text in ranges]
        return all(leave is not None and leave.decision.allowed for leave in leaves)

    def turn_away(self, name: SocketName, leave: Leave | None) -> None:
        """Put it on record: the first few by name, the rest by number. A port scan must not fill the log."""
        self.turned_away += 1
        self._connection.extra.note = f"peers turned away: {self.turned_away}"
        if self.turned_away <= TURNED_AWAY_TOLD_MAX:
            decision = None if leave is None else leave.decision
            record = record_of_peer(self._connection, name, decision, NOT_ADMITTED)
            self._connection.engine.recorder.append(record)


def _expected_direct(engine: Engine, decision: Decision) -> Decision:
    """The same, unless the way to this peer leads through an upstream: then it cannot be who comes straight to us."""
    ways = engine.ruling.ways
    if ways is None or not decision.allowed:
        return decision
    try:
        ways.expect_direct(decision.inputs)
    except UpstreamNoBind as error:
        return decision._replace(action=Action.DENY, reason=error.reason)
    return decision
