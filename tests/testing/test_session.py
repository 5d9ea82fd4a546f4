"""A session whose policy, names and sockets are the test's own."""

from __future__ import annotations

import pytest
from tests.testing.conftest import MakeHarness

from doorward.api import (
    BadArgument,
    NameNotFound,
    NotFound,
    PrivateSession,
    Session,
    SessionFlags,
    Terminating,
)

pytestmark = pytest.mark.anyio


def test_it_may_be_looked_at_where_no_loop_runs(make_harness: MakeHarness) -> None:
    session: Session = make_harness(
        user="kim", groups=frozenset({"staff"}), client_address="2001:db8::7"
    ).session
    assert (session.user, session.groups, session.client_address) == (
        "kim",
        frozenset({"staff"}),
        "2001:db8::7",
    )
    assert session.flags is SessionFlags.AUTHENTICATED


async def test_policy_answers_what_the_test_says(make_harness: MakeHarness) -> None:
    asked: list[tuple[str, str, int | None]] = []

    def allows(protocol: str, host: str, port: int | None) -> bool:
        asked.append((protocol, host, port))
        if protocol == "gopher":
            raise NotFound(protocol)
        return host != "bad.test"

    session: Session = make_harness(allows=allows).session
    good = await session.check_access("http", "Good.Test", 8080)
    bad = await session.check_access("tcp/443", "bad.test")
    assert (good.allowed, good.reason, bad.allowed, bad.reason) == (True, "rule_allow", False, "rule_deny")
    assert asked == [("http", "good.test", 8080), ("tcp/443", "bad.test", None)]
    with pytest.raises(NotFound):
        await session.check_access("gopher", "good.test")
    with pytest.raises(BadArgument):
        await session.check_access("http", "no such name")


async def test_there_are_no_other_names_than_the_tests(make_harness: MakeHarness) -> None:
    session = make_harness(names={"A.test": ["198.51.100.5", "2001:db8::5"]}).session
    assert await session.resolve("a.test") == ("198.51.100.5", "2001:db8::5")
    assert await session.resolve("server.example") == ("192.0.2.1",)
    assert await session.resolve_address("2001:db8::5") == ("a.test",)
    for looking_up in (session.resolve("b.test"), session.resolve_address("198.51.100.6")):
        with pytest.raises(NameNotFound):
            await looking_up


async def test_filters_that_are_to_join_are_noted(make_harness: MakeHarness) -> None:
    session = make_harness().session
    session.attach_filter("ftp")
    assert session.attached == ["ftp"]


async def test_nothing_is_done_after_its_end(make_harness: MakeHarness) -> None:
    harness = make_harness()
    session: PrivateSession = harness.firewall.create_private_session("192.0.2.9", "kim", ["staff"])
    connection = session.allow_connect("198.51.100.1", 80)
    session.close()
    assert not connection.active
    assert session.flags & SessionFlags.TERMINATED
    with pytest.raises(Terminating):
        session.create_network_socket()
    with pytest.raises(Terminating):
        session.attach_filter("ftp")
    with pytest.raises(Terminating):
        await session.check_access("http", "a.test")
