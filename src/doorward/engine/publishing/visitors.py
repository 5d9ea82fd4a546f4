"""Who may come to one published server, and how those who may not are put on record.

No rule is asked: the published server says itself who may come and when, and nobody else may.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from doorward.api.errors import Side
from doorward.engine.admission import Admission
from doorward.engine.connecting import NOT_ADMITTED
from doorward.engine.judgement import inputs_of
from doorward.engine.target import Target
from doorward.policy.model import Action, Decision
from doorward.policy.networks import AddressSet
from doorward.policy.schedule import contains
from doorward.record.model import Record

if TYPE_CHECKING:
    from doorward.api.contracts import TransportName
    from doorward.api.sockets import SocketName
    from doorward.config.model import Published
    from doorward.engine.engine import Engine
    from doorward.engine.outcome import Refusal
    from doorward.engine.session import Session
    from doorward.policy.model import IPAddress, Transport

# The reason of what a published server allows.
PUBLISHED: Final = "published"
ENTRY: Final = "publish"
# Who is turned away within a minute and put on record one by one; the rest of a scan is counted.
TOLD_A_MINUTE_MAX: Final = 600
MINUTE_S: Final = 60.0
INBOUND: Final[dict[str, Transport]] = {"tcp": "tcp-in", "udp": "udp-in"}


class Visitors:
    """See the module. One of each published server. `admission` counts by the visitor's address."""

    def __init__(self, engine: Engine, published: Published, session: Session) -> None:
        self._engine = engine
        self._published = published
        self._session = session
        self._sources = AddressSet(published.sources)
        self._headers_from = AddressSet(published.headers_from)
        self._told = Told(engine.poller.loop.time)
        self.admission = Admission(engine.poller.loop.time)

    def must_say(self, peer: IPAddress) -> bool:
        """Whether this one is trusted to begin with a PROXY header."""
        return peer in self._headers_from

    def judge(
        self, transport: TransportName, peer: IPAddress | None, port: int, *, trusted: bool = False
    ) -> Decision:
        """Whether this peer may come to this port of ours; without a peer, whether the port may be open.

        `trusted`: a proxy that asks for itself, which is known by its address already.
        """
        engine, published = self._engine, self._published
        target, now_s = Target(None, peer, port), time.time()
        is_own = engine.own_addresses.is_own
        inputs = inputs_of(self._session, target, None, now_s, is_own, INBOUND[transport])
        is_time = (
            peer is None or published.windows is None or contains(published.windows, inputs.minute_of_week)
        )
        may_come = is_time and (peer is None or trusted or peer in self._sources)
        return Decision(
            Action.ALLOW if may_come else Action.DENY,
            PUBLISHED if may_come else NOT_ADMITTED,
            inputs,
            engine.ruling.policy.revision,
            published.name,
            published.line,
        )

    def enter(self, peer: IPAddress) -> Refusal | None:
        """One more connection of this visitor's; a refusal if it is one too many. `leave` follows in either case."""
        return self.admission.enter(str(peer), self._engine.ruling.limits)

    def leave(self, peer: IPAddress) -> None:
        """It is over."""
        self.admission.leave(str(peer))

    def turned_away(
        self,
        transport: TransportName,
        name: SocketName,
        reason: str,
        *,
        detail: str = "",
        action: str = "deny",
        parent: int | None = None,
    ) -> None:
        """Put one on record that never became a connection: the first of a minute by name, the rest by number."""
        before = self._told.ask()
        if before is None:
            return
        missed = f"{before} more were turned away within the minute before" if before else ""
        session, published = self._session, self._published
        record = Record(
            time_us=time.time_ns() // 1000,
            session=session.id,
            connection=0,
            entry=ENTRY,
            action=action,
            reason=reason,
            rule=published.name,
            policy=self._engine.ruling.policy.revision,
            client_address=session.client_address,
            client_port=0,
            address=name[0],
            port=name[1],
            transport=transport,
            protocol=published.protocol,
            end="refused",
            ended_by=Side.OURS if action == "deny" else Side.EXTERNAL,
            operation="accept",
            parent=parent,
            detail="; ".join(filter(None, (detail, missed))) or None,
        )
        self._engine.recorder.append(record)


class Told:
    """So many within a minute, and how many there were beyond."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._minute = clock()
        self._count = 0

    def ask(self) -> int | None:
        """None if there were too many in this minute; else how many were left out in the one before, told once."""
        now, before = self._clock(), 0
        if now - self._minute >= MINUTE_S:
            before = max(self._count - TOLD_A_MINUTE_MAX, 0)
            self._minute, self._count = now, 0
        self._count += 1
        return before if self._count <= TOLD_A_MINUTE_MAX else None
