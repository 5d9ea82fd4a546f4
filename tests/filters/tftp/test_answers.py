"""Who may answer a request, and for how long."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.engine.promising import timers_of
from tests.engine.rig import Rig, wait_for
from tests.filters.tftp.rig import DATA, READ, talking

from doorward.config.model import Limits
from doorward.filters.tftp.answers import ANSWER_TIMEOUT_S, WAITING_MAX

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


def request_for(number: int) -> bytes:
    return b"\0\1file-%d\0octet\0" % number


async def test_one_peer_answers_from_the_servers_address_and_nobody_else(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    ours = await talk.asks()
    await talk.is_a_stranger(talk.udp.far("127.0.0.2"), ours)
    await talk.answers(ours)
    await talk.is_a_stranger(talk.udp.far(), ours)
    talk.udp.connection.kill()
    await wait_for(lambda: talk.udp.rig.recorder.records[-1].operation == "udp", "its record")
    assert talk.udp.whole.detail == "dropped: 2 from strangers"


async def test_a_server_on_ipv6_beside_one_on_ipv4(make_rig: MakeRig) -> None:
    talk = await talking(make_rig, host="::1")
    talk.udp.mapping.outer(4)
    ours = await talk.asks()
    await talk.is_a_stranger(talk.udp.far(), ("127.0.0.1", talk.udp.mapping.outers[4].name[1]))
    await talk.answers(ours)
    assert talk.grants == 0


async def test_two_transfers_at_once_each_have_their_peer(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    ours = await talk.asks(request_for(1))
    await talk.asks(request_for(2))
    assert talk.grants == 2
    first, second = await talk.answers(ours), await talk.answers(ours)
    for transfer in (second, first):
        transfer.send(DATA, ours)
        await talk.udp.heard(DATA, transfer.name)
    await talk.is_a_stranger(talk.udp.far(), ours)


async def test_a_request_that_is_sent_again_makes_no_second_hole(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    ours = await talk.asks()
    for _ in range(5):
        await talk.asks()
        assert talk.grants == 1
    await talk.answers(ours)
    await talk.is_a_stranger(talk.udp.far(), ours)
    await talk.asks()  # its answer was lost, and the server begins anew
    await talk.answers(ours)
    assert talk.grants == 0


async def test_an_answer_that_comes_too_late_is_a_strangers(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    timers = timers_of(talk.udp.rig)
    ours = await talk.asks()
    timers.advance(ANSWER_TIMEOUT_S - 1)
    await talk.asks()  # from now on it counts
    timers.advance(ANSWER_TIMEOUT_S - 1)
    assert talk.grants == 1
    timers.advance(1)
    assert talk.grants == 0
    await talk.is_a_stranger(talk.udp.far(), ours)


async def test_so_many_requests_may_wait_and_no_more(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    ours = await talk.asks(request_for(0))
    for number in range(1, WAITING_MAX):
        await talk.asks(request_for(number))
    await talk.is_refused(READ, "tftp_too_many")
    assert talk.grants == WAITING_MAX
    await talk.asks(request_for(3))  # again
    await talk.answers(ours)
    await talk.asks(READ)
    assert talk.grants == WAITING_MAX


async def test_without_room_for_promises_a_request_is_dropped_and_noted(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    await talk.asks(request_for(0))
    engine = talk.udp.rig.engine
    ruling = engine.ruling
    engine.ruling = type(ruling)(ruling.policy, ruling.associations, Limits(grants_max_per_session=1))
    await talk.is_refused(READ, "out_of_resources")
    await talk.asks(request_for(0))


async def test_with_the_association_every_promise_is_over(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    for number in range(3):
        await talk.asks(request_for(number))
    talk.udp.connection.kill()
    assert talk.grants == 0
