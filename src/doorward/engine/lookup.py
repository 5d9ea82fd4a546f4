"""Names and addresses looked up on a client's behalf, with the filters that want to hear of it.

`on_resolve` is told twice, before and after; whatever a filter answers instead is judged by policy like any other
answer. Without an interested filter a look-up is the resolver's and costs no more.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from doorward.api.errors import (
    AccessDenied,
    BadArgument,
    BadContext,
    FilterFailed,
    NameNotFound,
    NotFound,
    Refuse,
    ReplyHint,
    Side,
    slug_or,
)
from doorward.api.events import ResolveEvent
from doorward.config.ports import parse_ports
from doorward.engine.at_work import as_work_of
from doorward.engine.dispatch import HandlerFailed, contained_within
from doorward.engine.judgement import judge
from doorward.engine.supervision import Holder
from doorward.engine.target import target_of
from doorward.net.resolve import ADDRESSES_MAX
from doorward.policy.address import BadHost, canonical, parse_host
from doorward.policy.model import Decision, IPAddress, PortRange, Protocols, Verdict

if TYPE_CHECKING:
    from doorward.api.filters import ApplicationFilter
    from doorward.engine.association import FilterEntry
    from doorward.engine.connection import Connection
    from doorward.engine.engine import Engine
    from doorward.engine.session import Session
    from doorward.net.resolve import Addresses


# Whose on_resolve this task is in: a filter that looks something up in there does not hear of that itself.
_answering: Final[ContextVar[frozenset[ApplicationFilter]]] = ContextVar("answering", default=frozenset())


class ClientResolver(NamedTuple):
    """Looks names up for one client; fulfils `judgement.Resolve`."""

    engine: Engine
    session: Session
    connection: Connection | None

    async def resolve(self, name: str) -> Addresses:
        """As `look_up_name`."""
        return await look_up_name(self.engine, self.session, self.connection, name)


async def look_up_name(
    engine: Engine, session: Session, connection: Connection | None, name: str
) -> Addresses:
    """The addresses of a name. Raises NameNotFound and LinkError kinds, AccessDenied if a filter denies it or fails.

    For a connection, a filter that fails is a HandlerFailed.
    """
    session.expect_alive()
    question = _Question(engine, session, connection, name=name)

    async def ask() -> tuple[str, ...]:
        return tuple(map(str, await engine.resolver.resolve(name)))

    if not question.entries:
        return await engine.resolver.resolve(name)
    return tuple(map(_parsed, await question.answer(ask)))


async def told_of_name(engine: Engine, session: Session, name: str) -> tuple[str, ...]:
    """For who asks for something else of a name than addresses: filters hear of it before, and only before.

    What they answer instead, mostly nothing. Raises AccessDenied if a filter denies it or fails.
    """
    session.expect_alive()
    return await _Question(engine, session, None, name=name).tell(())


async def look_up_host(engine: Engine, session: Session, host: str) -> tuple[str, ...]:
    """What a filter asks for in a session's name: as a client's name is read, and an address is its own answer.

    Raises as `look_up_name`, NameNotFound for what can be no name.
    """
    session.expect_alive()
    meant = meant_host(host)
    if not isinstance(meant, str):
        return (str(meant),)
    return tuple(map(str, await look_up_name(engine, session, None, meant)))


def meant_host(host: str) -> str | IPAddress:
    """The name or address that a filter wrote. Raises NameNotFound for what can be neither."""
    try:
        meant = parse_host(host)
    except BadHost as error:
        raise NameNotFound(error.detail, side=Side.OURS) from None
    return meant if isinstance(meant, str) else canonical(meant)


async def look_up_address(engine: Engine, session: Session, address: str) -> tuple[str, ...]:
    """The names of an address. Raises as `look_up_name`, BadArgument for what is no address."""
    session.expect_alive()
    try:
        meant = canonical(ipaddress.ip_address(address))
    except ValueError:
        raise BadArgument(f"{address!r} is no address") from None
    question = _Question(engine, session, None, address=str(meant))
    return await question.answer(lambda: engine.resolver.resolve_address(meant))


async def check_access(
    engine: Engine, session: Session, protocol: str, host: str, port: int | None
) -> Decision:
    """See `api.Session.check_access`."""
    session.expect_alive()
    ruling = engine.ruling
    ports, asked = _ports(protocol, port, ruling.associations.protocols)
    try:
        target = target_of(host, asked)
    except BadHost as error:
        raise BadArgument(error.detail) from None
    judged = await judge(
        ruling.policy,
        ClientResolver(engine, session, None),
        engine.own_addresses.is_own,
        session,
        target,
        user=session.user,
        now_s=time.time(),
        transport=ports.transport,
    )
    return judged.decision


def _ports(protocol: str, port: int | None, protocols: Protocols) -> tuple[PortRange, int]:
    """The ports meant and one of them: the first, if nobody says which. Raises NotFound."""
    named = _named(protocol, protocols)
    if port is None:
        return named[0], named[0].first
    for ports in named:
        if ports.first <= port <= ports.last:
            return ports, port
    raise NotFound(f'port {port} is none of "{protocol}"')


def _named(protocol: str, protocols: Protocols) -> tuple[PortRange, ...]:
    """What a protocol stands for. Raises NotFound."""
    if "/" not in protocol:
        named = protocols.ports.get(protocol)
        if not named:
            raise NotFound(f'the policy knows no protocol "{protocol}"')
        return named
    try:
        return (parse_ports(protocol),)
    except ValueError as error:
        raise NotFound(f'"{protocol}": {error}') from None


def _parsed(text: str) -> IPAddress:
    """An address that a filter wrote. Raises ValueError."""
    return canonical(ipaddress.ip_address(text.partition("%")[0]))


class _Question:
    """One look-up with its two events."""

    def __init__(
        self,
        engine: Engine,
        session: Session,
        connection: Connection | None,
        *,
        name: str | None = None,
        address: str | None = None,
    ) -> None:
        self._engine = engine
        self._session = session
        self._connection = connection
        self._name = name
        self._address = address
        self._ruling = engine.ruling if connection is None else connection.ruling
        self._open = False
        kind = None if connection is None else connection.origin.kind
        answering = _answering.get()
        self.entries = [
            e
            for e in self._ruling.associations.resolving
            if (kind is None or kind in e.interest.clients) and e.application_filter not in answering
        ]

    async def answer(self, ask: Callable[[], Awaitable[tuple[str, ...]]]) -> tuple[str, ...]:
        """What filters and `ask` make of it."""
        results = await self.tell(())
        if not results:
            results = await self.tell(await ask(), before=False)
        if not results:
            raise NameNotFound("a filter has answered with nothing", side=Side.OURS)
        return results

    async def tell(self, results: tuple[str, ...], *, before: bool = True) -> tuple[str, ...]:
        """One of the two events to each filter; before the look-up, the first answer ends the asking."""
        for entry in self.entries:
            event = ResolveEvent(
                self._session,
                self._connection,
                name=self._name,
                address=self._address,
                results=results,
                before=before,
                expect_open=self._expect_open,
            )
            try:
                await self._deliver(entry, event)
                if event.results is not results:
                    self._expect_sound(entry, event.results)
            except HandlerFailed as failed:
                self._go_on_without(entry, failed)
                continue
            if event.denied is not None:
                self._deny(entry, slug_or(str(event.denied), "denied_by_filter"))
            results = event.results
            if before and results:
                break
        return results

    async def _deliver(self, entry: FilterEntry, event: ResolveEvent) -> None:
        connection, engine = self._connection, self._engine
        holder = Holder() if connection is None else connection.holder
        token = _answering.set(_answering.get() | {entry.application_filter})
        self._open = True
        try:
            await contained_within(
                engine.watchdog,
                holder,
                entry.name,
                as_work_of(entry, self._call(entry, event)),
                self._ruling.limits.event_timeout_s,
            )
        finally:
            self._open = False
            _answering.reset(token)
            if connection is None:
                holder.end()

    async def _call(self, entry: FilterEntry, event: ResolveEvent) -> None:
        session_filter = self._session.filter_of(entry)
        if self._connection is not None:
            self._connection.joined.setdefault(entry, session_filter)
        await session_filter.on_resolve(event)

    def _expect_sound(self, entry: FilterEntry, results: object) -> None:
        """Raises HandlerFailed for an answer that can be none."""
        try:
            if not isinstance(results, tuple) or len(results) > ADDRESSES_MAX:
                raise BadArgument(f"a tuple of up to {ADDRESSES_MAX} results is possible")
            for text in results:
                if not isinstance(text, str):
                    raise BadArgument(f"{type(text).__name__} among the results")
                if self._name is not None:
                    _parsed(text)
        except (BadArgument, ValueError) as error:
            raise HandlerFailed(FilterFailed(f"on_resolve: {error}"), entry.name, error) from error

    def _go_on_without(self, entry: FilterEntry, failed: HandlerFailed) -> None:
        """As for any event: closed, unless policy says `open`; and a refusal on purpose never opens anything."""
        connection, reason = self._connection, failed.error.reason
        if isinstance(failed.error, Refuse):
            self._deny(entry, reason)
        if connection is not None:
            connection.verdicts.append(Verdict(entry.name, "failed", reason))
            if entry.fail == "closed":
                raise failed
        self._engine.filter_failed(connection, failed.filter, failed.cause)
        if entry.fail == "closed":
            raise AccessDenied(reason, f'filter "{entry.name}"', hint=ReplyHint.NAME_NOT_FOUND) from failed

    def _deny(self, entry: FilterEntry, reason: str) -> NoReturn:
        if self._connection is not None:
            self._connection.verdicts.append(Verdict(entry.name, "denied", reason))
        raise AccessDenied(reason, f'filter "{entry.name}"', hint=ReplyHint.NAME_NOT_FOUND)

    def _expect_open(self) -> None:
        if not self._open:
            raise BadContext("legal only inside on_resolve")
