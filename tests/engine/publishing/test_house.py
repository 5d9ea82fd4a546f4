"""A published server as a whole: failover, what all being down costs, and what is left at its end."""

from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from tests.engine.publishing.houses import Street, passes
from tests.engine.rig import wait_for

from doorward.api import SessionFlags
from doorward.config.model import Limits

pytestmark = pytest.mark.anyio

MakeStreet = Callable[..., Street]


async def test_who_cannot_be_reached_is_passed_over_and_the_next_one_serves(make_street: MakeStreet) -> None:
    street = make_street()
    gone = street.rig.another_server()
    gone.close()
    house = await street.open(gone, street.rig.server)
    visitor = street.visit(house)
    await passes(visitor, await street.came())
    assert street.changes == [(f"127.0.0.1:{gone.port}", "Connection refused")]
    visitor.end()
    street.visit(house)
    await street.came()
    assert len(street.changes) == 1  # it rests, and was not asked again


async def test_when_all_are_down_the_visitor_is_reset_and_the_record_says_why_of_each(
    make_street: MakeStreet,
) -> None:
    street = make_street()
    one, other = street.rig.another_server(), street.rig.another_server()
    one.close()
    other.close()
    house = await street.open(one, other)
    assert await street.visit(house).is_reset()
    (record,) = await street.records("accept")
    assert (record.action, record.reason, record.rule) == ("fail", "servers_down", "web")
    assert record.detail is not None
    assert f"127.0.0.1:{one.port}: Connection refused" in record.detail
    assert f"127.0.0.1:{other.port}: Connection refused" in record.detail


async def test_a_server_that_is_silent_costs_its_share_of_the_time_and_no_more(
    make_street: MakeStreet,
) -> None:
    street = make_street(limits=Limits(connect_timeout_s=0.2))
    with socket.socket() as silent, socket.socket() as filling:
        silent.bind(("127.0.0.1", 0))
        silent.listen(0)
        filling.connect(silent.getsockname())  # the backlog is full: the kernel answers nothing more
        house = await street.open(silent.getsockname()[1], street.rig.server)
        await passes(street.visit(house), await street.came())
    assert street.changes[0][1].startswith("no answer within 0.")


async def test_what_probes_have_found_down_is_not_even_tried(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open()
    house.servers.down(house.servers.every[0], "probe")
    assert await street.visit(house).is_reset()
    (record,) = await street.records("accept")
    assert (record.reason, record.detail) == ("servers_down", "probes have found every server down")
    assert street.rig.server.nobody_came()


async def test_its_session_is_its_own_and_ends_with_it(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open()
    assert house.session.flags & SessionFlags.PRIVATE
    assert house.session.client_address == "127.0.0.1"
    assert not house.is_over
    visitor = street.visit(house)
    await street.came()
    house.end()
    house.end()
    assert house.session.ended
    await wait_for(lambda: house.is_over, "it is over")
    assert await visitor.is_reset()
    assert house.session not in list(street.rig.engine.sessions)


async def test_what_it_speaks_is_said_by_the_policy_or_by_the_port(make_street: MakeStreet) -> None:
    street = make_street()
    named = await street.open(protocol="https", name="named")
    assert named.origin("tcp", 1).application == "https"
    unnamed = await street.open(name="unnamed")
    assert unnamed.origin("tcp", 1).application is None
