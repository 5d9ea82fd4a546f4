"""Events to filters, in the order of the policy file, each under a deadline, each contained.

Most handlers do not wait: such a handler costs a call and no timer. One that waits gets the rest of its deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine, Generator
from typing import TYPE_CHECKING, Any

from doorward.api.errors import DoorwardError, FilterStalled, Refuse
from doorward.api.events import ConnectEvent, EstablishedEvent, EventKind, TerminatingEvent
from doorward.engine.association import FilterEntry, wants_established
from doorward.engine.containment import contained
from doorward.engine.supervision import Holder, Watchdog, Watched, is_being_cancelled
from doorward.policy.model import Verdict

if TYPE_CHECKING:
    from doorward.engine.connection import Connection


class HandlerFailed(Exception):
    """A handler raised or stalled."""

    def __init__(self, error: DoorwardError, filter_name: str, cause: BaseException) -> None:
        super().__init__(error.reason)
        self.error = error
        self.filter = filter_name
        self.cause = cause


async def dispatch_connect(connection: Connection) -> None:
    """`on_connect` to each associated filter until one denies. Raises HandlerFailed."""
    address = str(next(iter(connection.addresses)))
    event = ConnectEvent(connection, connection.host, address, connection.port, connection.protocol)
    for entry in connection.entries:
        if EventKind.CONNECT not in entry.interest.events:
            continue
        connection.handling = entry
        attached_before = len(connection.attached)
        try:
            await _deliver(connection, entry, "on_connect", event)
        except HandlerFailed as failed:
            _go_on_without(connection, entry, failed)
        else:
            connection.verdicts.append(_verdict(connection, entry, attached_before))
        finally:
            connection.handling = None
        if connection.denied is not None or connection.end is not None:
            return


async def dispatch_established(connection: Connection) -> None:
    """`on_established` to the filters that asked for it. Raises HandlerFailed."""
    event = EstablishedEvent(connection)
    for entry in connection.entries:
        if not wants_established(entry):
            continue
        try:
            await _deliver(connection, entry, "on_established", event)
        except HandlerFailed as failed:
            _go_on_without(connection, entry, failed)
        if connection.end is not None:
            return


async def dispatch_terminating(connection: Connection, end: str) -> None:
    """`on_terminating` to every filter that joined; a failure is logged and stops nobody else."""
    event = TerminatingEvent(connection, connection.bytes_sent, connection.bytes_received, end)
    for entry in tuple(connection.joined):
        try:
            await _deliver(connection, entry, "on_terminating", event)
        except HandlerFailed as failed:
            connection.engine.filter_failed(connection, failed.filter, failed.cause)


def _go_on_without(connection: Connection, entry: FilterEntry, failed: HandlerFailed) -> None:
    """Without a filter that failed, and what it attached; raises the failure again unless policy says `open`.

    Refuse is said on purpose: it is a denial, and never opens anything.
    """
    if isinstance(failed.error, Refuse):
        connection.verdicts.append(Verdict(entry.name, "denied", failed.error.reason))
        raise failed
    connection.verdicts.append(Verdict(entry.name, "failed", failed.error.reason))
    if entry.fail == "closed":
        raise failed
    connection.attached = [item for item in connection.attached if item.name != entry.name]
    connection.engine.filter_failed(connection, failed.filter, failed.cause)


def _verdict(connection: Connection, entry: FilterEntry, attached_before: int) -> Verdict:
    if connection.denied is not None:
        return Verdict(entry.name, "denied", connection.denied)
    return Verdict(entry.name, "attached" if len(connection.attached) > attached_before else "joined")


async def _deliver(connection: Connection, entry: FilterEntry, handler: str, event: object) -> None:
    """One event to one filter: under the watchdog, under the deadline, contained. Raises HandlerFailed."""
    timeout_s = connection.ruling.limits.event_timeout_s
    try:
        await within(
            connection.engine.watchdog, connection.holder, _call(connection, entry, handler, event), timeout_s
        )
    except asyncio.CancelledError as error:
        if is_being_cancelled():
            raise
        raise HandlerFailed(contained(error), entry.name, error) from error
    except Exception as error:
        raise HandlerFailed(contained(error), entry.name, error) from error


async def _call(connection: Connection, entry: FilterEntry, handler: str, event: object) -> None:
    session_filter = connection.joined.get(entry)
    if session_filter is None:
        session_filter = connection.joined[entry] = connection.session.filter_of(entry)
    await getattr(session_filter, handler)(event)


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
