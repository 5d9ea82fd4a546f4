"""Answers DNS queries as policy has it, whoever they were sent to. Sockets are the business of who catches them.

A name is judged first, by what some connection to it could be allowed (policy/possibility): a name that no rule could
allow is never looked up. It is told as NXDOMAIN, on which programs give up at once and say something sensible; an
extended error names reason and rule, and a record does. Addresses come from the same resolver and the same events as
for any client; each is judged, and only those that could be connected to are told and remembered (memory). A name that
leads nowhere else than to guarded addresses is refused like any other.

Nothing is raised to who calls; whatever goes wrong is an answer that says so (SERVFAIL), or silence.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from doorward.api.errors import Side, TimedOut
from doorward.engine.judgement import inputs_of
from doorward.engine.names.asked import WAITING_OF_ALL_MAX, NamesAsked
from doorward.engine.names.message import (
    EDE_NO_AUTHORITY,
    EDE_NOT_READY,
    EDE_NOT_SUPPORTED,
    NOTIMP,
    REFUSED,
    SERVFAIL,
    BadMessage,
    Extended,
    Query,
    Way,
    read_query,
    refusal,
)
from doorward.engine.names.question import Asking, is_supported
from doorward.engine.recording import record_of_name
from doorward.engine.target import Target
from doorward.net.nameservers import Nameservers
from doorward.policy.possibility import Possibilities

if TYPE_CHECKING:
    from doorward.engine.engine import Engine
    from doorward.engine.origin import Origin
    from doorward.engine.session import Session
    from doorward.policy.model import Decision, IPAddress

QUERY_RATE: Final = "dns_query_rate"
DNS_MALFORMED: Final = "dns_malformed"


class NameServer:
    """One for an engine. `nameservers` are asked for what is not an address; by default those of this machine."""

    def __init__(self, engine: Engine, nameservers: Nameservers | None = None) -> None:
        self.engine = engine
        self.nameservers = nameservers or Nameservers()
        self._possibilities: Possibilities | None = None
        self._waiting = 0  # of all sessions

    async def answer(self, session: Session, origin: Origin, data: bytes, way: Way) -> bytes:
        """The reply to one message, empty for none; within `resolve_timeout_s`.

        `origin` says how the client came in, for the record. A datagram's reply fits what its sender takes.
        """
        if session.ended:
            return b""
        if not self._may_ask(session, origin, way):
            return refusal(data, REFUSED) if len(data) >= 12 and not data[2] & 0x80 else b""
        return await self._answer(session, origin, data, way)

    def datagram(
        self, session: Session, origin: Origin, data: bytes, send: Callable[[bytes], object]
    ) -> None:
        """Answer one datagram in a task of the supervisor's, by `send`. Too many of them are dropped at once."""
        if not session.ended and self._may_ask(session, origin, "udp"):
            self.engine.supervisor.spawn(self._answer_datagram(session, origin, data, send), name="name")

    def possible(self, session: Session, host: str | None, address: IPAddress | None = None) -> Decision:
        """Whether some connection of this session to there could be allowed, by what is in force now."""
        engine = self.engine
        policy = engine.ruling.policy
        if self._possibilities is None or self._possibilities.policy is not policy:
            self._possibilities = Possibilities(policy)
        target = Target(host, address, 0)
        is_own = engine.own_addresses.is_own
        return self._possibilities.judge(inputs_of(session, target, session.user, time.time(), is_own))

    def put_on_record(
        self,
        session: Session,
        origin: Origin,
        way: Way,
        host: str | None,
        reason: str,
        *,
        rule: str | None = None,
        address: IPAddress | None = None,
        detail: str = "",
        failed: bool = False,
    ) -> None:
        """Put it on record, unless the same was within the last seconds. `failed`: nobody has refused it."""
        if self.asked_of(session).is_new_refusal(str(host or address or ""), reason, self._now_s()):
            revision = self.engine.ruling.policy.revision
            record = record_of_name(session, origin, revision, host, reason, rule=rule, transport=way)
            record.address, record.detail = None if address is None else str(address), detail or None
            if failed:
                record.action, record.end, record.ended_by = "fail", "failed", Side.EXTERNAL
            self.engine.recorder.append(record)

    def asked_of(self, session: Session) -> NamesAsked:
        """What this session has asked; made at its first query. One that has ended keeps nothing."""
        asked = session.asked
        if asked is None:
            asked = NamesAsked(self._now_s())
            if not session.ended:
                session.asked = asked
        return asked

    def _now_s(self) -> float:
        return self.engine.poller.loop.time()

    def _may_ask(self, session: Session, origin: Origin, way: Way) -> bool:
        if self._waiting < WAITING_OF_ALL_MAX and self.asked_of(session).may_ask(self._now_s()):
            return True
        self.put_on_record(session, origin, way, None, QUERY_RATE)
        return False

    async def _answer_datagram(
        self, session: Session, origin: Origin, data: bytes, send: Callable[[bytes], object]
    ) -> None:
        reply = await self._answer(session, origin, data, "udp")
        if reply:
            send(reply)

    async def _answer(self, session: Session, origin: Origin, data: bytes, way: Way) -> bytes:
        try:
            query = read_query(data)
        except BadMessage as bad:
            self.put_on_record(session, origin, way, None, DNS_MALFORMED, detail=str(bad))
            return bad.reply
        if not is_supported(query):
            text = f"{query.type_text} is not answered here"
            return query.reply(way, rcode=NOTIMP, extended=Extended(EDE_NOT_SUPPORTED, text))
        if self.engine.recorder.refuses() is not None:
            return query.reply(way, rcode=SERVFAIL, extended=Extended(EDE_NOT_READY, "log_unavailable"))
        return await self._answer_in_turn(session, origin, query, way)

    async def _answer_in_turn(self, session: Session, origin: Origin, query: Query, way: Way) -> bytes:
        """Few at a time; who asks is not idle."""
        asked, sessions = self.asked_of(session), self.engine.sessions
        timeout_s = self.engine.ruling.limits.resolve_timeout_s
        sessions.enter(session)
        asked.waiting += 1
        self._waiting += 1
        try:
            async with asyncio.timeout(timeout_s), asked.turns:
                return await Asking(self, session, origin, asked, query, way, timeout_s).reply()
        except TimeoutError:
            reason, detail, name = TimedOut.slug, query.type_text, query.name.lower()
            self.put_on_record(session, origin, way, name, reason, detail=detail, failed=True)
            return query.reply(way, rcode=SERVFAIL, extended=Extended(EDE_NO_AUTHORITY, reason))
        finally:
            asked.waiting -= 1
            self._waiting -= 1
            sessions.leave(session)
