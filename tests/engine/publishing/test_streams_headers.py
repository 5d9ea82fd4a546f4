"""PROXY headers at a published TCP port: read from who is trusted, refused from everybody else, written to servers."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from tests.engine.publishing.houses import Street, name_of, passes
from tests.engine.rig import Plugin, entry

from doorward.api import EventKind
from doorward.config.model import Limits
from doorward.engine.publishing import streams
from doorward.wire.proxy_protocol import Place, write_header, write_local

pytestmark = pytest.mark.anyio

MakeStreet = Callable[..., Street]
LOOPBACK = (ip_network("127.0.0.0/8"),)
PARTNERS = (ip_network("198.51.100.0/24"),)
THERE = Place(ip_address("198.51.100.7"), 4321)
FRONT = Place(ip_address("203.0.113.1"), 443)


@pytest.mark.parametrize("version", [1, 2])
async def test_a_trusted_proxy_says_who_comes_and_that_is_who_is_judged_and_recorded(
    make_street: MakeStreet, version: Any
) -> None:
    seen: list[Any] = []

    async def accept(event: Any) -> None:
        seen.append(event.remote)

    street = make_street(entry(Plugin("it", [], accept=accept), events=[EventKind.ACCEPT]))
    house = await street.open(sources=PARTNERS, headers_from=LOOPBACK)
    proxy = street.visit(house)
    await proxy.send(write_header(version, THERE, FRONT) + b"first")
    server = await street.came()
    assert await server.exactly(5) == b"first"
    await passes(proxy, server)
    proxy.end()
    server.end()
    (record,) = await street.records("accept")
    assert (record.address, record.port) == ("198.51.100.7", 4321)
    assert seen == [("198.51.100.7", 4321)]
    assert (record.bytes_sent, record.bytes_received) == (5, 10)  # the header is nobody's bytes


async def test_a_header_may_come_byte_by_byte(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open(sources=PARTNERS, headers_from=LOOPBACK)
    proxy = street.visit(house)
    proxy.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in write_header(2, THERE, FRONT):
        assert street.rig.server.nobody_came()
        await proxy.send(bytes([byte]))
    await street.came()


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", "proxy_header_missing"),
        (b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\n", "proxy_header_malformed"),
        (b"PROXY TCP4 0.0.0.0 5.6.7.8 1 2\r\n", "proxy_header_malformed"),
        (b"PROXY TCP4 224.0.0.1 5.6.7.8 1 2\r\n", "proxy_header_malformed"),
        (write_header(2, THERE, FRONT, "udp"), "proxy_header_malformed"),
        (b"PROXY " + b"x" * 200, "proxy_header_too_long"),
    ],
)
async def test_what_is_no_header_of_a_trusted_proxy_is_reset_and_on_record(
    make_street: MakeStreet, first: bytes, reason: str
) -> None:
    street = make_street()
    house = await street.open(headers_from=LOOPBACK)
    proxy = street.visit(house)
    await proxy.send(first)
    assert await proxy.is_reset()
    (record,) = await street.records("accept")
    assert (record.action, record.reason, record.rule) == ("fail", reason, "web")
    assert (record.address, record.port) == proxy.sock.getsockname()
    assert street.rig.server.nobody_came()


@pytest.mark.parametrize(
    ("first", "reason"), [(b"", "proxy_header_missing"), (b"PROXY TCP4 ", "proxy_header_malformed")]
)
async def test_a_proxy_that_closes_within_its_header_is_on_record(
    make_street: MakeStreet, first: bytes, reason: str
) -> None:
    street = make_street()
    proxy = street.visit(await street.open(headers_from=LOOPBACK))
    await proxy.send(first)
    proxy.end()
    (record,) = await street.records("accept")
    assert record.reason == reason


async def test_a_slow_header_has_a_deadline(make_street: MakeStreet) -> None:
    street = make_street(limits=Limits(handshake_timeout_s=0.05))
    proxy = street.visit(await street.open(headers_from=LOOPBACK))
    await proxy.send(b"PROXY TCP4 ")
    assert await proxy.is_reset()
    (record,) = await street.records("accept")
    assert record.reason == "handshake_timeout"
    assert street.rig.server.nobody_came()


async def test_who_is_not_trusted_is_not_even_read(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open(headers_from=PARTNERS)
    stranger = street.visit(house)
    stranger.sock.send(write_header(2, THERE, FRONT))
    assert await stranger.is_reset()
    (record,) = await street.records("accept")
    assert (record.action, record.reason) == ("deny", "proxy_not_trusted")
    assert (record.address, record.port) == stranger.sock.getsockname()
    assert street.rig.server.nobody_came()


async def test_a_proxy_does_not_lend_its_own_leave_to_those_it_speaks_for(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open(sources=LOOPBACK, headers_from=LOOPBACK)
    proxy = street.visit(house)
    await proxy.send(write_header(1, THERE, FRONT))
    assert await proxy.is_reset()
    (record,) = await street.records("accept")
    assert (record.reason, record.address) == ("peer_not_admitted", "198.51.100.7")


async def test_a_proxy_that_asks_for_itself_is_known_and_who_does_not_say_is_judged_as_itself(
    make_street: MakeStreet,
) -> None:
    street = make_street()
    house = await street.open(sources=PARTNERS, headers_from=LOOPBACK)
    checking = street.visit(house)
    await checking.send(write_local())
    await street.came()
    unknown = street.visit(house)
    await unknown.send(b"PROXY UNKNOWN 198.51.100.7 1.2.3.4 1 2\r\n")
    assert await unknown.is_reset()


@pytest.mark.parametrize("version", [1, 2])
async def test_the_server_is_told_who_comes_before_anything_else(
    make_street: MakeStreet, version: Any
) -> None:
    street = make_street()
    house = await street.open(header_version=version)
    visitor = street.visit(house)
    await visitor.send(b"hello")
    server = await street.came()
    source, here = visitor.sock.getsockname(), name_of(house)
    header = write_header(
        version, Place(ip_address(source[0]), source[1]), Place(ip_address(here[0]), here[1])
    )
    assert await server.exactly(len(header) + 5) == header + b"hello"


async def test_what_a_proxy_said_is_passed_on(make_street: MakeStreet) -> None:
    street = make_street()
    house = await street.open(sources=PARTNERS, headers_from=LOOPBACK, header_version=1)
    await street.visit(house).send(write_header(2, THERE, FRONT))
    server = await street.came()
    header = write_header(1, THERE, FRONT)
    assert await server.exactly(len(header)) == header


async def test_proxies_that_say_nothing_are_few_and_others_wait_in_the_kernel(
    make_street: MakeStreet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "GREETING_MAX", 1)
    street = make_street()
    house = await street.open(sources=PARTNERS, headers_from=LOOPBACK)
    silent, other = street.visit(house), street.visit(house)
    await other.send(write_header(1, THERE, FRONT))
    for _ in range(20):
        await asyncio.sleep(0)
    assert street.rig.server.nobody_came()
    silent.reset()
    await street.came()
