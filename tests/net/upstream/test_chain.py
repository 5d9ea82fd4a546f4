"""Upstreams behind one another: who is asked for what, whose failure it is, and that nothing is left."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from ipaddress import IPv4Address

import pytest
from tests.net.certificates import OTHER_NAME, SERVER_NAME, Authority
from tests.net.upstream.upstreams import (
    DESTINATION,
    HERE,
    SOCKS5_CONNECTED,
    SOCKS5_FINE,
    SOCKS5_HELLO,
    Names,
    Server,
    server,
)
from tests.net.wires import until

from doorward.api.errors import (
    NameNotFound,
    OutOfResources,
    Side,
    TLSFailed,
    UpstreamRefused,
    UpstreamUnavailable,
)
from doorward.config.model import Upstream, UpstreamTls
from doorward.net.carrier import Carrier
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.tls import accept_tls
from doorward.net.tls_context import client_context, server_context
from doorward.net.tls_leg import TLSLeg
from doorward.net.upstream import chain
from doorward.net.upstream.chain import Resolve, dial_through
from doorward.net.upstream.hop import Progress

pytestmark = pytest.mark.anyio


OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


def start(
    poller: Poller,
    hops: Sequence[Upstream],
    progress: Progress | None = None,
    resolver: Resolve | None = None,
) -> asyncio.Task[Carrier]:
    talk = dial_through(
        poller, resolver or Names(), hops, DESTINATION, 443, 5.0, progress or Progress(), lambda: None
    )
    return asyncio.get_running_loop().create_task(talk)


async def test_one_plain_hop_is_the_leg_itself_with_the_counts_of_the_destination(poller: Poller) -> None:
    one: Server
    with server() as one:
        task = start(poller, [one.upstream()])
        peer = await one.accept()
        await peer.send(SOCKS5_FINE + SOCKS5_CONNECTED + b"banner")
        leg = await task
        assert isinstance(leg, Leg)
        assert (leg.sent, leg.received) == (0, 6)
        await peer.send(b" and more")
        assert await leg.recv() == b"banner"
        assert await leg.recv() == b" and more"
        assert leg.received == 15
        await leg.send(b"hello")
        assert (await peer.read(18))[-5:] == b"hello"
        assert leg.sent == 5
        leg.close_now()


async def test_two_hops_nest_and_the_later_one_is_asked_for_by_its_name(poller: Poller) -> None:
    one: Server
    with server() as one:
        edge = one.upstream("edge", host="edge.test")
        corp = Upstream("corp", "http", "corp.test", 3128, through="edge")
        task = start(poller, [edge, corp], resolver=Names(**{"edge.test": str(HERE)}))
        peer = await one.accept()
        assert await peer.read(3) == SOCKS5_HELLO
        await peer.send(SOCKS5_FINE)
        assert await peer.read(16) == b"\x05\x01\x00\x03\x09corp.test\x0c\x38"[:16]
        await peer.send(SOCKS5_CONNECTED + OPENED + b"banner")
        leg = await task
        assert isinstance(leg, Leg)
        assert await leg.recv() == b"banner"
        assert (leg.sent, leg.received) == (0, 6)
        leg.close_now()


async def test_a_first_hop_that_cannot_be_dialled_is_unavailable(poller: Poller) -> None:
    one: Server
    with server() as one:
        corp = one.upstream()
    with pytest.raises(UpstreamUnavailable, match='upstream "corp": connection_refused') as caught:
        await start(poller, [corp])
    assert (caught.value.upstream, caught.value.asked) == ("corp", False)


async def test_a_first_hop_whose_name_is_unknown_is_unavailable(poller: Poller) -> None:
    class Nobody:
        async def resolve(self, name: str) -> tuple[IPv4Address, ...]:
            raise NameNotFound(name, side=Side.EXTERNAL)

    with pytest.raises(UpstreamUnavailable, match="name_not_found"):
        await start(poller, [Upstream("corp", "socks5", "corp.test", 1080)], resolver=Nobody())


async def test_our_own_shortage_is_not_the_upstreams_fault(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def short(*_: object) -> None:
        raise OutOfResources("no descriptor", side=Side.OURS)

    monkeypatch.setattr(chain, "dial", short)
    with pytest.raises(OutOfResources):
        await start(poller, [Upstream("corp", "socks5", HERE, 1080)])


@pytest.mark.parametrize("answer", [b"\x05\x02", b"\x05\x05", b"garbage", b""])
async def test_when_the_first_cannot_reach_the_second_it_is_the_second_that_is_unavailable(
    poller: Poller, answer: bytes
) -> None:
    one: Server
    with server() as one:
        progress = Progress()
        task = start(poller, [one.upstream("edge"), Upstream("corp", "http", HERE, 1)], progress)
        peer = await one.accept()
        await peer.send(SOCKS5_FINE + answer)
        peer.finish()
        with pytest.raises(UpstreamUnavailable) as caught:
            await task
        assert (caught.value.upstream, caught.value.asked) == ("corp", False)
        assert 'upstream "edge"' in caught.value.detail
        assert progress.upstream == "corp"


async def test_a_refusal_of_the_last_is_about_the_destination(poller: Poller) -> None:
    one: Server
    with server() as one:
        task = start(poller, [one.upstream("edge"), Upstream("corp", "http", HERE, 1)])
        peer = await one.accept()
        await peer.send(SOCKS5_FINE + SOCKS5_CONNECTED + b"HTTP/1.1 403 No\r\n\r\n")
        with pytest.raises(UpstreamRefused) as caught:
            await task
        assert caught.value.upstream == "corp"
        await peer.sees_reset()


async def test_cancelling_in_mid_talk_leaves_nothing(poller: Poller) -> None:
    one: Server
    with server() as one:
        task = start(poller, [one.upstream("edge"), Upstream("corp", "http", HERE, 1)])
        peer = await one.accept()
        assert await peer.read(3) == SOCKS5_HELLO
        await until(lambda: len(poller) == 1)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        await peer.sees_reset()


async def test_silence_of_the_first_about_the_second_is_the_seconds(poller: Poller) -> None:
    one: Server
    with server() as one:
        progress = Progress()
        task = start(poller, [one.upstream("edge"), Upstream("corp", "http", HERE, 1)], progress)
        peer = await one.accept()
        await peer.send(SOCKS5_FINE)
        await peer.read(13)
        task.cancel()
        await asyncio.wait([task])
        error = progress.too_late()
        assert isinstance(error, UpstreamUnavailable)
        assert (error.upstream, error.asked) == ("corp", False)


def towards(authority: Authority, name: str = SERVER_NAME) -> UpstreamTls:
    return UpstreamTls(name, client_context(ca=authority.file))


async def answering_tls(poller: Poller, one: Server, authority: Authority) -> TLSLeg:
    """The upstream's end, once its TLS stands."""
    peer = await one.accept()
    leg = Leg(poller, peer.socket, Side.INTERNAL)
    return await accept_tls(leg, server_context(authority.identity("server")), timeout_s=5)


async def test_a_hop_with_tls_and_bytes_behind_its_answer(poller: Poller, authority: Authority) -> None:
    one: Server
    with server() as one:
        task = start(poller, [one.upstream("corp", tls=towards(authority))])
        far = await answering_tls(poller, one, authority)
        await far.send(SOCKS5_FINE + SOCKS5_CONNECTED + b"banner")
        carrier = await task
        assert (carrier.sent, carrier.received) == (0, 6)
        assert await carrier.recv() == b"banner"
        await carrier.send(b"hello")
        heard = b""
        while not heard.endswith(b"hello"):
            heard += await far.recv()
        assert heard == SOCKS5_HELLO + b"\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbbhello"
        await far.send(b"more")
        assert await carrier.recv() == b"more"
        assert (carrier.sent, carrier.received) == (5, 10)
        carrier.close_now()
        far.close_now()


async def test_tls_within_tls(poller: Poller, authority: Authority) -> None:
    one: Server
    with server() as one:
        edge = one.upstream("edge", kind="http", tls=towards(authority))
        corp = Upstream("corp", "http", "corp.test", 3128, tls=towards(authority))
        task = start(poller, [edge, corp])
        outer = await answering_tls(poller, one, authority)
        assert (await outer.recv()).startswith(b"CONNECT corp.test:3128 ")
        await outer.send(OPENED)
        inner = await accept_tls(outer, server_context(authority.identity("server")), timeout_s=5)
        assert (await inner.recv()).startswith(b"CONNECT 198.51.100.7:443 ")
        await inner.send(OPENED + b"banner")
        carrier = await task
        assert await carrier.recv() == b"banner"
        carrier.close_now()
        inner.close_now()


async def test_another_certificate_makes_the_hop_unavailable_and_no_password_is_sent(
    poller: Poller, authority: Authority
) -> None:
    one: Server
    with server() as one:
        task = start(
            poller, [one.upstream("corp", tls=towards(authority, OTHER_NAME), user="kim", password="x")]
        )
        with pytest.raises(TLSFailed):
            await (await answering_tls(poller, one, authority)).recv()
        with pytest.raises(UpstreamUnavailable, match="tls_untrusted") as caught:
            await task
        assert (caught.value.upstream, caught.value.asked) == ("corp", False)


async def test_a_hop_that_should_speak_tls_and_does_not_is_unavailable(
    poller: Poller, authority: Authority
) -> None:
    one: Server
    with server() as one:
        task = start(poller, [one.upstream("corp", tls=towards(authority))])
        peer = await one.accept()
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        with pytest.raises(UpstreamUnavailable, match="tls_failed"):
            await task
