"""Events to filters, in the order of the policy file, each under a deadline, each contained.

Most handlers do not wait: such a handler costs a call and no timer. One that waits gets the rest of its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from doorward.api.errors import DoorwardError, FilterStalled, Refuse
from doorward.api.events import (
    AcceptEvent,
    BindEvent,
    ConnectEvent,
    EstablishedEvent,
    EventKind,
    ListenEvent,
    TerminatingEvent,
    UdpDestinationEvent,
)
from doorward.api.filters import SessionFilter
from doorward.engine.association import FilterEntry
from doorward.engine.at_work import AT_WORK, as_work_of
from doorward.engine.containment import contained
from doorward.engine.operation import Handling
from doorward.engine.supervision import Holder, Watchdog, Watched, is_being_cancelled
from doorward.policy.model import Verdict

if TYPE_CHECKING:
    from doorward.engine.connection import Connection
    from doorward.engine.extra import DestinationChain
    from doorward.engine.session import Session

SettingsEvent: TypeAlias = ConnectEvent | UdpDestinationEvent | BindEvent | ListenEvent | AcceptEvent

HANDLERS: Final = {kind: f"on_{kind}" for kind in EventKind}


class HandlerFailed(Exception):
    """A handler raised or stalled."""

    def __init__(self, error: DoorwardError, filter_name: str, cause: BaseException) -> None:
        super().__init__(error.reason)
        self.error = error
        self.filter = filter_name
        self.cause = cause


async def dispatch(
    connection: Connection,
    kind: EventKind,
    event: SettingsEvent,
    destination: DestinationChain | None = None,
) -> None:
    """One event to each associated filter that wants this kind, until one denies. Raises HandlerFailed.

    Whether it was denied stands in `connection.denied`, or in the destination.
    """
    chain = connection if destination is None else destination
    handler, rule = HANDLERS[kind], chain.decision.rule
    for entry in chain.entries:
        if kind not in entry.interest.events:
            continue
        connection.handling = Handling(entry, kind, destination)
        attached_before = len(chain.attached)
        settings = entry.settings_of(rule)
        own = event if settings is event.settings else replace(event, settings=settings)
        try:
            await _deliver(connection, entry, handler, own)
        except HandlerFailed as failed:
            _go_on_without(connection, entry, failed, chain)
        else:
            chain.verdicts.append(_verdict(connection, entry, chain, attached_before))
        finally:
            connection.handling = None
        if chain.denied is not None or connection.end is not None:
            return


async def dispatch_connect(connection: Connection) -> None:
    """`on_connect` to each filter that wants it, until one denies. Raises HandlerFailed."""
    address = str(next(iter(connection.addresses)))
    event = ConnectEvent(
        connection,
        connection.host,
        address,
        connection.port,
        connection.protocol,
        connection.promise is not None,
        _first_settings(connection, EventKind.CONNECT),
    )
    await dispatch(connection, EventKind.CONNECT, event)


def _first_settings(connection: Connection, kind: EventKind) -> object:
    """Those of the first filter that will hear of it: where it is the only one, its event need not be copied."""
    rule = connection.decision.rule
    return next((e.settings_of(rule) for e in connection.entries if kind in e.interest.events), None)


async def dispatch_established(connection: Connection) -> None:
    """`on_established` to who promised the connection, and to who asked for it of every one. Raises HandlerFailed."""
    promise, told = connection.promise, None
    if promise is not None and promise.holder is not None:
        told = await tell_holder(connection, promise.holder, promise.context, promise.session)
    for entry in connection.entries:
        if EventKind.ESTABLISHED not in entry.interest.events or connection.end is not None or entry is told:
            continue
        try:
            await _deliver(connection, entry, "on_established", EstablishedEvent(connection))
        except HandlerFailed as failed:
            _go_on_without(connection, entry, failed, connection)


def hear_of_ends(connection: Connection) -> bool:
    """Whether any filter that joined has something to do at the end. Most have not, and cost no task then."""
    return any(type(f).on_terminating is not SessionFilter.on_terminating for f in connection.joined.values())


async def dispatch_terminating(connection: Connection, end: str) -> None:
    """`on_terminating` to every filter that joined; a failure is logged and stops nobody else."""
    event = TerminatingEvent(connection, connection.bytes_sent, connection.bytes_received, end)
    for entry in tuple(connection.joined):
        try:
            await _deliver(connection, entry, "on_terminating", event)
        except HandlerFailed as failed:
            connection.engine.filter_failed(connection, failed.filter, failed.cause)


async def tell_holder(
    connection: Connection, holder: SessionFilter, context: object, owner: Session | None = None
) -> FilterEntry | None:
    """The one that made the promise, in the name of `owner` if that is another session. Raises HandlerFailed.

    Returns who that is; None if it is in force no longer, or never has been (a test's).
    """
    entries = connection.ruling.associations.entries
    entry = (owner or connection.session).entry_of(holder, entries)
    if entry is not None:
        connection.joined.setdefault(entry, holder)
    name = entry.name if entry is not None else type(holder).__name__
    try:
        telling = _tell(holder, EstablishedEvent(connection, context))
        await contained_call(connection, name, as_work_of(entry, telling))
    except HandlerFailed as failed:
        if entry is None:
            raise
        _go_on_without(connection, entry, failed, connection)
    return entry


async def _tell(holder: SessionFilter, event: EstablishedEvent) -> None:
    """The call itself is filter code, too."""
    await holder.on_established(event)


def _go_on_without(
    connection: Connection, entry: FilterEntry, failed: HandlerFailed, chain: Connection | DestinationChain
) -> None:
    """Without a filter that failed, and what it attached; raises the failure again unless policy says `open`.

    Refuse is said on purpose: it is a denial, and never opens anything.
    """
    if isinstance(failed.error, Refuse):
        chain.verdicts.append(Verdict(entry.name, "denied", failed.error.reason))
        raise failed
    chain.verdicts.append(Verdict(entry.name, "failed", failed.error.reason))
    if entry.fail == "closed" or connection.emulates(entry.name):
        raise failed
    chain.attached = [item for item in chain.attached if item.name != entry.name]
    connection.engine.filter_failed(connection, failed.filter, failed.cause)


def _verdict(
    connection: Connection, entry: FilterEntry, chain: Connection | DestinationChain, attached_before: int
) -> Verdict:
    if chain.denied is not None:
        return Verdict(entry.name, "denied", chain.denied)
    if connection.emulates(entry.name):
        return Verdict(entry.name, "emulated")
    return Verdict(entry.name, "attached" if len(chain.attached) > attached_before else "joined")


async def _deliver(connection: Connection, entry: FilterEntry, handler: str, event: object) -> None:
    """One event to one filter. Raises HandlerFailed."""
    await contained_call(connection, entry.name, _call(connection, entry, handler, event))


async def contained_call(connection: Connection, name: str, call: Coroutine[Any, Any, None]) -> None:
    """Filter code in a connection's name: under the watchdog, under the deadline, contained. Raises HandlerFailed."""
    timeout_s = connection.ruling.limits.event_timeout_s
    await contained_within(connection.engine.watchdog, connection.holder, name, call, timeout_s)


async def contained_within(
    watchdog: Watchdog, holder: Holder, name: str, call: Coroutine[Any, Any, None], timeout_s: float
) -> None:
    """The same in nobody's name. Raises HandlerFailed."""
    try:
        await within(watchdog, holder, call, timeout_s)
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise HandlerFailed(contained(error), name, error) from error
    except Exception as error:
        if is_being_cancelled():  # whatever it made of that
            raise asyncio.CancelledError from error
        raise HandlerFailed(contained(error), name, error) from error


async def _call(connection: Connection, entry: FilterEntry, handler: str, event: object) -> None:
    before = AT_WORK.get()
    AT_WORK.set(entry)
    try:
        session_filter = connection.joined.get(entry)
        if session_filter is None:
            session_filter = connection.joined[entry] = connection.session.filter_of(entry)
        await getattr(session_filter, handler)(event)
    finally:
        AT_WORK.set(before)


async def within(
    watchdog: Watchdog, holder: Holder, handler: Coroutine[Any, Any, None], timeout_s: float
) -> None:
    """Run filter code to its end. Raises FilterStalled after the deadline, and what the code raises."""
    watched = Watched(watchdog, holder, handler)
    try:
        wanted = watched.send(None)
    except StopIteration:
        return
    deadline = asyncio.timeout(timeout_s)
    try:
        async with deadline:
            await _Rest(watched, wanted)
    except TimeoutError:
        if deadline.expired():
            raise FilterStalled(f"an event handler did not come back within {timeout_s:g} s") from None
        raise


class _Rest(Awaitable[None]):
    """The rest of a coroutine whose first step has been taken and waits for `wanted`."""

    def __init__(self, watched: Watched[None], wanted: Any) -> None:
        self._watched = watched
        self._wanted = wanted

    def __await__(self) -> Generator[Any, Any, None]:
        return self._watched.drive(self._wanted)
