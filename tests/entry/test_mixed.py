from __future__ import annotations

import pytest
from tests.entry.http.requests import connect, get
from tests.entry.peers import read_answer, socks4_request, socks5_request
from tests.entry.world import HEAD, RULE, limits, world

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("way_in")]

TLS_HELLO = bytes.fromhex("160301005801000054030300") + bytes(80)


async def test_one_port_speaks_every_protocol() -> None:
    async with world() as here:
        server = here.server()
        for hello in (
            b"\x05\x01\x00" + socks5_request("127.0.0.1", server.port),
            socks4_request("127.0.0.1", server.port),
            connect(server.authority),
            get(server),
        ):
            client = await here.client(hello)
            outer = await here.accept(server)
            outer.close()
            client.close()
        await here.quiet()
        spoken = sorted(record.entry for record in here.records)  # each is written when it ends
        assert spoken == ["http", "http-connect", "socks4", "socks5"]


async def test_listening_on_ipv6_works_like_ipv4() -> None:
    async with world(HEAD.replace("127.0.0.1:0", "[::1]:0") + RULE) as here:
        server = here.server("::1")
        client, outer = await here.tunnel(server)
        await client.send(b"hello")
        assert await outer.receive(5) == b"hello"
        client.close()
        outer.close()
        assert (await here.record()).client_address == "::1"


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (TLS_HELLO, "tls_on_plain_port"),
        (b"\x00", "unknown_protocol"),
        (b"\x06\x01\x00", "unknown_protocol"),
        (b"\xff" * 5000, "unknown_protocol"),
        (b"\r\nGET / HTTP/1.1\r\n\r\n", "unknown_protocol"),
        (b" GET / HTTP/1.1\r\n\r\n", "unknown_protocol"),
    ],
)
async def test_what_is_not_spoken_here_is_refused_without_a_guess(sent: bytes, reason: str) -> None:
    async with world() as here:
        client = await here.client(sent)
        assert (await client.outcome())[0] == b""
        client.close()
        record = await here.record()
        assert (record.action, record.reason, record.entry) == ("fail", reason, "unknown")
        await here.quiet()
        assert len(here.records) == 1


async def test_letters_that_are_not_http_are_told_so() -> None:
    async with world() as here:
        client = await here.client(b"SSH-2.0-OpenSSH_9.2\r\n\r\n")
        answer = await read_answer(client)
        assert answer.status in (400, 505)
        client.close()
        await here.quiet()
        assert len(here.records) == 1


async def test_a_client_that_says_nothing_is_let_go_in_time() -> None:
    async with world(HEAD + limits(handshake_timeout_s=0.2) + RULE) as here:
        client = await here.client()
        assert (await client.outcome())[0] == b""
        record = await here.record()
        assert (record.action, record.reason, record.entry) == ("fail", "handshake_timeout", "unknown")


async def test_a_client_that_closes_without_a_byte_leaves_a_record() -> None:
    async with world() as here:
        client = await here.client()
        client.close()
        record = await here.record()
        assert (record.action, record.reason) == ("fail", "abandoned")


async def test_more_clients_than_allowed_wait_until_others_have_gone() -> None:
    async with world(HEAD + limits(connections_max=2) + RULE) as here:
        server = here.server()
        first, second = await here.tunnel(server), await here.tunnel(server)
        third = await here.client(b"\x05\x01\x00" + socks5_request("127.0.0.1", server.port))
        await here.until(lambda: any("wait" in line["event"] for line in here.told()))
        assert not server.has_client()
        for peer in first:
            peer.close()
        await here.accept(server)
        assert await third.receive(2) == b"\x05\x00"
        await second[0].send(b"still here")
        assert await second[1].receive(10) == b"still here"
