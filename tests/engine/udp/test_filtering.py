from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.filters import Marking, Pumping
from tests.engine.rig import Rig, wait_for
from tests.engine.udp.rig import Far, attaching, begin, hearing

from doorward.api import BadContext, Connection, DataFilter, OutOfResources, Priority, Refuse, Socket
from doorward.config.model import Limits
from doorward.engine.target import target_of
from doorward.engine.udp.destination import State

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]
Seen = list[tuple[str, bytes, tuple[str, int]]]


class Watching(DataFilter):
    """Passes everything on with its far end, and writes down what it has seen."""

    def __init__(self, seen: Seen, priority: Priority = Priority.MIDDLE, mark: bytes = b"") -> None:
        self.seen = seen
        self.mark = mark
        self.priority = priority  # type: ignore[misc]  # each test its own

    async def pump(self, internal: Socket, external: Socket, connection: Connection) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass("out", internal, external))
            group.create_task(self._pass("in", external, internal))

    async def _pass(self, way: str, source: Socket, sink: Socket) -> None:
        while True:
            data, name = await source.recv_from()
            self.seen.append((way, data, name))
            await sink.send_to(data + self.mark, name)


async def test_a_mapping_filter_sees_every_datagram_with_its_far_end(make_rig: MakeRig) -> None:
    seen: Seen = []
    udp = await begin(make_rig(hearing([], bind=attaching(Watching(seen)))))
    one, other = udp.far(), udp.far("::1")
    await udp.exchange(one, b"1")
    await udp.exchange(other, b"2")
    assert seen == [
        ("out", b"1", one.name),
        ("in", b"1", one.name),
        ("out", b"2", other.name),
        ("in", b"2", other.name),
    ]
    destination = udp.mapping.memory.get(one.target)
    assert destination is not None
    assert not destination.flows


async def test_a_destination_filter_sees_its_own_far_end_alone(make_rig: MakeRig) -> None:
    seen: Seen = []

    async def one_of_two(event: Any) -> None:
        if event.destination.port == one.name[1]:
            event.connection.attach_data_filter(Watching(seen))

    udp = await begin(make_rig(hearing([], udp_destination=one_of_two)))
    one, other = udp.far(), udp.far()
    await udp.exchange(one, b"1")
    await udp.exchange(other, b"2")
    assert seen == [("out", b"1", one.name), ("in", b"1", one.name)]
    destination = udp.mapping.memory.get(other.target)
    assert destination is not None
    assert destination.flows


async def test_recv_and_send_work_where_there_is_one_far_end(make_rig: MakeRig) -> None:
    async def shout(internal: Socket, external: Socket, connection: Connection) -> None:
        while True:
            await external.send((await internal.recv()).upper())
            await internal.send((await external.recv()).lower())

    udp = await begin(make_rig(hearing([], udp_destination=attaching(Pumping(shout)))))
    far = udp.far()
    udp.say(b"Question", far.target)
    data, source = await far.receive()
    assert data == b"QUESTION"
    far.send(b"ANSWER", source)
    await udp.heard(b"answer", far.name)


async def test_filters_stand_in_the_order_of_their_priorities_the_mappings_own_nearest_the_client(
    make_rig: MakeRig,
) -> None:
    seen: Seen = []
    bind = attaching(Watching(seen, Priority.EXTERNAL, b"b"), Watching(seen, Priority.NAT, b"a"))
    to = attaching(Watching(seen, Priority.EXTERNAL, b"d"), Watching(seen, Priority.NAT, b"c"))
    udp = await begin(make_rig(hearing([], bind=bind, udp_destination=to)))
    far = udp.far()
    udp.say(b">", far.target)
    data, source = await far.receive()
    assert data == b">abcd"
    far.send(b"<", source)
    await udp.heard(b"<dcba", far.name)


async def test_stream_filters_see_each_datagram_and_what_they_return_empty_is_dropped(
    make_rig: MakeRig,
) -> None:
    class OnlyShort(Marking):
        def client_data(self, data: bytes) -> bytes:
            return b"" if len(data) > 3 else super().client_data(data)

    udp = await begin(make_rig(hearing([], bind=attaching(OnlyShort(b"!")))))
    far = udp.far()
    for payload in (b"abc", b"abcd", b"ab"):
        udp.say(payload, far.target)
    assert [(await far.receive())[0] for _ in range(2)] == [b"abc!", b"ab!"]
    assert far.is_silent()


async def test_a_stream_filter_that_has_seen_enough_passes_its_last_one_and_is_gone(
    make_rig: MakeRig,
) -> None:
    class First(Marking):
        def client_data(self, data: bytes) -> bytes:
            self.seen_enough()
            return super().client_data(data)

    udp = await begin(make_rig(hearing([], udp_destination=attaching(First(b"!")))))
    far = udp.far()
    destination = await udp.settle(udp.say(b"1", far.target))
    udp.say(b"2", far.target)
    assert [(await far.receive())[0] for _ in range(2)] == [b"1!", b"2"]
    assert destination.flows


@pytest.mark.parametrize("scope", ["bind", "udp_destination"])
async def test_when_every_filter_has_returned_nothing_is_lost_and_datagrams_flow_again(
    make_rig: MakeRig, scope: str
) -> None:
    enough = asyncio.Event()

    async def wait(internal: Socket, external: Socket, connection: Connection) -> None:
        data, name = await internal.recv_from()
        await external.send_to(data + b"!", name)
        await enough.wait()

    handlers: dict[str, Any] = {
        scope: attaching(Pumping(wait, Priority.NAT), Pumping(wait, Priority.EXTERNAL))
    }
    udp = await begin(make_rig(hearing([], **handlers)))
    far = udp.far()
    destination = await udp.settle(udp.say(b"1", far.target))
    for payload in (b"2", b"3"):
        udp.say(payload, far.target)
    assert (await far.receive())[0] == b"1!!"
    enough.set()
    assert [(await far.receive())[0] for _ in range(2)] == [b"2", b"3"]
    await wait_for(lambda: destination.flows, "the datagrams flow")
    await udp.exchange(far)


async def test_a_filter_may_send_elsewhere_and_policy_is_asked(make_rig: MakeRig) -> None:
    async def divert(internal: Socket, external: Socket, connection: Connection) -> None:
        data, _ = await internal.recv_from()
        await external.send_to(data, other.name)
        await external.send_to(data, ("192.0.2.1", 9))
        await asyncio.Event().wait()

    udp = await begin(make_rig(hearing([], bind=attaching(Pumping(divert)))))
    far, other = udp.far(), udp.far()
    udp.say(b"x", far.target)
    assert (await other.receive())[0] == b"x"
    assert far.is_silent()
    await wait_for(lambda: bool(udp.rig.recorder.records), "the refusal")
    assert udp.record_of(target_of("192.0.2.1", 9)).reason == "default_deny"


async def test_a_filter_may_speak_to_the_client_in_any_name(make_rig: MakeRig) -> None:
    async def invent(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv_from()
        await internal.send_to(b"hello", ("192.0.2.7", 53))
        await asyncio.Event().wait()

    udp = await begin(make_rig(hearing([], bind=attaching(Pumping(invent)))))
    udp.say(b"x", udp.far().target)
    await udp.heard(b"hello", ("192.0.2.7", 53))


@pytest.mark.parametrize(
    ("error", "action", "reason"),
    [(Refuse("not_here"), "deny", "not_here"), (ZeroDivisionError(), "fail", "filter_failed")],
)
async def test_a_destination_filter_that_raises_costs_that_destination_alone(
    make_rig: MakeRig, error: Exception, action: str, reason: str
) -> None:
    async def fail(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv_from()
        raise error

    async def attach(event: Any) -> None:
        if event.destination.port == bad.name[1]:
            event.connection.attach_data_filter(Pumping(fail))

    udp = await begin(make_rig(hearing([], udp_destination=attach)))
    bad, good = udp.far(), udp.far()
    destination = await udp.settle(udp.say(b"x", bad.target))
    await wait_for(lambda: destination.state is State.DENIED, "it is denied")
    udp.say(b"again", bad.target)
    source = await udp.exchange(good)
    bad.send(b"it may not answer any more", source)
    await wait_for(lambda: udp.mapping.strangers == 1, "it is a stranger")
    assert udp.client.heard == []
    record = udp.record_of(bad.target)
    assert (record.action, record.reason, record.end) == (action, reason, reason)
    assert record.filters is not None
    assert reason in record.filters
    assert bad.is_silent()


@pytest.mark.parametrize(
    ("error", "action", "reason"),
    [(Refuse("not_here"), "deny", "not_here"), (ZeroDivisionError(), "fail", "filter_failed")],
)
async def test_a_mapping_filter_that_raises_ends_the_mapping(
    make_rig: MakeRig, error: Exception, action: str, reason: str
) -> None:
    async def fail(internal: Socket, external: Socket, connection: Connection) -> None:
        await internal.recv_from()
        raise error

    heard: list[tuple[str, str]] = []
    udp = await begin(make_rig(hearing(heard, bind=attaching(Pumping(fail)))))
    udp.say(b"x", udp.far().target)
    await wait_for(lambda: len(udp.rig.recorder.records) == 2, "the mapping ends")
    assert (udp.whole.action, udp.whole.reason, udp.whole.end) == (action, reason, reason)
    assert heard.count(("plugin", "terminating")) == 1


async def test_filters_end_with_the_mapping_and_leave_nothing(make_rig: MakeRig) -> None:
    ended: list[str] = []

    async def hold(internal: Socket, external: Socket, connection: Connection) -> None:
        try:
            await internal.recv_from()
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    attach = attaching(Pumping(hold))
    udp = await begin(make_rig(hearing([], bind=attach)))
    udp.say(b"x", udp.far().target)
    await asyncio.sleep(0)
    udp.connection.kill()
    await wait_for(lambda: ended == ["ended"], "the filter ends")
    assert not udp.rig.failures


async def test_filters_end_with_their_destination(make_rig: MakeRig) -> None:
    ended: list[str] = []

    async def hold(internal: Socket, external: Socket, connection: Connection) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("ended")

    udp = await begin(make_rig(hearing([], udp_destination=attaching(Pumping(hold)))))
    destination = await udp.settle(udp.say(b"x", udp.far().target))
    await asyncio.sleep(0)
    udp.mapping.forget(destination)
    await wait_for(lambda: ended == ["ended"], "the filter ends")
    assert udp.connection.end is None


async def test_hundreds_of_destinations_may_each_have_a_filter(make_rig: MakeRig) -> None:
    seen: Seen = []

    async def attach(event: Any) -> None:
        event.connection.attach_data_filter(Watching(seen))

    udp = await begin(make_rig(hearing([], udp_destination=attach)))
    for number in range(1, 301):
        destination = udp.say(b"x", target_of("127.0.0.9", number))
        await udp.settle(destination)
    await wait_for(lambda: len(seen) == 300, "each has seen its datagram")
    assert not udp.rig.failures


async def test_a_filter_that_does_not_read_costs_datagrams_and_no_memory(make_rig: MakeRig) -> None:
    async def sleep(internal: Socket, external: Socket, connection: Connection) -> None:
        await asyncio.Event().wait()

    udp = await begin(make_rig(hearing([], bind=attaching(Pumping(sleep)))))
    far = udp.far()
    await udp.settle(udp.say(b"x", far.target))
    for _ in range(299):
        udp.say(b"x", far.target)
    udp.connection.kill()
    await wait_for(lambda: len(udp.rig.recorder.records) == 2, "the record")
    assert udp.whole.detail == "dropped: 44 on the way"


async def test_a_filter_can_be_attached_ahead_to_a_peer_and_is_its_alone(make_rig: MakeRig) -> None:
    seen: Seen = []

    async def ahead(event: Any) -> None:
        event.connection.attach_data_filter_with_destination(Watching(seen), far.name)

    far = Far()
    udp = await begin(make_rig(hearing([], bind=ahead)))
    udp.keep(far)
    await udp.exchange(far, b"1")
    await udp.exchange(udp.far(), b"2")
    assert seen == [("out", b"1", far.name), ("in", b"1", far.name)]


async def test_within_its_event_the_peers_own_name_means_the_peer(make_rig: MakeRig) -> None:
    seen: Seen = []

    async def attach(event: Any) -> None:
        name = (event.destination.address, event.destination.port)
        event.connection.attach_data_filter_with_destination(Watching(seen), name)

    udp = await begin(make_rig(hearing([], udp_destination=attach)))
    far = udp.far()
    await udp.exchange(far, b"1")
    assert len(seen) == 2


async def test_a_peer_that_is_spoken_to_takes_no_more_filters_and_no_table_is_endless(
    make_rig: MakeRig,
) -> None:
    met: list[Exception] = []

    async def attach(event: Any) -> None:
        for name in (first.name, *(("127.0.0.1", number) for number in range(1, 5))):
            try:
                event.connection.attach_data_filter_with_destination(Watching([]), name)
            except Exception as error:
                met.append(error)

    udp = await begin(make_rig(hearing([]), limits=Limits(udp_destinations_max=3)))
    first, second = udp.far(), udp.far()
    await udp.exchange(first)
    entry = udp.rig.engine.ruling.associations.entries[0]
    entry.application_filter.handlers["udp_destination"] = attach  # type: ignore[attr-defined]  # a plugin
    await udp.exchange(second)
    assert [type(error) for error in met] == [BadContext, OutOfResources]


@pytest.mark.parametrize("name", [("example.org", 9), ("127.0.0.1", 0), ("127.0.0.1", 65_536), ("", 9)])
async def test_what_is_no_address_is_the_filters_mistake(make_rig: MakeRig, name: tuple[str, int]) -> None:
    met: list[str] = []

    async def send(internal: Socket, external: Socket, connection: Connection) -> None:
        for socket in (internal, external):
            try:
                await socket.send_to(b"x", name)
            except Exception as error:
                met.append(type(error).__name__)

    udp = await begin(make_rig(hearing([], bind=attaching(Pumping(send)))))
    await wait_for(lambda: len(met) == 2, "both are refused")
    assert met == ["BadArgument"] * 2
    assert udp.connection.end is None
