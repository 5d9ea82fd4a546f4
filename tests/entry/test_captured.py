"""TCP of a captured program: served as any client's, refused by reset, and nothing led in circles."""

from __future__ import annotations

import asyncio

import pytest
from tests.capture.inside import NOBODY, need_address, needs_namespaces
from tests.entry.captured import captured, policy

from doorward.capture.addresses import OWN, PORT
from doorward.entry.captured import NOT_CAUGHT

pytestmark = [pytest.mark.anyio, needs_namespaces]


@pytest.mark.parametrize("version", [4, 6])
async def test_a_program_that_knows_of_no_proxy_is_served(version: int) -> None:
    address = need_address(version)
    async with captured() as program:
        server = program.world.server(address)
        client = await program.connect(address, server.port)
        outer = await program.world.accept(server)
        await client.send(b"to the server")
        assert await outer.receive(13) == b"to the server"
        await outer.send(b"and back")
        assert await client.receive(8) == b"and back"
        outer.half_close()
        assert await client.receive_rest() == b""
        client.close()
        outer.close()
        record = await program.world.record()
        assert (record.entry, record.action, record.client_address) == ("captured", "allow", "127.0.0.1")
        assert (record.address, record.port, record.bytes_sent, record.bytes_received) == (
            address, server.port, 13, 8,
        )  # fmt: skip


async def test_a_server_that_speaks_first_is_heard() -> None:
    address = need_address()
    async with captured() as program:
        server = program.world.server(address)
        client = await program.connect(address, server.port)
        await (await program.world.accept(server)).send(b"220 ready")
        assert await client.receive(9) == b"220 ready"


@pytest.mark.parametrize("version", [4, 6])
async def test_what_policy_refuses_is_reset_at_once(version: int) -> None:
    async with captured() as program:
        await program.expect_reset(NOBODY[version], 80)
        record = await program.world.record()
        assert (record.action, record.reason, record.address) == ("deny", "default_deny", NOBODY[version])


async def test_what_nobody_serves_is_reset() -> None:
    address = need_address()
    async with captured() as program:
        server = program.world.server(address)
        port = server.port
        server.close()
        await program.expect_reset(address, port)
        assert (await program.world.record()).action == "fail"


async def test_a_server_that_resets_is_a_reset_for_the_program() -> None:
    address = need_address()
    async with captured() as program:
        server = program.world.server(address)
        client = await program.connect(address, server.port)
        (await program.world.accept(server)).reset()
        assert await client.outcome() == (b"", "reset")


@pytest.mark.parametrize("version", [4, 6])
async def test_the_place_where_it_is_caught_is_nobodys_server(version: int) -> None:
    async with captured() as program:
        await program.expect_reset(OWN[version], PORT)
        record = await program.world.record()
        assert (record.action, record.reason, record.host) == ("deny", NOT_CAUGHT, OWN[version])


async def test_a_source_that_is_not_its_own_gets_nowhere() -> None:
    address = need_address()
    async with captured() as program:
        server = program.world.server(address)
        sock = program.socket()
        sock.bind((NOBODY[4], 0))  # every address is local in there, so the kernel lets it
        with pytest.raises((ConnectionError, TimeoutError)):
            async with asyncio.timeout(0.3):
                await asyncio.get_running_loop().sock_connect(sock, (address, server.port))
        await program.world.quiet()
        assert all(record.action != "allow" for record in program.world.records)


async def test_a_program_on_its_own_loopback_as_source_is_served() -> None:
    address = need_address()
    async with captured() as program:
        server = program.world.server(address)
        sock = program.socket()
        sock.bind(("127.0.0.1", 0))
        await asyncio.get_running_loop().sock_connect(sock, (address, server.port))
        await (await program.world.accept(server)).send(b"hello")
        async with asyncio.timeout(5):
            assert await asyncio.get_running_loop().sock_recv(sock, 5) == b"hello"


async def test_a_filter_sees_a_captured_connection() -> None:
    address = need_address()
    shout = (
        "from doorward.api import Interest, StreamFilter, ClientKind\n"
        "class Shout(StreamFilter):\n"
        '    interest = Interest.of("any", clients=[ClientKind.CAPTURED])\n'
        "    def server_data(self, data):\n        return data.upper()\n"
    )
    text = policy('[[filter]]\nname = "shout"\nuse = "shout.py"\n')
    async with captured(text, files={"shout.py": shout}) as program:
        server = program.world.server(address)
        client = await program.connect(address, server.port)
        await (await program.world.accept(server)).send(b"quiet")
        assert await client.receive(5) == b"QUIET"


async def test_what_is_under_way_goes_on_when_no_more_is_taken() -> None:
    address = need_address()
    async with captured() as program:
        server = program.world.server(address)
        client = await program.connect(address, server.port)
        outer = await program.world.accept(server)
        program.entry.stop_listening()
        program.entry.stop_listening()
        await program.expect_reset(address, server.port)
        await client.send(b"still")
        assert await outer.receive(5) == b"still"


async def test_one_session_for_all_its_connections_and_it_does_not_end_by_being_idle() -> None:
    async with captured() as program:
        for version in (4, 6):
            await program.expect_reset(NOBODY[version], 80)
        await program.world.record(2)
        sessions = program.world.firewall.engine.sessions
        assert len({record.session for record in program.world.records}) == 1
        sessions.idle_s = -1.0
        assert sessions.end_idle() == 0
        program.entry.close()
        program.entry.close()
        assert sessions.end_idle() == 1
