"""What an application filter asks of the process is kept for the test."""

from __future__ import annotations

import asyncio

import pytest
from tests.testing.conftest import MakeHarness
from tests.testing.plugins import Plugin

from doorward.api import (
    BadArgument,
    Firewall,
    IpFilter,
    NameNotFound,
    SessionFlags,
    Terminating,
    TLSSocket,
    TLSUntrusted,
)
from doorward.testing import socket_pair

pytestmark = pytest.mark.anyio


async def test_what_is_said_is_kept(make_harness: MakeHarness) -> None:
    harness = make_harness()
    firewall: Firewall = harness.firewall
    firewall.log("event", user="kim")
    firewall.alert("attack", count=2)
    firewall.alert("attack", count=3)
    assert harness.firewall.logged == [("event", {"user": "kim"})]
    assert [alert.fields for alert in harness.firewall.alerts] == [{"count": 2}, {"count": 3}]
    assert firewall.create_ip_filter(["192.0.2.0/24"]) == IpFilter("192.0.2.0/24")


async def test_what_it_runs_ends_with_it(make_harness: MakeHarness) -> None:
    harness, ended = make_harness(), []

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("work")

    async def fail() -> None:
        raise ZeroDivisionError("mine")

    harness.firewall.spawn(work(), name="work")
    harness.firewall.spawn(fail(), name="fail")
    assert await harness.firewall.run_blocking(max, 1, 2) == 2
    await asyncio.sleep(0)
    await harness.firewall.close()
    assert ended == ["work"]
    assert [type(error) for error in harness.firewall.task_errors] == [ZeroDivisionError]
    with pytest.raises(Terminating):
        harness.firewall.spawn(fail(), name="late")
    with pytest.raises(Terminating):
        harness.firewall.create_network_socket()


async def test_a_harness_ends_what_filters_have_started(make_harness: MakeHarness) -> None:
    async with make_harness() as harness:
        harness.firewall.spawn(asyncio.sleep(60), name="work")
        private = harness.firewall.create_private_session("192.0.2.9")
        asked = await harness.ask(Plugin())
        await harness.firewall.client_session("192.0.2.8").bind_for_client(("192.0.2.8", 4000))
        [listening] = await private.bind_for_client(("192.0.2.9", 4000))
    assert private.ended
    assert listening.end is not None
    assert harness.session.ended
    assert asked.connection.end is not None
    assert [given.active for given in harness.grants] == [False, False]


async def test_sessions_are_whose_they_are(make_harness: MakeHarness) -> None:
    harness = make_harness()
    firewall = harness.firewall
    assert firewall.client_session("::ffff:192.0.2.7") is harness.session
    other = firewall.client_session("192.0.2.8")
    assert other is firewall.client_session("192.0.2.8")
    assert other.client_address == "192.0.2.8"
    private = firewall.create_private_session("192.0.2.7", "kim", ["staff"])
    assert private is not harness.session
    assert (private.user, private.groups) == ("kim", frozenset({"staff"}))
    assert SessionFlags.PRIVATE in private.flags
    private.allow_connect("198.51.100.1", 80)
    assert harness.grants[0].grant is not None
    assert harness.grants[0].grant.session is private
    with_user = make_harness(user="kim")
    assert with_user.firewall.client_session("192.0.2.7").user is None
    with pytest.raises(BadArgument):
        firewall.client_session("nowhere")


async def test_names_are_the_tests(make_harness: MakeHarness) -> None:
    firewall = make_harness(names={"a.test": ["198.51.100.5"]}).firewall
    assert await firewall.resolve("A.test") == ("198.51.100.5",)
    assert await firewall.resolve("198.51.100.6") == ("198.51.100.6",)
    assert await firewall.resolve_address("198.51.100.5") == ("a.test",)
    for name in ("b.test", "no such name"):
        with pytest.raises(NameNotFound):
            await firewall.resolve(name)


async def test_tls_passes_in_clear(make_harness: MakeHarness) -> None:
    firewall = make_harness().firewall
    near, far = socket_pair()
    tls: TLSSocket = await firewall.create_ssl_network_socket(
        near, "client", server_name="a.test", alpn=["h2", "http/1.1"]
    )
    assert (tls.server_name, tls.alpn, tls.version) == ("a.test", "h2", "TLSv1.3")
    await tls.send(b"hello")
    assert await far.recv() == b"hello"
    assert [(made.side, made.server_name) for made in firewall.tls] == [("client", "a.test")]
    with pytest.raises(BadArgument):
        await firewall.create_ssl_network_socket(near, "client")
    with pytest.raises(BadArgument):
        await firewall.create_ssl_network_socket(near, "server", server_name="a.test")


async def test_a_handshake_fails_if_the_test_says_so(make_harness: MakeHarness) -> None:
    firewall = make_harness().firewall
    near, _ = socket_pair()
    firewall.tls_error = TLSUntrusted("expired")
    with pytest.raises(TLSUntrusted):
        await firewall.create_ssl_network_socket(near, "client", server_name="a.test")
    await firewall.create_ssl_network_socket(near, "client", server_name="a.test")
