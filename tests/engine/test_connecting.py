"""What goes out: a promise or policy, then the filters, then the dial, each once and in this order."""

from __future__ import annotations

import asyncio
import dataclasses
import ipaddress
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tests.engine.filters import Copying
from tests.engine.promising import only_the_server, parent_of
from tests.engine.rig import LOOPBACK, Plugin, Rig, entry

from doorward.api import AccessDenied, ClientKind, ConnectEvent, EventKind, IpFilter, Scope
from doorward.engine import connecting
from doorward.engine.judgement import judge
from doorward.engine.origin import Origin
from doorward.engine.target import target_of
from doorward.net.dial import dial
from doorward.net.transparent import Borrowed, why_not
from doorward.net.upstream.ways import Reached
from doorward.policy.model import Action, PortRange, Protocols, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
ORIGIN = Origin("transparent", ClientKind.CAPTURED, "127.0.0.66", 4242)


async def test_policy_then_filters_in_their_order_then_factories_then_the_dial_then_established(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []

    def plugin(name: str) -> Any:
        async def step(kind: str) -> None:
            steps.append(f"{name} {kind}")

        return entry(
            Plugin(name, [], connect=lambda _: step("connect"), established=lambda _: step("established"))
        )

    def factory() -> Copying:
        steps.append("factory")
        return Copying()

    async def judging(*arguments: Any, **options: Any) -> Any:
        steps.append("policy")
        return await judge(*arguments, **options)

    async def dialling(*arguments: Any) -> Any:
        steps.append("dial")
        return await dial(*arguments)

    monkeypatch.setattr(connecting, "judge", judging)
    monkeypatch.setattr(connecting, "dial", dialling)
    rig = make_rig(plugin("one"), plugin("two"))
    rig.engine.sessions.get("127.0.0.1", None).set_data_filter_factory(EventKind.CONNECT, factory)
    await parent_of(rig)
    assert steps == [
        "policy",
        "one connect",
        "two connect",
        "factory",
        "dial",
        "one established",
        "two established",
    ]


async def test_who_comes_after_a_denial_is_not_asked(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []

    async def deny(event: ConnectEvent) -> None:
        event.connection.deny("not_today")

    rig = make_rig(
        entry(Plugin("one", heard)), entry(Plugin("two", heard, connect=deny)), entry(Plugin("three", heard))
    )
    connection = await rig.connect()
    assert connection.refusal is not None
    assert (connection.refusal.reason, connection.refusal.filter) == ("not_today", "two")
    assert heard == [("one", "connect"), ("two", "connect")]


async def test_a_rule_may_turn_a_filter_off_or_have_it_told_other_settings(make_rig: MakeRig) -> None:
    told: list[tuple[str, object]] = []

    def plugin(name: str, **more: Any) -> Any:
        async def connect(event: ConnectEvent) -> None:
            told.append((name, event.settings))

        made = entry(Plugin(name, [], connect=connect))
        return type(made)(name, made.application_filter, made.interest, **more)

    entries = [
        plugin("off", off=frozenset({"local"})),
        plugin("on", off=frozenset({"other"})),
        plugin("set", rule_settings={"local": "for local", None: "for others"}),
        plugin("general", rule_settings={"other": "for other", None: "for others"}),
    ]
    await parent_of(make_rig(*entries))
    assert told == [("on", None), ("set", "for local"), ("general", "for others")]


async def test_an_answer_is_remembered_for_a_moment_unless_filters_hear_of_look_ups(
    make_rig: MakeRig,
) -> None:
    for listening, times in ((False, 1), (True, 4)):
        looked_up: list[str] = []

        def look_up(name: str, looked_up: list[str] = looked_up) -> tuple[ipaddress.IPv4Address, ...]:
            looked_up.append(name)
            return (ipaddress.IPv4Address("127.0.0.1"),)

        async def resolve(event: Any, looked_up: list[str] = looked_up) -> None:
            if not event.before:
                looked_up.append(event.name)

        kinds = [EventKind.RESOLVE if listening else EventKind.CONNECT]
        rig = make_rig(entry(Plugin("it", [], resolve=resolve), events=kinds), lookup=look_up)
        for _ in range(3):
            await parent_of(rig, target=rig.target("one.test"))
        assert len(looked_up) == times


async def test_a_secondary_is_called_by_its_parents_protocol(make_rig: MakeRig) -> None:
    events: list[ConnectEvent] = []

    async def connect(event: ConnectEvent) -> None:
        events.append(event)

    rig = make_rig(protocols=Protocols())
    port = rig.server.port
    rig.protocols = Protocols({"door": (PortRange("tcp", port, port),)})
    only_the_server(rig, [entry(Plugin("it", [], connect=connect), scope=Scope.SECONDARY)])
    parent, other = await parent_of(rig), rig.another_server()
    parent.session.allow_connect("127.0.0.1", other.port, parent=parent)
    connection = await parent_of(rig, target=target_of("127.0.0.1", other.port))
    assert [event.protocol for event in events] == ["door"]
    assert connection.protocol == "door"


async def test_a_promise_without_a_parent_names_no_rule(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialled: list[object] = []

    async def refusing(poller: object, addresses: tuple[object, ...], *_: object) -> Any:
        dialled.extend(addresses)
        raise AccessDenied

    monkeypatch.setattr(connecting, "dial", refusing)
    rig = make_rig(rules=[Rule("no", Action.DENY)])
    rig.engine.sessions.get("127.0.0.1", None).allow_connect("192.0.2.7", 80)
    await rig.connect(target_of("192.0.2.7", 80))
    record = await rig.record()
    assert (record.rule, dialled) == (None, [ipaddress.ip_address("192.0.2.7")])


@pytest.mark.parametrize(
    ("ranges", "reached"), [(["127.0.0.3"], True), (["192.0.2.0/24"], False), ([], False)]
)
async def test_only_a_peer_that_a_filter_admits_is_dialled(
    make_rig: MakeRig, ranges: list[str], reached: bool
) -> None:
    async def narrow(event: ConnectEvent) -> None:
        event.connection.set_ip_filter(IpFilter(*ranges))

    addresses = tuple(map(ipaddress.ip_address, ("127.0.0.2", "127.0.0.3")))
    rule = Rule("local", Action.ALLOW, to_networks=LOOPBACK, to_names=("*.test",))
    rig = make_rig(entry(Plugin("it", [], connect=narrow)), lookup=lambda _: addresses, rules=[rule])
    connection = await rig.connect(rig.target("two.test"))
    assert connection.refusal is not None
    assert connection.refusal.reason == ("connection_refused" if reached else "peer_not_admitted")
    assert rig.server.nobody_came()


async def test_what_is_killed_while_it_dials_leaves_no_leg_behind(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def dialling(*arguments: Any) -> Any:
        reached = await dial(*arguments)
        next(iter(rig.engine.connections.values())).kill()
        return reached

    monkeypatch.setattr(connecting, "dial", dialling)
    rig = make_rig()
    connection = await rig.connect()
    assert connection.refusal is not None
    assert connection.external is None
    server = await rig.server.accept()
    assert await server.is_reset()
    server.close()


async def test_cancelling_a_dial_ends_the_connection_with_its_grants(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    dialling = asyncio.Event()

    async def hanging(*_: Any) -> Any:
        dialling.set()
        await asyncio.Event().wait()

    async def promise(event: ConnectEvent) -> None:
        event.connection.session.allow_connect("192.0.2.7", 80, parent=event.connection, timeout_s=None)

    monkeypatch.setattr(connecting, "dial", hanging)
    rig = make_rig(entry(Plugin("it", [], connect=promise)))

    async def connect() -> None:
        await rig.connect()

    asking = rig.start(connect())
    await dialling.wait()
    assert rig.engine.grants.alive == 1
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert rig.engine.grants.alive == 0


class _Corp:
    """Ways that lead through an upstream for everybody, or for nobody."""

    def __init__(self, leg: Any, *, direct: bool) -> None:
        self._leg = leg
        self._direct = direct

    def is_direct(self, inputs: object) -> bool:
        return self._direct

    async def reach(self, addresses: Any, host: str | None, port: int, timeout_s: float) -> Any:
        leg, address = await self._leg(tuple(addresses), port, timeout_s)
        return Reached(leg, address, "corp", None)


@pytest.mark.skipif(bool(why_not(4)), reason=f"borrowing addresses: {why_not(4)}")
@pytest.mark.parametrize(
    ("direct", "seen", "via"), [(None, True, None), (True, True, None), (False, False, "corp")]
)
async def test_a_borrowed_source_is_seen_where_the_way_is_direct_and_is_no_bind(
    make_rig: MakeRig, direct: bool | None, seen: bool, via: str | None
) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(entry(Plugin("one", heard), events=(EventKind.BIND, EventKind.CONNECT)))
    if direct is not None:
        ways: Any = _Corp(partial(dial, rig.poller), direct=direct)
        rig.engine.ruling = dataclasses.replace(rig.engine.ruling, ways=ways)
    session = rig.engine.sessions.get("127.0.0.66", None)
    connection = rig.engine.begin(session, rig.target(), ORIGIN)
    await rig.engine.open(
        connection, connecting.open_connect(rig.engine, connection, None, Borrowed("127.0.0.66"))
    )
    assert connection.refusal is None
    assert heard == [("one", "connect")]
    assert connection.external is not None
    name = connection.external_socket_name
    assert (name[0] == "127.0.0.66", connection.extra.via) == (seen, via)
    connection.kill()


async def test_a_borrowed_source_of_the_other_family_is_a_failure_and_never_ours(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = rig.engine.begin(rig.engine.sessions.get("::1", None), rig.target(), ORIGIN)
    await rig.engine.open(
        connection, connecting.open_connect(rig.engine, connection, None, Borrowed("2001:db8::7"))
    )
    assert connection.refusal is not None
    assert (connection.refusal.action, connection.refusal.reason) == ("fail", "unreachable")
