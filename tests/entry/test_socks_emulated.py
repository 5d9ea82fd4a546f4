"""A SOCKS client whose server is a filter cannot tell: it is connected, served, and counted."""

from __future__ import annotations

import pytest
from tests.entry.emulators import FILES
from tests.entry.filters import WATCH, use
from tests.entry.peers import Peer, socks4_request, socks5_request
from tests.entry.socks import NO_LOGIN, reply5
from tests.entry.world import HEAD, RULE, world

pytestmark = pytest.mark.anyio

POLICIES = [HEAD + use("lines") + RULE, HEAD + use("watch") + use("lines") + RULE]


async def speak(client: Peer) -> None:
    await client.send(b"hello")
    assert await client.receive(5) == b"HELLO"
    client.half_close()
    assert await client.receive_rest() == b"bye"


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_client_is_told_the_filters_name_and_served_by_it(policy: str) -> None:
    async with world(policy, {**FILES, "watch.py": WATCH}) as here:
        server = here.server()
        client = await here.client(NO_LOGIN + socks5_request(server.host, server.port))
        assert await client.receive(2) == b"\x05\x00"
        assert await client.receive(10) == b"\x05\x00\x00\x01" + bytes([192, 0, 2, 99]) + (4711).to_bytes(
            2, "big"
        )
        await speak(client)
        record = await here.record()
        assert (record.action, record.end, record.ended_by) == ("allow", "closed", "ours")
        assert (record.bytes_sent, record.bytes_received) == (5, 8)
        assert (record.address, record.port) == ("127.0.0.1", server.port)
        assert '["lines","emulated",""]' in (record.filters or "")
        assert not server.has_client()


async def test_without_a_name_a_client_is_told_zeros() -> None:
    async with world(HEAD + use("nameless") + RULE, FILES) as here:
        client = await here.client(NO_LOGIN + socks5_request("127.0.0.1", 7))
        assert await client.receive(12) == b"\x05\x00\x05\x00\x00\x01" + bytes(6)
        await speak(client)


async def test_a_socks4_client_is_told_and_served_too() -> None:
    async with world(HEAD + use("lines") + RULE, FILES) as here:
        client = await here.client(socks4_request("127.0.0.1", 7))
        assert await client.receive(8) == b"\x00\x5a" + (4711).to_bytes(2, "big") + bytes([192, 0, 2, 99])
        await speak(client)


async def test_what_a_client_sends_before_it_is_answered_is_not_lost() -> None:
    async with world(HEAD + use("nameless") + RULE, FILES) as here:
        client = await here.client(NO_LOGIN + socks5_request("127.0.0.1", 7) + b"early")
        assert await client.receive(12) == b"\x05\x00\x05\x00\x00\x01" + bytes(6)
        assert await client.receive(5) == b"EARLY"


async def test_a_denied_name_is_answered_as_one_that_is_not_found() -> None:
    async with world(HEAD + use("nonames") + RULE, FILES) as here:
        client = await here.client(NO_LOGIN + socks5_request("some.test", 80))
        assert await client.receive(2) == b"\x05\x00"
        assert await reply5(client) == 4
        record = await here.record()
        assert (record.action, record.reason) == ("deny", "no_names_today")
        assert record.filters == '[["nonames","denied","no_names_today"]]'
