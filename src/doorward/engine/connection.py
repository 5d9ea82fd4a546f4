"""A connection: one outer socket made for a client, from the request to the record.

    begun ─▶ judged ─▶ events ─▶ dialled ─▶ carried (chain of data filters, then relay) ─▶ ended

It ends exactly once, whatever ends it, and leaves one record.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Literal

from doorward.api.contracts import ConnectionFlags, Priority
from doorward.api.errors import (
    AlreadyEmulated,
    AlreadyExists,
    BadArgument,
    BadContext,
    DoorwardError,
    NotConnected,
    NotEmulated,
    NotSupported,
    ReplyHint,
    Terminating,
    slug_or,
)
from doorward.api.events import EventKind
from doorward.api.filters import DataFilter
from doorward.engine.association import FilterEntry, Way
from doorward.engine.at_work import AT_WORK
from doorward.engine.chain import Attached
from doorward.engine.extra import Extra, checked_name, client_name, copied_filter
from doorward.engine.grants import cancel_all
from doorward.engine.operation import ATTACHABLE, DENIABLE, Handling, Operation
from doorward.engine.outcome import End, Refusal
from doorward.engine.supervision import Holder
from doorward.net.leg import Leg
from doorward.policy.model import Action, Decision, Verdict

if TYPE_CHECKING:
    from doorward.api.filters import SessionFilter
    from doorward.api.ip_filter import IpFilter
    from doorward.api.sockets import SocketName
    from doorward.engine.engine import Engine
    from doorward.engine.grants import Promise
    from doorward.engine.origin import Origin
    from doorward.engine.ruling import Ruling
    from doorward.engine.session import Session
    from doorward.engine.target import Target
    from doorward.net.carrier import Carrier
    from doorward.policy.model import IPAddress, Transport

# What a client is told where there is no outer address to tell.
UNSPECIFIED: Final = ("0.0.0.0", 0)
# Reasons noted on one record; a filter has few, and a peer may provoke each as often as it likes.
NOTES_MAX: Final = 16
BUFFER_BYTES_MAX: Final = 1024 * 1024
# What a record can hold, and no connection reaches.
BYTES_COUNTED_MAX: Final = 2**62
# What listens, and who arrives there, is associated by the ports on which the firewall listens.
INBOUND_OF: Final[dict[Operation, Transport]] = {Operation.BIND: "tcp-in", Operation.ACCEPT: "tcp-in"}


class Connection:
    """See the object model. What only some operations need stands in `extra`, so that the others do not pay for it."""

    __slots__ = ("_decision", "_extra", "_holder", "addresses", "attached", "bytes_received", "bytes_sent",
                 "chain_scope", "connect_us", "denied", "emulator", "end", "engine", "entries", "external", "handling",
                 "id", "internal", "joined", "killed_as", "opened", "operation", "origin", "peer", "promise",
                 "protocol", "refusal", "relay_id", "ruling", "session", "started_us", "target", "transport",
                 "verdicts")  # fmt: skip

    def __init__(
        self,
        engine: Engine,
        ruling: Ruling,
        connection_id: int,
        session: Session,
        target: Target,
        origin: Origin,
        operation: Operation = Operation.CONNECT,
        transport: Literal["tcp", "udp"] = "tcp",
    ) -> None:
        self.engine = engine
        self.ruling = ruling
        self.id = connection_id
        self.session = session
        self.target = target
        self.origin = origin
        self.operation = operation
        self.transport = transport
        self.protocol = ruling.associations.protocol(transport, target.port, origin.application)
        self.promise: Promise | None = None  # the grant that it came by: it is secondary
        self.entries: tuple[FilterEntry, ...] = ()
        self.joined: dict[FilterEntry, SessionFilter] = {}  # who heard of it hears of its end
        self.started_us = time.time_ns() // 1000
        self.connect_us: int | None = None
        self.addresses: dict[IPAddress, Decision] = {}
        self.peer: IPAddress | None = None
        self.external: Carrier | None = None
        self.internal: Carrier | None = None
        self.relay_id: int | None = None
        self.killed_as: str | None = None  # how, for a pair that the relay has
        self.attached: list[Attached] = []
        self.emulator: Attached | None = None  # a filter that is the server
        self.opened = False  # there is something to carry, or to listen on
        self.chain_scope: asyncio.Timeout | None = None
        self.verdicts: list[Verdict] = []
        self.handling: Handling | None = None
        self.denied: str | None = None
        self.refusal: Refusal | None = None
        self.end: End | None = None
        self.bytes_sent = 0
        self.bytes_received = 0
        self._decision: Decision | None = None
        self._holder: Holder | None = None
        self._extra: Extra | None = None

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
    def extra(self) -> Extra:
        """What is rarely needed."""
        if self._extra is None:
            self._extra = Extra()
        return self._extra

    @property
    def extra_if_any(self) -> Extra | None:
        """The same, if it was ever needed: looking at this one makes none."""
        return self._extra

    @property
    def way(self) -> Way:
        """What decides which filters hear of it; a secondary one goes the way of the one that promised it."""
        origin = self.origin
        if self.promise is not None:
            return self.promise.way._replace(kind=origin.kind)
        transport = INBOUND_OF.get(self.operation, self.transport)
        return Way(transport, self.target.port, origin.application, origin.kind)

    @property
    def is_secondary(self) -> bool:
        return self.promise is not None

    @property
    def host(self) -> str | None:
        """The name asked for, or None."""
        return self.target.host

    @property
    def port(self) -> int:
        """The port asked for."""
        return self.target.port

    @property
    def flags(self) -> ConnectionFlags:
        """See the contract."""
        found = ConnectionFlags.SECONDARY if self.promise is not None else ConnectionFlags.NONE
        extra = self._extra
        if self.emulator is not None or (extra is not None and extra.bind_emulator is not None):
            found |= ConnectionFlags.EMULATED
        if extra is not None and extra.full_proxy:
            found |= ConnectionFlags.FULL_PROXY
        return found

    def emulates(self, name: str) -> bool:
        """Whether this filter is the other side."""
        if self.emulator is not None and self.emulator.name == name:
            return True
        return self._extra is not None and self._extra.bind_emulator == name

    @property
    def external_peer_name(self) -> SocketName:
        """Address and port of the server, or of who arrived. Raises NotConnected before there is one."""
        if self._extra is not None and self._extra.peer_name is not None:
            return self._extra.peer_name
        if self.peer is None:
            raise NotConnected("the outer leg does not exist yet")
        return str(self.peer), self.target.port

    @property
    def external_socket_name(self) -> SocketName:
        """Our own address and port toward the server. Raises NotConnected before the outer leg exists."""
        if self.end is not None:
            raise Terminating("this connection has ended")
        extra = self._extra
        if extra is not None and (name := extra.socket_name if extra.udp is None else extra.udp.own_name()):
            return name
        if not isinstance(self.external, Leg):
            raise NotConnected("the outer leg does not exist yet, or has been given to the relay")
        return self.external.local_name

    @property
    def told_name(self) -> SocketName:
        """What the client is told as our outer address; zeros where nobody knows one."""
        try:
            return self.external_socket_name
        except NotConnected:
            return UNSPECIFIED

    @property
    def ip_filter(self) -> IpFilter | None:
        """See the contract."""
        found = self._extra.ip_filter if self._extra is not None else None
        return None if found is None else found.clone()

    def set_ip_filter(self, ip_filter: IpFilter | None) -> None:
        """See the contract."""
        self._expect_alive()
        if ConnectionFlags.EMULATED in self.flags:
            raise BadContext("an emulated connection has no peers to filter")
        self.extra.admit(copied_filter(ip_filter))

    def attach_data_filter(
        self, data_filter: DataFilter, priority: Priority | None = None, context: object = None
    ) -> None:
        """See the contract."""
        handling = self._in_handler(ATTACHABLE)
        if handling.kind is EventKind.BIND and self.transport != "udp":
            raise BadContext("a TCP bind has no data: attach where the peer arrives, in on_accept")
        chain = self if handling.destination is None else handling.destination
        chain.attached.append(_attached(data_filter, priority, context, handling.entry.name))

    def attach_data_filter_with_destination(
        self,
        data_filter: DataFilter,
        destination: SocketName,
        priority: Priority | None = None,
        context: object = None,
    ) -> None:
        """See the contract."""
        handling = self._in_handler(frozenset({EventKind.BIND, EventKind.UDP_DESTINATION}))
        if self.transport != "udp" or self.extra.udp is None:
            raise BadContext("legal only for UDP")
        chain = self.extra.udp.destination(destination)
        chain.attached.append(_attached(data_filter, priority, context, handling.entry.name))

    def deny(self, reason: str = "denied_by_filter") -> None:
        """See the contract."""
        self._in_handler(DENIABLE)
        self.denied = slug_or(reason, "denied_by_filter")

    def emulate_for_connect(self, data_filter: DataFilter, context: object = None) -> None:
        """See the contract."""
        handling = self._in_handler(frozenset({EventKind.CONNECT}))
        if self.emulator is not None:
            raise AlreadyEmulated(f'filter "{self.emulator.name}" emulates this connection')
        self.emulator = _attached(data_filter, Priority.EMULATION, context, handling.entry.name)

    def emulate_for_bind(self) -> None:
        """See the contract."""
        handling = self._in_handler(frozenset({EventKind.BIND}))
        if self.transport != "tcp":
            raise NotSupported("a UDP bind cannot be emulated")
        if self.extra.bind_emulator is not None:
            raise AlreadyEmulated(f'filter "{self.extra.bind_emulator}" emulates this bind')
        self.extra.bind_emulator = handling.entry.name

    def emulate_connection(
        self, data_filter: DataFilter, remote: SocketName, local: SocketName, context: object = None
    ) -> Connection:
        """See the contract."""
        self._expect_alive()
        if self._extra is None or self._extra.bind_emulator is None:
            raise NotEmulated("only for a bind that a filter emulates")
        emulator = _attached(data_filter, Priority.EMULATION, context, self._extra.bind_emulator)
        return self.engine.arrivals.emulate(self, emulator, remote, local)

    def increment_bytes_sent(self, count: int) -> None:
        """See the contract."""
        if self.emulator is None:
            raise NotEmulated("the firewall counts what it carries itself")
        if not 0 <= count <= BYTES_COUNTED_MAX - self.bytes_sent or int(count) != count:
            raise BadArgument(f"{count} bytes cannot have been sent")
        self.bytes_sent += int(count)

    def set_socket_name(self, name: SocketName) -> None:
        """See the contract."""
        self._expect_alive()
        if ConnectionFlags.EMULATED not in self.flags:
            raise NotEmulated("the firewall names its own sockets")
        if self.extra.socket_name is not None:
            raise AlreadyExists("its name was given before")
        self.extra.socket_name = checked_name(name)

    def set_client_address(self, name: SocketName) -> None:
        """See the contract."""
        self._expect_alive()
        if self._extra is None or not self._extra.leads_to_client:
            raise NotSupported("only what bind_for_client has bound leads to an address of the client")
        if self._extra.client_name is not None:
            raise AlreadyExists("the client's address was given before")
        self._extra.client_name = client_name(self.session, name)
        self.engine.arrivals.client_known(self)

    def set_buffer_size(self, bytes_max: int) -> None:
        """See the contract."""
        if type(bytes_max) is not int or not 0 < bytes_max <= BUFFER_BYTES_MAX:
            raise BadArgument(f"a buffer of {bytes_max} bytes; 1 to {BUFFER_BYTES_MAX} are possible")
        self.extra.limit_buffer(bytes_max)
        for side in (self.internal, self.external):
            if isinstance(side, Leg):
                side.chunk_max = bytes_max

    def apply_buffer_size(self, leg: Leg) -> None:
        """The outer leg stands: hold it to what was set before."""
        if self._extra is not None and self._extra.buffer_size is not None:
            leg.chunk_max = self._extra.buffer_size

    def note(self, reason: str, by: str) -> None:
        """See the contract."""
        noted = Verdict(by, "noted", slug_or(reason, "refused_by_filter"))
        if noted not in self.verdicts and sum(v.verdict == "noted" for v in self.verdicts) < NOTES_MAX:
            self.verdicts.append(noted)

    def kill(self) -> None:
        """See the contract."""
        self.engine.kill(self)

    def release(self) -> None:
        """It has ended: so do its promises, and what listens for it."""
        if self._extra is not None:
            cancel_all(self._extra.promises)
            if self._extra.listening is not None:
                self._extra.listening.close()

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

    def _expect_alive(self) -> None:
        if self.end is not None:
            raise Terminating("this connection has ended")

    def _in_handler(self, kinds: frozenset[EventKind]) -> Handling:
        self._expect_alive()
        handling = self.handling
        if handling is None or handling.kind not in kinds or AT_WORK.get() is not handling.entry:
            legal = ", ".join(sorted(f"on_{kind}" for kind in kinds))
            raise BadContext(f"legal only inside {legal}")
        return handling


def _attached(data_filter: DataFilter, priority: Priority | None, context: object, name: str) -> Attached:
    """Raises BadArgument: a class in place of an object, for one."""
    if not isinstance(data_filter, DataFilter):
        raise BadArgument(f"{data_filter!r:.80} is no data filter")
    place = data_filter.priority if priority is None else priority
    if not isinstance(place, Priority):
        raise BadArgument(f"{place!r:.80} is no priority")
    data_filter.context = context
    return Attached(place, data_filter, name)
