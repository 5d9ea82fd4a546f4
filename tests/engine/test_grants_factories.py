"""Factories attach data filters without an event; they are filter code, and contained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.engine.filters import Copying, Marking
from tests.engine.promising import timers_of
from tests.engine.rig import Plugin, Rig, attaching, entry

from doorward.api import (
    BadArgument,
    DataFilter,
    EventKind,
    OutOfResources,
    Priority,
    Refuse,
    Terminating,
)
from doorward.api.contracts import GRANT_TIMEOUT_S
from doorward.config.model import Limits
from doorward.engine.session import Session

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


def session_of(rig: Rig) -> Session:
    return rig.engine.sessions.get("127.0.0.1", None)


async def test_a_factorys_filter_stands_in_the_next_connections_chain(make_rig: MakeRig) -> None:
    rig = make_rig()
    made: list[Marking] = []

    def make() -> DataFilter:
        made.append(Marking(b"!"))
        return made[-1]

    grant = session_of(rig).set_data_filter_factory(
        EventKind.CONNECT, make, port=rig.server.port, context="mine"
    )
    talk = await rig.converse()
    await talk.client.send(b"hello")
    assert await talk.server.exactly(6) == b"hello!"
    assert [data_filter.context for data_filter in made] == ["mine"]
    assert (grant.active, grant.uses) == (False, 1)
    plain = await rig.converse()
    await plain.both_ways(b"plain")


async def test_a_factory_for_several_makes_one_for_each_until_it_is_taken_back(make_rig: MakeRig) -> None:
    rig = make_rig()
    with_it = []
    async with session_of(rig).set_data_filter_factory(EventKind.CONNECT, Copying, multiple=True) as grant:
        with_it = [await rig.connect() for _ in range(3)]
    without = await rig.connect()
    filters = [connection.attached[0].data_filter for connection in with_it]
    assert len(set(map(id, filters))) == 3
    assert without.attached == []
    assert grant.uses == 3


@pytest.mark.parametrize(
    ("address", "port", "meant"),
    [
        (None, None, True),
        ("127.0.0.1", None, True),
        ("::ffff:127.0.0.1", None, True),
        ("127.0.0.2", None, False),
        (None, 1, False),
        (None, 0, True),  # the server's own
        ("127.0.0.1", 0, True),
    ],
)
async def test_address_and_port_say_which_connections_are_meant(
    make_rig: MakeRig, address: str | None, port: int | None, meant: bool
) -> None:
    rig = make_rig()
    session_of(rig).set_data_filter_factory(
        EventKind.CONNECT, Copying, address=address, port=rig.server.port if port == 0 else port
    )
    connection = await rig.connect()
    assert bool(connection.attached) is meant


async def test_a_factory_is_for_its_own_session_and_its_own_event(make_rig: MakeRig) -> None:
    rig = make_rig()
    session_of(rig).set_data_filter_factory(EventKind.CONNECT, Copying)
    session_of(rig).set_data_filter_factory(EventKind.UDP_DESTINATION, Copying)
    assert (await rig.connect(client_address="127.0.0.2")).attached == []
    assert (await rig.connect(user="kim")).attached == []
    assert len((await rig.connect()).attached) == 1
    assert rig.engine.grants.alive == 1


async def test_a_factorys_filter_stands_where_it_was_put_among_those_of_handlers(make_rig: MakeRig) -> None:
    rig = make_rig(entry(Plugin("it", [], connect=attaching(Marking(b"2", Priority.MIDDLE)))))
    session = session_of(rig)
    session.set_data_filter_factory(
        EventKind.CONNECT, lambda: Marking(b"3", Priority.NAT), priority=Priority.EXTERNAL
    )
    session.set_data_filter_factory(EventKind.CONNECT, lambda: Marking(b"1", Priority.INTERNAL))
    talk = await rig.converse()
    await talk.client.send(b"x")
    assert await talk.server.exactly(4) == b"x123"


def raises() -> DataFilter:
    raise ZeroDivisionError("mine")


def refuses() -> DataFilter:
    raise Refuse("not_today")


def exits() -> DataFilter:
    raise SystemExit(1)


def cancels() -> DataFilter:
    raise asyncio.CancelledError


def makes_rubbish() -> Any:
    return object()


def makes_nothing() -> Any:
    return None


def makes_what_looks_like_one() -> Any:
    return SimpleNamespace(priority=Priority.MIDDLE)


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        (raises, "filter_failed"),
        (refuses, "not_today"),
        (exits, "filter_failed"),
        (cancels, "filter_failed"),
        (makes_rubbish, "filter_failed"),
        (makes_nothing, "filter_failed"),
        (makes_what_looks_like_one, "filter_failed"),
    ],
)
async def test_a_factory_that_fails_refuses_that_connection_on_record_and_no_other(
    make_rig: MakeRig, factory: Callable[[], DataFilter], reason: str
) -> None:
    rig = make_rig()
    grant = session_of(rig).set_data_filter_factory(EventKind.CONNECT, factory)
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.refusal.reason == reason
    record = await rig.record()
    assert (record.reason, record.end) == (reason, "refused")
    assert record.filters == f'[["{factory.__name__}","failed","{reason}"]]'
    assert rig.server.nobody_came()
    assert not grant.active
    assert (await rig.connect()).refusal is None
    rig.failures.clear()


async def test_a_factory_that_holds_the_loop_costs_its_own_connection(make_rig: MakeRig) -> None:
    def stall() -> DataFilter:
        while True:
            time.sleep(0.01)

    rig = make_rig(stall_s=0.1)
    session_of(rig).set_data_filter_factory(EventKind.CONNECT, stall)
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_stalled"
    rig.failures.clear()


async def test_one_factory_may_take_back_another(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = session_of(rig)

    def first() -> DataFilter:
        second.cancel()
        return Copying()

    session.set_data_filter_factory(EventKind.CONNECT, first)
    second = session.set_data_filter_factory(EventKind.CONNECT, raises)
    connection = await rig.connect()
    assert connection.refusal is None
    assert len(connection.attached) == 1
    assert second.uses == 0


async def test_a_task_that_a_factory_starts_ends_with_the_connection(make_rig: MakeRig) -> None:
    rig = make_rig()
    started: list[asyncio.Task[bool]] = []

    def make() -> DataFilter:
        started.append(asyncio.get_running_loop().create_task(asyncio.Event().wait()))
        return Copying()

    session_of(rig).set_data_filter_factory(EventKind.CONNECT, make)
    connection = await rig.connect()
    connection.kill()
    await asyncio.wait(started, timeout=5)
    assert started[0].cancelled()


async def test_a_factory_is_not_used_by_a_connection_that_a_filter_denied(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        event.connection.deny()

    rig = make_rig(entry(Plugin("it", [], connect=deny)))
    grant = session_of(rig).set_data_filter_factory(EventKind.CONNECT, Copying)
    assert (await rig.connect()).refusal is not None
    assert grant.active


@pytest.mark.parametrize("how", ["time", "parent", "session"])
async def test_a_factory_ends_as_any_grant(make_rig: MakeRig, how: str) -> None:
    rig = make_rig()
    timers = timers_of(rig)
    parent = await rig.connect()
    grant = session_of(rig).set_data_filter_factory(EventKind.CONNECT, Copying, parent=parent, multiple=True)
    if how == "time":
        timers.advance(GRANT_TIMEOUT_S)
    elif how == "parent":
        parent.kill()
    else:
        rig.engine.sessions.remove(parent.session)
        with pytest.raises(Terminating):
            parent.session.set_data_filter_factory(EventKind.CONNECT, Copying)
    assert not grant.active
    assert (await rig.connect()).attached == []
    assert not rig.engine.grants._factories


async def test_what_cannot_be_meant_is_refused(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(grants_max_per_session=1))
    session = session_of(rig)
    for event in (EventKind.LISTEN, EventKind.RESOLVE, EventKind.ESTABLISHED, EventKind.TERMINATING):
        with pytest.raises(BadArgument, match=str(event)):
            session.set_data_filter_factory(event, Copying)
    with pytest.raises(BadArgument, match="no address"):
        session.set_data_filter_factory(EventKind.CONNECT, Copying, address="some.test")
    session.set_data_filter_factory(EventKind.CONNECT, Copying)
    with pytest.raises(OutOfResources):
        session.set_data_filter_factory(EventKind.CONNECT, Copying)
