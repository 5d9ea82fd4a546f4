"""UDP of a captured program: judged by destination, answered from where it was sent to, refused out loud."""

from __future__ import annotations

import socket

import pytest
from tests.capture.inside import NOBODY, need_address, needs_namespaces
from tests.entry.captured import captured, policy, received
from tests.entry.udp import UdpPeer

from doorward.capture.addresses import OWN, PORT

pytestmark = [pytest.mark.anyio, needs_namespaces]


@pytest.mark.parametrize("version", [4, 6])
async def test_answers_come_from_where_the_program_had_sent_to(version: int) -> None:
    address = need_address(version)
    async with captured() as program:
        server = UdpPeer(address)
        try:
            client = program.datagrams(address, server.name[1])
            for size in (0, 1, 1200, 60_000):
                client.send(b"x" * size)
                data, source = await server.receive()
                assert len(data) == size
                server.send(data[::-1], source)
                assert len(await received(client)) == size
        finally:
            server.close()


async def test_one_socket_of_the_programs_speaks_to_many() -> None:
    address = need_address()
    async with captured() as program:
        servers = [UdpPeer(address) for _ in range(5)]
        try:
            client = program.socket(4, socket.SOCK_DGRAM)
            for server in servers:
                client.sendto(b"who?", server.name)
                _, source = await server.receive()
                server.send(str(server.name[1]).encode(), source)
                assert (await received(client)).decode() == str(server.name[1])
            assert (
                len({(await _again(client, server))[1] for server in servers}) == 1
            )  # one mapping, one port
        finally:
            for server in servers:
                server.close()


async def _again(client: socket.socket, server: UdpPeer) -> tuple[bytes, int]:
    client.sendto(b"again", server.name)
    data, source = await server.receive()
    return data, source[1]


@pytest.mark.parametrize("version", [4, 6])
async def test_a_refusal_is_told_with_the_first_datagram_and_with_each(version: int) -> None:
    async with captured() as program:
        client = program.datagrams(NOBODY[version], 5000)
        for _ in range(3):
            client.send(b"anybody?")
            with pytest.raises(ConnectionRefusedError):
                await received(client)
        record = await program.world.record()
        assert (record.action, record.reason, record.transport) == ("deny", "default_deny", "udp")
        assert (record.address, record.port, record.entry) == (NOBODY[version], 5000, "captured")
        assert len(program.world.records) == 1


async def test_who_was_not_spoken_to_is_not_heard() -> None:
    address = need_address()
    async with captured() as program:
        server, stranger = UdpPeer(address), UdpPeer(address)
        try:
            client = program.datagrams(address, server.name[1])
            client.send(b"hello")
            _, source = await server.receive()
            stranger.send(b"me too", source)
            server.send(b"hello", source)
            assert await received(client) == b"hello"
            with pytest.raises(BlockingIOError):
                client.recv(100)
        finally:
            server.close()
            stranger.close()


async def test_a_datagram_to_the_place_where_it_is_caught_leads_nowhere() -> None:
    async with captured() as program:
        client = program.datagrams(OWN[4], PORT)
        client.send(b"loop?")
        datagrams = program.entry._datagrams
        await program.world.until(lambda: datagrams.strangers == 1)
        assert not program.world.records


async def test_a_borrowed_source_leads_nowhere() -> None:
    address = need_address()
    async with captured() as program:
        server = UdpPeer(address)
        try:
            client = program.socket(4, socket.SOCK_DGRAM)
            client.bind((NOBODY[4], 0))
            client.sendto(b"from somebody else", server.name)
            datagrams = program.entry._datagrams
            await program.world.until(lambda: datagrams.strangers == 1)
            assert server.is_silent()
        finally:
            server.close()


async def test_a_mapping_that_was_silent_ends_and_the_next_datagram_makes_another() -> None:
    address = need_address()
    async with captured(policy("[limits]\nudp_idle_timeout_s = 0.1\n")) as program:
        server = UdpPeer(address)
        try:
            client = program.datagrams(address, server.name[1])
            client.send(b"one")
            await server.receive()
            await program.world.until(lambda: not program.entry._datagrams._sides)
            await program.world.quiet()
            client.send(b"two")
            data, source = await server.receive()
            assert data == b"two"
            server.send(b"heard", source)
            assert await received(client) == b"heard"
        finally:
            server.close()


async def test_more_mappings_than_a_client_may_have_cost_the_oldest() -> None:
    address = need_address()
    async with captured(policy("[limits]\nudp_mappings_per_client_max = 3\n")) as program:
        server = UdpPeer(address)
        try:
            for _ in range(8):
                program.datagrams(address, server.name[1]).send(b"x")
                await server.receive()
            assert len(program.entry._datagrams._sides) <= 3
        finally:
            server.close()


async def test_datagrams_that_come_while_a_mapping_is_made_are_kept_a_few_of_them() -> None:
    address = need_address()
    async with captured() as program:
        server = UdpPeer(address)
        try:
            client = program.datagrams(address, server.name[1])
            for number in range(10):
                client.send(b"%d" % number)
            assert [(await server.receive())[0] for _ in range(10)] == [
                b"%d" % number for number in range(10)
            ]
        finally:
            server.close()


async def test_without_its_helper_a_program_has_tcp_and_old_far_ends_and_no_new_answers() -> None:
    """Somebody has killed the helper: what needs it is dropped and counted, and nothing else breaks."""
    address = need_address()
    async with captured() as program:
        old, new = UdpPeer(address), UdpPeer(address)
        try:
            client = program.socket(4, socket.SOCK_DGRAM)
            client.sendto(b"x", old.name)
            _, source = await old.receive()
            old.send(b"before", source)
            assert await received(client) == b"before"
            program.entry._answers._channel.shutdown(socket.SHUT_RD)  # what the kernel does when it dies
            await program.world.until(lambda: not program.entry._answers._open)
            client.sendto(b"x", new.name)
            _, source = await new.receive()
            new.send(b"after", source)
            await program.world.until(lambda: program.entry._answers.dropped == 1)
            client.sendto(b"x", old.name)
            old.send(b"still", (await old.receive())[1])
            assert await received(client) == b"still"
            server = program.world.server(address)
            peer = await program.connect(address, server.port)
            await (await program.world.accept(server)).send(b"hello")
            assert await peer.receive(5) == b"hello"
        finally:
            old.close()
            new.close()
