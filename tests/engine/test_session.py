"""Sessions: one for each user on one address, kept while they are used, bounded in number."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.engine.rig import Plugin, entry

from doorward.api import OutOfResources, Side
from doorward.engine.session import Session, SessionTable
from doorward.policy.model import UNKNOWN
from doorward.testing import Clock


def table(clock: Clock, sessions_max: int = 3) -> SessionTable:
    return SessionTable(clock, sessions_max, 60.0)


def test_the_same_user_on_the_same_address_is_the_same_session() -> None:
    sessions = table(Clock())
    kim = sessions.get("192.0.2.1", "kim")
    assert sessions.get("192.0.2.1", "kim") is kim
    assert len(sessions) == 1


def test_another_user_another_address_and_nobody_are_sessions_of_their_own() -> None:
    sessions = table(Clock())
    found = [sessions.get(*who) for who in [("192.0.2.1", "kim"), ("192.0.2.1", None), ("192.0.2.2", "kim")]]
    assert len({session.id for session in found}) == 3
    assert list(sessions) == found


def test_not_asked_yet_and_unable_to_say_are_one_session() -> None:
    sessions = table(Clock())
    assert sessions.get("192.0.2.1", UNKNOWN) is sessions.get("192.0.2.1", None)
    assert sessions.get("192.0.2.1", None).user is None


def test_groups_are_those_of_the_last_login() -> None:
    sessions = table(Clock())
    sessions.get("192.0.2.1", "kim", frozenset({"old"}))
    assert sessions.get("192.0.2.1", "kim", frozenset({"new"})).groups == {"new"}


@pytest.mark.parametrize(
    ("written", "meant"),
    [("192.0.2.1", "192.0.2.1"), ("::ffff:192.0.2.1", "192.0.2.1"), ("fe80::1%eth0", "fe80::1")],
)
def test_policy_sees_the_address_without_its_disguise(written: str, meant: str) -> None:
    assert Session(1, written, None, frozenset()).address == ip_address(meant)


def test_a_session_ends_when_it_was_idle_for_its_whole_time_and_not_before() -> None:
    clock = Clock()
    sessions = table(clock)
    session = sessions.get("192.0.2.1", None)
    clock.advance(59.9)
    assert sessions.end_idle() == 0
    clock.advance(0.1)
    assert sessions.end_idle() == 1
    assert sessions.get("192.0.2.1", None).id != session.id


def test_a_session_with_a_connection_never_ends_and_its_idle_time_begins_with_the_last_ones_end() -> None:
    clock = Clock()
    sessions = table(clock)
    session = sessions.get("192.0.2.1", None)
    sessions.enter(session)
    sessions.enter(session)
    clock.advance(1000)
    assert sessions.end_idle() == 0
    sessions.leave(session)
    assert sessions.end_idle() == 0
    sessions.leave(session)
    clock.advance(59)
    assert sessions.end_idle() == 0
    clock.advance(1)
    assert sessions.end_idle() == 1


def test_a_full_table_lets_go_of_what_was_idle_longest() -> None:
    clock = Clock()
    sessions = table(clock)
    busy, oldest, younger = (sessions.get(f"192.0.2.{n}", None) for n in (1, 2, 3))
    sessions.enter(busy)
    clock.advance(1)
    sessions.enter(younger)
    sessions.leave(younger)
    sessions.get("192.0.2.4", None)
    assert [session.client_address for session in sessions] == ["192.0.2.1", "192.0.2.3", "192.0.2.4"]
    assert oldest not in list(sessions)


def test_a_table_full_of_busy_sessions_refuses_the_newcomer_and_keeps_the_old() -> None:
    sessions = table(Clock(), sessions_max=2)
    for number in (1, 2):
        sessions.enter(sessions.get(f"192.0.2.{number}", None))
    with pytest.raises(OutOfResources) as refused:
        sessions.get("192.0.2.3", None)
    assert refused.value.side is Side.OURS
    assert len(sessions) == 2
    assert sessions.get("192.0.2.1", None).connections == 1


def test_a_filter_has_one_object_for_each_session_made_at_its_first_event() -> None:
    plugin = Plugin("one", [])
    joined = entry(plugin)
    kim, lee = Session(1, "192.0.2.1", "kim", frozenset()), Session(2, "192.0.2.1", "lee", frozenset())
    assert kim.filter_of(joined) is kim.filter_of(joined)
    assert kim.filter_of(joined) is not lee.filter_of(joined)
    assert plugin.sessions == [kim, lee]


def test_objects_of_filters_that_have_left_are_let_go() -> None:
    stays, leaves = entry(Plugin("stays", [])), entry(Plugin("leaves", []))
    session = Session(1, "192.0.2.1", None, frozenset())
    kept, gone = session.filter_of(stays), session.filter_of(leaves)
    session.forget_filters(frozenset({stays}))
    assert session.filter_of(stays) is kept
    assert session.filter_of(leaves) is not gone
