"""Who may come by a promise, and until when."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.engine.promising import timers_of
from tests.engine.rig import LOOPBACK, Rig, wait_for
from tests.engine.udp.expecting import HERE, World, promised
from tests.engine.udp.rig import begin

from doorward.api import (
    BadArgument,
    IpFilter,
    NotFound,
    OutOfResources,
    Terminating,
)
from doorward.engine.grants import Promise
from doorward.engine.udp.destination import State
from doorward.engine.udp.expected import Expected
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
THERE = "127.0.0.3"


async def test_one_peer_may_come_and_be_answered_and_everybody_else_is_a_stranger(make_rig: MakeRig) -> None:
    world = await promised(make_rig)
    udp = world.udp
    peer, another, elsewhere = udp.far(), udp.far(), udp.far(THERE)
    await world.is_a_stranger(elsewhere)
    assert (world.grant.active, world.grant.socket_name) == (True, udp.connection.external_socket_name)
    await world.comes(peer)
    assert (world.grant.active, world.grant.uses) == (False, 1)
    await world.comes(peer, b"second")
    await world.is_a_stranger(another)
    await udp.exchange(world.server)
    udp.connection.kill()
    await wait_for(lambda: udp.rig.recorder.records[-1].operation == "udp", "the mapping's own record")
    record = udp.record_of(peer.target)
    assert (record.action, record.reason, record.rule) == ("allow", "granted", "chat only")
    assert (record.parent, record.protocol) == (udp.connection.id, "chat")
    assert (record.bytes_sent, record.bytes_received) == (2 * len("answer"), len("firstsecond"))
    assert udp.whole.detail == "dropped: 2 from strangers"


async def test_the_client_cannot_be_the_first_to_speak_to_such_a_peer(make_rig: MakeRig) -> None:
    world = await promised(make_rig)
    peer = world.udp.far()
    world.udp.say(b"too early", peer.target)
    assert world.udp.record_of(peer.target).reason == "guarded_loopback"
    assert world.grant.active
    await world.comes(peer)
    assert not world.grant.active


async def test_datagrams_of_a_peer_that_is_being_judged_wait_for_the_answer(make_rig: MakeRig) -> None:
    world = await promised(make_rig)
    peer = world.udp.far()
    for number in range(3):
        peer.send(bytes([number]), world.ours)
    for number in range(3):
        await world.udp.heard(bytes([number]), peer.name)
    assert world.grant.uses == 1


async def test_many_may_come_as_long_as_the_promise_lives_and_stay_when_it_ends(make_rig: MakeRig) -> None:
    world = await promised(make_rig, multiple=True, ip_filter=IpFilter("127.0.0.1", THERE))
    peers = [world.udp.far(host) for host in ("127.0.0.1", THERE, "127.0.0.1")]
    for peer in peers:
        await world.comes(peer)
    assert (world.grant.active, world.grant.uses) == (True, 3)
    world.grant.cancel()
    await world.is_a_stranger(world.udp.far())
    for peer in peers:
        await world.comes(peer, b"still here")
    assert world.udp.rig.engine.grants.alive == 0


async def test_many_push_nobody_out(make_rig: MakeRig) -> None:
    world = await promised(make_rig, multiple=True)
    world.udp.mapping.memory.destinations_max = 2
    await world.comes(world.udp.far())
    await world.is_a_stranger(world.udp.far())
    await world.udp.exchange(world.server)


@pytest.mark.parametrize("how", ["cancelled", "expired", "parent", "session"])
async def test_with_the_grant_the_way_is_closed_at_once(make_rig: MakeRig, how: str) -> None:
    rig = make_rig(rules=[Rule("here", Action.ALLOW, to_networks=LOOPBACK)])
    timers = timers_of(rig)
    udp = await begin(rig)
    parent = await rig.connect(session=udp.connection.session)
    far = udp.far()
    await udp.exchange(far)
    session = udp.connection.session
    grant = session.retroactive_allow_bind(
        "udp", udp.connection.external_socket_name, ip_filter=HERE, parent=parent, timeout_s=2
    )
    timers.advance(1.9)
    assert (grant.active, grant.uses) == (True, 0)
    if how == "cancelled":
        grant.cancel()
    elif how == "expired":
        timers.advance(0.2)
    elif how == "parent":
        parent.kill()
    else:
        session.end()
    assert not grant.active
    assert len(udp.mapping.expected) == 0
    await World(udp, far, [grant]).is_a_stranger(udp.far())
    parent.kill()


async def test_a_promise_of_another_connection_is_kept_when_that_ends_after_the_peer_came(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(rules=[Rule("here", Action.ALLOW, to_networks=LOOPBACK)])
    udp = await begin(rig)
    parent = await rig.connect(session=udp.connection.session)
    await udp.exchange(udp.far())
    grant = udp.connection.session.retroactive_allow_bind(
        "udp", udp.connection.external_socket_name, ip_filter=HERE, parent=parent
    )
    world, peer = World(udp, udp.far(), [grant]), udp.far()
    await world.comes(peer)
    parent.kill()
    await world.comes(peer, b"still here")
    rig.recorder.records.clear()
    udp.connection.kill()
    record = udp.record_of(peer.target)
    assert (record.reason, record.rule, record.parent) == ("granted", "here", parent.id)


async def test_with_the_mapping_what_was_promised_for_it_is_over(make_rig: MakeRig) -> None:
    world = await promised(make_rig, parent=None)
    assert (world.grant.active, world.grant.uses) == (True, 0)
    world.udp.connection.kill()
    assert not world.grant.active
    assert world.udp.rig.engine.grants.alive == 0


async def test_only_a_mapping_of_this_sessions_own_can_be_named(make_rig: MakeRig) -> None:
    world = await promised(make_rig)
    udp, engine = world.udp, world.udp.rig.engine
    session, name = udp.connection.session, udp.connection.external_socket_name
    for somebody in (engine.sessions.get("127.0.0.1", "kim"), engine.sessions.get("127.0.0.2", None)):
        with pytest.raises(NotFound):
            somebody.retroactive_allow_bind("udp", name, ip_filter=HERE)
    for other in ((name[0], 1), ("127.0.0.1", name[1])):
        with pytest.raises(NotFound):
            session.retroactive_allow_bind("udp", other, ip_filter=HERE)
    with pytest.raises(BadArgument):
        session.retroactive_allow_bind("udp", ("nowhere", 1), ip_filter=HERE)
    [bound] = await session.bind_for_client(("127.0.0.1", 4000), transport="udp", address="127.0.0.1")
    with pytest.raises(NotFound):
        session.retroactive_allow_bind("udp", bound.external_socket_name, ip_filter=HERE)
    bound.kill()
    udp.mapping.is_system = True
    with pytest.raises(NotFound):
        session.retroactive_allow_bind("udp", name, ip_filter=HERE)
    udp.connection.kill()
    with pytest.raises(NotFound):
        session.retroactive_allow_bind("udp", name, ip_filter=HERE)
    session.end()
    with pytest.raises(Terminating):
        session.retroactive_allow_bind("udp", name, ip_filter=HERE)


async def test_a_session_has_so_many_promises_and_no_more(make_rig: MakeRig) -> None:
    world = await promised(make_rig)
    udp = world.udp
    session, most = udp.connection.session, udp.rig.limits.grants_max_per_session
    for _ in range(most - 1):
        session.retroactive_allow_bind("udp", udp.connection.external_socket_name, ip_filter=HERE)
    with pytest.raises(OutOfResources):
        session.retroactive_allow_bind("udp", udp.connection.external_socket_name, ip_filter=HERE)
    assert len(udp.mapping.expected) == most


async def test_an_empty_filter_admits_nobody_and_a_later_change_of_it_is_none(make_rig: MakeRig) -> None:
    admitted = IpFilter()
    world = await promised(make_rig, ip_filter=admitted)
    admitted.include_range("127.0.0.1")
    await world.is_a_stranger(world.udp.far())
    assert world.grant.active


async def test_a_promise_is_about_one_of_the_mappings_sockets(make_rig: MakeRig) -> None:
    everybody = IpFilter.everybody()
    udp = await begin(make_rig())
    for host in ("127.0.0.1", "::1"):
        await udp.exchange(udp.far(host))
    four, six = udp.mapping.outers[4].name, udp.mapping.outers[6].name
    session = udp.connection.session
    grant = session.retroactive_allow_bind("udp", six, ip_filter=everybody, multiple=True)
    assert grant.socket_name == six
    peer = udp.far()
    peer.send(b"no", ("127.0.0.1", four[1]))
    await wait_for(lambda: udp.mapping.strangers == 1, "the stranger")
    peer = udp.far("::1")
    peer.send(b"yes", ("::1", six[1]))
    await udp.heard(b"yes", peer.name)
    assert grant.uses == 1


async def test_the_oldest_promise_is_used_first(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = (await begin(rig)).connection.session
    expected = Expected()

    def promise() -> Promise:
        return Promise(rig.engine.grants, session, session_way)

    session_way = (await begin(rig)).connection.way
    first, second, other = promise(), promise(), promise()
    expected.add(other, 4, IpFilter(THERE))
    expected.add(first, 4, HERE)
    expected.add(second, 4, HERE)
    assert expected.find(("127.0.0.1", 9)) is first
    first.use()
    assert expected.find(("127.0.0.1", 9)) is second
    assert expected.find((THERE, 9)) is other
    assert expected.find(("::1", 9, 0, 0)) is None
    expected.end()
    assert (len(expected), other.active, second.active) == (0, False, False)


async def test_a_peer_that_is_forgotten_needs_another_promise(make_rig: MakeRig) -> None:
    world = await promised(make_rig)
    peer = world.udp.far()
    await world.comes(peer)
    destination = world.udp.mapping.memory.get(peer.target)
    assert destination is not None
    world.udp.mapping.forget(destination)
    assert destination.state is State.FORGOTTEN
    await world.is_a_stranger(peer)
    world.udp.say(b"x", peer.target)
    assert world.udp.mapping.memory.get(peer.target).state is State.DENIED  # type: ignore[union-attr]
