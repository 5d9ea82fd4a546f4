from __future__ import annotations

import socket
from collections.abc import Callable

import pytest
from tests.engine.rig import Rig, wait_for
from tests.engine.udp.rig import begin

from doorward.config.model import Limits
from doorward.net.datagrams import DatagramSocket
from doorward.net.transparent import why_not

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_a_client_loses_its_oldest_to_its_newest_and_others_lose_nothing(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(udp_mappings_per_client_max=2))
    other = await begin(rig, client_address="127.0.0.2")
    first, second, third = [await begin(rig) for _ in range(3)]
    assert first.connection.end is not None
    assert first.connection.end.how == "udp_mapping_evicted"
    assert [m.connection.end for m in (second, third, other)] == [None] * 3
    assert len(rig.engine.udp) == 3


async def test_a_limit_of_one_always_has_room_for_the_newest(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(udp_mappings_per_client_max=1))
    await begin(rig)
    await begin(rig)
    last = await begin(rig)
    assert len(rig.engine.udp) == 1
    assert last.connection.end is None
    await last.exchange(last.far())


async def test_nothing_is_left_of_those_that_ended(make_rig: MakeRig) -> None:
    rig = make_rig()
    for _ in range(10):
        udp = await begin(rig)
        await udp.exchange(udp.far())
        udp.connection.kill()
    table = rig.engine.udp
    assert (len(table), table.alive, table._by_client, +table._ports) == (0, 0, {}, {})


async def test_our_own_sockets_are_known_as_ours(make_rig: MakeRig) -> None:
    rig = make_rig()
    udp = await begin(rig)
    source = await udp.exchange(udp.far())
    table = rig.engine.udp
    assert table.is_ours(source)
    assert not table.is_ours(("192.0.2.1", source[1]))
    assert not table.is_ours((source[0], source[1] - 1))
    udp.connection.kill()
    assert not table.is_ours(source)


async def test_releasing_twice_is_once(make_rig: MakeRig) -> None:
    table = make_rig().engine.udp
    opened = table.open("127.0.0.1", 0, lambda *_: None)
    table.release(opened)
    table.release(opened)
    assert not opened.open
    assert +table._ports == {}


async def test_sockets_have_room_for_a_burst(make_rig: MakeRig) -> None:
    table = make_rig().engine.udp
    opened = table.open("127.0.0.1", 0, lambda *_: None)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as plain:
        usual = plain.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
    assert opened._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= usual
    table.release(opened)


async def test_idle_mappings_end_by_themselves(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(idle_timeout_s=0.05))
    udp = await begin(rig)
    await wait_for(lambda: udp.connection.end is not None, "it ends")
    assert udp.whole.end == "idle_timeout"


async def test_a_socket_that_is_bound_already_is_ours_from_then_on(make_rig: MakeRig) -> None:
    table = make_rig().engine.udp
    bound = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    bound.bind(("127.0.0.1", 0))
    bound.setblocking(False)
    adopted = table.adopt(DatagramSocket(table.inbox, bound, lambda *_: None))
    assert table.is_ours(adopted.name)
    table.release(adopted)
    assert not table.is_ours(adopted.name)
    assert bound.fileno() < 0


@pytest.mark.skipif(bool(why_not(4)), reason=f"borrowing addresses: {why_not(4)}")
async def test_some_far_ends_see_an_address_that_is_borrowed(make_rig: MakeRig) -> None:
    rig = make_rig()
    udp = await begin(rig)
    one, other, kept = udp.far(), udp.far(), udp.far("127.0.0.50")
    udp.connection.extra.borrowed = lambda address: "127.0.0.60" if str(address) == "127.0.0.50" else None
    ours = await udp.exchange(one)
    assert await udp.exchange(other) == ours
    borrowed = await udp.exchange(kept)
    assert (ours[0], borrowed[0]) == ("127.0.0.1", "127.0.0.60")
    assert await udp.exchange(kept) == borrowed
    assert rig.engine.udp.is_ours(borrowed)
    assert not rig.engine.udp.is_ours(("192.0.2.60", borrowed[1]))
    udp.connection.kill()
    assert not rig.engine.udp.is_ours(borrowed)
    assert +rig.engine.udp._ports == {}
