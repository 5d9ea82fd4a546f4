"""DNS of a captured program: answered whoever was asked, over both transports, and remembered."""

from __future__ import annotations

import asyncio
import socket

import dns.message
import dns.rcode
import pytest
from tests.capture.inside import NOBODY, need_address, needs_namespaces
from tests.entry.captured import captured, policy, received
from tests.entry.world import HEAD

from doorward.capture.addresses import OWN

pytestmark = [pytest.mark.anyio, needs_namespaces]


ONLY_NAME = '[[rule]]\nname = "by name"\naction = "allow"\nto = ["server.example"]\nprotocols = ["tcp"]\n'


def by_name(name: str) -> str:
    """A policy for one name; its server is at our own address, which has to be named, too."""
    rule = f'[[rule]]\nname = "by name"\naction = "allow"\nto = ["{name}"]\nprotocols = ["tcp"]\n'
    return policy(rule)


def query(name: str, kind: str = "A") -> bytes:
    return dns.message.make_query(name, kind).to_wire()


def addresses(reply: bytes) -> list[str]:
    message = dns.message.from_wire(reply)
    return [str(item) for rrset in message.answer for item in rrset]


@pytest.mark.parametrize("version", [4, 6])
async def test_any_server_answers_and_the_connection_that_follows_has_the_name(version: int) -> None:
    address = need_address()
    async with captured(by_name("server.example")) as program:
        program.world.names(**{"server.example": address})
        client = program.datagrams(NOBODY[version], 53)
        client.send(query("server.example"))
        assert addresses(await received(client)) == [address]
        server = program.world.server(address)
        peer = await program.connect(address, server.port)
        outer = await program.world.accept(server)
        await outer.send(b"hello")
        assert await peer.receive(5) == b"hello"
        peer.close()
        outer.close()
        record = await program.world.record()
        assert (record.host, record.address, record.action) == ("server.example", address, "allow")


async def test_a_name_that_is_refused_is_no_name() -> None:
    async with captured(HEAD + ONLY_NAME) as program:
        client = program.datagrams(NOBODY[4], 53)
        client.send(query("evil.example"))
        assert dns.message.from_wire(await received(client)).rcode() == dns.rcode.NXDOMAIN
        record = await program.world.record()
        assert (record.action, record.host, record.operation) == ("deny", "evil.example", "resolve")


async def test_over_tcp_one_after_the_other() -> None:
    address = need_address()
    async with captured(by_name("server.example")) as program:
        program.world.names(**{"server.example": address})
        peer = await program.connect(NOBODY[4], 53)
        for name in ("server.example", "evil.example", "server.example"):
            asked = query(name)
            await peer.send(len(asked).to_bytes(2, "big") + asked)
            size = int.from_bytes(await peer.receive(2), "big")
            assert bool(addresses(await peer.receive(size))) == (name == "server.example")
        peer.half_close()
        assert await peer.outcome() == (b"", "closed")


async def test_a_lie_about_a_length_ends_it() -> None:
    async with captured() as program:
        peer = await program.connect(NOBODY[4], 53)
        await peer.send(b"\x00\x03abc")
        assert (await peer.outcome())[1] == "reset"


async def test_a_flood_is_dropped_past_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("doorward.entry.captured_dns.WAITING_MAX", 3)
    async with captured(by_name("server.example")) as program:
        client = program.datagrams(NOBODY[4], 53)
        for _ in range(20):
            client.send(query("evil.example"))
        names = program.entry._names
        await program.world.until(lambda: names.dropped >= 17 and not names._waiting)


async def test_what_is_no_query_is_survived() -> None:
    async with captured() as program:
        client = program.datagrams(NOBODY[4], 53)
        for data in (b"", b"x", b"\xff" * 512, query("a.example")[:-3]):
            client.send(data)
        client.send(query("evil.example"))
        while (
            dns.message.from_wire(await received(client), ignore_trailing=True).rcode() != dns.rcode.NXDOMAIN
        ):
            pass


async def test_a_nameserver_on_the_programs_own_loopback_is_us(monkeypatch: pytest.MonkeyPatch) -> None:
    address = need_address()
    monkeypatch.setattr("doorward.capture.helper.own_resolvers", lambda: ["127.0.0.53"])
    async with captured(by_name("server.example")) as program:
        program.world.names(**{"server.example": address})
        client = program.datagrams("127.0.0.53", 53)
        client.send(query("server.example"))
        assert addresses(await received(client)) == [address]
        peer = await program.connect("127.0.0.53", 53)
        asked = query("server.example")
        await peer.send(len(asked).to_bytes(2, "big") + asked)
        assert addresses(await peer.receive(int.from_bytes(await peer.receive(2), "big"))) == [address]


async def test_the_programs_own_address_is_no_nameserver() -> None:
    async with captured() as program:
        sock = program.socket(4, socket.SOCK_STREAM)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.get_running_loop().sock_connect(sock, (OWN[4], 53))
