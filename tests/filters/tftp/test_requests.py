"""What a client may say to the port that requests are sent to, and what a server may say from it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.engine.rig import Rig, wait_for
from tests.filters.tftp.rig import ACK, ACK_0, DATA, ERROR, READ, WRITE, talking

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]

OPTIONS = b"\0\1file\0octet\0blksize\0001468\0tsize\0000\0"
OACK = b"\0\6blksize\0001468\0tsize\00014\0"


@pytest.mark.parametrize(
    ("request_", "answer", "reply"),
    [(READ, DATA, ACK), (WRITE, ACK_0, DATA), (OPTIONS, OACK, ACK_0), (READ, ERROR, ACK)],
    ids=["read", "write", "options", "error"],
)
async def test_a_request_is_answered_from_a_port_of_the_servers_choice(
    make_rig: MakeRig, request_: bytes, answer: bytes, reply: bytes
) -> None:
    talk = await talking(make_rig)
    ours = await talk.asks(request_)
    assert talk.grants == 1
    transfer = await talk.answers(ours, answer, reply)
    assert talk.grants == 0
    talk.udp.connection.kill()
    record = talk.udp.record_of(transfer.target)
    assert (record.reason, record.rule, record.protocol) == ("granted", "tftp only", "tftp")
    assert talk.udp.record_of(talk.server.target).rule == "tftp only"


async def test_what_is_refused_is_noted_and_the_next_request_is_as_good_as_ever(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    await talk.is_refused(DATA, "tftp_unasked")
    await talk.is_refused(READ + b"x", "tftp_bad_request")
    await talk.is_refused(READ + b"blksize\0004\0", "tftp_bad_option")
    await talk.is_refused(OACK, "tftp_bad_packet")
    assert talk.grants == 0
    assert talk.udp.client.heard == []
    await talk.answers(await talk.asks())


async def test_data_for_a_group_is_answered_in_the_servers_place(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    await talk.is_refused(
        READ + b"multicast\0\0", "tftp_multicast"
    )  # RFC 2090: a client leaves the value empty
    await talk.udp.heard(b"\0\5\0\x08Refused by the firewall: tftp_multicast\0", talk.server.name)


async def test_read_only(make_rig: MakeRig) -> None:
    talk = await talking(make_rig, {"read_only": True})
    await talk.is_refused(WRITE, "tftp_read_only")
    await talk.udp.heard(b"\0\5\0\2Refused by the firewall: tftp_read_only\0", talk.server.name)
    assert talk.grants == 0
    ours = await talk.asks()
    await talk.answers(ours)
    talk.udp.say(DATA, talk.server.target)
    await talk.udp.heard(b"\0\5\0\2Refused by the firewall: tftp_read_only\0", talk.server.name)
    assert talk.server.is_silent()


async def test_a_server_may_answer_from_the_port_that_was_asked(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    ours = await talk.asks()
    for packet in (OACK, DATA, ERROR):
        talk.server.send(packet, ours)
        await talk.udp.heard(packet, talk.server.name)
    assert talk.grants == 0
    await talk.is_a_stranger(talk.udp.far(), ours)
    talk.udp.say(ACK, talk.server.target)
    assert (await talk.server.receive())[0] == ACK


async def test_what_no_server_says_does_not_reach_the_client(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    ours = await talk.asks()
    for packet in (READ, b"HTTP/1.1 200 OK\r\n", b""):
        talk.server.send(packet, ours)
    talk.server.send(DATA, ours)
    await talk.udp.heard(DATA, talk.server.name)
    assert talk.noted == ["tftp_bad_packet"]


async def test_an_answer_to_nothing_does_not_reach_the_client(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    await talk.is_refused(ACK, "tftp_unasked")
    ours = "127.0.0.1", talk.udp.mapping.outers[4].name[1]
    talk.server.send(DATA, ours)
    talk.server.send(READ, ours)
    await wait_for(lambda: talk.noted == ["tftp_unasked", "tftp_bad_packet"], "both were looked at")
    assert talk.udp.client.heard == []


async def test_no_promise_outlives_what_was_asked(make_rig: MakeRig) -> None:
    talk = await talking(make_rig)
    ours = await talk.asks()
    assert talk.grants == 1
    destination = talk.udp.mapping.memory.get(talk.server.target)
    assert destination is not None
    talk.udp.mapping.forget(destination)
    await wait_for(lambda: talk.grants == 0, "the promise is over")
    await talk.is_a_stranger(talk.udp.far(), ours)
