"""Who hears that a promise came true: who made it, once, with its context; and which filters a secondary concerns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.filters import Copying
from tests.engine.promising import holder_of, only_the_server, parent_of
from tests.engine.rig import Plugin, Rig, entry, wait_for

from doorward.api import ConnectEvent, EstablishedEvent, EventKind, Refuse, Scope, SessionFilter
from doorward.api.filters import ClientKind
from doorward.engine.connection import Connection
from doorward.engine.target import target_of
from doorward.policy.model import PortRange, Protocols

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
Heard = list[tuple[str, str]]


async def granted(rig: Rig, parent: Connection, **promise: Any) -> Connection:
    """A secondary connection to another server of the parent's host, through a promise."""
    other = rig.another_server()
    session = parent.session
    session.allow_connect("127.0.0.1", other.port, parent=parent, **promise)
    return await rig.connect(target_of("127.0.0.1", other.port), session=session)


async def test_who_promised_hears_of_it_with_its_context_once_and_nobody_else(make_rig: MakeRig) -> None:
    heard: Heard = []
    told: list[EstablishedEvent] = []

    async def established(event: EstablishedEvent) -> None:
        told.append(event)
        assert event.connection.external_peer_name[0] == "127.0.0.1"

    holder, other = Plugin("holder", heard, established=established), Plugin("other", heard)
    rig = make_rig()
    only_the_server(rig, [entry(plugin, events=[EventKind.CONNECT]) for plugin in (other, holder)])
    parent = await parent_of(rig)
    context = object()
    connection = await granted(rig, parent, holder=holder_of(rig, holder, parent.session), context=context)
    assert connection.refusal is None
    assert [(event.connection, event.context) for event in told] == [(connection, context)]
    assert heard == [("other", "connect"), ("holder", "connect"), ("holder", "established")]
    connection.kill()
    await wait_for(lambda: heard[3:] == [("holder", "terminating")], "its end")


async def test_who_promised_and_wants_every_one_hears_once(make_rig: MakeRig) -> None:
    heard: Heard = []
    holder, other = Plugin("holder", heard), Plugin("other", heard)
    rig = make_rig()
    only_the_server(rig, [entry(plugin, scope=Scope.ANY) for plugin in (other, holder)])
    parent = await parent_of(rig)
    heard.clear()
    await granted(rig, parent, holder=holder_of(rig, holder, parent.session))
    assert heard == [
        ("other", "connect"),
        ("holder", "connect"),
        ("holder", "established"),
        ("other", "established"),
    ]


async def test_a_promise_without_a_holder_is_told_to_nobody(make_rig: MakeRig) -> None:
    heard: Heard = []
    rig = make_rig()
    only_the_server(rig, [entry(Plugin("it", heard), events=[EventKind.CONNECT])])
    parent = await parent_of(rig)
    heard.clear()
    assert (await granted(rig, parent)).refusal is None
    assert heard == []


async def test_a_holder_of_another_session_of_the_client_is_itself_to_its_filter(make_rig: MakeRig) -> None:
    """A promise for a whole address comes true in another session, and its holder is still the one that made it."""
    heard: Heard = []
    told: list[object] = []

    async def established(event: EstablishedEvent) -> None:
        told.append(event.context)

    holder = Plugin("holder", heard, established=established)
    rig = make_rig()
    only_the_server(rig, [entry(holder, scope=Scope.ANY, events=[EventKind.ESTABLISHED])])
    parent, server = await parent_of(rig), rig.another_server()
    parent.session.allow_connect(
        "127.0.0.1",
        server.port,
        parent=parent,
        address_based=True,
        holder=holder_of(rig, holder, parent.session),
        context="mine",
    )
    kim = rig.engine.sessions.get("127.0.0.1", "kim")
    heard.clear()
    told.clear()
    connection = await rig.connect(target_of("127.0.0.1", server.port), session=kim)
    assert connection.refusal is None
    assert (heard, told) == ([("holder", "established")], ["mine"])
    connection.kill()
    await wait_for(lambda: heard[1:] == [("holder", "terminating")], "its end")


async def test_a_holder_whose_filter_nobody_knows_is_told_all_the_same(make_rig: MakeRig) -> None:
    told: list[EstablishedEvent] = []

    class Holder(SessionFilter):
        async def on_established(self, event: EstablishedEvent) -> None:
            told.append(event)

    rig = make_rig()
    only_the_server(rig)
    connection = await granted(rig, await parent_of(rig), holder=Holder(), context=1)
    assert connection.refusal is None
    assert [event.context for event in told] == [1]


class NotAFilter:
    """What only looks like a session filter."""


class NotACoroutine(SessionFilter):
    def on_established(self, event: EstablishedEvent) -> None:  # type: ignore[override]  # that is the mistake
        raise ZeroDivisionError


@pytest.mark.parametrize("holder", [NotAFilter, NotACoroutine])
async def test_a_holder_that_cannot_be_told_closes_its_connection_and_nothing_else(
    make_rig: MakeRig, holder: type
) -> None:
    rig = make_rig()
    only_the_server(rig)
    parent = await parent_of(rig)
    connection = await granted(rig, parent, holder=holder())
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_failed"
    assert parent.end is None
    assert [name for name, _ in rig.failures] == [holder.__name__]
    rig.failures.clear()


@pytest.mark.parametrize(("fail", "goes_on"), [("closed", False), ("open", True)])
async def test_a_holder_that_fails_is_contained_as_any_filter(
    make_rig: MakeRig, fail: str, goes_on: bool
) -> None:
    async def established(_: object) -> None:
        raise ZeroDivisionError

    holder = Plugin("holder", [], established=established)
    rig = make_rig()
    only_the_server(rig, [entry(holder, events=[EventKind.CONNECT], fail=fail)])  # type: ignore[arg-type]  # of two
    parent = await parent_of(rig)
    connection = await granted(rig, parent, holder=holder_of(rig, holder, parent.session))
    assert (connection.refusal is None) is goes_on
    assert ("holder", "failed", "filter_failed") in connection.verdicts
    assert len(rig.failures) == 1
    rig.failures.clear()


async def test_a_holder_may_refuse_what_it_promised(make_rig: MakeRig) -> None:
    async def established(_: object) -> None:
        raise Refuse("not_any_more")

    holder = Plugin("holder", [], established=established)
    rig = make_rig()
    only_the_server(rig, [entry(holder, events=[EventKind.CONNECT], fail="open")])
    parent = await parent_of(rig)
    connection = await granted(rig, parent, holder=holder_of(rig, holder, parent.session))
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason, connection.refusal.filter) == (
        "deny",
        "not_any_more",
        "holder",
    )
    assert rig.failures == []


async def test_established_before_any_other_filter_was_joined_does_not_run_it_uncontained(
    make_rig: MakeRig,
) -> None:
    class Broken(Plugin):
        def session_filter(self, session: object) -> SessionFilter:
            raise ZeroDivisionError

    rig = make_rig()
    broken = Broken("broken", [])
    only_the_server(rig, [entry(broken, scope=Scope.SECONDARY, events=[EventKind.ESTABLISHED])])
    parent = await parent_of(rig)
    connection = await granted(rig, parent, holder=SessionFilter())
    assert connection.refusal is not None
    assert connection.refusal.reason == "filter_failed"
    assert [name for name, _ in rig.failures] == ["broken"]
    rig.failures.clear()


async def test_a_secondary_is_associated_as_its_parent_and_heard_by_those_whose_scope_it_is(
    make_rig: MakeRig,
) -> None:
    heard: Heard = []
    events: list[ConnectEvent] = []

    async def connect(event: ConnectEvent) -> None:
        events.append(event)
        event.connection.attach_data_filter(Copying())

    plugins = {scope: Plugin(scope.value, heard, connect=connect) for scope in Scope}
    rig = make_rig(protocols=Protocols({}))
    port = rig.server.port
    rig.protocols = Protocols({"door": (PortRange("tcp", port, port),)})
    entries = [entry(plugin, scope=scope, events=[EventKind.CONNECT]) for scope, plugin in plugins.items()]
    narrow = [type(e)(e.name, e.application_filter, e.interest, (PortRange("tcp", port, port),), frozenset({"door"}))
              for e in entries]  # fmt: skip
    only_the_server(rig, narrow)
    parent = await parent_of(rig)
    assert heard == [("primary", "connect"), ("any", "connect")]
    assert [(e.is_secondary, e.protocol) for e in events] == [(False, "door")] * 2
    heard.clear()
    events.clear()
    connection = await granted(rig, parent)
    assert heard == [("secondary", "connect"), ("any", "connect")]
    assert [(e.is_secondary, e.protocol, e.port) for e in events] == [(True, "door", connection.port)] * 2
    assert len(connection.attached) == 2


async def test_the_way_a_client_came_in_narrows_secondaries_too(make_rig: MakeRig) -> None:
    heard: Heard = []
    plugins = [Plugin(kind.value, heard) for kind in ClientKind]
    rig = make_rig()
    only_the_server(
        rig,
        [
            entry(plugin, scope=Scope.ANY, clients=[ClientKind(plugin.name)], events=[EventKind.CONNECT])
            for plugin in plugins
        ],
    )
    parent = await parent_of(rig, kind=ClientKind.HTTP)
    assert (await granted(rig, parent)).refusal is None
    own = rig.another_server()
    parent.session.allow_connect("127.0.0.1", own.port, parent=parent)
    await parent_of(rig, target=target_of("127.0.0.1", own.port), kind=ClientKind.FILTER)
    assert heard == [("http", "connect"), ("socks", "connect"), ("filter", "connect")]


async def test_nobody_hears_of_a_filters_own_socket_who_did_not_ask_for_it(make_rig: MakeRig) -> None:
    heard: Heard = []
    rig = make_rig(entry(Plugin("everybody", heard)))
    await parent_of(rig, kind=ClientKind.FILTER)
    assert heard == []
