"""BIND as a client sees it: two replies and then its peer, or a code that says why not; and nothing stays open."""

from __future__ import annotations

import ipaddress
import socket

import pytest
from tests.entry.peers import Peer, socks4_request, socks5_request
from tests.entry.world import HEAD, RULE, World, limits, world

pytestmark = pytest.mark.anyio

BIND = 2
HERE = "127.0.0.1"
PEERS = """
[[rule]]
name = "peers"
action = "allow"
to = ["127.0.0.0/8", "::1"]
protocols = ["tcp-in"]
"""
POLICY = HEAD + RULE + PEERS
EMULATOR = """
from doorward.api import (
    ApplicationFilter, BindEvent, DataFilter, EventKind, Interest, Session, SessionFilter,
)


class Greeting(DataFilter):
    async def pump(self, internal, external, connection):
        await internal.send(b"welcome")
        await internal.send(await internal.recv())


class Claiming(SessionFilter):
    async def on_bind(self, event: BindEvent) -> None:
        event.connection.emulate_for_bind()
        event.connection.set_socket_name(("192.0.2.1", 8080))
        event.connection.emulate_connection(Greeting(), ("198.51.100.7", 4711), ("192.0.2.1", 8080))


class Emulator(ApplicationFilter):
    interest = Interest.of(events=[EventKind.BIND])

    def session_filter(self, session: Session) -> SessionFilter:
        return Claiming()
"""


async def bind(
    here: World, peer: str = HERE, port: int = 0, early: bytes = b""
) -> tuple[Peer, tuple[str, int]]:
    """A client that has its first reply, and the address in it."""
    client = await here.client(b"\x05\x01\x00" + socks5_request(peer, port, BIND) + early)
    assert await client.receive(2) == b"\x05\x00"
    code, name = await reply(client)
    assert code == 0
    return client, name


async def reply(client: Peer) -> tuple[int, tuple[str, int]]:
    """One SOCKS5 reply: code and address."""
    head = await client.receive(4)
    assert (head[0], head[2]) == (5, 0)
    address = ipaddress.ip_address(await client.receive(16 if head[3] == 4 else 4))
    return head[1], (str(address), int.from_bytes(await client.receive(2), "big"))


async def visit(here: World, name: tuple[str, int], source: str = HERE) -> Peer:
    sock = socket.socket(socket.AF_INET6 if ":" in source else socket.AF_INET)
    sock.bind((source, 0))
    sock.connect(name)
    return here.keep(Peer(sock))


def is_closed(name: tuple[str, int]) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(name) != 0


async def test_the_client_hears_where_we_listen_then_who_has_come_and_then_the_peer_itself() -> None:
    async with world(POLICY) as here:
        client, name = await bind(here)
        peer = await visit(here, name)
        assert await reply(client) == (0, peer.socket.getsockname())
        assert is_closed(name)
        await peer.send(b"220 transfer")
        assert await client.receive(12) == b"220 transfer"
        await client.send(b"thanks")
        client.half_close()
        assert await peer.receive_rest() == b"thanks"
        peer.close()
        assert await client.receive_rest() == b""
        bound, accepted = await here.record(1), await here.record(2)
        assert (bound.entry, bound.operation, bound.reason, bound.end) == (
            "socks5",
            "bind",
            "rule_allow",
            "closed",
        )
        assert (accepted.operation, accepted.parent, accepted.rule) == ("accept", bound.connection, "peers")
        assert (accepted.bytes_sent, accepted.bytes_received) == (6, 12)
        await here.quiet()


async def test_socks4_has_the_same_in_its_own_words() -> None:
    async with world(POLICY) as here:
        client = await here.client(socks4_request(HERE, 21, command=BIND))
        head = await client.receive(8)
        assert head[:2] == b"\x00\x5a"
        name = (str(ipaddress.IPv4Address(head[4:])), int.from_bytes(head[2:4], "big"))
        peer = await visit(here, name)
        head = await client.receive(8)
        came = (str(ipaddress.IPv4Address(head[4:])), int.from_bytes(head[2:4], "big"))
        assert (head[:2], came) == (b"\x00\x5a", peer.socket.getsockname())
        await peer.send(b"hello")
        assert await client.receive(5) == b"hello"


async def test_over_ipv6() -> None:
    async with world(POLICY) as here:
        client, name = await bind(here, "::1")
        assert name[0] == "::1"
        peer = await visit(here, name, "::1")
        assert (await reply(client))[1] == peer.socket.getsockname()[:2]


async def test_a_client_that_does_not_know_its_peer_is_told_where_it_has_reached_us() -> None:
    async with world(POLICY) as here:
        client, name = await bind(here, "0.0.0.0")
        assert name[0] == here.proxy[0]
        await visit(here, name, "127.0.0.44")
        assert (await reply(client))[1][0] == "127.0.0.44"


async def test_bytes_sent_early_reach_the_peer_first_and_too_many_wait() -> None:
    async with world(POLICY) as here:
        client, name = await bind(here, early=b"one ")
        await client.send(b"two ")
        burst = bytes(range(256)) * 400
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        await client.send(burst)
        peer = await visit(here, name)
        assert (await reply(client))[0] == 0
        assert await peer.receive(8 + len(burst)) == b"one two " + burst


@pytest.mark.parametrize("how", ["closes", "resets", "resets after much"])
async def test_when_the_client_goes_the_port_closes_at_once(how: str) -> None:
    async with world(POLICY) as here:
        client, name = await bind(here)
        if how == "resets after much":
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            await client.send(b"x" * 100_000)
        if how == "closes":
            client.close()
        else:
            client.reset()
        record = await here.record()
        assert (record.operation, record.end, record.ended_by) == ("bind", "abandoned", "internal")
        assert is_closed(name)
        await here.quiet()


async def test_nobody_comes_in_time_and_the_client_is_told() -> None:
    async with world(POLICY + limits(bind_timeout_s=1)) as here:
        timeout_s = here.firewall.engine.ruling.limits.bind_timeout_s
        assert timeout_s == 1
        client, name = await bind(here)
        assert (await reply(client))[0] == 6  # TTL expired
        assert is_closed(name)
        assert (await here.record()).end == "timed_out"


async def test_a_stranger_is_reset_and_the_client_waits_on() -> None:
    async with world(POLICY) as here:
        client, name = await bind(here)
        stranger = await visit(here, name, "127.0.0.2")
        assert await stranger.outcome() == (b"", "reset")
        assert (await here.record()).reason == "peer_not_admitted"
        await visit(here, name)
        assert (await reply(client))[0] == 0


async def test_what_no_rule_allows_is_not_allowed() -> None:
    async with world(HEAD + RULE) as here:
        client = await here.client(b"\x05\x01\x00" + socks5_request(HERE, 21, BIND))
        await client.receive(2)
        assert await reply(client) == (2, ("0.0.0.0", 0))
        assert await client.receive_rest() == b""
        record = await here.record()
        assert (record.operation, record.action, record.reason) == ("bind", "deny", "guarded_loopback")
    async with world(HEAD + RULE) as here:
        client = await here.client(socks4_request(HERE, 21, command=BIND))
        assert (await client.receive(8))[:2] == b"\x00\x5b"


async def test_a_host_that_nobody_can_be_is_refused_before_anything_is_opened() -> None:
    async with world(POLICY) as here:
        client = await here.client(b"\x05\x01\x00" + socks5_request("a..b", 21, BIND))
        await client.receive(2)
        assert (await reply(client))[0] == 2
        assert (await here.record()).reason == "bad_name"


async def test_an_operator_who_kills_the_port_has_the_client_told() -> None:
    async with world(POLICY) as here:
        client, name = await bind(here)
        [connection] = here.firewall.engine.connections.values()
        connection.kill()
        assert (await reply(client))[0] == 1
        assert await client.receive_rest() == b""
        assert is_closed(name)


async def test_a_peer_that_a_filter_has_invented_is_the_clients_peer() -> None:
    policy = POLICY + '[[filter]]\nname = "emulator"\nuse = "emulator.py"\n'
    async with world(policy, {"emulator.py": EMULATOR}) as here:
        client, name = await bind(here, "0.0.0.0")
        assert name == ("192.0.2.1", 8080)
        assert await reply(client) == (0, ("198.51.100.7", 4711))
        assert await client.receive(7) == b"welcome"
        await client.send(b"hello")
        client.half_close()
        assert await client.receive_rest() == b"hello"
        await here.quiet()


async def test_three_hundred_binds_with_and_without_peers_leave_nothing() -> None:
    async with world(POLICY) as here:
        for number in range(300):
            client, name = await bind(here)
            if number % 3 == 0:
                peer = await visit(here, name)
                assert (await reply(client))[0] == 0
                peer.close()
                assert await client.receive_rest() == b""
            elif number % 3 == 1:
                client.reset()
            client.close()
        await here.quiet()
        assert here.firewall.engine.arrivals.open == 0
        assert here.firewall.engine.grants.alive == 0


async def test_the_firewall_stops_while_a_client_waits() -> None:
    async with world(POLICY) as here:
        _, name = await bind(here)
        await here.firewall.stop()
        assert is_closed(name)
        assert (await here.record()).end == "shutdown"
