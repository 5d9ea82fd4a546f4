"""A connection: one outer socket made for a client, from the request to the record.

    begun ─▶ judged ─▶ events ─▶ dialled ─▶ carried (chain of data filters, then relay) ─▶ ended

It ends exactly once, whatever ends it, and leaves one record.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, NamedTuple

from doorward.api.contracts import Priority
from doorward.api.errors import (
    BadContext,
    DoorwardError,
    FilterError,
    NotConnected,
    ReplyHint,
    Side,
    Terminating,
    slug_or,
)
from doorward.engine.chain import Attached
from doorward.engine.supervision import Holder
from doorward.policy.model import Action, Decision, Verdict

if TYPE_CHECKING:
    from doorward.api.filters import DataFilter, SessionFilter
    from doorward.engine.association import FilterEntry
    from doorward.engine.engine import Engine
    from doorward.engine.joint import JointEnd
    from doorward.engine.origin import Origin
    from doorward.engine.ruling import Ruling
    from doorward.engine.session import Session
    from doorward.engine.target import Target
    from doorward.net.leg import Leg
    from doorward.policy.model import IPAddress


class Refusal(NamedTuple):
    """Why there is no connection. `action` is `deny` (policy or a filter) or `fail` (it could not be done).

    `rule` or `filter` names who said no.
    """

    action: str
    reason: str
    hint: ReplyHint
    rule: str | None = None
    detail: str = ""
    filter: str | None = None


class End(NamedTuple):
    """How it was over: a slug, and the side that ended it."""

    how: str
    by: str


class Connection:
    """See the object model."""

    __slots__ = ("_decision", "_holder", "addresses", "attached", "bytes_received", "bytes_sent", "chain_scope",
                 "connect_us", "denied", "end", "engine", "entries", "external", "handling", "id", "internal",
                 "joined", "killed_as", "origin", "peer", "protocol", "refusal", "relay_id", "ruling", "session",
                 "started_us", "target", "verdicts")  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        ruling: Ruling,
        connection_id: int,
        session: Session,
        target: Target,
        origin: Origin,
    ) -> None:
        self.engine = engine
        self.ruling = ruling
        self.id = connection_id
        self.session = session
        self.target = target
        self.origin = origin
        self.protocol = ruling.associations.protocol(target.port, origin.application)
        self.entries: tuple[FilterEntry, ...] = ()
        self.joined: dict[FilterEntry, SessionFilter] = {}  # who heard of it hears of its end
        self.started_us = time.time_ns() // 1000
        self.connect_us: int | None = None
        self.addresses: dict[IPAddress, Decision] = {}
        self.peer: IPAddress | None = None
        self.external: Leg | None = None
        self.internal: Leg | JointEnd | None = None
        self.relay_id: int | None = None
        self.killed_as: str | None = None  # how, for a pair that the relay has
        self.attached: list[Attached] = []
        self.chain_scope: asyncio.Timeout | None = None
        self.verdicts: list[Verdict] = []
        self.handling: FilterEntry | None = None
        self.denied: str | None = None
        self.refusal: Refusal | None = None
        self.end: End | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self._decision: Decision | None = None
        self._holder: Holder | None = None

    @property
    def decision(self) -> Decision:
        """The policy's answer. There is one before any filter hears of the connection."""
        assert self._decision is not None
        return self._decision

    @property
    def judged(self) -> Decision | None:
        """The policy's answer, None before it was asked or when it could not be."""
        return self._decision

    @judged.setter
    def judged(self, decision: Decision) -> None:
        self._decision = decision

    @property
    def holder(self) -> Holder:
        """What belongs to this connection's filters."""
        if self._holder is None:
            self._holder = Holder()
        return self._holder

    def end_tasks(self) -> None:
        """End what its filters have started."""
        if self._holder is not None:
            self._holder.end()

    @property
    def host(self) -> str | None:
        """The name asked for, or None."""
        return self.target.host

    @property
    def port(self) -> int:
        """The port asked for."""
        return self.target.port

    @property
    def external_peer_name(self) -> tuple[str, int]:
        """Address and port of the server. Raises NotConnected before the outer leg exists."""
        if self.peer is None:
            raise NotConnected("the outer leg does not exist yet")
        return str(self.peer), self.target.port

    @property
    def external_socket_name(self) -> tuple[str, int]:
        """Our own address and port toward the server. Raises NotConnected before the outer leg exists."""
        return self._outer_leg().local_name

    def attach_data_filter(
        self, data_filter: DataFilter, priority: Priority | None = None, context: object = None
    ) -> None:
        """See the contract."""
        entry = self._in_handler()
        data_filter.context = context
        place = data_filter.priority if priority is None else priority
        self.attached.append(Attached(place, data_filter, entry.name))

    def deny(self, reason: str = "denied_by_filter") -> None:
        """See the contract."""
        self._in_handler()
        self.denied = slug_or(reason, "denied_by_filter")

    def kill(self) -> None:
        """See the contract."""
        self.engine.kill(self)

    def refuse_by_policy(self, decision: Decision) -> None:
        """Policy said no, or needs to know who asks."""
        needs_user = decision.action is Action.NEEDS or decision.reason == "user_needed"
        hint = ReplyHint.NEEDS_USER if needs_user else ReplyHint.NOT_ALLOWED
        self.refusal = Refusal("deny", decision.reason, hint, decision.rule)

    def refuse_by_filter(self, reason: str, name: str, detail: str = "") -> None:
        """A filter said no; the rule that had allowed it is not to blame."""
        detail = "" if detail == reason else detail
        self.refusal = Refusal("deny", reason, ReplyHint.NOT_ALLOWED, None, detail, name)

    def refuse_by_error(self, error: DoorwardError) -> None:
        """It could not be done."""
        self.refusal = Refusal("fail", error.reason, error.hint, self._rule, error.detail)

    def refuse_by_kill(self, how: str) -> None:
        """It was killed before there was anything to carry."""
        self.refusal = Refusal("fail", how, ReplyHint.FAILED, self._rule)

    @property
    def _rule(self) -> str | None:
        return None if self._decision is None else self._decision.rule

    def _in_handler(self) -> FilterEntry:
        if self.end is not None:
            raise Terminating("this connection has ended")
        if self.handling is None:
            raise BadContext("legal only inside on_connect")
        return self.handling

    def _outer_leg(self) -> Leg:
        if self.end is not None:
            raise Terminating("this connection has ended")
        if self.external is None:
            raise NotConnected("the outer leg does not exist yet, or has been given to the relay")
        return self.external


def end_of(error: DoorwardError) -> End:
    """How a connection ended that an error ended."""
    if isinstance(error, FilterError):
        return End(error.reason, Side.OURS)
    return End(error.reason, error.side)
