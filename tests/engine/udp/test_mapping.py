from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from ipaddress import ip_address, ip_network

import pytest
from tests.engine.rig import LOCAL_RULE, Rig, wait_for
from tests.engine.udp.rig import Client, begin

from doorward.api import IpFilter
from doorward.config.model import Limits
from doorward.engine.target import target_of
from doorward.engine.udp.destination import State
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio

MakeRig = Callable[..., Rig]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_a_datagram_passes_in_the_turn_in_which_it_comes(make_rig: MakeRig, host: str) -> None:
    udp = await begin(make_rig())
    far = udp.far(host)
    destination = udp.say(b"hello", far.target)
    assert destination is not None
    assert (destination.state, destination.flows) == (State.OPEN, True)
    data, source = await far.receive()
    assert data == b"hello"
    far.send(b"answer", source)
    await udp.heard(b"answer", far.name)
    udp.connection.kill()
    record = udp.record_of(far.target)
    assert (record.action, record.bytes_sent, record.bytes_received) == ("allow", 5, 6)
    assert (udp.whole.bytes_sent, udp.whole.bytes_received, udp.whole.end) == (5, 6, "killed")


async def test_one_socket_of_each_family_serves_every_destination(make_rig: MakeRig) -> None:
    udp = await begin(make_rig())
    first, second, third = udp.far(), udp.far(), udp.far("::1")
    assert udp.mapping.outers == {}
    source = await udp.exchange(first)
    assert await udp.exchange(second) == source
    await udp.exchange(third)
    assert sorted(udp.mapping.outers) == [4, 6]
    assert udp.connection.external_socket_name[1] == source[1]


async def test_a_stranger_is_counted_and_never_heard(make_rig: MakeRig) -> None:
    udp = await begin(make_rig())
    far, stranger = udp.far(), udp.far()
    source = await udp.exchange(far)
    stranger.send(b"unasked", source)
    await wait_for(lambda: udp.mapping.strangers == 1, "the stranger")
    assert udp.client.heard == []
    udp.connection.kill()
    assert udp.whole.detail == "dropped: 1 from strangers"


async def test_a_name_and_its_address_are_two_destinations_and_answers_belong_to_the_last_spoken_to(
    make_rig: MakeRig,
) -> None:
    udp = await begin(make_rig(lookup=lambda _: (ip_address("127.0.0.1"),)))
    far = udp.far()
    named = target_of("app.test", far.name[1])
    source = await udp.exchange(far, b"1", named)
    await udp.exchange(far, b"22")
    far.send(b"333", source)
    await udp.heard(b"333", far.name)
    by_name, by_address = udp.mapping.memory.get(named), udp.mapping.memory.get(far.target)
    assert by_name is not None
    assert by_address is not None
    assert (by_name.bytes_received, by_address.bytes_received) == (1, 5)
    await udp.exchange(far, b"4444", named)
    assert by_name.bytes_received == 5
    await udp.exchange(far, b"22")
    udp.mapping.forget(by_address)
    far.send(b"55555", source)
    await udp.heard(b"55555", far.name)
    assert by_name.bytes_received == 10


async def test_what_waits_for_a_name_goes_out_in_order_and_no_more_than_a_few(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(lookup=lambda _: (ip_address("127.0.0.1"),)))
    far = udp.far()
    named = target_of("app.test", far.name[1])
    for number in range(20):
        udp.say(bytes([number]), named)
    assert [(await far.receive())[0][0] for _ in range(16)] == list(range(16))
    assert far.is_silent()
    assert udp.mapping.dropped == 4


async def test_too_many_names_at_once_wait_for_another_time(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(lookup=lambda _: (ip_address("127.0.0.1"),)))
    found = [udp.mapping.find(target_of(f"app{number}.test", 9)) for number in range(70)]
    assert [destination is None for destination in found] == [False] * 64 + [True] * 6
    for destination in found[:64]:
        await udp.settle(destination)
    assert udp.mapping.find(target_of("app65.test", 9)) is not None


async def test_who_asks_for_destinations_too_fast_is_not_answered_and_fills_no_log(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(rules=[], limits=Limits(connects_per_minute_per_client_max=5))
    udp = await begin(rig)
    for number in range(1, 20):
        udp.say(b"x", target_of("192.0.2.1", number))
    assert len(rig.recorder.records) == 4  # the mapping itself was the first
    assert udp.mapping.dropped == 19


async def test_what_is_denied_is_silent_with_one_record_for_as_long_as_it_is_remembered(
    make_rig: MakeRig,
) -> None:
    rules = [Rule("no", Action.DENY, to_networks=(ip_network("127.0.0.1/32"),)), LOCAL_RULE]
    udp = await begin(make_rig(rules=rules))
    far = udp.far()
    for _ in range(3):
        udp.say(b"x", far.target)
    record = udp.record_of(far.target)
    assert (record.action, record.reason, record.rule, record.transport) == ("deny", "rule_deny", "no", "udp")
    udp.connection.kill()
    udp.record_of(far.target)
    assert far.is_silent()


async def test_what_is_denied_is_judged_again_when_it_was_forgotten(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[], limits=Limits(udp_idle_timeout_s=0.05))
    udp = await begin(rig)
    udp.say(b"x", target_of("192.0.2.1", 9))
    await wait_for(lambda: not len(udp.mapping.memory), "it is forgotten")
    udp.say(b"x", target_of("192.0.2.1", 9))
    assert [r.reason for r in rig.recorder.records] == ["default_deny"] * 2


async def test_a_flood_of_destinations_is_bounded_in_memory(make_rig: MakeRig) -> None:
    rig = make_rig(rules=[], limits=Limits(udp_destinations_max=64))
    rig.recorder.append = lambda _: None  # type: ignore[method-assign,assignment]  # thousands of them
    udp = await begin(rig)
    targets = [target_of(f"10.{n >> 8 & 255}.{n & 255}.1", 9) for n in range(2_000)]
    for target in targets:
        udp.say(b"x", target)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(3):
        for target in targets:
            udp.say(b"x", target)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert (len(udp.mapping.memory), rig.engine.udp.alive) == (64, 64)
    assert len(udp.mapping.table.destinations) < 64 * 2 + 1024 + 64
    assert grown < 512 * 1024


async def test_the_one_that_is_used_stays_when_others_push(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(limits=Limits(udp_destinations_max=4)))
    far = udp.far()
    for number in range(1, 40):
        await udp.exchange(far)
        udp.say(b"x", target_of("127.0.0.9", number))
    udp.connection.kill()
    assert udp.record_of(far.target).end == "killed"


async def test_idle_destinations_are_forgotten_and_used_ones_are_not(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(limits=Limits(udp_idle_timeout_s=0.2)))
    idle, used = udp.far(), udp.far()
    source = await udp.exchange(idle)
    destination = udp.say(b"x", used.target)
    assert destination is not None

    def forgotten() -> bool:
        used.send(b"x", source)  # what comes in counts as use
        return len(udp.mapping.memory) == 1

    await wait_for(forgotten, "the idle one is forgotten")
    assert destination.state is State.OPEN
    assert udp.record_of(idle.target).end == "idle_timeout"


async def test_a_silent_mapping_ends(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(limits=Limits(idle_timeout_s=0.1)))
    await udp.exchange(udp.far())
    await wait_for(lambda: udp.connection.end is not None, "the mapping ends")
    assert udp.whole.end == "idle_timeout"
    assert udp.client.closed == 1


async def test_the_limit_of_bytes_ends_the_mapping(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(limits=Limits(bytes_max_per_direction=10)))
    far = udp.far()
    await udp.exchange(far, b"12345")
    ended = []
    for payload in (b"12345", b"6"):
        udp.say(payload, far.target)
        ended.append(udp.connection.end is not None)
    assert ended == [False, True]
    assert (udp.whole.end, udp.whole.bytes_sent) == ("byte_limit", 10)


async def test_what_is_faster_than_its_rate_is_dropped(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(limits=Limits(bytes_per_second=10_000)))
    far = udp.far()
    for _ in range(100):
        udp.say(bytes(100), far.target)
    count = 0
    while not far.is_silent():
        count += 1
    assert 5 <= count < 50
    assert udp.mapping.dropped == 100 - count


async def test_an_ip_filter_narrows_at_once_in_both_directions(make_rig: MakeRig) -> None:
    udp = await begin(make_rig())
    far = udp.far()
    source = await udp.exchange(far)
    udp.connection.set_ip_filter(IpFilter("127.0.0.2"))
    udp.say(b"x", far.target)
    far.send(b"x", source)
    await wait_for(lambda: udp.mapping.dropped == 2, "both are dropped")
    udp.connection.set_ip_filter(None)
    await udp.exchange(far)


async def test_datagrams_above_the_buffer_size_are_dropped_in_both_directions(make_rig: MakeRig) -> None:
    udp = await begin(make_rig())
    far = udp.far()
    source = await udp.exchange(far)
    udp.connection.set_buffer_size(4)
    udp.say(b"12345", far.target)
    far.send(b"12345", source)
    await wait_for(lambda: udp.mapping.dropped == 2, "both are dropped")
    await udp.exchange(far, b"1234")


async def test_after_the_end_nothing_is_heard_and_nothing_is_sent(make_rig: MakeRig) -> None:
    rig = make_rig()
    udp = await begin(rig)
    far = udp.far()
    destination = udp.say(b"x", far.target)
    assert destination is not None
    await far.receive()
    udp.connection.kill()
    udp.mapping.outward(destination, b"x")
    udp.mapping.from_outside(memoryview(b"x"), far.name)
    assert udp.mapping.find(far.target) is None
    udp.mapping.close()
    assert far.is_silent()
    assert udp.client.heard == []
    assert (udp.client.closed, len(rig.engine.udp), rig.engine.udp.alive) == (1, 0, 0)


async def test_a_name_that_resolves_after_the_end_opens_nothing(make_rig: MakeRig) -> None:
    udp = await begin(make_rig(lookup=lambda _: (ip_address("127.0.0.1"),)))
    destination = udp.say(b"x", target_of("app.test", 9))
    udp.connection.kill()
    await udp.settle(destination)
    await wait_for(lambda: not len(udp.rig.supervisor), "its task ends")
    assert udp.mapping.outers == {}
    assert [r.operation for r in udp.rig.recorder.records] == ["udp"]


async def test_without_a_socket_the_failure_is_on_record_and_remembered_for_a_moment(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    udp = await begin(make_rig())

    def fail(*_: object) -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("doorward.net.datagrams.socket.socket", fail)
    destination = udp.say(b"x", target_of("127.0.0.1", 9))
    monkeypatch.undo()
    assert destination is not None
    assert destination.idle_s == 5
    record = udp.record_of(destination.target)
    assert (record.action, record.reason, record.rule) == ("fail", "out_of_resources", "local")


async def test_peers_may_come_first_where_they_are_admitted(make_rig: MakeRig) -> None:
    udp = await begin(make_rig())
    port = udp.mapping.table.listen(udp.mapping, "127.0.0.1", 0)
    far, other = udp.far(), udp.far()
    asked: list[object] = []

    def admits(where: tuple[object, ...]) -> bool:
        asked.append(where)
        return where == far.name

    udp.mapping.admits = admits
    for payload in (b"one", b"two"):
        far.send(payload, port)
    other.send(b"no", port)
    await udp.heard(b"one", far.name)
    await udp.heard(b"two", far.name)
    await wait_for(lambda: udp.mapping.strangers == 1, "the other")
    udp.say(b"answer", far.target)
    assert await far.receive() == (b"answer", port)
    assert asked == [far.name, other.name]


async def test_listening_everywhere_means_both_families(make_rig: MakeRig) -> None:
    udp = await begin(make_rig())
    number = udp.mapping.table.listen(udp.mapping, "", 0)[1]
    udp.mapping.admits = lambda _: True
    for host in ("127.0.0.1", "::1"):
        far = udp.far(host)
        far.send(b"hello", (host, number))
        await udp.heard(b"hello", far.name)


async def test_a_client_that_is_not_there_yet_is_told_nothing(make_rig: MakeRig) -> None:
    client = Client()
    udp = await begin(make_rig(), client)
    assert udp.mapping.client is client
    assert udp.mapping.note == ""
