"""A filter's own socket goes through upstreams without knowing; what an upstream cannot do is refused, never direct."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from ipaddress import IPv4Address, ip_network

import pytest
from tests.engine.rig import Rig
from tests.engine.socket_rig import INBOUND, systems, users
from tests.engine.wires import Wire

from doorward.api import UpstreamNoBind, UpstreamRefused
from doorward.config.model import Upstream
from doorward.engine.sockets.network_socket import NetworkSocket
from doorward.net.upstream.ways import Ways
from doorward.policy.model import Action, Rule
from doorward.policy.routes import Route, Routes

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]

FAR = "198.51.100.7"
FAR_AWAY = Rule("far away", Action.ALLOW, to_networks=(ip_network("198.51.100.0/24"),))
CONNECTED = b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"
REFUSED = b"\x05\x05\x00\x01\x00\x00\x00\x00\x00\x00"


def upstream_rig(make_rig: MakeRig) -> Rig:
    """Everything goes through a SOCKS5 upstream, which is the rig's server."""
    rig = make_rig(rules=(FAR_AWAY, INBOUND))
    corp = Upstream("corp", "socks5", IPv4Address("127.0.0.1"), rig.server.port)
    routes = Routes([Route(Rule("all", Action.ALLOW), ("corp",))])
    ways = Ways(rig.poller, rig.resolver, routes, {"corp": corp})
    rig.engine.ruling = dataclasses.replace(rig.engine.ruling, ways=ways)
    return rig


async def corp(rig: Rig, answer: bytes) -> Wire:
    """The upstream's side of one connection."""
    wire = rig.keep(await rig.server.accept())
    assert await wire.exactly(3) == b"\x05\x01\x00"
    await wire.send(b"\x05\x00")
    assert await wire.exactly(10) == b"\x05\x01\x00\x01" + IPv4Address(FAR).packed + (443).to_bytes(2)
    await wire.send(answer)
    return wire


@pytest.mark.parametrize("make", [users, systems])
async def test_it_is_a_socket_like_any_other(make_rig: MakeRig, make: Callable[[Rig], NetworkSocket]) -> None:
    rig = upstream_rig(make_rig)
    sock = make(rig)
    connecting = rig.start(sock.connect(FAR, 443))
    wire = await corp(rig, CONNECTED + b"early")
    await connecting
    assert await sock.recv() == b"early"
    await sock.send(b"hello")
    assert await wire.exactly(5) == b"hello"
    assert sock.peer_name == (FAR, 443)
    await sock.close()
    assert await wire.rest() == b""
    record = await rig.record()
    assert (record.via, record.address, record.bytes_sent, record.bytes_received) == ("corp", FAR, 5, 5)


async def test_what_the_upstream_answers_is_raised(make_rig: MakeRig) -> None:
    rig = upstream_rig(make_rig)

    async def connect() -> None:
        with pytest.raises(UpstreamRefused):
            await users(rig).connect(FAR, 443)

    connecting = rig.start(connect())
    await corp(rig, REFUSED)
    await connecting


@pytest.mark.parametrize("make", [users, systems])
async def test_a_local_end_means_nothing_to_an_upstream_and_is_not_taken_direct(
    make_rig: MakeRig, make: Callable[[Rig], NetworkSocket]
) -> None:
    rig = upstream_rig(make_rig)
    sock = make(rig)
    await sock.bind("127.0.0.1", 0)
    with pytest.raises(UpstreamNoBind):
        await sock.connect(FAR, 443)
    assert rig.server.nobody_came()
