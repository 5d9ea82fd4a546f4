from __future__ import annotations

import asyncio
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest
from tests.engine.rig import LOCAL_RULE, Rig, wait_for
from tests.engine.udp.rig import Far, attaching, begin, hearing

from doorward.api import BadContext, Connection, DataFilter, EventKind, Refuse, Socket, UpstreamNoUdp
from doorward.config.model import Limits
from doorward.engine.ruling import Ruling
from doorward.engine.target import target_of
from doorward.engine.udp.destination import State
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


async def test_filters_are_told_once_for_as_long_as_a_destination_is_remembered(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    udp = await begin(make_rig(hearing(heard)))
    far = udp.far()
    for _ in range(3):
        await udp.exchange(far)
    assert heard == [("plugin", "bind"), ("plugin", "udp_destination")]
    destination = udp.mapping.memory.get(far.target)
    assert destination is not None
    udp.mapping.forget(destination)
    await udp.exchange(far)
    assert heard.count(("plugin", "udp_destination")) == 2
    udp.connection.kill()
    await wait_for(lambda: heard[-1] == ("plugin", "terminating"), "the end is told")
    assert heard.count(("plugin", "terminating")) == 1


async def test_the_event_says_who_is_meant(make_rig: MakeRig) -> None:
    told: list[Any] = []

    async def tell(event: Any) -> None:
        told.append((event.destination.host, event.destination.address, event.destination.port))
        told.append((event.protocol, event.is_secondary, event.connection.id))

    rig = make_rig(hearing([], udp_destination=tell), lookup=lambda _: (ip_address("127.0.0.1"),))
    udp = await begin(rig)
    far = udp.far()
    await udp.exchange(far, to=target_of("app.test", far.name[1]))
    assert told == [("app.test", "127.0.0.1", far.name[1]), (None, False, udp.connection.id)]


async def test_what_policy_refuses_no_filter_sees(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    udp = await begin(make_rig(hearing(heard)))
    await udp.settle(udp.say(b"x", target_of("192.0.2.1", 9)))
    assert heard == [("plugin", "bind")]


async def test_a_filter_may_deny_a_destination_which_is_then_silent(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        event.destination.deny("not_there")

    heard: list[tuple[str, str]] = []
    first, second = hearing(heard, "first", udp_destination=deny), hearing(heard, "second")
    udp = await begin(make_rig(first, second))
    far = udp.far()
    await udp.settle(udp.say(b"x", far.target))
    destination = await udp.settle(udp.say(b"x", far.target))
    assert destination.state is State.DENIED
    record = udp.record_of(far.target)
    assert (record.action, record.reason, record.end) == ("deny", "not_there", "refused")
    assert record.filters == '[["first","denied","not_there"]]'
    assert ("second", "udp_destination") not in heard
    assert far.is_silent()


async def test_a_destination_can_be_denied_in_its_event_alone(make_rig: MakeRig) -> None:
    kept: list[Any] = []

    async def keep(event: Any) -> None:
        kept.append(event)

    udp = await begin(make_rig(hearing([], udp_destination=keep)))
    await udp.exchange(udp.far())
    with pytest.raises(BadContext):
        kept[0].destination.deny()
    with pytest.raises(BadContext):
        kept[0].connection.attach_data_filter(DataFilter())


async def test_what_a_filter_has_left_running_has_no_say_while_another_one_is_asked(
    make_rig: MakeRig,
) -> None:
    met: list[str] = []
    tried = asyncio.Event()

    async def try_later(event: Any) -> None:
        try:
            event.destination.deny()
        except BadContext as error:
            met.append(error.reason)
        tried.set()

    async def leave(event: Any) -> None:
        rig.engine.supervisor.spawn(try_later(event), name="left running")

    async def wait(event: Any) -> None:
        await tried.wait()

    rig = make_rig(hearing([], udp_destination=leave), hearing([], udp_destination=wait))
    udp = await begin(rig)
    await udp.exchange(udp.far())
    assert met == ["bad_context"]


async def test_the_connection_itself_cannot_be_denied_there(make_rig: MakeRig) -> None:
    met: list[str] = []

    async def deny(event: Any) -> None:
        try:
            event.connection.deny()
        except BadContext as error:
            met.append(error.reason)

    udp = await begin(make_rig(hearing([], udp_destination=deny)))
    await udp.exchange(udp.far())
    assert met == ["bad_context"]


@pytest.mark.parametrize(
    ("error", "action", "reason"),
    [(Refuse("no_thanks"), "deny", "no_thanks"), (ZeroDivisionError(), "fail", "filter_failed")],
)
async def test_a_handler_that_raises_costs_its_destination_alone(
    make_rig: MakeRig, error: Exception, action: str, reason: str
) -> None:
    async def fail(event: Any) -> None:
        if event.destination.port == bad.name[1]:
            raise error

    udp = await begin(make_rig(hearing([], udp_destination=fail)))
    bad, good = udp.far(), udp.far()
    await udp.settle(udp.say(b"x", bad.target))
    await udp.exchange(good)
    record = udp.record_of(bad.target)
    assert (record.action, record.reason) == (action, reason)
    assert bad.is_silent()


async def test_a_handler_that_stalls_costs_its_destination_alone(make_rig: MakeRig) -> None:
    async def stall(event: Any) -> None:
        await asyncio.Event().wait()

    rig = make_rig(hearing([], udp_destination=stall), limits=Limits(event_timeout_s=0.05))
    udp = await begin(rig)
    far = udp.far()
    await udp.settle(udp.say(b"x", far.target))
    assert udp.record_of(far.target).reason == "filter_stalled"
    assert udp.connection.end is None


async def test_events_of_one_mapping_come_one_after_another(make_rig: MakeRig) -> None:
    inside, most = 0, 0

    async def count(event: Any) -> None:
        nonlocal inside, most
        inside += 1
        most = max(most, inside)
        await asyncio.sleep(0)
        inside -= 1

    udp = await begin(make_rig(hearing([], udp_destination=count)))
    for destination in [udp.say(b"x", target_of("127.0.0.9", number)) for number in range(1, 20)]:
        await udp.settle(destination)
    assert most == 1


async def test_a_mapping_killed_in_a_handler_opens_nothing(make_rig: MakeRig) -> None:
    async def kill(event: Any) -> None:
        event.connection.kill()

    udp = await begin(make_rig(hearing([], udp_destination=kill)))
    far = udp.far()
    udp.say(b"x", far.target)
    await wait_for(lambda: bool(udp.rig.recorder.records), "it ends")
    assert udp.mapping.outers == {}
    assert far.is_silent()
    assert udp.whole.end == "killed"


async def test_a_grant_opens_what_policy_does_not_and_once(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[Rule("no", Action.DENY)])
    udp = await begin(rig)
    far = udp.far()
    # 127.0.0.1 is guarded; a parent whose peer it is may promise it all the same.
    udp.connection.peer = ip_address("127.0.0.1")
    grant = udp.connection.session.allow_connect(
        "127.0.0.1", far.name[1], transport="udp", parent=udp.connection
    )
    await udp.exchange(far)
    assert (grant.active, grant.uses) == (False, 1)
    destination = udp.mapping.memory.get(far.target)
    assert destination is not None
    udp.mapping.forget(destination)
    udp.say(b"x", far.target)
    reasons = [r.reason for r in rig.recorder.records]
    assert reasons == ["granted", "rule_deny"]
    udp.connection.peer = None


async def test_a_grant_for_tcp_is_none_for_udp(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(rules=[]))
    udp.connection.session.allow_connect("192.0.2.1", 9, transport="tcp", parent=udp.connection)
    udp.say(b"x", target_of("192.0.2.1", 9))
    assert udp.record_of(target_of("192.0.2.1", 9)).reason == "default_deny"


async def test_who_promised_a_destination_is_told_that_it_came_true(make_rig: MakeRig) -> None:
    contexts: list[object] = []

    async def established(event: Any) -> None:
        contexts.append(event.context)

    async def promise(event: Any) -> None:
        session = event.connection.session
        holder = session.filter_of(entry)
        event.connection.peer = ip_address("127.0.0.1")
        session.allow_connect(*far, transport="udp", parent=event.connection, holder=holder, context="mine")

    entry = hearing([], bind=promise, established=established)
    peer = Far()
    far = peer.name
    udp = await begin(make_rig(entry, rules=[]))
    udp.keep(peer)
    udp.say(b"x", peer.target)
    assert (await peer.receive())[0] == b"x"
    assert contexts == ["mine"]


async def test_a_factory_attaches_without_an_event(make_rig: MakeRig) -> None:
    made: list[DataFilter] = []

    class Upper(DataFilter):
        async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
            made.append(self)
            while True:
                data, name = await internal.recv_from()
                await external.send_to(data.upper(), name)

    udp = await begin(make_rig())
    far, other = udp.far(), udp.far()
    udp.connection.session.set_data_filter_factory(
        EventKind.UDP_DESTINATION, Upper, port=far.name[1], parent=udp.connection
    )
    udp.say(b"x", other.target)
    assert (await other.receive())[0] == b"x"
    udp.say(b"x", far.target)
    assert (await far.receive())[0] == b"X"
    assert len(made) == 1


async def test_a_factory_that_raises_costs_its_destination(make_rig: MakeRig) -> None:
    def fail() -> DataFilter:
        raise ZeroDivisionError

    udp = await begin(make_rig())
    udp.connection.session.set_data_filter_factory(EventKind.UDP_DESTINATION, fail, parent=udp.connection)
    far = udp.far()
    udp.say(b"x", far.target)
    assert udp.record_of(far.target).reason == "filter_failed"
    assert far.is_silent()


async def test_new_destinations_are_judged_by_what_is_in_force_now(make_rig: MakeRig) -> None:
    rig = make_rig()
    udp = await begin(rig)
    one, other = udp.far(), udp.far()
    await udp.exchange(one)
    rig.engine.ruling = rig.ruling((), [])
    await udp.exchange(one)  # it keeps what it was judged by for as long as it is remembered
    udp.say(b"x", other.target)
    assert udp.record_of(other.target).action == "deny"


async def test_while_the_log_cannot_be_written_nothing_new_is_spoken_to(make_rig: MakeRig) -> None:
    rig = make_rig()
    udp = await begin(rig)
    far = udp.far()
    rig.recorder.trouble = "the disk is full"
    udp.say(b"x", far.target)
    record = udp.record_of(far.target)
    assert (record.action, record.reason, record.detail) == ("fail", "log_unavailable", "the disk is full")
    assert far.is_silent()


async def test_datagrams_whose_way_leads_through_an_upstream_are_never_sent_directly(
    make_rig: MakeRig,
) -> None:
    class Ways:
        def expect_direct(self, inputs: object) -> None:
            raise UpstreamNoUdp("no datagrams", upstream="corp")

    rig = make_rig()
    ruling = rig.engine.ruling
    rig.engine.ruling = Ruling(ruling.policy, ruling.associations, ruling.limits, Ways())  # type: ignore[arg-type]
    udp = await begin(rig)
    far = udp.far()
    udp.say(b"x", far.target)
    record = udp.record_of(far.target)
    assert (record.action, record.reason) == ("fail", "upstream_no_udp")
    assert far.is_silent()


async def test_a_system_mapping_asks_nobody_and_is_on_record(make_rig: MakeRig) -> None:
    heard: list[tuple[str, str]] = []
    rig = make_rig(hearing(heard), rules=[], lookup=lambda _: (ip_address("127.0.0.1"),))
    udp = await begin(rig)
    udp.mapping.is_system = True
    far = udp.far()
    await udp.exchange(far)
    await udp.exchange(far, to=target_of("app.example", far.name[1]))
    udp.connection.kill()
    await wait_for(lambda: len(rig.recorder.records) == 3, "the records")
    found = [r for r in rig.recorder.records if r.operation == "destination"]
    assert {(r.reason, r.rule) for r in found} == {("system_socket", None)}
    assert heard.count(("plugin", "udp_destination")) == 0


async def test_peers_that_come_first_are_told_to_filters_and_can_be_denied(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        if event.destination.port == bad.name[1]:
            event.destination.deny()

    udp = await begin(make_rig(hearing([], udp_destination=deny), rules=[LOCAL_RULE]))
    udp.mapping.admits = lambda _: True
    name = udp.mapping.table.listen(udp.mapping, "127.0.0.1", 0)
    good, bad = udp.far(), udp.far()
    bad.send(b"bad", name)
    good.send(b"good", name)
    await udp.heard(b"good", good.name)
    assert udp.record_of(bad.target).reason == "denied_by_filter"
    assert udp.client.heard == []


async def test_no_more_is_attached_than_was_said(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(hearing([], bind=attaching())))
    destination = await udp.settle(udp.say(b"x", udp.far().target))
    assert destination.flows
