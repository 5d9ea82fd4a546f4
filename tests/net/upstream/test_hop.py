"""The talk with one upstream: what is said, in which order, and what each answer is called."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Self

import pytest
from tests.net.upstream.upstreams import DESTINATION, SOCKS5_CONNECTED, SOCKS5_FINE, SOCKS5_HELLO
from tests.net.wires import Peer, connected, until

from doorward.api.errors import (
    LinkError,
    OutOfResources,
    ReplyHint,
    Side,
    TimedOut,
    UpstreamLoginRefused,
    UpstreamRefused,
    UpstreamUnavailable,
)
from doorward.config.model import Upstream
from doorward.net.leg import Leg
from doorward.net.poller import Poller
from doorward.net.upstream.hop import Progress, open_tunnel
from doorward.policy.model import IPAddress

pytestmark = pytest.mark.anyio

SOCKS5 = Upstream("corp", "socks5", DESTINATION, 1080)
HTTP = Upstream("corp", "http", DESTINATION, 3128)
REQUEST = b"\x05\x01\x00\x01\xc6\x33\x64\x07\x01\xbb"
OPENED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class Talk:
    """One talk under way, and the upstream's end of it."""

    def __init__(self, poller: Poller, upstream: Upstream, host: str | IPAddress = DESTINATION) -> None:
        near, far = connected()
        self.leg = Leg(poller, near, Side.EXTERNAL)
        self.peer = Peer(far)
        self.progress = Progress()
        self.accepted: list[bool] = []
        talk: Coroutine[Any, Any, bytes] = open_tunnel(
            self.leg, upstream, host, 443, self.progress, lambda: self.accepted.append(self.progress.asked)
        )
        self.task = asyncio.get_running_loop().create_task(talk)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        self.leg.close_now()
        self.peer.socket.close()

    async def error(self) -> Any:
        with pytest.raises(LinkError) as caught:
            await asyncio.wait_for(self.task, 5)
        return caught.value


async def test_socks5_without_a_login(poller: Poller) -> None:
    async with Talk(poller, SOCKS5) as talk:
        assert await talk.peer.read(3) == SOCKS5_HELLO
        assert (talk.progress.asked, talk.accepted) == (False, [])
        await talk.peer.send(SOCKS5_FINE)
        assert await talk.peer.read(10) == REQUEST
        await until(lambda: talk.accepted)
        await talk.peer.send(SOCKS5_CONNECTED + b"banner")
        assert await talk.task == b"banner"
        assert talk.accepted == [True]


async def test_socks5_with_a_login_and_a_name(poller: Poller) -> None:
    upstream = Upstream("corp", "socks5", DESTINATION, 1080, user="kim", password="secret")
    async with Talk(poller, upstream, "www.example.org") as talk:
        assert await talk.peer.read(4) == b"\x05\x02\x00\x02"
        await talk.peer.send(b"\x05\x02")
        assert await talk.peer.read(12) == b"\x01\x03kim\x06secret"
        assert not talk.progress.asked
        await talk.peer.send(b"\x01\x00")
        assert await talk.peer.read(22) == b"\x05\x01\x00\x03\x0fwww.example.org\x01\xbb"
        await talk.peer.send(SOCKS5_CONNECTED)
        assert await talk.task == b""


async def test_http_with_a_login(poller: Poller) -> None:
    upstream = Upstream("corp", "http", DESTINATION, 3128, user="kim", password="secret")
    async with Talk(poller, upstream, "www.example.org") as talk:
        expected = (
            b"CONNECT www.example.org:443 HTTP/1.1\r\nHost: www.example.org:443\r\n"
            b"Proxy-Authorization: Basic a2ltOnNlY3JldA==\r\n\r\n"
        )
        assert await talk.peer.read(len(expected)) == expected
        await talk.peer.send(OPENED + b"banner")
        assert await talk.task == b"banner"
        assert talk.accepted == []


@pytest.mark.parametrize("upstream", [SOCKS5, HTTP], ids=["socks5", "http"])
async def test_an_answer_that_comes_byte_by_byte_is_the_same_answer(
    poller: Poller, upstream: Upstream
) -> None:
    answer = SOCKS5_FINE + SOCKS5_CONNECTED if upstream is SOCKS5 else OPENED
    async with Talk(poller, upstream) as talk:
        for byte in answer:
            await talk.peer.send(bytes([byte]))
            await until(lambda: talk.leg.busy or talk.task.done())
        assert await talk.task == b""


@pytest.mark.parametrize("upstream", [SOCKS5, HTTP], ids=["socks5", "http"])
async def test_an_answer_that_came_too_early_is_read_in_its_turn(poller: Poller, upstream: Upstream) -> None:
    answer = SOCKS5_FINE + SOCKS5_CONNECTED if upstream is SOCKS5 else OPENED
    async with Talk(poller, upstream) as talk:
        assert talk.peer.push(answer + b"banner")
        assert await talk.task == b"banner"
        sent = await talk.peer.read(13 if upstream is SOCKS5 else 40)
        assert sent == SOCKS5_HELLO + REQUEST or sent.startswith(b"CONNECT 198.51.100.7:443 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (1, ReplyHint.FAILED),
        (2, ReplyHint.NOT_ALLOWED),
        (3, ReplyHint.NETWORK_UNREACHABLE),
        (4, ReplyHint.HOST_UNREACHABLE),
        (5, ReplyHint.REFUSED),
        (6, ReplyHint.TIMED_OUT),
        (7, ReplyHint.FAILED),
        (8, ReplyHint.FAILED),
        (200, ReplyHint.FAILED),
    ],
)
async def test_what_a_socks5_refusal_means(poller: Poller, code: int, hint: ReplyHint) -> None:
    async with Talk(poller, SOCKS5) as talk:
        await talk.peer.send(SOCKS5_FINE + bytes((5, code)))
        error = await talk.error()
        assert isinstance(error, UpstreamRefused)
        assert (error.upstream, error.hint, error.side) == ("corp", hint, Side.EXTERNAL)
        assert f"replied {code}" in error.detail


@pytest.mark.parametrize(
    ("status", "hint"),
    [
        (403, ReplyHint.NOT_ALLOWED),
        (400, ReplyHint.NOT_ALLOWED),
        (302, ReplyHint.FAILED),
        (429, ReplyHint.BUSY),
        (500, ReplyHint.FAILED),
        (502, ReplyHint.HOST_UNREACHABLE),
        (503, ReplyHint.HOST_UNREACHABLE),
        (504, ReplyHint.TIMED_OUT),
    ],
)
async def test_what_an_http_refusal_means(poller: Poller, status: int, hint: ReplyHint) -> None:
    async with Talk(poller, HTTP) as talk:
        await talk.peer.send(f"HTTP/1.1 {status} Sorry\r\nContent-Length: 5\r\n\r\nsorry".encode())
        error = await talk.error()
        assert isinstance(error, UpstreamRefused)
        assert (error.upstream, error.hint) == ("corp", hint)
        assert f"{status} Sorry" in error.detail


@pytest.mark.parametrize(
    ("upstream", "answer"),
    [
        (SOCKS5, b"\x05\xff"),
        (Upstream("corp", "socks5", DESTINATION, 1, user="kim"), b"\x05\x02\x01\x01"),
        (HTTP, b"HTTP/1.1 407 Who are you\r\n\r\n"),
    ],
)
async def test_a_refused_login_is_about_the_upstream_and_not_the_destination(
    poller: Poller, upstream: Upstream, answer: bytes
) -> None:
    async with Talk(poller, upstream) as talk:
        await talk.peer.send(answer)
        assert isinstance(await talk.error(), UpstreamLoginRefused)


@pytest.mark.parametrize(
    ("upstream", "answer", "asked"),
    [
        (SOCKS5, b"", False),
        (SOCKS5, b"\x05", False),
        (SOCKS5, b"HTTP/1.1 400 Bad Request\r\n\r\n", False),
        (SOCKS5, b"\x05\x07", False),
        (SOCKS5, SOCKS5_FINE, True),
        (SOCKS5, SOCKS5_FINE + SOCKS5_CONNECTED[:9], True),
        (SOCKS5, SOCKS5_FINE + b"\x04\x00", True),
        (SOCKS5, SOCKS5_FINE + b"\x05\x00\x00\x09", True),
        (HTTP, b"", True),
        (HTTP, OPENED[:-1], True),
        (HTTP, b"\x05\x00\r\n\r\n", True),
        (HTTP, b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", True),
        (HTTP, b"HTTP/1.1 100 Continue\r\n\r\n" * 20, True),
        (HTTP, b"HTTP/1.1 200 OK\r\n" + b"X: " + b"x" * 20_000, True),
    ],
)
async def test_what_is_no_answer_makes_it_unavailable(
    poller: Poller, upstream: Upstream, answer: bytes, asked: bool
) -> None:
    async with Talk(poller, upstream) as talk:
        await talk.peer.send(answer)
        talk.peer.finish()
        error = await talk.error()
        assert isinstance(error, UpstreamUnavailable)
        assert (error.upstream, error.asked) == ("corp", asked)


async def test_a_mebibyte_of_headers_is_not_read_to_its_end(poller: Poller) -> None:
    async with Talk(poller, HTTP) as talk:
        flood = (b"HTTP/1.1 200 OK\r\n" + b"X: yyyyyyyyyyyyyyyyyyyyyyyyyyyyyy\r\n" * 40_000)[: 2**20]
        sender = asyncio.get_running_loop().create_task(talk.peer.send(flood))
        error = await talk.error()
        assert isinstance(error, UpstreamUnavailable)
        assert talk.leg.received < 128 * 1024
        sender.cancel()
        await asyncio.wait([sender])


@pytest.mark.parametrize("upstream", [SOCKS5, HTTP], ids=["socks5", "http"])
async def test_a_reset_makes_it_unavailable(poller: Poller, upstream: Upstream) -> None:
    async with Talk(poller, upstream) as talk:
        await talk.peer.read(3)
        talk.peer.reset()
        error = await talk.error()
        assert isinstance(error, UpstreamUnavailable)
        assert error.asked == (upstream is HTTP)


async def test_our_own_shortage_is_not_the_upstreams_fault(
    poller: Poller, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def short(*_: object) -> bytes:
        raise OutOfResources("no room", side=Side.OURS)

    monkeypatch.setattr(Leg, "recv", short)
    async with Talk(poller, SOCKS5) as talk:
        assert isinstance(await talk.error(), OutOfResources)


async def test_no_password_is_ever_in_an_error(poller: Poller) -> None:
    upstream = Upstream("corp", "socks5", DESTINATION, 1080, user="kim", password="hush-hush")
    assert "hush" not in repr(upstream)
    async with Talk(poller, upstream) as talk:
        await talk.peer.send(b"\x05\x02\x01\x05")
        assert "hush" not in str(await talk.error())


def test_whose_silence_it_is_depends_on_what_was_said() -> None:
    silent = Progress("corp", asked=True).too_late()
    assert isinstance(silent, UpstreamUnavailable)
    assert silent.asked
    mute = Progress("corp").too_late()
    assert isinstance(mute, UpstreamUnavailable)
    assert not mute.asked
    assert isinstance(Progress("corp", asked=True, accepted=True).too_late(), TimedOut)
