"""Datagrams that nobody reads, whoever moves them: Python, or native code. An association is the same with either."""

from __future__ import annotations

import hashlib
from ipaddress import ip_address

import pytest
from tests.entry.udp import Association, UdpPeer, UdpWorld, udp_world, wrapped
from tests.entry.world import HEAD, RULE, limits

from doorward.api.ip_filter import IpFilter
from doorward.engine.udp.destination import Destination
from doorward.wire.socks import Datagram

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("moved_by")]


def lent(udp: UdpWorld) -> int:
    """Sockets that native code receives on."""
    courier = udp.here.firewall.engine.udp.inbox.courier
    return 0 if courier is None else len(courier)


def destination_of(udp: UdpWorld, server: UdpPeer) -> Destination:
    return next(d for m in udp.mappings for d in m.memory if d.port == server.name[1])


async def warm(udp: UdpWorld, association: Association, server: UdpPeer, moved_by: str) -> tuple[str, int]:
    """Make datagrams flow as fast as they ever will. Returns where the server is spoken to from."""
    source = await association.exchange(server, b"")
    destination = destination_of(udp, server)
    if moved_by == "native":
        await udp.here.until(lambda: destination.flow != 0)
    return source


async def test_a_long_conversation_is_whole_and_in_order_and_counted_as_it_goes(moved_by: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        source = await warm(udp, association, server, moved_by)
        destination = destination_of(udp, server)
        said, heard, moved = hashlib.sha256(), hashlib.sha256(), 0
        for turn in range(60):
            batch = [bytes([turn, n]) * (1 + (turn * n) % 700) for n in range(20)]
            for payload in batch:
                association.say(payload, server.name)
                said.update(payload)
                moved += len(payload)
            for _ in batch:
                data, whence = await server.receive()
                assert whence == source
                heard.update(data)
            for payload in batch:
                server.send(payload, source)
            for payload in batch:
                answer = await association.hear()
                assert answer == Datagram(0, None, ip_address(server.name[0]), server.name[1], payload)
            assert (destination.bytes_sent, destination.bytes_received) == (moved, moved)
        assert said.digest() == heard.digest()
        assert bool(destination.flow) == (moved_by == "native")
        association.tcp.close()
        whole = await udp.record_of(operation="udp")
        assert (whole.bytes_sent, whole.bytes_received, whole.detail) == (moved, moved, None)
        one = await udp.record_of(operation="destination")
        assert (one.bytes_sent, one.bytes_received, one.end) == (moved, moved, "closed")


async def test_servers_of_both_families_and_names_flow_side_by_side(moved_by: str) -> None:
    async with udp_world(HEAD.replace("127.0.0.1:0", "[::1]:0") + RULE) as udp:
        udp.here.names(**{"app.example": "127.0.0.1", "six.example": "::1"})
        association = await udp.association()
        servers = [udp.peer("127.0.0.1"), udp.peer("::1"), udp.peer("127.0.0.1"), udp.peer("::1")]
        hosts = ["127.0.0.1", "::1", "app.example", "six.example"]
        for turn in range(10):
            for server, host in zip(servers, hosts, strict=True):
                payload = f"{turn} to {host}".encode()
                association.say(payload, (host, server.name[1]))
                data, source = await server.receive()
                assert data == payload
                server.send(data, source)
                answer = await association.hear()
                assert (str(answer.address), answer.port, answer.payload) == (*server.name, payload)
        assert all(bool(destination_of(udp, s).flow) == (moved_by == "native") for s in servers)
        # A client's socket, and one for each family.
        assert lent(udp) == (3 if moved_by == "native" else 0)


async def test_strangers_and_intruders_are_not_heard_while_datagrams_flow(moved_by: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        source = await warm(udp, association, server, moved_by)
        elsewhere, beside, intruder = udp.peer("127.0.0.2"), udp.peer(), udp.peer()
        for turn in range(20):
            for peer in (elsewhere, beside):
                peer.send(b"unasked", source)
            for peer in (elsewhere, intruder):
                peer.send(wrapped(b"not the client's", server.name), association.relay)
            await association.exchange(server, bytes([turn]))
        await udp.here.until(lambda: udp.mappings[0].strangers == 40)
        assert association.udp.is_silent()
        assert server.is_silent()
        association.tcp.close()
        detail = (await udp.record_of(operation="udp")).detail
        assert detail == "dropped: 40 from strangers, 40 not from the client"


async def test_a_flood_from_strangers_does_not_stop_what_flows(moved_by: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        source = await warm(udp, association, server, moved_by)
        elsewhere = udp.peer("127.0.0.2")
        for turn in range(10):
            for _ in range(
                200
            ):  # few enough for the kernel to keep, and many for what waits between thread and loop
                elsewhere.send(b"unasked", source)
                elsewhere.send(wrapped(b"not the client's", server.name), association.relay)
            await association.exchange(server, bytes([turn]))
        mapping = udp.mappings[0]

        def met() -> int:
            lost = mapping.outers[4].unheard + mapping.client.socket.unheard  # type: ignore[attr-defined]  # SOCKS
            return mapping.strangers + mapping.client.notes()[0][1] + int(lost)

        await udp.here.until(lambda: met() == 4000)
        assert association.udp.is_silent()
        assert server.is_silent()
        await association.exchange(server)


async def test_fragments_and_broken_headers_between_datagrams_are_dropped(moved_by: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        await warm(udp, association, server, moved_by)
        good = wrapped(b"good", server.name)
        for _ in range(10):
            association.raw(good[:2] + b"\x01" + good[3:])
            association.raw(good[:9])
            association.raw(b"\x01" + good[1:])
            association.raw(good)
        assert [(await server.receive())[0] for _ in range(10)] == [b"good"] * 10
        await association.exchange(server)
        await udp.here.until(lambda: udp.mappings[0].client.notes()[1][1] == 20)
        assert server.is_silent()
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == "dropped: 20 malformed, 10 fragments"


async def test_a_destination_that_is_used_is_kept_and_one_that_falls_silent_is_not(moved_by: str) -> None:
    async with udp_world(HEAD + limits(udp_idle_timeout_s=0.3) + RULE) as udp:
        busy, silent, association = udp.peer(), udp.peer(), await udp.association()
        source = await warm(udp, association, busy, moved_by)
        await warm(udp, association, silent, moved_by)
        payload = b"only one way"
        sent = 0
        while len(udp.here.records) == 0:
            busy.send(payload, source)
            assert (await association.hear()).payload == payload
            sent += len(payload)
        record = await udp.record_of(operation="destination")
        assert (record.port, record.end) == (silent.name[1], "idle_timeout")
        silent.send(b"late", source)
        await udp.here.until(lambda: udp.mappings[0].strangers == 1)
        assert association.udp.is_silent()
        record = await udp.record_of(operation="destination", port=busy.name[1])
        assert (record.end, record.bytes_sent, record.bytes_received) == ("idle_timeout", 0, sent)
        assert lent(udp) == 0  # nothing flows, nothing is kept
        assert await association.exchange(busy) == source


async def test_the_one_unused_longest_makes_room_however_busy_the_others_are(moved_by: str) -> None:
    async with udp_world(HEAD + limits(udp_destinations_max=3) + RULE) as udp:
        first, second, third, fourth, fifth = (udp.peer() for _ in range(5))
        association = await udp.association()
        for server in (first, second, third, fourth):
            await warm(udp, association, server, moved_by)
        assert len(udp.here.records) == 1
        for server in (second, fourth, second):
            await association.exchange(server)
        await warm(udp, association, fifth, moved_by)
        record = await udp.record_of(operation="destination", port=third.name[1])
        assert record.end == "udp_destination_evicted"
        assert len(udp.here.records) == 2
        for server in (second, fourth, fifth):
            await association.exchange(server)


async def test_a_silent_association_ends_and_a_busy_one_does_not(moved_by: str) -> None:
    async with udp_world(HEAD + limits(idle_timeout_s=0.3) + RULE) as udp:
        server = udp.peer()
        busy, silent = await udp.association(), await udp.association()
        source = await warm(udp, busy, server, moved_by)
        await silent.exchange(udp.peer())
        while not any(r.operation == "udp" for r in udp.here.records):
            server.send(b"on", source)
            await busy.hear()
        assert await silent.tcp.outcome() == (b"", "closed")
        assert len(udp.mappings) == 1
        assert await busy.tcp.outcome() == (b"", "closed")


async def test_a_name_and_its_address_share_a_peer_and_answers_belong_to_the_last(moved_by: str) -> None:
    async with udp_world() as udp:
        udp.here.names(**{"app.example": "127.0.0.1"})
        server, association = udp.peer(), await udp.association()
        source = await warm(udp, association, server, moved_by)
        for host in ("app.example", "127.0.0.1", "app.example"):
            association.say(b"question", (host, server.name[1]))
            await server.receive()
            server.send(b"answer", source)
            await association.hear()
        association.tcp.close()
        await udp.here.quiet()
        found = {
            r.host: (r.bytes_sent, r.bytes_received) for r in udp.here.records if r.port == server.name[1]
        }
        assert found == {"app.example": (16, 12), None: (8, 6)}


async def test_who_wants_to_read_gets_every_datagram_from_then_on_and_none_is_lost(moved_by: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        connection = udp.mappings[0].connection
        sent = 0
        for _ in range(20):
            source = await warm(udp, association, server, moved_by)
            first = sent
            for wanted in (IpFilter("127.0.0.0/8"), None):
                for _ in range(25):
                    association.say(sent.to_bytes(4, "big"), server.name)
                    sent += 1
                connection.set_ip_filter(wanted)
                assert lent(udp) == 0
            for number in range(first, sent):
                assert await server.receive() == (number.to_bytes(4, "big"), source)
        association.tcp.close()
        whole = await udp.record_of(operation="udp")
        assert (whole.bytes_sent, whole.detail) == (4 * sent, None)


async def test_an_ip_filter_and_a_buffer_size_hold_from_when_they_are_set(moved_by: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        connection = udp.mappings[0].connection
        source = await warm(udp, association, server, moved_by)
        connection.set_buffer_size(4)
        for _ in range(3):
            association.say(b"too long", server.name)
            server.send(b"too long", source)
            await association.exchange(server, b"fits")
        connection.set_ip_filter(IpFilter("127.0.0.2"))
        association.say(b"no", server.name)
        server.send(b"no", source)
        await udp.here.until(lambda: udp.mappings[0].dropped == 8)
        assert server.is_silent()
        assert association.udp.is_silent()
        assert lent(udp) == 0


async def test_limits_in_bytes_hold(moved_by: str) -> None:
    async with udp_world(HEAD + limits(bytes_max_per_direction=100) + RULE) as udp:
        server, association = udp.peer(), await udp.association()
        for _ in range(10):
            await association.exchange(server, b"ten bytes.")
        association.say(b"x", server.name)
        assert (await udp.record_of(operation="udp")).end == "byte_limit"
        assert server.is_silent()


@pytest.mark.parametrize("how", ["killed", "udp_mapping_evicted"])
async def test_one_that_is_ended_while_datagrams_flow_leaves_nothing(moved_by: str, how: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        source = await warm(udp, association, server, moved_by)
        for _ in range(50):
            association.say(b"out", server.name)
            server.send(b"in", source)
        udp.here.firewall.engine.kill(udp.mappings[0].connection, how)
        assert lent(udp) == 0
        whole = await udp.record_of(operation="udp")
        one = await udp.record_of(operation="destination")
        assert (whole.end, one.end) == (how, how)
        assert (whole.bytes_sent, whole.bytes_received) == (one.bytes_sent, one.bytes_received)
        heard = 0
        while not server.is_silent():
            heard += len(b"out")
        assert heard == one.bytes_sent  # to the datagram, though it was ended in the middle


async def test_a_reload_leaves_what_flows_alone(moved_by: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        source = await warm(udp, association, server, moved_by)
        udp.here.write(HEAD)
        assert (await udp.here.firewall.reload()).ok
        assert await association.exchange(server) == source
        other = udp.peer()
        association.say(b"no", other.name)
        assert (await udp.record_of(operation="destination", port=other.name[1])).action == "deny"


async def test_without_a_descriptor_to_lend_all_goes_on(
    moved_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with udp_world() as udp:

        def fail(_: int) -> int:
            raise OSError(24, "Too many open files")

        monkeypatch.setattr("doorward.net.native_datagrams.os.dup", fail)
        server, association = udp.peer(), await udp.association()
        for _ in range(5):
            await association.exchange(server)
        assert lent(udp) == 0
        monkeypatch.undo()
