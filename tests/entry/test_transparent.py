"""Machines behind a gateway, as the process sees them. With a kernel in between: tests/end_to_end/test_gateway.py."""

from __future__ import annotations

import asyncio
import socket

import pytest
from tests.entry.routed import NETWORKS, client_socket, received, routed, settings
from tests.entry.world import HEAD, RULE

from doorward.entry.routed_clients import LOOP, OWN_PORT
from doorward.entry.transparent import TransparentEntry, TransparentSockets
from doorward.net.transparent import why_not

pytestmark = pytest.mark.anyio

NAMES = HEAD + '[[rule]]\nname = "by name"\naction = "allow"\nto = ["web.test"]\nprotocols = ["any"]\n'


async def test_a_caught_connection_is_carried_and_on_record() -> None:
    async with routed() as gateway:
        server = gateway.world.server()
        client = await gateway.connect(server.host, server.port)
        outer = await gateway.world.accept(server)
        await client.send(b"hello")
        assert await outer.receive(5) == b"hello"
        await outer.send(b"and you")
        outer.close()
        assert await client.outcome() == (b"and you", "closed")
        client.close()
        record = await gateway.world.record()
        assert (record.entry, record.client_address, record.address, record.port) == (
            "transparent", "127.0.0.1", server.host, server.port,
        )  # fmt: skip
        assert (record.action, record.rule, record.bytes_sent, record.bytes_received) == (
            "allow", "everything here", 5, 7,
        )  # fmt: skip


async def test_a_refusal_is_a_reset() -> None:
    async with routed(HEAD) as gateway:
        client = await gateway.connect("198.51.100.9", 80)
        assert await client.outcome() == (b"", "reset")
        record = await gateway.world.record()
        assert (record.action, record.reason, record.address) == ("deny", "default_deny", "198.51.100.9")


async def test_each_client_address_is_a_session() -> None:
    async with routed() as gateway:
        server = gateway.world.server()
        for source in ("127.0.0.2", "127.0.0.3", "127.0.0.2"):
            client = await gateway.connect(server.host, server.port, source)
            (await gateway.world.accept(server)).close()
            client.close()
        records = [await gateway.world.record(number) for number in (1, 2, 3)]
        by_client = {record.client_address: record.session for record in records}
        assert len(by_client) == len(set(by_client.values())) == 2


@pytest.mark.parametrize(
    ("source", "host", "port", "own", "reason"),
    [
        ("127.0.0.1", "127.0.0.7", 1081, ("127.0.0.7",), OWN_PORT),
        ("127.0.0.7", "127.0.0.1", 80, ("127.0.0.7",), LOOP),
    ],
)
async def test_what_would_come_back_to_us_is_not_served(
    source: str, host: str, port: int, own: tuple[str, ...], reason: str
) -> None:
    async with routed(own=own) as gateway:
        client = await gateway.connect(host, port, source)
        assert await client.outcome() == (b"", "reset")
        record = await gateway.world.record()
        assert (record.reason, record.client_address, record.host, record.port) == (
            reason,
            source,
            host,
            port,
        )
        with client_socket(source) as sock:
            gateway.send(b"x", sock, host, port)
        record = await gateway.world.record(2)
        assert (record.reason, record.transport) == (reason, "udp")


async def test_a_client_that_is_served_is_not_led_to_us_either() -> None:
    async with routed(own=("127.0.0.7",)) as gateway:
        with client_socket() as client, client_socket() as server:
            gateway.send(b"x", client, *server.getsockname())
            await received(server)
            gateway.send(b"x", client, "127.0.0.7", 1081)
            assert (await gateway.world.record()).reason == OWN_PORT


async def test_a_client_that_is_gone_costs_nothing() -> None:
    async with routed() as gateway:

        def gone(sock: socket.socket) -> None:
            raise OSError

        gateway.entry._original = gone  # type: ignore[assignment]
        client = await gateway.connect("127.0.0.1", 80)
        assert (await client.outcome())[0] == b""
        assert not gateway.world.records


async def test_no_room_for_one_more_session_is_a_reset() -> None:
    async with routed() as gateway:
        gateway.world.firewall.engine.sessions.sessions_max = 0
        client = await gateway.connect("127.0.0.1", 80)
        assert await client.outcome() == (b"", "reset")


async def test_datagrams_go_out_and_answers_come_back(moved_by: str) -> None:
    async with routed() as gateway:
        with client_socket() as client, client_socket() as server:
            here = server.getsockname()
            for number in range(3):
                gateway.send(b"ask %d" % number, client, *here)
                asked, ours = await received(server)
                assert asked == b"ask %d" % number
                server.sendto(b"answer", ours)
                answer, _ = await received(client)
                assert answer == b"answer"


async def test_what_comes_to_an_answering_socket_was_caught_too() -> None:
    async with routed() as gateway:
        with client_socket() as client, client_socket() as server:
            gateway.send(b"first", client, *server.getsockname())
            server.sendto(b"answer", (await received(server))[1])
            _, answering = await received(client)
            client.sendto(b"second", answering)
            assert (await received(server))[0] == b"second"


async def test_a_later_connection_has_the_name_that_was_asked_for() -> None:
    async with routed(NAMES.replace('"web.test"', '"web.test", "127.0.0.0/8"')) as gateway:
        gateway.world.names(**{"web.test": "127.0.0.1"})
        server = gateway.world.server()
        session = gateway.entry._clients.asking(("127.0.0.5", 1))
        assert session.asked is not None
        loop = asyncio.get_running_loop()
        session.asked.memory.keep("web.test", [NETWORKS[0][1]], loop.time())
        gateway.world.firewall.engine.close_session(session)  # as one that was idle
        client = await gateway.connect(server.host, server.port, "127.0.0.5")
        (await gateway.world.accept(server)).close()
        client.close()
        record = await gateway.world.record()
        assert (record.host, record.address) == ("web.test", "127.0.0.1")


async def test_dns_is_answered_unless_policy_is_to_judge_it() -> None:
    async with routed(HEAD + RULE, dns="policy") as gateway:
        with client_socket() as asker, client_socket() as server:
            gateway.send(b"no query", asker, *server.getsockname())
            assert (await received(server))[0] == b"no query"
        client = await gateway.connect("127.0.0.1", 53)  # nobody listens there
        assert await client.outcome() == (b"", "reset")
        assert (await gateway.world.record()).reason == "connection_refused"
        gateway.entry.configure(settings(dns="answer"))
        client = await gateway.connect("127.0.0.1", 53)
        await client.send(b"\xff\xff" + b"x" * 20)
        assert (await client.outcome())[1] == "reset"
        assert (await gateway.world.record(2)).reason == "dns_bad_length"


@pytest.mark.skipif(bool(why_not(4)), reason=f"borrowing addresses: {why_not(4)}")
async def test_the_source_is_borrowed_where_it_is_kept() -> None:
    """Loopback addresses are this machine's, so nobody needs a right to borrow them."""
    async with routed(keep_source=(NETWORKS[0],)) as gateway:
        server = gateway.world.server()
        client = await gateway.connect(server.host, server.port, "127.0.0.77")
        outer = await gateway.world.accept(server)
        assert outer.socket.getpeername()[0] == "127.0.0.77"
        client.close()
        outer.close()
        with client_socket("127.0.0.78") as sender, client_socket() as receiver:
            gateway.send(b"x", sender, *receiver.getsockname())
            assert (await received(receiver))[1][0] == "127.0.0.78"


async def test_at_its_end_nobody_is_served() -> None:
    async with routed() as gateway:
        with client_socket() as client, client_socket() as server:
            gateway.send(b"x", client, *server.getsockname())
            await received(server)
            gateway.entry.close()
            await gateway.world.quiet()
            ends = {record.operation: record.end for record in gateway.world.records}
            assert ends == {"destination": "closed", "udp": "closed"}
        with pytest.raises(ConnectionRefusedError):
            await gateway.connect("127.0.0.1", 80)


async def test_datagrams_get_a_part_of_the_descriptors() -> None:
    async with routed() as gateway:
        engine = gateway.world.firewall.engine
        for descriptors, mappings, answers in ((1024, 256, 128), (2, 1, 1), (2**30, 16_384, 4096)):
            entry = TransparentEntry(
                engine, settings(), TransparentSockets([], [], {}), lambda: True, descriptors
            )
            assert entry._datagrams.mappings_max == mappings
            assert entry._answers._sockets_max == answers
