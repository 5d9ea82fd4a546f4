from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address

import pytest
from tests.engine.rig import Rig
from tests.engine.udp.rig import UdpRig, begin

from doorward.api import AccessDenied, BadArgument, LinkError, NameNotFound, Side, Terminating
from doorward.engine.target import target_of
from doorward.engine.udp.held import Held
from doorward.net.resolve import Addresses

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def make(rig: Rig) -> tuple[UdpRig, Held]:
    udp = await begin(rig)
    held = Held(udp.mapping)
    udp.mapping.client = held
    return udp, held


async def test_it_sends_to_whom_policy_allows_and_hears_their_answers(make_rig: MakeRig) -> None:
    udp, held = await make(make_rig())
    far = udp.far()
    held.send_to(b"hello", far.name)
    _, source = await far.receive()
    far.send(b"answer", source)
    assert await held.recv_from() == (b"answer", far.name)
    held.send_to(b"x", ("192.0.2.1", 9))
    assert udp.record_of(target_of("192.0.2.1", 9)).reason == "default_deny"


async def test_reaching_says_who_it_is_or_why_not(make_rig: MakeRig) -> None:
    def look_up(name: str) -> Addresses:
        if name != "app.test":
            raise NameNotFound("no such name", side=Side.EXTERNAL)
        return (ip_address("127.0.0.1"),)

    udp, held = await make(make_rig(lookup=look_up))
    assert await held.reach(target_of("app.test", 9)) == ("127.0.0.1", 9)
    assert await held.reach(target_of("127.0.0.1", 9)) == ("127.0.0.1", 9)
    with pytest.raises(AccessDenied) as denied:
        await held.reach(target_of("192.0.2.1", 9))
    assert denied.value.reason == "default_deny"
    with pytest.raises(LinkError):
        await held.reach(target_of("other.test", 9))
    udp.connection.kill()


async def test_after_the_end_every_call_says_so(make_rig: MakeRig) -> None:
    udp, held = await make(make_rig())
    waiting = asyncio.Task(held.recv_from())
    await asyncio.sleep(0)
    udp.connection.kill()
    with pytest.raises(Terminating):
        await waiting
    with pytest.raises(Terminating):
        held.send_to(b"x", ("127.0.0.1", 9))
    with pytest.raises(Terminating):
        await held.reach(target_of("127.0.0.1", 9))


async def test_who_waits_to_reach_a_target_when_it_ends_is_told(make_rig: MakeRig) -> None:
    udp, held = await make(make_rig(lookup=lambda _: (ip_address("127.0.0.1"),)))
    waiting = asyncio.Task(held.reach(target_of("app.test", 9)))
    await asyncio.sleep(0)
    udp.connection.kill()
    with pytest.raises(Terminating):
        await waiting


@pytest.mark.parametrize("name", [("example.org", 9), ("127.0.0.1", 0)])
async def test_what_is_no_address_is_refused(make_rig: MakeRig, name: tuple[str, int]) -> None:
    _, held = await make(make_rig())
    with pytest.raises(BadArgument):
        held.send_to(b"x", name)


async def test_what_is_not_received_in_time_is_dropped_and_counted(make_rig: MakeRig) -> None:
    udp, held = await make(make_rig())
    far = udp.far()
    held.send_to(b"x", far.name)
    await far.receive()
    for _ in range(300):
        udp.mapping.from_outside(memoryview(b"x"), far.name)
    udp.connection.kill()
    assert udp.whole.detail == "dropped: 44 not received"
