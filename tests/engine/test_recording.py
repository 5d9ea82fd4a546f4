"""The record of a connection that is over says what was asked, what was answered, how much passed, how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from tests.engine.rig import Plugin, Rig, entry

from doorward.api import ClientKind, ConnectEvent
from doorward.api.contracts import TransportName
from doorward.engine.connection import Connection
from doorward.engine.judgement import inputs_of
from doorward.engine.operation import Operation
from doorward.engine.origin import Origin
from doorward.engine.outcome import End, Refusal
from doorward.engine.recording import record_of, record_of_stranger
from doorward.engine.target import Target, target_of
from doorward.policy.model import Action, Decision, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_an_allowed_connection_is_on_record_with_everything_that_is_known(make_rig: MakeRig) -> None:
    rig = make_rig(lookup=lambda _: (IPv4Address("127.0.0.1"),))
    target = target_of("a.test", rig.server.port)
    connection = await rig.connect(target, user="kim", application="http", client_address="192.0.2.9")
    rig.engine.ended(connection, End("closed", "external"))
    record = await rig.record()
    assert (record.client_address, record.client_port, record.user) == ("192.0.2.9", 4242, "kim")
    assert (record.host, record.address, record.port) == ("a.test", "127.0.0.1", rig.server.port)
    assert (record.action, record.reason, record.rule, record.policy) == (
        "allow",
        "rule_allow",
        "local",
        "revision",
    )
    assert (record.protocol, record.transport, record.process) == ("http", "tcp", None)
    assert (record.end, record.ended_by, record.detail) == ("closed", "external", None)
    assert record.duration_us >= (record.connect_us or 0) >= 0
    assert record.time_us == connection.started_us


async def test_a_refused_name_has_no_address_on_record_and_a_refused_address_has_one(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(rules=[Rule("no", Action.DENY)])
    await rig.connect(target_of("a.test", 80))
    await rig.connect(target_of("127.0.0.1", 80))
    assert [(r.host, r.address) for r in rig.recorder.records] == [("a.test", None), (None, "127.0.0.1")]


async def test_a_name_that_was_refused_for_its_address_has_that_address_on_record(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[Rule("all", Action.ALLOW)], lookup=lambda _: (IPv4Address("169.254.169.254"),))
    await rig.connect(target_of("metadata.test", 80))
    record = await rig.record()
    assert (record.host, record.address) == ("metadata.test", "169.254.169.254")
    assert (record.reason, record.rule) == ("guarded_metadata", "built-in: cloud metadata")


async def test_verdicts_are_on_record_as_json_that_anybody_can_read(make_rig: MakeRig) -> None:
    async def deny(event: ConnectEvent) -> None:
        event.connection.deny("seen_it")

    rig = make_rig(entry(Plugin('a "b"', [])), entry(Plugin("c", [], connect=deny)))
    await rig.connect()
    record = await rig.record()
    assert record.filters is not None
    assert json.loads(record.filters) == [['a "b"', "joined", ""], ["c", "denied", "seen_it"]]


async def test_a_connection_that_was_never_judged_can_be_put_on_record(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.recorder.trouble = "the disk is full"
    connection = await rig.connect()
    record = record_of(connection)
    assert (record.action, record.reason, record.rule, record.policy) == ("fail", "log_unavailable", None, "")
    assert record.detail == "the disk is full"
    assert isinstance(connection.refusal, Refusal)


@pytest.mark.parametrize(("action", "by"), [("fail", "internal"), ("deny", "ours")])
def test_a_client_that_never_named_a_destination_is_on_record_too(action: str, by: str) -> None:
    origin = Origin("socks5", ClientKind.SOCKS, "192.0.2.9", 4242)
    record = record_of_stranger(origin, action, "bad_credentials", user="kim", detail="")
    assert (record.session, record.connection, record.entry) == (0, 0, "socks5")
    assert (record.action, record.reason, record.end, record.ended_by) == (
        action,
        "bad_credentials",
        "bad_credentials",
        by,
    )
    assert (record.user, record.detail, record.port) == ("kim", None, 0)
    assert (record.operation, record.parent, record.via) == (None, None, None)


def begin(rig: Rig, operation: Operation, target: Target, transport: TransportName = "tcp") -> Connection:
    """A connection that policy has allowed."""
    session = rig.engine.sessions.get("127.0.0.1", "kim")
    origin = Origin("socks5", ClientKind.SOCKS, "127.0.0.1", 4242)
    connection = rig.engine.begin(session, target, origin, operation, transport)
    inputs = inputs_of(session, target, "kim", 0.0, lambda _: False, transport)
    connection.judged = Decision(Action.ALLOW, "rule_allow", inputs, "revision", "local")
    return connection


async def test_an_ordinary_connection_is_on_record_as_one_and_with_nothing_else(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.engine.ended(await rig.connect(), End("closed", "external"))
    record = await rig.record()
    assert (record.operation, record.transport, record.parent, record.via) == ("connect", "tcp", None, None)
    assert (record.address, record.port) == ("127.0.0.1", rig.server.port)


async def test_what_a_filter_has_promised_is_on_record_with_the_connection_it_was_promised_for(
    make_rig: MakeRig,
) -> None:
    rig = make_rig()
    parent = await rig.connect()
    parent.session.allow_connect("127.0.0.1", rig.server.port, parent=parent)
    child = await rig.connect()
    orphan = await rig.connect()
    orphan.promise = parent.session.allow_connect("192.0.2.1", 80)
    assert child.is_secondary
    for connection in (orphan, child, parent):
        rig.engine.ended(connection, End("closed", "external"))
    assert [(r.connection, r.parent) for r in rig.recorder.records] == [
        (orphan.id, None),
        (child.id, parent.id),
        (parent.id, None),
    ]


async def test_an_upstream_is_on_record_by_its_name(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = await rig.connect()
    connection.extra.via = "corp"
    rig.engine.ended(connection, End("closed", "external"))
    record = await rig.record()
    assert (record.operation, record.via, record.port) == ("connect", "corp", rig.server.port)


async def test_who_arrived_is_on_record_with_its_own_address_and_where_it_arrived(make_rig: MakeRig) -> None:
    rig = make_rig()
    listening = begin(rig, Operation.BIND, target_of("192.0.2.1", 0))
    listening.extra.socket_name = ("203.0.113.1", 4711)
    arrived = begin(rig, Operation.ACCEPT, target_of("192.0.2.1", 4711))
    arrived.extra.parent, arrived.extra.peer_name = listening, ("192.0.2.1", 20)
    rig.engine.ended(arrived, End("closed", "external"))
    rig.engine.ended(listening, End("closed", "ours"))
    accept, bind = rig.recorder.records
    assert (accept.operation, accept.parent, accept.address, accept.port) == (
        "accept",
        listening.id,
        "192.0.2.1",
        20,
    )
    assert (accept.client_address, accept.client_port) == ("127.0.0.1", 4242)
    assert (bind.operation, bind.parent, bind.address, bind.port) == ("bind", None, "192.0.2.1", 4711)


async def test_where_somebody_arrived_counts_more_than_what_was_promised(make_rig: MakeRig) -> None:
    rig = make_rig()
    control = await rig.connect()
    listening = begin(rig, Operation.BIND, Target(None, None, 4711))
    arrived = begin(rig, Operation.ACCEPT, target_of("192.0.2.1", 4711))
    promise = control.session.allow_connect("127.0.0.1", 1, parent=control)
    listening.promise = arrived.promise = promise
    arrived.extra.parent = listening
    for connection in (arrived, listening, control):
        rig.engine.ended(connection, End("closed", "ours"))
    assert [r.parent for r in rig.recorder.records] == [listening.id, control.id, None]


async def test_a_mapping_is_on_record_as_udp_with_its_port_and_what_it_dropped(make_rig: MakeRig) -> None:
    rig = make_rig()
    mapping = begin(rig, Operation.UDP, Target(None, None, 0), "udp")
    mapping.extra.socket_name = ("203.0.113.1", 4711)
    mapping.extra.note = "dropped: 3 from strangers"
    rig.engine.ended(mapping, End("closed", "ours"))
    record = await rig.record()
    assert (record.operation, record.transport, record.address, record.port) == ("udp", "udp", None, 4711)
    assert record.detail == "dropped: 3 from strangers"


async def test_one_that_was_refused_at_the_door_is_on_record_as_what_it_asked_for(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.recorder.trouble = "the disk is full"
    connection = begin(rig, Operation.BIND, Target(None, None, 0))
    await rig.engine.open(connection, nothing())
    record = await rig.record()
    assert (record.operation, record.action, record.detail) == ("bind", "fail", "the disk is full")
    assert connection.extra_if_any is None


async def nothing() -> None:
    """What opens a connection that is refused before."""
