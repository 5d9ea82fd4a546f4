"""Through other people's firewalls: Dante over SOCKS5, ncat over HTTP CONNECT, and one behind the other."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.end_to_end.other_firewalls import dante, ncat_proxy
from tests.end_to_end.servers import echo_server
from tests.net.upstream.upstreams import HERE, Names, allowed

from doorward.api.errors import ReplyHint, UpstreamLoginRefused, UpstreamRefused
from doorward.config.model import Upstream
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.upstream.ways import Ways
from doorward.policy.model import Action, Rule
from doorward.policy.routes import Route, Routes

pytestmark = pytest.mark.anyio

NOISE = os.urandom(4 * 2**20)


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    with echo_server() as port:
        yield port


@pytest.fixture(scope="module")
def socks5(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstream]:
    home: Path = tmp_path_factory.mktemp("dante")
    with dante(home) as port:
        yield Upstream("dante", "socks5", HERE, port)


@pytest.fixture(scope="module")
def http() -> Iterator[Upstream]:
    with ncat_proxy() as port:
        yield Upstream("ncat", "http", HERE, port)


@pytest.fixture(scope="module")
def http_for_kim() -> Iterator[Upstream]:
    with ncat_proxy("kim:secret") as port:
        yield Upstream("ncat", "http", HERE, port, user="kim", password="secret")


def ways(poller: Poller, *upstreams: Upstream) -> Ways:
    routes = Routes([Route(Rule("all", Action.ALLOW), (upstreams[-1].name,))])
    return Ways(poller, Names(), routes, {upstream.name: upstream for upstream in upstreams})


async def check_echo(one: Ways, port: int) -> None:
    """Four MiB there and back. Our end comes last: ncat takes it for the end of both directions."""
    leg = (await one.reach(allowed(HERE, port=port), None, port, 5)).carrier
    assert isinstance(leg, Leg)
    task = asyncio.get_running_loop().create_task(leg.send(NOISE))
    found = hashlib.sha256()
    size = 0
    try:
        while size < len(NOISE):
            data = await asyncio.wait_for(leg.recv(), 5)
            assert data
            found.update(data)
            size += len(data)
        await task
        await leg.shutdown()
        assert await asyncio.wait_for(leg.recv(), 5) == b""
    finally:
        leg.close_now()
    assert found.digest() == hashlib.sha256(NOISE).digest()
    assert (leg.sent, leg.received) == (len(NOISE), len(NOISE))


async def test_socks5(poller: Poller, echo: int, socks5: Upstream) -> None:
    await check_echo(ways(poller, socks5), echo)


async def test_http_connect(poller: Poller, echo: int, http: Upstream) -> None:
    await check_echo(ways(poller, http), echo)


async def test_a_login(poller: Poller, echo: int, http_for_kim: Upstream) -> None:
    await check_echo(ways(poller, http_for_kim), echo)
    stranger = Upstream("ncat", "http", HERE, http_for_kim.port, user="kim", password="wrong")
    with pytest.raises(UpstreamLoginRefused):
        await ways(poller, stranger).reach(allowed(HERE, port=echo), None, echo, 5)


@pytest.mark.parametrize("first", ["socks5", "http"])
async def test_one_behind_the_other(
    poller: Poller, echo: int, socks5: Upstream, http: Upstream, first: str
) -> None:
    one, other = (socks5, http) if first == "socks5" else (http, socks5)
    behind = Upstream("behind", other.kind, other.host, other.port, through=one.name)
    await check_echo(ways(poller, one, behind), echo)


async def test_a_port_where_nobody_listens(poller: Poller, socks5: Upstream) -> None:
    with pytest.raises(UpstreamRefused) as caught:
        await ways(poller, socks5).reach(allowed(HERE, port=1), None, 1, 5)
    assert caught.value.hint is ReplyHint.REFUSED


async def test_a_destination_that_the_upstream_does_not_allow(
    poller: Poller, echo: int, socks5: Upstream
) -> None:
    there = ip_address("127.9.9.9")
    with pytest.raises(UpstreamRefused) as caught:
        await ways(poller, socks5).reach(allowed(there, port=echo), None, echo, 5)
    assert caught.value.hint is ReplyHint.NOT_ALLOWED
