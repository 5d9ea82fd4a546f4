"""DNS as real clients speak it: `dig`, and a resolver of another make, to the name server on UDP and TCP."""

from __future__ import annotations

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import dns.asyncquery
import dns.asyncresolver
import dns.resolver
import pytest
from tests.engine.names.server import ORIGIN, RULES, Asker, both_at_one_port, lookup
from tests.engine.rig import Rig
from tests.engine.wires import PATIENCE_S

from doorward.api import Side
from doorward.engine.names.memory import target_of_address
from doorward.engine.names.question import ADDRESSES_MAX
from doorward.engine.names.stream import serve_stream
from doorward.net.datagrams import DatagramSocket, SocketAddress
from doorward.net.leg import Leg

pytestmark = pytest.mark.anyio

needs_dig = pytest.mark.skipif(shutil.which("dig") is None, reason="dig (bind9-dnsutils) is not installed")


class Service:
    """A name server on one port of loopback, with nothing in between but sockets."""

    def __init__(self, rig: Rig) -> None:
        self.asker = Asker(rig)
        self.rig = rig
        self.listener, datagrams = both_at_one_port()
        self.port: int = datagrams.getsockname()[1]
        self.datagrams = DatagramSocket(rig.engine.udp.inbox, datagrams, self._on_datagram)
        self.datagrams.start()
        asyncio.get_running_loop().add_reader(self.listener, self._on_client)

    def _on_datagram(self, data: memoryview, peer: SocketAddress) -> None:
        asker = self.asker
        asker.server.datagram(
            asker.session, ORIGIN, bytes(data), lambda reply: self.datagrams.send(reply, peer)
        )

    def _on_client(self) -> None:
        sock, _ = self.listener.accept()
        sock.setblocking(False)
        leg = Leg(self.rig.poller, sock, Side.INTERNAL)
        serving = serve_stream(self.asker.server, self.asker.session, ORIGIN, leg)
        self.rig.supervisor.spawn(serving, name="names")

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.listener)
        self.listener.close()
        self.datagrams.close()

    async def dig(self, *words: str) -> str:
        """What it prints."""
        process = await asyncio.create_subprocess_exec(
            *("dig", "-4", "@127.0.0.1", "-p", str(self.port), "+tries=1", "+time=5", *words),
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(PATIENCE_S):
            said, _ = await process.communicate()
        return said.decode()


@pytest.fixture
async def service(tmp_path: Path, anyio_backend: str) -> AsyncIterator[Service]:
    rig = Rig(tmp_path, lookup=lookup, rules=RULES)
    service = Service(rig)
    yield service
    service.close()
    await rig.close()


@needs_dig
async def test_dig_is_told_addresses(service: Service) -> None:
    assert (await service.dig("+short", "Both.test")).split() == ["192.0.2.7", "192.0.2.8"]
    assert (await service.dig("+short", "+tcp", "both.test", "AAAA")).split() == ["2001:db8::7"]
    target = target_of_address(service.rig.engine, service.asker.session, lookup("both.test")[0], 443)
    assert str(target) == "both.test (192.0.2.7:443)"


@needs_dig
async def test_dig_is_told_who_refused(service: Service) -> None:
    said = await service.dig("www.bad.test")
    assert "status: NXDOMAIN" in said
    assert 'EDE: 15 (Blocked): (rule_deny: "nobody")' in said
    said = await service.dig("home.test", "AAAA")
    assert '(guarded_loopback: "built-in: loopback")' in said


@needs_dig
async def test_dig_asks_again_by_stream_what_a_datagram_cannot_hold(service: Service) -> None:
    said = await service.dig("+noedns", "many.test")
    assert "Truncated, retrying in TCP mode" in said
    assert said.count("203.0.113.") == ADDRESSES_MAX
    assert "Truncated" not in await service.dig("+bufsize=1232", "many.test")


@needs_dig
@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["ANY", "four.test"], "NOTIMP"),
        (["AXFR", "four.test"], "NOTIMP"),
        (["+opcode=UPDATE", "four.test"], "NOTIMP"),
        (["CH", "TXT", "version.bind"], "REFUSED"),
        (["+edns=1", "+noednsnegotiation", "four.test"], "BADVERS"),
        (["+cookie", "four.test"], "NOERROR"),
        (["+dnssec", "four.test"], "NOERROR"),
        (["NS", "."], "REFUSED"),
    ],
)
async def test_dig_is_answered_whatever_it_asks(service: Service, words: list[str], status: str) -> None:
    said = await service.dig(*words)
    if "AXFR" in words:
        assert "Transfer failed" in said
    else:
        assert f"status: {status}" in said
        assert "WARNING" not in said.replace(f"WARNING: EDNS query returned status {status}", "")
        assert "malformed" not in said


async def test_another_resolver_finds_names_and_gives_up_at_once_on_refused_ones(service: Service) -> None:
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = ["127.0.0.1"], service.port, PATIENCE_S
    found = await resolver.resolve("many.test", "A")
    assert len(found) == ADDRESSES_MAX
    with pytest.raises(dns.resolver.NXDOMAIN):
        await resolver.resolve("www.bad.test", "A")
    with pytest.raises(dns.resolver.NoAnswer):
        await resolver.resolve("four.test", "AAAA")


async def test_two_questions_at_once_on_one_socket_are_both_answered(service: Service) -> None:
    """As getaddrinfo asks them; the answers may come in any order."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as client:
        client.connect(("127.0.0.1", service.port))
        for identifier, kind in ((b"\0\1", b"\0\1"), (b"\0\2", b"\0\x1c")):
            client.send(identifier + b"\1\0\0\1\0\0\0\0\0\0\4both\4test\0" + kind + b"\0\1")
        async with asyncio.timeout(PATIENCE_S):
            replies = [await asyncio.get_running_loop().sock_recv(client, 512) for _ in range(2)]
    counts = {reply[:2]: int.from_bytes(reply[6:8]) for reply in replies}
    assert counts == {b"\0\1": 2, b"\0\2": 1}
