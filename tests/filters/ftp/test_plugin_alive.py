"""The filter in a running firewall: grants, ports and records of real connections, and nothing left of any."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from tests.entry.peers import Peer, Server, socks5_request
from tests.entry.world import World, world

pytestmark = pytest.mark.anyio

POLICY = """
[listen]
proxy = ["127.0.0.1:0"]
[control]
path = "control"
[log]
path = "log.db"
[protocols.ftp]
ports = ["tcp/{port}"]
[[filter]]
name = "ftp"
use = "ftp"
settings = {{ {settings} }}
[[rule]]
name = "ftp only"
action = "allow"
to = ["127.0.0.0/8"]
protocols = ["ftp"]
"""


class Talk:
    """A control connection through the firewall, whose server the test plays."""

    def __init__(self, here: World, client: Peer, server: Peer) -> None:
        self.here = here
        self.client = client
        self.server = server

    @property
    def grants(self) -> int:
        return self.here.firewall.engine.grants.alive

    async def passive(self, port: int) -> str:
        """PASV, and what the client is answered."""
        await self.client.send(b"PASV\r\n")
        await self.server.receive_until(b"PASV\r\n")
        await self.server.send(b"227 Go (127,0,0,1,%d,%d)\r\n" % divmod(port, 256))
        return (await self.client.receive_until(b"\r\n")).decode()

    async def dial(self, port: int) -> int:
        """A second connection of the same client: the reply code of SOCKS."""
        client = await self.here.client(b"\x05\x01\x00" + socks5_request("127.0.0.1", port))
        assert await client.receive(2) == b"\x05\x00"
        return (await client.receive(10))[1]


@asynccontextmanager
async def talking(settings: str = "") -> AsyncIterator[Talk]:
    ftp = Server()
    try:
        async with world(POLICY.format(port=ftp.port, settings=settings)) as here:
            client, server = await here.tunnel(ftp)
            await server.send(b"220 ready\r\n")
            assert await client.receive_until(b"\r\n") == b"220 ready\r\n"
            yield Talk(here, client, server)
            for end in here._ends:
                end.close()
            await here.quiet()
            assert here.firewall.engine.grants.alive == 0
    finally:
        ftp.close()


async def connect_from(address: str, port: int) -> Peer:
    """A connection to the firewall from this address."""
    sock = socket.socket()
    sock.bind((address, 0))
    sock.connect(("127.0.0.1", port))  # the kernel answers at once
    return Peer(sock)


async def test_a_passive_hole_is_for_one_connection_to_one_port() -> None:
    async with talking() as t:
        data, other = t.here.server(), t.here.server()
        assert await t.dial(data.port) == 2
        assert (await t.passive(data.port)).startswith("227 ")
        assert t.grants == 1
        assert await t.dial(other.port) == 2
        assert await t.dial(data.port) == 0
        assert t.grants == 0
        assert await t.dial(data.port) == 2


async def test_a_hole_that_nobody_uses_ends_with_the_control_connection() -> None:
    async with talking() as t:
        data = t.here.server()
        await t.passive(data.port)
        assert t.grants == 1
        t.server.reset()
        assert (await t.client.outcome())[1] == "reset"
        await t.here.until(lambda: t.grants == 0)
        assert await t.dial(data.port) == 2


async def test_a_data_connection_lives_on_when_the_control_connection_has_ended() -> None:
    async with talking() as t:
        data = t.here.server()
        await t.passive(data.port)
        client, server = await t.here.tunnel(data)
        t.client.reset()
        await t.here.record()
        await server.send(b"still here")
        assert await client.receive(10) == b"still here"


async def test_a_bounce_is_refused_and_stands_on_record() -> None:
    async with talking() as t:
        await t.client.send(b"PORT 127,0,0,9,200,1\r\nNOOP\r\n")
        assert b"500 Refused by the firewall: ftp_bounce" in await t.client.receive_until(b"\r\n")
        assert await t.server.receive(6) == b"NOOP\r\n"
        t.client.close()
        t.server.close()
        record = await t.here.record()
        assert (record.action, record.end) == ("allow", "closed")
        assert '["ftp","noted","ftp_bounce"]' in str(record.filters)
        assert [line["event"] for line in t.here.told() if "bounce" in str(line)] != []


async def test_what_is_not_ftp_is_reset_with_its_reason_on_record() -> None:
    async with talking() as t:
        await t.client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await t.client.outcome())[1] == "reset"
        record = await t.here.record()
        assert (record.action, record.reason, record.end) == ("deny", "ftp_bad_command", "ftp_bad_command")


async def test_an_active_hole_leads_the_server_to_the_client_and_nobody_else() -> None:
    async with talking() as t:
        listening = t.here.server()
        await t.client.send(b"PORT 127,0,0,1,%d,%d\r\n" % divmod(listening.port, 256))
        told = (await t.server.receive_until(b"\r\n")).decode()
        numbers = [int(number) for number in told.removeprefix("PORT ").split(",")]
        port = numbers[4] * 256 + numbers[5]
        assert (numbers[:4], port != listening.port) == ([127, 0, 0, 1], True)
        stranger = t.here.keep(await connect_from("127.0.0.9", port))
        assert await stranger.outcome() == (b"", "reset")
        data = t.here.keep(await Peer.connect("127.0.0.1", port))
        client = await t.here.accept(listening)
        await data.send(b"a file")
        data.half_close()
        assert await client.receive_rest() == b"a file"
        client.close()
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect("127.0.0.1", port)


async def test_an_active_hole_closes_with_the_next_command_that_makes_one() -> None:
    async with talking() as t:
        listening = t.here.server()
        ports = []
        for _ in range(2):
            await t.client.send(b"PORT 127,0,0,1,%d,%d\r\n" % divmod(listening.port, 256))
            told = (await t.server.receive_until(b"\r\n")).decode()
            numbers = [int(number) for number in told.removeprefix("PORT ").split(",")]
            ports.append(numbers[4] * 256 + numbers[5])
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect("127.0.0.1", ports[0])
        t.client.close()
        t.server.close()
        await t.here.until(lambda: not t.here.firewall.engine.connections)
        with pytest.raises(ConnectionRefusedError):
            await Peer.connect("127.0.0.1", ports[1])


async def test_a_thousand_promises_that_nobody_uses_leave_nothing() -> None:
    async with talking() as t:
        listening = t.here.server()
        line = b"PORT 127,0,0,1,%d,%d\r\n" % divmod(listening.port, 256)
        for _ in range(50):
            await t.client.send(line * 10)
            for _ in range(10):
                await t.server.receive_until(b"\r\n")
            await t.server.send(b"200 ok\r\n" * 10)
            await t.client.receive(80)
            for _ in range(10):
                assert (await t.passive(listening.port)).startswith("227 ")
        assert (t.grants, t.here.firewall.engine.arrivals.open) == (1, 0)
        t.client.reset()
        await t.here.until(lambda: t.grants == 0)
