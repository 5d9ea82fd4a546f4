"""An association and its client: what passes, who may use it, and how both ends come to an end."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from tests.entry.udp import ASSOCIATE, udp_world, wrapped
from tests.entry.world import HEAD, RULE

from doorward.wire.socks import Datagram

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("moved_by")]

HEAD6 = HEAD.replace("127.0.0.1:0", "[::1]:0")


async def test_a_datagram_and_its_answer_pass_and_are_on_record() -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        await association.exchange(server, b"hello")
        association.tcp.close()
        record = await udp.record_of(operation="destination", port=server.name[1])
        assert (record.entry, record.transport, record.action) == ("socks5", "udp", "allow")
        assert (record.reason, record.rule, record.end) == ("rule_allow", "everything here", "closed")
        assert (record.address, record.bytes_sent, record.bytes_received) == ("127.0.0.1", 5, 5)
        whole = await udp.record_of(operation="udp")
        assert (whole.transport, whole.reason, whole.connection) == ("udp", "udp_mapping", record.connection)
        assert (whole.end, whole.ended_by) == ("closed", "internal")
        assert (whole.bytes_sent, whole.bytes_received, whole.detail) == (5, 5, None)


async def test_the_answer_names_the_address_that_the_client_has_reached() -> None:
    async with udp_world() as udp:
        association = await udp.association()
        assert association.relay[0] == "127.0.0.1"
        assert association.relay[1] != 0


async def test_over_ipv6_both_families_are_reached() -> None:
    async with udp_world(HEAD6 + RULE) as udp:
        association = await udp.association()
        assert association.relay[0] == "::1"
        await association.exchange(udp.peer("::1"))
        await association.exchange(udp.peer("127.0.0.1"))


async def test_a_name_is_looked_up_and_the_answer_comes_from_its_address() -> None:
    async with udp_world() as udp:
        udp.here.names(**{"app.example": "127.0.0.1"})
        server, association = udp.peer(), await udp.association()
        for payload in (b"one", b"two", b"three"):
            association.say(payload, ("App.Example.", server.name[1]))
        heard = [(await server.receive())[0] for _ in range(3)]
        assert heard == [b"one", b"two", b"three"]  # the first ones waited for the name, in their order
        association.say(b"four", ("app.example", server.name[1]))
        _, source = await server.receive()
        server.send(b"answer", source)
        assert await association.hear() == Datagram(
            0, None, ip_address("127.0.0.1"), server.name[1], b"answer"
        )
        association.tcp.close()
        record = await udp.record_of(operation="destination", port=server.name[1])
        assert (record.host, record.address, record.bytes_sent) == ("app.example", "127.0.0.1", 15)


async def test_the_largest_datagrams_pass_and_an_answer_without_room_for_its_header_is_counted() -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        largest = bytes(range(256)) * 256
        largest = largest[: 65_507 - 10]
        source = await association.exchange(server, largest)
        server.send(bytes(65_507), source)
        server.send(b"small", source)
        assert (await association.hear()).payload == b"small"
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == "dropped: 1 answers"


async def test_empty_datagrams_pass() -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        await association.exchange(server, b"")


async def test_what_the_client_has_not_spoken_to_is_never_relayed_inward() -> None:
    async with udp_world() as udp:
        server, stranger, association = udp.peer(), udp.peer(), await udp.association()
        source = await association.exchange(server)
        elsewhere = udp.peer("127.0.0.2")
        for peer in (stranger, elsewhere):
            peer.send(b"unasked", source)
        server.send(b"asked", source)
        assert (await association.hear()).payload == b"asked"
        assert association.udp.is_silent()
        assert len(udp.here.records) == 0  # strangers cost no record
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == "dropped: 2 from strangers"


async def test_a_stranger_that_becomes_a_destination_is_heard_from_then_on() -> None:
    async with udp_world() as udp:
        server, other, association = udp.peer(), udp.peer(), await udp.association()
        source = await association.exchange(server)
        other.send(b"too early", source)
        assert await association.exchange(other) == source


async def test_only_the_clients_own_address_may_use_the_association() -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        udp.peer("127.0.0.2").send(wrapped(b"not mine", server.name), association.relay)
        await association.exchange(server)
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == "dropped: 1 not from the client"


async def test_the_port_that_sends_first_is_the_clients_and_no_other() -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        await association.exchange(server)
        udp.peer().send(wrapped(b"another program", server.name), association.relay)
        await association.exchange(server)
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == "dropped: 1 not from the client"


async def test_a_port_that_was_announced_is_the_only_one() -> None:
    async with udp_world() as udp:
        server, own = udp.peer(), udp.peer()
        association = await udp.association(own, announced_port=own.name[1])
        udp.peer().send(wrapped(b"another program", server.name), association.relay)
        await association.exchange(server)
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == "dropped: 1 not from the client"


@pytest.mark.parametrize("fragment", [1, 127, 128, 255])
async def test_fragments_are_dropped(fragment: int) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        whole = wrapped(b"part", server.name)
        association.raw(whole[:2] + bytes([fragment]) + whole[3:])
        await association.exchange(server)
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == "dropped: 1 fragments"


@pytest.mark.parametrize("to", [("127.0.0.1", 9), ("app.example", 9), ("::1", 9)])
async def test_a_header_cut_off_anywhere_is_dropped(to: tuple[str, int]) -> None:
    async with udp_world() as udp:
        udp.here.names()
        server, association = udp.peer(), await udp.association()
        header = wrapped(b"", to)
        for size in range(len(header)):
            association.raw(header[:size])
        await association.exchange(server)
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == f"dropped: {len(header)} malformed"


@pytest.mark.parametrize(
    "datagram",
    [
        b"\0\1\0\1\x7f\0\0\1\0\x09x",  # reserved bytes
        b"\0\0\0\2\x7f\0\0\1\0\x09x",  # a kind of address that there is not
        b"\0\0\0\1\x7f\0\0\1\0\0x",  # port 0
        b"\0\0\0\3\0\0\x09x",  # an empty name
        b"\0\0\0\3\3a b\0\x09x",
        b"\0\0\0\3\4a..b\0\x09x",
        b"",
    ],
)
async def test_what_is_no_header_is_dropped(datagram: bytes) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        association.raw(datagram)
        await association.exchange(server)
        association.tcp.close()
        assert (await udp.record_of(operation="udp")).detail == "dropped: 1 malformed"


@pytest.mark.parametrize("end", ["close", "half_close", "reset"])
async def test_the_association_dies_with_its_tcp_connection(end: str) -> None:
    async with udp_world() as udp:
        server, association = udp.peer(), await udp.association()
        source = await association.exchange(server)
        getattr(association.tcp, end)()
        whole = await udp.record_of(operation="udp")
        assert (whole.end, whole.ended_by) == ("reset" if end == "reset" else "closed", "internal")
        association.say(b"too late", server.name)
        server.send(b"too late", source)
        await udp.here.quiet()
        assert server.is_silent()
        assert association.udp.is_silent()


@pytest.mark.parametrize(("how", "outcome"), [("killed", "reset"), ("idle_timeout", "closed")])
async def test_the_tcp_connection_dies_with_its_association(how: str, outcome: str) -> None:
    async with udp_world() as udp:
        association = await udp.association()
        udp.here.firewall.engine.kill(udp.mappings[0].connection, how)
        assert await association.tcp.outcome() == (b"", outcome)
        assert (await udp.record_of(operation="udp")).end == how


async def test_two_associations_cannot_be_each_others_clients() -> None:
    """Otherwise one datagram to an echo service would go in circles for ever."""
    async with udp_world() as udp:
        server = udp.peer()
        first = await udp.association()
        second = await udp.association(first.udp, announced_port=first.relay[1])
        # The first sends to the second, in the name of its own socket toward clients.
        assert udp.here.firewall.engine.udp.is_ours(first.relay)
        side = udp.mappings[1].client
        side.from_client(memoryview(wrapped(b"round", server.name)), first.relay)  # type: ignore[attr-defined]  # SOCKS
        assert udp.mappings[1].client.notes()[0] == ("not from the client", 1)
        assert server.is_silent()
        second.tcp.close()


async def test_a_client_that_goes_before_its_answer_leaves_one_record() -> None:
    async with udp_world() as udp:
        tcp = await udp.ask()
        tcp.reset()
        await udp.here.until(lambda: bool(udp.here.records))
        await udp.here.quiet()
        assert len(udp.here.records) == 1


async def test_associations_of_version_4_do_not_exist() -> None:
    async with udp_world() as udp:
        client = await udp.here.client(b"\x04\x03\x00\x50\x7f\x00\x00\x01u\0")
        assert await client.outcome() == (b"\x00\x5b" + bytes(6), "closed")


def test_the_command_is_the_rfcs() -> None:
    assert ASSOCIATE == 3
