"""The fast lane takes what policy settles at once and nobody hears of, and leaves the record of the common way."""

from __future__ import annotations

import dataclasses
import errno
import time
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from tests.engine.rig import LOCAL_RULE, Plugin, Rig, entry

from doorward.api import ClientKind, EventKind, ReplyHint
from doorward.config.model import Limits
from doorward.engine import express
from doorward.engine.connection import Connection
from doorward.engine.express import Course
from doorward.engine.origin import Origin
from doorward.engine.session import Session
from doorward.engine.target import Target, target_of
from doorward.net.relay import Completion
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
ORIGIN = Origin("socks5", ClientKind.SOCKS, "127.0.0.1", 4242)
ADDRESS = ip_address("127.0.0.1")
RELAY_ID = 7


def session_of(rig: Rig) -> Session:
    return rig.engine.sessions.get("127.0.0.1", None)


def course(rig: Rig, target: Target | None = None) -> Course | None:
    return express.course(rig.engine, session_of(rig), target or rig.target(), ORIGIN, None, time.time())


def hint_of(connection: Connection | None) -> ReplyHint | None:
    """What its client is told."""
    return None if connection is None or connection.refusal is None else connection.refusal.hint


def begun(rig: Rig) -> Connection:
    """One that is being dialled."""
    at = course(rig)
    assert at is not None
    return express.begin(rig.engine, session_of(rig), rig.target(), ORIGIN, at, RELAY_ID)


async def test_an_allowed_address_goes_at_once(make_rig: MakeRig) -> None:
    rig = make_rig()
    at = course(rig)
    assert at is not None
    assert (at.address, at.decision.rule) == (ADDRESS, "local")
    assert not rig.engine.connections, "nothing has begun"


@pytest.mark.parametrize(
    "rules",
    [
        (),
        (Rule("no", Action.DENY, to_networks=LOCAL_RULE.to_networks),),
        (Rule("users", Action.ALLOW, to_networks=LOCAL_RULE.to_networks, users=frozenset({"kim"})),),
    ],
)
async def test_what_is_not_allowed_goes_the_common_way(make_rig: MakeRig, rules: tuple[Rule, ...]) -> None:
    assert course(make_rig(rules=rules)) is None


@pytest.mark.parametrize("event", [EventKind.CONNECT, EventKind.ESTABLISHED, EventKind.RESOLVE])
async def test_what_a_filter_hears_of_goes_the_common_way(make_rig: MakeRig, event: EventKind) -> None:
    rig = make_rig(entry(Plugin("plugin", []), events=(event,)))
    assert course(rig) is None


async def test_a_way_over_others_goes_the_common_way(make_rig: MakeRig) -> None:
    rig = make_rig()
    ways: Any = object()
    rig.engine.ruling = dataclasses.replace(rig.engine.ruling, ways=ways)
    assert course(rig) is None


async def test_what_was_promised_and_whose_session_has_ended_goes_the_common_way(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = session_of(rig)
    grant = session.allow_connect("192.0.2.7", 2000)
    assert course(rig) is None
    grant.cancel()
    assert course(rig) is not None
    rig.engine.close_session(session)
    assert express.course(rig.engine, session, rig.target(), ORIGIN, None, time.time()) is None


async def test_a_name_goes_at_once_when_it_was_asked_for_in_this_second(make_rig: MakeRig) -> None:
    rig = make_rig(lookup=lambda _: (ADDRESS,))
    target = target_of("app.test", rig.server.port)
    assert course(rig, target) is None
    assert rig.lookups == [], "nobody waits here"
    connection = await rig.connect(target)
    now_s = connection.started_us / 1e6
    at = express.course(rig.engine, session_of(rig), target, ORIGIN, None, now_s)
    assert at is not None
    assert at.address == ADDRESS
    assert express.course(rig.engine, session_of(rig), target, ORIGIN, None, now_s + 1) is None
    connection.kill()


async def test_a_name_with_several_addresses_goes_the_common_way(make_rig: MakeRig) -> None:
    rig = make_rig(lookup=lambda _: (ADDRESS, ip_address("127.0.0.2")))
    target = target_of("app.test", rig.server.port)
    connection = await rig.connect(target)
    now_s = connection.started_us / 1e6
    assert express.course(rig.engine, session_of(rig), target, ORIGIN, None, now_s) is None
    connection.kill()


async def test_an_answer_of_the_fast_lane_serves_the_common_way(make_rig: MakeRig) -> None:
    rig = make_rig()
    at = course(rig)
    assert at is not None
    judged = rig.engine.ruling.judgements.recall(session_of(rig), rig.target(), None, time.time())
    assert judged is None or judged.decision is at.decision  # the second may be over


async def test_one_that_stands_and_ends_leaves_its_record(make_rig: MakeRig) -> None:
    rig = make_rig()
    connection = begun(rig)
    assert (connection.peer, connection.opened) == (ADDRESS, False)
    assert rig.engine.relayed == {RELAY_ID: connection}
    express.stood(rig.engine, RELAY_ID, 120)
    rig.engine.completed([Completion(RELAY_ID, 3, 4, "internal", "closed", 0)])
    record = await rig.record()
    assert (record.action, record.rule, record.address, record.connect_us) == (
        "allow",
        "local",
        "127.0.0.1",
        120,
    )
    assert (record.bytes_sent, record.bytes_received, record.end, record.ended_by) == (
        3,
        4,
        "closed",
        "internal",
    )
    assert not rig.engine.relayed


async def test_a_refusal_of_the_moment_is_told_and_recorded_unjudged(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(connections_per_client_max=1))
    first, second = begun(rig), begun(rig)
    assert second.refusal is not None
    assert (second.refusal.reason, second.refusal.hint) == ("client_connections", ReplyHint.BUSY)
    record = await rig.record()
    assert (record.action, record.rule, record.policy, record.end) == ("deny", None, "", "refused")
    assert rig.engine.relayed == {RELAY_ID: first}
    express.lost(rig.engine, RELAY_ID, errno.EPIPE)


@pytest.mark.parametrize(
    ("number", "hint", "reason", "detail"),
    [
        (errno.ECONNREFUSED, ReplyHint.REFUSED, "connection_refused", "Connection refused"),
        (errno.ELOOP, ReplyHint.REFUSED, "connection_refused", "the connection met itself"),
        (0, ReplyHint.TIMED_OUT, "timed_out", "no answer within 15 s"),
        (errno.ETIMEDOUT, ReplyHint.TIMED_OUT, "timed_out", "Connection timed out"),
        (errno.ENETUNREACH, ReplyHint.HOST_UNREACHABLE, "unreachable", "Network is unreachable"),
        (errno.EMFILE, ReplyHint.BUSY, "out_of_resources", "Too many open files"),
        (errno.EACCES, ReplyHint.FAILED, "link_failed", "Permission denied"),
    ],
)
async def test_who_was_not_reached_is_told_and_recorded(
    make_rig: MakeRig, number: int, hint: ReplyHint, reason: str, detail: str
) -> None:
    rig = make_rig()
    begun(rig)
    assert hint_of(express.failed(rig.engine, RELAY_ID, number)) is hint
    record = await rig.record()
    assert (record.action, record.reason, record.detail) == ("fail", reason, detail)
    assert (record.end, record.ended_by, record.address) == ("refused", "ours", "127.0.0.1")
    assert express.failed(rig.engine, RELAY_ID, number) is None


@pytest.mark.parametrize(("how", "hint"), [("killed", ReplyHint.FAILED), ("shutdown", None)])
async def test_killed_while_dialled_it_ends_as_that(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch, how: str, hint: ReplyHint | None
) -> None:
    rig = make_rig()
    connection = begun(rig)
    hints: list[ReplyHint | None] = []

    def kill(pair_id: int) -> None:
        hints.append(hint_of(express.failed(rig.engine, pair_id, errno.ECANCELED)))

    monkeypatch.setattr(rig.engine.relay, "kill", kill)
    rig.engine.kill(connection, how)
    rig.engine.kill(connection, how)
    record = await rig.record()
    assert hints == [hint]
    assert (record.action, record.reason, record.end) == ("fail", how, how)


@pytest.mark.parametrize(
    ("stands", "killed", "number", "action", "end", "by"),
    [
        (True, None, errno.EPIPE, "allow", "abandoned", "internal"),
        (True, None, errno.ECONNRESET, "allow", "abandoned", "internal"),
        (True, None, errno.ENOMEM, "allow", "out_of_resources", "ours"),
        (True, "killed", errno.EPIPE, "allow", "killed", "ours"),
        (False, None, errno.EIO, "fail", "refused", "ours"),
        (False, None, errno.ESHUTDOWN, "fail", "refused", "ours"),
        (False, "killed", errno.ESHUTDOWN, "fail", "killed", "ours"),
    ],
)
async def test_who_was_lost_is_on_record(
    make_rig: MakeRig, stands: bool, killed: str | None, number: int, action: str, end: str, by: str
) -> None:
    rig = make_rig()
    connection = begun(rig)
    if stands:
        express.stood(rig.engine, RELAY_ID, 0)
    connection.killed_as = killed
    express.lost(rig.engine, RELAY_ID, number)
    express.lost(rig.engine, RELAY_ID, number)
    record = await rig.record()
    assert (record.action, record.end, record.ended_by) == (action, end, by)


async def test_letters_about_nobody_are_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    express.stood(rig.engine, RELAY_ID, 1)
    express.lost(rig.engine, RELAY_ID, 1)
    assert express.failed(rig.engine, RELAY_ID, 1) is None
    assert not rig.recorder.records
