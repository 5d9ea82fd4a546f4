"""The record of a connection that is over says what was asked, what was answered, how much passed, how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address

import pytest
from tests.engine.rig import Plugin, Rig, entry

from doorward.api import ClientKind, ConnectEvent
from doorward.engine.connection import End, Refusal
from doorward.engine.origin import Origin
from doorward.engine.recording import record_of, record_of_stranger
from doorward.engine.target import target_of
from doorward.policy.model import Action, Rule

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
