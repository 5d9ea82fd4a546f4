"""One question of one client: what is told, by what was asked for.

    A, AAAA           addresses of our resolver, those that policy could let a connection go to
    HTTPS, SVCB       no data: they carry addresses, other names and keys of their own, past what was judged
    PTR               names that this session asked for, else the resolver's
    MX, TXT, SRV, …   passed on to the machine's name servers, if the name could be allowed
    anything else     not answered (NOTIMP): ANY, zone transfers, types whose data nobody here could look at

Names under `localhost` are the client's own machine: answered at once, neither judged nor remembered (RFC 6761).
"""

from __future__ import annotations

import ipaddress
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from doorward.api.errors import AccessDenied, DoorwardError, NameNotFound
from doorward.engine.lookup import look_up_address, look_up_name, told_of_name
from doorward.engine.names.asked import NamesAsked
from doorward.engine.names.message import (
    ADDRESS_TYPES,
    EDE_BLOCKED,
    EDE_NETWORK_ERROR,
    EMPTY_TYPES,
    NXDOMAIN,
    PASSED_ON_TYPES,
    PTR,
    REFUSED,
    SERVFAIL,
    BadMessage,
    Extended,
    Query,
    Way,
)
from doorward.policy.address import BadHost, canonical, parse_host
from doorward.policy.model import Action, Decision, IPAddress

if TYPE_CHECKING:
    from doorward.engine.names.answering import NameServer
    from doorward.engine.origin import Origin
    from doorward.engine.session import Session

# For how long a client may keep what it was told: rules change, and so do names.
TTL_S: Final = 60
# Each is judged by itself, for a twentieth of a millisecond; a name of a stranger's may have as many as he likes.
ADDRESSES_MAX: Final = 32
LOCALHOST: Final = "localhost"
LOOPBACK: Final = (ipaddress.IPv4Address("127.0.0.1"), ipaddress.IPv6Address("::1"))


def is_supported(query: Query) -> bool:
    """Whether a query of this type is answered at all."""
    return query.type in ADDRESS_TYPES | EMPTY_TYPES | PASSED_ON_TYPES | {PTR}


class Asking(NamedTuple):
    """See the module."""

    server: NameServer
    session: Session
    origin: Origin
    asked: NamesAsked
    query: Query
    way: Way
    timeout_s: float

    async def reply(self) -> bytes:
        """In wire form. Raises nothing but cancellation."""
        try:
            return await self._reply()
        except AccessDenied as denied:  # by a filter
            return self._refuse(self.query.name.lower(), denied.reason, detail=denied.detail)
        except NameNotFound as error:
            self._tell_failure(error)
            return self.query.reply(self.way, rcode=NXDOMAIN)
        except DoorwardError as error:
            self._tell_failure(error)
            return self._fail(error.reason)
        except BadMessage as bad:
            return self._fail(str(bad))

    async def _reply(self) -> bytes:
        query = self.query
        if query.type == PTR and (address := query.reversed_address()) is not None:
            return await self._names_of(address)
        try:
            name = parse_host(query.name)
        except BadHost as bad:
            return self._refuse(query.name, bad.reason, detail=bad.detail)
        if not isinstance(name, str):
            return self._refuse(query.name, BadHost.reason, detail="this is an address, not a name")
        if name == LOCALHOST or name.endswith(f".{LOCALHOST}"):
            return query.reply(self.way, answer=query.addresses(LOOPBACK, TTL_S))
        decision = self.server.possible(self.session, name)
        if decision.action is Action.DENY:
            return self._refuse_by(decision, name)
        if query.type in EMPTY_TYPES:
            return query.reply(self.way)
        if query.type in ADDRESS_TYPES:
            return await self._addresses_of(name)
        return await self._passed_on(name)

    async def _addresses_of(self, name: str) -> bytes:
        """A name that is not there in this family is there all the same: no data, and no NXDOMAIN."""
        engine, session, query = self.server.engine, self.session, self.query
        found = dict.fromkeys(map(canonical, await look_up_name(engine, session, None, name)))
        judged = islice(found, ADDRESSES_MAX)
        decisions = {address: self.server.possible(session, name, address) for address in judged}
        could = [address for address, decision in decisions.items() if decision.action is not Action.DENY]
        if not could:
            address, decision = next(iter(decisions.items()))
            return self._refuse_by(decision, name, address)
        told = query.of_its_type(could)
        self.asked.memory.keep(name, told, engine.poller.loop.time())
        return query.reply(self.way, answer=query.addresses(told, TTL_S))

    async def _names_of(self, address: IPAddress) -> bytes:
        engine, query = self.server.engine, self.query
        names = self.asked.memory.names(address, engine.poller.loop.time())
        if not names and address.is_loopback:
            names = (LOCALHOST,)
        if not names:
            decision = self.server.possible(self.session, None, address)
            if decision.action is Action.DENY:
                return self._refuse_by(decision, None, address)
            names = await look_up_address(engine, self.session, str(address))
        return query.reply(self.way, answer=query.names(names, TTL_S))

    async def _passed_on(self, name: str) -> bytes:
        """Filters hear of the name first. If one gives it addresses of its own, there is nothing else behind it."""
        server, query = self.server, self.query
        if await told_of_name(server.engine, self.session, name):
            return query.reply(self.way)
        said = await server.nameservers.ask(query.question(), self.timeout_s)
        return query.passed_on(said, self.way, TTL_S)

    def _refuse_by(self, decision: Decision, name: str | None, address: IPAddress | None = None) -> bytes:
        return self._refuse(name, decision.reason, decision.rule, address)

    def _refuse(
        self,
        name: str | None,
        reason: str,
        rule: str | None = None,
        address: IPAddress | None = None,
        *,
        detail: str = "",
    ) -> bytes:
        """That there is no such name; of the root, which is always there, that it is not told."""
        server, query = self.server, self.query
        said = f"{query.type_text}: {detail}" if detail else query.type_text
        server.put_on_record(
            self.session, self.origin, self.way, name, reason, rule=rule, address=address, detail=said
        )
        text = f"{reason}: {detail}" if detail else reason if rule is None else f'{reason}: "{rule}"'
        rcode = NXDOMAIN if query.name else REFUSED
        return query.reply(self.way, rcode=rcode, extended=Extended(EDE_BLOCKED, text))

    def _tell_failure(self, error: DoorwardError) -> None:
        """Nobody has refused it, and it is not there all the same: who wonders why finds it in the log."""
        query = self.query
        said = f"{query.type_text}: {error.detail}" if error.detail else query.type_text
        name, reason = query.name.lower(), error.reason
        self.server.put_on_record(self.session, self.origin, self.way, name, reason, detail=said, failed=True)

    def _fail(self, reason: str) -> bytes:
        return self.query.reply(self.way, rcode=SERVFAIL, extended=Extended(EDE_NETWORK_ERROR, reason))
