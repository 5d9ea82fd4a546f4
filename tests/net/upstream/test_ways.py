"""The way a connection takes: failover, health, and never direct unless the policy says so."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Final

import pytest
from tests.net.upstream.upstreams import (
    DESTINATION,
    HERE,
    OTHER,
    SOCKS5_FINE,
    Names,
    Server,
    allowed,
    closes,
    http,
    says_nothing,
    server,
    serving,
    socks5,
)
from tests.net.wires import Clock, Peer, until

from doorward.api.errors import (
    ConnectionRefused,
    ReplyHint,
    TimedOut,
    UpstreamLoginRefused,
    UpstreamNoBind,
    UpstreamNoUdp,
    UpstreamRefused,
    UpstreamUnavailable,
)
from doorward.config.model import Upstream
from doorward.net.poller import Poller
from doorward.net.upstream.ways import Reached, Ways
from doorward.policy.model import Action, Decision, IPAddress, PortRange, Rule
from doorward.policy.routes import Route, Routes

pytestmark = pytest.mark.anyio

OPENED: Final = b"HTTP/1.1 200 OK\r\n\r\n"
GONE: Final = Upstream("corp", "socks5", HERE, 1)  # nobody listens on port 1


def ways(poller: Poller, via: tuple[str, ...], *upstreams: Upstream) -> Ways:
    routes = Routes([Route(Rule("all", Action.ALLOW), via)])
    return Ways(poller, Names(), routes, {upstream.name: upstream for upstream in upstreams})


async def reach(
    one: Ways,
    addresses: Mapping[IPAddress, Decision] | None = None,
    host: str | None = None,
    port: int = 443,
    timeout_s: float = 5,
) -> Reached:
    """Reach it and let it go."""
    reached = await one.reach(addresses or allowed(DESTINATION), host, port, timeout_s)
    reached.carrier.close_now()
    return reached


async def test_without_a_route_it_is_direct(poller: Poller) -> None:
    target: Server
    with server() as target:
        for routes in (
            Routes(),
            Routes([Route(Rule("other", Action.ALLOW, to_names=("x.test",)), ("corp",))]),
        ):
            one = Ways(poller, Names(), routes, {"corp": GONE})
            reached = await reach(one, allowed(HERE, port=target.port), port=target.port)
            assert reached[1:] == (HERE, None, None)


async def test_through_an_upstream_and_the_judged_address_is_what_is_asked_for(poller: Poller) -> None:
    asked: list[bytes] = []
    async with serving(socks5(asked=asked)) as corp:
        reached = await reach(ways(poller, ("corp",), corp.upstream()), host="www.example.org")
        assert reached[1:] == (DESTINATION, "corp", "all")
        assert asked == [b"\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbb"]


async def test_by_name_only_where_the_policy_says_so_and_the_client_gave_one(poller: Poller) -> None:
    asked: list[bytes] = []
    async with serving(http(OPENED, asked)) as corp:
        one = ways(poller, ("corp",), corp.upstream(kind="http", send="name"))
        await reach(one, allowed(DESTINATION, OTHER), host="www.example.org")
        await reach(one)
        assert [head.split()[1] for head in asked] == [b"www.example.org:443", b"198.51.100.7:443"]


async def test_who_cannot_be_reached_hands_over_to_the_next_and_rests(poller: Poller, clock: Clock) -> None:
    async with serving(socks5()) as backup:
        one = ways(poller, ("corp", "backup"), GONE, backup.upstream("backup"))
        assert (await reach(one)).upstream == "backup"
        assert one.health.resting(["corp"])
        assert not one.health.resting(["backup"])
        clock.advance(1)
        assert not one.health.resting(["corp"])


async def test_who_rests_is_tried_last_and_first_again_when_it_has_done_well(
    poller: Poller, clock: Clock
) -> None:
    async with serving(socks5()) as corp, serving(socks5()) as backup:
        one = ways(poller, ("corp", "backup"), corp.upstream("corp"), backup.upstream("backup"))
        one.health.failed("corp")
        assert (await reach(one)).upstream == "backup"
        clock.advance(1)
        assert (await reach(one)).upstream == "corp"
        assert (corp.came, backup.came) == (1, 1)


async def test_who_rests_is_still_tried_when_there_is_nobody_else(poller: Poller) -> None:
    async with serving(socks5()) as corp:
        one = ways(poller, ("corp",), corp.upstream())
        one.health.failed("corp")
        assert (await reach(one)).upstream == "corp"
        assert not one.health.resting(["corp"])


async def test_when_all_fail_nothing_goes_direct_and_every_failure_is_told(poller: Poller) -> None:
    target: Server
    with server() as target:
        there = allowed(HERE, port=target.port)
        backup = Upstream("backup", "http", HERE, 1)
        with pytest.raises(UpstreamUnavailable, match=r'"corp".*"backup"') as caught:
            await reach(ways(poller, ("corp", "backup"), GONE, backup), there, port=target.port)
        assert caught.value.hint is ReplyHint.FAILED
        with pytest.raises(UpstreamUnavailable):
            await reach(ways(poller, ("corp",), GONE), there, port=target.port)
        with pytest.raises(BlockingIOError):
            target.socket.accept()


async def test_direct_where_it_is_written_last(poller: Poller) -> None:
    target: Server
    with server() as target:
        one = ways(poller, ("corp", "direct"), GONE)
        reached = await reach(one, allowed(HERE, port=target.port), port=target.port)
        assert reached[1:] == (HERE, None, "all")


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 403 No\r\n\r\n", b"HTTP/1.1 502 No\r\n\r\n", b"HTTP/1.1 503 No\r\n\r\n"]
)
async def test_what_an_upstream_says_about_the_destination_is_final(poller: Poller, answer: bytes) -> None:
    target: Server
    with server() as target:
        async with serving(http(answer)) as corp, serving(socks5()) as backup:
            via = ("corp", "backup", "direct")
            one = ways(poller, via, corp.upstream(kind="http"), backup.upstream("backup"))
            with pytest.raises(UpstreamRefused):
                await reach(one, allowed(HERE, port=target.port), port=target.port)
            assert backup.came == 0
            assert not one.health.resting(["corp"])
        with pytest.raises(BlockingIOError):
            target.socket.accept()


async def test_an_address_that_cannot_be_reached_is_followed_by_the_next_one(poller: Poller) -> None:
    asked: list[bytes] = []
    async with serving(http(b"HTTP/1.1 502 No\r\n\r\n", asked)) as corp:
        with pytest.raises(UpstreamRefused):
            await reach(ways(poller, ("corp",), corp.upstream(kind="http")), allowed(DESTINATION, OTHER))
    assert [head.split()[1] for head in asked] == [b"198.51.100.7:443", b"198.51.100.8:443"]


async def test_a_name_is_asked_for_once_however_many_addresses_it_has(poller: Poller) -> None:
    async with serving(http(b"HTTP/1.1 502 No\r\n\r\n")) as corp:
        one = ways(poller, ("corp",), corp.upstream(kind="http", send="name"))
        with pytest.raises(UpstreamRefused):
            await reach(one, allowed(DESTINATION, OTHER), host="www.example.org")
        assert corp.came == 1


async def test_who_refuses_a_destination_is_well(poller: Poller, clock: Clock) -> None:
    async with serving(socks5(b"\x05\x02")) as corp:
        one = ways(poller, ("corp",), corp.upstream())
        one.health.failed("corp")
        with pytest.raises(UpstreamRefused):
            await reach(one)
        assert not one.health.resting(["corp"])


async def test_what_is_not_allowed_is_not_tried_by_another_address(poller: Poller) -> None:
    async with serving(socks5(b"\x05\x02")) as corp:
        with pytest.raises(UpstreamRefused) as caught:
            await reach(ways(poller, ("corp",), corp.upstream()), allowed(DESTINATION, OTHER))
        assert caught.value.hint is ReplyHint.NOT_ALLOWED
        assert corp.came == 1


async def test_a_refused_login_hands_over_and_rests(poller: Poller, clock: Clock) -> None:
    async with serving(http(b"HTTP/1.1 407 Who\r\n\r\n")) as corp, serving(socks5()) as backup:
        only = ways(poller, ("corp",), corp.upstream(kind="http"))
        with pytest.raises(UpstreamLoginRefused):
            await reach(only)
        one = ways(poller, ("corp", "backup"), corp.upstream(kind="http"), backup.upstream("backup"))
        assert (await reach(one)).upstream == "backup"
        assert one.health.resting(["corp"])


async def test_who_breaks_off_hands_over_and_rests_once_it_has_done_so_for_several_destinations(
    poller: Poller, clock: Clock
) -> None:
    async with serving(closes) as corp, serving(socks5()) as backup:
        one = ways(poller, ("corp", "backup"), corp.upstream(kind="http"), backup.upstream("backup"))
        for _ in range(3):
            assert (await reach(one)).upstream == "backup"
        assert not one.health.resting(["corp"])
        for last in (1, 2):
            assert (await reach(one, allowed(ip_address(f"192.0.2.{last}")))).upstream == "backup"
        assert one.health.resting(["corp"])
        assert corp.came == 5
        await reach(one)
        assert corp.came == 5


@pytest.mark.parametrize("kind", ["socks5", "http"])
async def test_who_says_nothing_has_its_share_of_the_time_and_no_more(poller: Poller, kind: str) -> None:
    async with serving(says_nothing) as corp, serving(socks5()) as backup:
        one = ways(poller, ("corp", "backup"), corp.upstream(kind=kind), backup.upstream("backup"))
        assert (await reach(one, timeout_s=0.2)).upstream == "backup"
        assert one.health.resting(["corp"]) == (kind == "socks5")


async def test_who_has_accepted_us_gets_all_the_time_for_the_destination(poller: Poller) -> None:
    async def accepts_and_waits(peer: Peer) -> None:
        await peer.send(SOCKS5_FINE)

    async with serving(accepts_and_waits) as corp, serving(socks5()) as backup:
        one = ways(poller, ("corp", "backup"), corp.upstream(), backup.upstream("backup"))
        before = poller.loop.time()
        with pytest.raises(TimedOut, match="corp"):
            await reach(one, timeout_s=0.1)
        assert poller.loop.time() - before >= 0.1
        assert backup.came == 0
        assert not one.health.resting(["corp"])


async def test_a_byte_now_and_then_does_not_stretch_the_time(poller: Poller) -> None:
    async def drips(peer: Peer) -> None:
        for byte in b"HTTP/1.1 200 OK\r\nX: " + b"x" * 10_000:
            peer.push(bytes([byte]))
            await asyncio.sleep(0)

    async with serving(drips) as corp:
        with pytest.raises(UpstreamUnavailable, match="in time"):
            await reach(ways(poller, ("corp",), corp.upstream(kind="http")), timeout_s=0.05)


async def test_each_address_takes_the_way_of_its_own_route(poller: Poller) -> None:
    routes = Routes(
        [Route(Rule("lab", Action.ALLOW, to_networks=(ip_network("198.51.100.0/24"),)), ("corp",))]
    )
    target: Server
    with server() as target:
        async with serving(socks5(b"\x05\x04")) as corp:
            one = Ways(poller, Names(), routes, {"corp": corp.upstream()})
            reached = await reach(one, allowed(DESTINATION, HERE, port=target.port), port=target.port)
            assert reached[1:] == (HERE, None, None)
            assert corp.came == 1


async def test_a_destination_that_refuses_on_the_direct_way_is_final(poller: Poller) -> None:
    async with serving(socks5()) as corp:
        one = ways(poller, ("corp", "direct"), corp.upstream())
        one.health.failed("corp")
        with pytest.raises(ConnectionRefused):
            await reach(one, allowed(HERE, port=1), port=1)
        assert corp.came == 0


async def test_a_way_through_two_rests_when_the_first_does(poller: Poller) -> None:
    async with serving(socks5()) as backup:
        edge = Upstream("edge", "socks5", HERE, 1)
        corp = Upstream("corp", "http", "corp.test", 3128, through="edge")
        one = ways(poller, ("corp", "backup"), edge, corp, backup.upstream("backup"))
        assert (await reach(one)).upstream == "backup"
        assert one.health.resting(["edge"])
        assert not one.health.resting(["corp"])
        assert (await reach(one)).upstream == "backup"


async def test_cancelling_leaves_nothing(poller: Poller) -> None:
    async with serving(says_nothing) as corp:
        one = ways(poller, ("corp",), corp.upstream())
        task = asyncio.get_running_loop().create_task(reach(one))
        await until(lambda: corp.came)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert len(poller) == 0


async def test_datagrams_and_binds_whose_way_is_an_upstream_are_refused(poller: Poller) -> None:
    inputs = allowed(DESTINATION)[DESTINATION].inputs
    for via in (("corp",), ("corp", "direct")):
        one = ways(poller, via, GONE)
        with pytest.raises(UpstreamNoUdp):
            one.expect_direct(inputs._replace(transport="udp"))
        with pytest.raises(UpstreamNoBind):
            one.expect_direct(inputs._replace(transport="tcp-in"))
        with pytest.raises(UpstreamNoBind):
            one.expect_direct(inputs._replace(transport="udp-in"))
        with pytest.raises(UpstreamNoBind):
            one.expect_direct(inputs, bound=True)
    ways(poller, ("direct",)).expect_direct(inputs._replace(transport="udp"))
    tcp_only = Routes([Route(Rule("tcp", Action.ALLOW, ports=(PortRange("tcp", 1, 65_535),)), ("corp",))])
    Ways(poller, Names(), tcp_only, {"corp": GONE}).expect_direct(inputs._replace(transport="udp"))


async def test_a_route_for_peers_that_are_waited_for_opens_the_way_for_them_alone(poller: Poller) -> None:
    near = Route(Rule("near", Action.ALLOW, ports=(PortRange("tcp-in", 1, 65_535),)), ("direct",))
    one = Ways(poller, Names(), Routes([near, Route(Rule("all", Action.ALLOW), ("corp",))]), {"corp": GONE})
    inputs = allowed(DESTINATION)[DESTINATION].inputs
    one.expect_direct(inputs._replace(transport="tcp-in"))
    with pytest.raises(UpstreamNoBind):
        one.expect_direct(inputs, bound=True)  # it goes out, whatever port it goes out from


async def test_it_is_known_whether_a_way_is_direct(poller: Poller) -> None:
    inputs = allowed(DESTINATION)[DESTINATION].inputs
    assert ways(poller, ("direct",)).is_direct(inputs)
    assert not ways(poller, ("corp", "direct"), GONE).is_direct(inputs)
