"""Whether a mapping may speak to a destination: grants, policy, name look-up, events to filters, in this order.

An address that no filter wants to hear of is judged at once, without a task. A name, or a filter, is waited for in
a task of the supervisor's. The events of one mapping are told one after another, as those of any connection.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Generator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from doorward.api.errors import DoorwardError, OutOfResources, Refuse, ReplyHint
from doorward.api.events import EventKind, UdpDestinationEvent
from doorward.engine.connecting import decision_of
from doorward.engine.dispatch import HandlerFailed, dispatch, tell_holder
from doorward.engine.judgement import inputs_of, judge
from doorward.engine.lookup import ClientResolver
from doorward.engine.outcome import Refusal
from doorward.engine.system import SYSTEM_REASON
from doorward.engine.target import Target
from doorward.engine.udp.destination import AT_DESTINATION, State, socket_address
from doorward.policy.model import Action, Decision

if TYPE_CHECKING:
    from doorward.engine.ruling import Ruling
    from doorward.engine.udp.destination import Destination
    from doorward.engine.udp.mapping import Mapping
    from doorward.policy.model import IPAddress


class _InTask(Awaitable[None]):
    """What follows must run in a task."""

    def __await__(self) -> Generator[None, None, None]:
        yield


_IN_TASK: Final = _InTask()


def judge_destination(mapping: Mapping, destination: Destination, *, arrived: bool = False) -> None:
    """Judge a new destination, now or in a task; `mapping.settled` is called in the end, whatever the answer is.

    One that has `arrived` was admitted by who let peers come first, or by the promise that it carries: policy is not
    asked again, filters are told.
    """
    coroutine = _admit(mapping, destination, arrived=arrived)
    try:
        coroutine.send(None)
    except StopIteration:
        return
    # It has come to its first wait, which is for this: a task goes on with it as with any other.
    mapping.connection.engine.supervisor.spawn(coroutine, name="udp destination")


async def _admit(mapping: Mapping, destination: Destination, *, arrived: bool) -> None:
    """To its answer. Nothing is raised but cancellation."""
    ruling = mapping.connection.engine.ruling
    with _settling(mapping, destination):
        if arrived or destination.target.address is None:
            await _IN_TASK
        if (why := mapping.connection.engine.recorder.refuses()) is not None:
            mapping.deny(destination, Refusal("fail", "log_unavailable", OutOfResources.hint, None, why))
            return
        if arrived:
            address: IPAddress | None = _take(mapping, destination, ruling)
        else:
            address = await _ask(mapping, destination, ruling)
        if address is None or destination.state is not State.WAITING:
            return
        _associate(mapping, destination, ruling, address)
        if destination.entries or destination.promise is not None:
            if not arrived and destination.target.address is not None:
                await _IN_TASK
            await _tell(mapping, destination)
        if destination.denied is not None:
            mapping.deny(destination, _denied(destination.denied, destination.verdicts[-1].filter))
        elif destination.state is State.WAITING:
            mapping.open(destination)


@contextmanager
def _settling(mapping: Mapping, destination: Destination) -> Iterator[None]:
    """What goes wrong is an answer, too."""
    try:
        yield
    except HandlerFailed as failed:
        if isinstance(failed.error, Refuse):
            mapping.deny(destination, _denied(failed.error.reason, failed.filter, failed.error.detail))
        else:
            mapping.connection.engine.filter_failed(mapping.connection, failed.filter, failed.cause)
            mapping.fail(destination, failed.error)
    except DoorwardError as error:
        mapping.fail(destination, error)
    finally:
        mapping.settled(destination)


def _take(mapping: Mapping, destination: Destination, ruling: Ruling) -> IPAddress:
    """Somebody who may send first: by a promise, or by the answer that has opened the mapping. Raises UpstreamNoUdp."""
    connection, target, promise = mapping.connection, destination.target, destination.promise
    assert target.address is not None
    if promise is None:
        destination.judged = connection.decision
        destination.promise = connection.promise
        destination.where = socket_address(target.address, destination.port)
        return target.address
    engine, session = connection.engine, connection.session
    inputs = inputs_of(session, target, session.user, time.time(), engine.own_addresses.is_own, "udp")
    return _settle_on(destination, target.address, decision_of(engine, promise, inputs), ruling)


async def _ask(mapping: Mapping, destination: Destination, ruling: Ruling) -> IPAddress | None:
    """Grants and policy: who may be spoken to, or None and the refusal is given. Raises LinkError kinds."""
    connection, target = mapping.connection, destination.target
    engine, session = connection.engine, connection.session
    now_s = time.time()
    if mapping.is_system:
        return await _ask_nobody(mapping, destination, ruling)
    promise = engine.grants.connect(session, "udp", target)
    if promise is not None:
        promise.use()
        inputs = inputs_of(session, target, session.user, now_s, engine.own_addresses.is_own, "udp")
        destination.promise = promise
        return _settle_on(destination, promise.address, decision_of(engine, promise, inputs), ruling)
    judged = await judge(
        ruling.policy,
        ClientResolver(engine, session, connection),
        engine.own_addresses.is_own,
        session,
        target,
        user=session.user,
        now_s=now_s,
        transport="udp",
    )
    destination.judged = judged.decision
    if not judged.addresses:
        decision = judged.decision
        mapping.deny(destination, Refusal("deny", decision.reason, ReplyHint.NOT_ALLOWED, decision.rule))
        return None
    return _settle_on(destination, *next(iter(judged.addresses.items())), ruling)


async def _ask_nobody(mapping: Mapping, destination: Destination, ruling: Ruling) -> IPAddress:
    """The firewall itself may speak to whom it likes. Raises LinkError kinds for a name."""
    connection, target = mapping.connection, destination.target
    engine, session = connection.engine, connection.session
    address = target.address
    if address is None:
        assert target.host is not None
        address = (await engine.resolver.resolve(target.host))[0]
    found = Target(None, address, target.port)
    inputs = inputs_of(session, found, None, time.time(), engine.own_addresses.is_own, "udp")
    decision = Decision(Action.ALLOW, SYSTEM_REASON, inputs, ruling.policy.revision)
    return _settle_on(destination, address, decision, ruling)


def _settle_on(destination: Destination, address: IPAddress, decision: Decision, ruling: Ruling) -> IPAddress:
    """Whom to speak to, and why. Raises UpstreamNoUdp where the way leads through an upstream: never past it."""
    destination.judged = decision
    destination.where = socket_address(address, destination.port)
    if ruling.ways is not None:
        ruling.ways.expect_direct(decision.inputs)
    return address


def _associate(mapping: Mapping, destination: Destination, ruling: Ruling, address: IPAddress) -> None:
    """Who wants to hear of it, and what was promised to be attached. Raises HandlerFailed for a factory that raises."""
    if mapping.is_system:
        return
    connection = mapping.connection
    entries = ruling.associations.of(destination.way, destination.decision.rule)
    destination.entries = tuple(e for e in entries if EventKind.UDP_DESTINATION in e.interest.events)
    grants = connection.engine.grants
    destination.attached += grants.attach(connection, EventKind.UDP_DESTINATION, address, destination.port)


async def _tell(mapping: Mapping, destination: Destination) -> None:
    """`on_udp_destination`, once for as long as it is remembered. Raises HandlerFailed."""
    connection = mapping.connection
    is_secondary = destination.promise is not None or connection.is_secondary
    event = UdpDestinationEvent(connection, destination, destination.protocol, is_secondary)
    AT_DESTINATION.set(destination)  # in this task, which is the destination's own
    async with mapping.telling:
        if destination.state is State.WAITING and not mapping.over:
            await dispatch(connection, EventKind.UDP_DESTINATION, event, destination)
        promise = destination.promise
        if promise is not None and promise.holder is not None and destination.denied is None:
            await tell_holder(connection, promise.holder, promise.context, promise.session)


def _denied(reason: str, name: str, detail: str = "") -> Refusal:
    return Refusal("deny", reason, ReplyHint.NOT_ALLOWED, None, "" if detail == reason else detail, name)
