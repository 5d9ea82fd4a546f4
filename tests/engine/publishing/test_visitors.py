"""Who may come to a published server, and how many of those who may not are told."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from tests.engine.publishing.houses import Street

from doorward.config.model import Limits
from doorward.engine.publishing import visitors
from doorward.engine.publishing.visitors import MINUTE_S, Told
from doorward.policy.model import MINUTES_PER_WEEK, Window

pytestmark = pytest.mark.anyio

MakeStreet = Callable[..., Street]
INSIDE, OUTSIDE = ip_address("198.51.100.7"), ip_address("203.0.113.7")


async def test_who_may_come_and_when(make_street: MakeStreet) -> None:
    sources = (ip_network("198.51.100.0/24"),)
    always = (Window(0, MINUTES_PER_WEEK),)
    street = make_street()
    asked = (await street.open(sources=sources, windows=always)).visitors
    assert asked.judge("tcp", INSIDE, 443).allowed
    assert not asked.judge("tcp", OUTSIDE, 443).allowed
    assert asked.judge("tcp", OUTSIDE, 443, trusted=True).allowed
    never = (await street.open(sources=sources, windows=(), name="never")).visitors
    assert not never.judge("tcp", INSIDE, 443).allowed
    assert not never.judge("tcp", INSIDE, 443, trusted=True).allowed
    assert never.judge("tcp", None, 443).allowed  # the port may be open


async def test_the_answer_names_the_published_server_and_what_it_was_asked(make_street: MakeStreet) -> None:
    street = make_street()
    asked = (await street.open(line=7)).visitors
    decision = asked.judge("udp", INSIDE, 53)
    assert (decision.rule, decision.rule_line, decision.policy) == ("web", 7, "revision")
    assert (decision.inputs.transport, decision.inputs.address, decision.inputs.port) == (
        "udp-in",
        INSIDE,
        53,
    )


async def test_each_visitor_is_counted_by_its_address(make_street: MakeStreet) -> None:
    street = make_street(limits=Limits(connections_per_client_max=1))
    asked = (await street.open()).visitors
    assert asked.enter(INSIDE) is None
    assert asked.enter(OUTSIDE) is None
    refusal = asked.enter(INSIDE)
    assert refusal is not None
    assert refusal.reason == "client_connections"
    asked.leave(INSIDE)
    asked.leave(INSIDE)
    assert asked.enter(INSIDE) is None


def test_a_scan_is_told_up_to_a_limit_and_the_rest_in_the_next_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(visitors, "TOLD_A_MINUTE_MAX", 2)
    now = [0.0]
    told = Told(lambda: now[0])
    assert [told.ask() for _ in range(5)] == [0, 0, None, None, None]
    now[0] = MINUTE_S
    assert [told.ask() for _ in range(3)] == [3, 0, None]
    now[0] = 5 * MINUTE_S
    assert told.ask() == 1


async def test_how_many_were_left_out_stands_on_the_next_record(
    make_street: MakeStreet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(visitors, "TOLD_A_MINUTE_MAX", 1)
    monkeypatch.setattr(visitors, "MINUTE_S", 0.0)
    street = make_street()
    asked = (await street.open()).visitors
    told = asked._told
    told._count = 5
    asked.turned_away("tcp", ("203.0.113.7", 1), "peer_not_admitted", detail="what")
    (record,) = await street.records("accept")
    assert record.detail == "what; 4 more were turned away within the minute before"
