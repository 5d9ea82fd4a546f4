"""What an association may not do, and what it leaves behind: policy, limits, caps, records."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
from tests.entry.peers import socks_login
from tests.entry.socks import LOGIN
from tests.entry.udp import Association, answer, udp_world
from tests.entry.world import HEAD, ONLY_USERS, RULE, limits, user

from doorward.entry.socks_udp import SocksSide

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("moved_by")]

ANYWHERE = '[[rule]]\nname = "anywhere"\naction = "allow"\nprotocols = ["any"]\n'


async def test_a_silent_association_ends() -> None:
    async with udp_world(HEAD + limits(idle_timeout_s=0.2) + RULE) as udp:
        association = await udp.association()
        await association.exchange(udp.peer())
        assert await association.tcp.outcome() == (b"", "closed")
        assert (await udp.record_of(operation="udp")).end == "idle_timeout"


async def test_a_destination_not_spoken_to_is_forgotten_and_its_answers_are_a_strangers() -> None:
    async with udp_world(HEAD + limits(udp_idle_timeout_s=0.1) + RULE) as udp:
        server, association = udp.peer(), await udp.association()
        source = await association.exchange(server)
        record = await udp.record_of(operation="destination", port=server.name[1])
        assert (record.end, record.action) == ("idle_timeout", "allow")
        server.send(b"late", source)
        await udp.here.until(lambda: udp.mappings[0].strangers == 1)
        assert association.udp.is_silent()
        await association.exchange(server)


async def test_what_a_client_says_on_tcp_meanwhile_is_ignored_but_not_without_end() -> None:
    async with udp_world() as udp:
        association = await udp.association()
        await association.tcp.send(bytes(64 * 1024))
        await association.exchange(udp.peer())
        await association.tcp.send(b"x")
        whole = await udp.record_of(operation="udp")
        assert (whole.end, whole.ended_by) == ("udp_association_bytes", "ours")


async def test_what_policy_denies_is_dropped_in_silence_with_one_record() -> None:
    async with udp_world(HEAD + RULE.replace('["any"]', '["udp/9"]')) as udp:
        server, association = udp.peer(), await udp.association()
        for _ in range(3):
            association.say(b"no", server.name)
        record = await udp.record_of(operation="destination", port=server.name[1])
        assert (record.action, record.reason, record.end) == ("deny", "guarded_loopback", "refused")
        association.tcp.close()
        await udp.here.quiet()
        assert server.is_silent()
        assert len(udp.here.records) == 2
        assert (await udp.record_of(operation="udp")).detail == "dropped: 3 on the way"


async def test_a_rule_for_tcp_opens_no_udp() -> None:
    async with udp_world(HEAD + RULE.replace('["any"]', '["tcp/1-65535"]')) as udp:
        server, association = udp.peer(), await udp.association()
        association.say(b"no", server.name)
        assert (
            await udp.record_of(operation="destination", port=server.name[1])
        ).reason == "guarded_loopback"
        assert server.is_silent()


async def test_addresses_that_are_guarded_are_guarded_for_udp() -> None:
    async with udp_world(HEAD + ANYWHERE) as udp:
        server, association = udp.peer(), await udp.association()
        for host in ("127.0.0.1", "::ffff:127.0.0.1", "0x7f000001", "localhost"):
            association.say(b"no", (host, server.name[1]))
        association.say(b"no", ("224.0.0.1", 9))
        association.say(b"no", ("255.255.255.255", 9))
        await udp.here.until(lambda: len(udp.here.records) == 4)
        reasons = {(r.host or r.address): r.reason for r in udp.here.records}
        assert reasons == {
            "127.0.0.1": "guarded_loopback",
            "localhost": "guarded_loopback",
            "224.0.0.1": "guarded_not_unicast",
            "255.255.255.255": "guarded_not_unicast",
        }
        assert server.is_silent()


async def test_a_name_without_an_address_is_on_record_and_asked_for_again_in_a_moment() -> None:
    async with udp_world(HEAD + ANYWHERE) as udp:
        udp.here.names()
        association = await udp.association()
        association.say(b"hello", ("nowhere.example", 53))
        record = await udp.record_of(port=53)
        assert (record.action, record.reason, record.host) == ("fail", "name_not_found", "nowhere.example")
        destination = next(iter(udp.mappings[0].memory))
        assert destination.idle_s <= 5


async def test_the_user_is_on_record_and_rules_for_users_hold() -> None:
    async with udp_world(HEAD + user("kim", "right") + ONLY_USERS) as udp:
        server = udp.peer()
        anonymous = await udp.association()
        anonymous.say(b"no", server.name)
        assert (await udp.record_of(operation="destination", port=server.name[1])).reason == "user_needed"
        tcp = await udp.here.client(LOGIN + socks_login("kim", "right"))
        assert await tcp.receive(4) == b"\x05\x02\x01\x00"
        await tcp.send(b"\x05\x03\x00\x01" + bytes(6))
        code, relay = await answer(tcp)
        assert code == 0
        await Association(tcp, udp.peer(), relay).exchange(server)
        tcp.close()
        assert (
            await udp.record_of(operation="destination", port=server.name[1], action="allow")
        ).user == "kim"


async def test_a_client_that_opens_too_many_loses_its_oldest() -> None:
    async with udp_world(HEAD + limits(udp_mappings_per_client_max=2) + RULE) as udp:
        server = udp.peer()
        first, second, third = [await udp.association() for _ in range(3)]
        assert await first.tcp.outcome() == (b"", "closed")
        assert (await udp.record_of(operation="udp")).end == "udp_mapping_evicted"
        await second.exchange(server)
        await third.exchange(server)
        assert len(udp.here.firewall.engine.udp) == 2


async def test_the_oldest_destination_makes_room() -> None:
    async with udp_world(HEAD + limits(udp_destinations_max=2) + RULE) as udp:
        servers, association = [udp.peer() for _ in range(3)], await udp.association()
        source = await association.exchange(servers[0])
        await association.exchange(servers[1])
        await association.exchange(servers[2])
        assert (
            await udp.record_of(operation="destination", port=servers[0].name[1])
        ).end == "udp_destination_evicted"
        servers[0].send(b"forgotten", source)
        await association.exchange(servers[2])
        assert association.udp.is_silent()


async def test_headers_in_every_spelling_do_not_fill_the_memory() -> None:
    async with udp_world(HEAD + limits(udp_destinations_max=8) + RULE) as udp:
        udp.here.names(**{"abcdefgh.example": "127.0.0.1"})
        server, association = udp.peer(), await udp.association()
        for number in range(100):
            name = "".join(c.upper() if number >> i & 1 else c for i, c in enumerate("abcdefgh"))
            association.say(b"x", (f"{name}.example", server.name[1]))
            await server.receive()
        side = udp.mappings[0].client
        assert isinstance(side, SocksSide)
        assert len(side._known) <= 8
        assert len(udp.mappings[0].memory) == 1


async def test_without_a_descriptor_the_client_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async with udp_world() as udp:
        make = socket.socket

        def fail(*what: Any, **more: Any) -> socket.socket:
            if len(what) > 1 and what[1] & socket.SOCK_DGRAM:
                raise OSError(24, "Too many open files")
            return make(*what, **more)

        tcp = await udp.here.client(b"\x05\x01\x00")
        assert await tcp.receive(2) == b"\x05\x00"
        monkeypatch.setattr("doorward.net.datagrams.socket.socket", fail)
        await tcp.send(b"\x05\x03\x00\x01" + bytes(6))
        code, _ = await answer(tcp)
        monkeypatch.undo()
        assert code == 1
        record = await udp.record_of(operation="udp")
        assert (record.action, record.reason) == ("fail", "out_of_resources")


async def test_a_hundred_associations_leave_nothing() -> None:
    async with udp_world() as udp:
        server = udp.peer()
        for _ in range(10):
            associations = await asyncio.gather(*(udp.association() for _ in range(10)))
            for association in associations:
                await association.exchange(server)
                association.tcp.close()
                association.udp.close()
        await udp.here.quiet()
        table = udp.here.firewall.engine.udp
        assert (len(table), table.alive) == (0, 0)
