"""What may be asked of a filter's own socket when: states, local ends, IP filters, options."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.rig import LOOPBACK, Plugin, Rig, entry
from tests.engine.socket_rig import users

from doorward.api import (
    AccessDenied,
    AlreadyExists,
    BadArgument,
    ClientKind,
    IpFilter,
    NotConnected,
    NotSupported,
    ReplyHint,
    Terminating,
)
from doorward.api.events import EventKind

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]

FILTERS = (ClientKind.FILTER,)
HEARING = (EventKind.CONNECT, EventKind.BIND)


async def test_every_call_in_the_wrong_state_says_so(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock = users(rig)
    for call in (sock.recv(), sock.send(b"x"), sock.send_some(b"x"), sock.shutdown()):
        with pytest.raises(NotConnected):
            await call
    for name in ("socket_name", "peer_name"):
        with pytest.raises(NotConnected):
            getattr(sock, name)
    for host, port in (("127.0.0.1", 0), ("127.0.0.1", 65_536), ("not a name", 80), ("", 80)):
        with pytest.raises(BadArgument):
            await sock.connect(host, port)
    for address, port in (("a name", 0), ("127.0.0.1", -1), ("127.0.0.1", 65_536)):
        with pytest.raises(BadArgument):
            await sock.bind(address, port)
    await sock.connect("127.0.0.1", rig.server.port)
    with pytest.raises(AlreadyExists):
        await sock.connect("127.0.0.1", rig.server.port)
    with pytest.raises(AlreadyExists):
        await sock.bind("127.0.0.1", 0)
    for datagrams in (sock.recv_from(), sock.send_to(b"x", ("127.0.0.1", 9))):
        with pytest.raises(NotSupported):
            await datagrams
    await sock.close()
    await sock.close()
    for late in (sock.recv(), sock.send(b"x"), sock.connect("127.0.0.1", 9), sock.bind("", 0)):
        with pytest.raises(Terminating):
            await late
    with pytest.raises(Terminating):
        sock.set_ip_filter(None)
    closed = users(rig)
    await closed.close()
    with pytest.raises(Terminating):
        await closed.recv()


async def test_one_that_is_bound_goes_out_from_there_and_filters_hear_of_both(make_rig: MakeRig) -> None:
    bound_to: list[tuple[str, int]] = []

    async def note(event: Any) -> None:
        bound_to.append((event.address, event.port))

    plugin = Plugin("hearing", [], bind=note)
    rig = make_rig(entry(plugin, clients=FILTERS, events=HEARING))
    sock = users(rig)
    await sock.bind("127.0.0.1", 0)
    name = sock.socket_name
    with pytest.raises(AlreadyExists):
        await sock.bind("127.0.0.1", 0)
    await sock.connect("127.0.0.1", rig.server.port)
    server = rig.keep(await rig.server.accept())
    assert server.peer == sock.socket_name == name
    assert plugin.heard == [("hearing", "bind"), ("hearing", "connect")]
    assert bound_to == [name]
    await sock.close()
    record = await rig.record()
    assert record.filters is not None
    assert [v[1] for v in json.loads(record.filters)] == ["joined", "joined"]


async def test_a_filter_may_deny_the_bind_of_what_connects(make_rig: MakeRig) -> None:
    async def deny(event: Any) -> None:
        event.connection.deny("no_ports_for_you")

    async def emulate(event: Any) -> None:
        event.connection.emulate_for_bind()

    for handler, error, reason in (
        (deny, AccessDenied, "no_ports_for_you"),
        (emulate, NotSupported, "not_supported"),
    ):
        rig = make_rig(entry(Plugin("saying no", [], bind=handler), clients=FILTERS, events=HEARING))
        sock = users(rig)
        await sock.bind("", 0)
        with pytest.raises(error) as refused:
            await sock.connect("127.0.0.1", rig.server.port)
        assert refused.value.reason == reason
        if error is AccessDenied:
            assert refused.value.hint is ReplyHint.ADDRESS_IN_USE


async def test_who_the_ip_filter_leaves_out_is_not_connected_to_and_is_reset_later(make_rig: MakeRig) -> None:
    rig = make_rig(lookup=lambda _: (LOOPBACK[0][1],))
    sock = users(rig)
    sock.set_ip_filter(IpFilter("192.0.2.0/24"))
    with pytest.raises(AccessDenied) as refused:
        await sock.connect("127.0.0.1", rig.server.port)
    assert refused.value.reason == "peer_not_admitted"
    with pytest.raises(AccessDenied):
        await sock.connect("server.test", rig.server.port)
    assert rig.server.nobody_came()
    sock.set_ip_filter(IpFilter("127.0.0.0/8"))
    assert sock.ip_filter == IpFilter("127.0.0.0/8")
    await sock.connect("127.0.0.1", rig.server.port)
    server = rig.keep(await rig.server.accept())
    sock.set_ip_filter(IpFilter("127.0.0.1"))
    await sock.send(b"still admitted")
    assert await server.exactly(14)
    sock.set_ip_filter(IpFilter())
    assert await server.is_reset()
    assert rig.recorder.records[-1].end == "peer_not_admitted"


async def test_options_are_kept_for_the_wire_to_come_and_others_are_not_for_filters(
    make_rig: MakeRig,
) -> None:
    rig = make_rig()
    sock = users(rig)
    keep_alive = (socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    with pytest.raises(NotConnected):
        sock.get_option(*keep_alive)
    sock.set_option(*keep_alive, 1)
    assert sock.get_option(*keep_alive) == 1
    sock.set_option(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 9)  # of the other family: left out
    await sock.connect("127.0.0.1", rig.server.port)
    assert sock.get_option(*keep_alive) == 1
    sock.set_option(socket.IPPROTO_IP, socket.IP_TTL, 7)
    assert sock.get_option(socket.IPPROTO_IP, socket.IP_TTL) == 7
    assert sock.get_option(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    for option in ((socket.SOL_SOCKET, socket.SO_REUSEPORT), (socket.SOL_SOCKET, socket.SO_BINDTODEVICE)):
        with pytest.raises(NotSupported):
            sock.set_option(*option, 1)
        with pytest.raises(NotSupported):
            sock.get_option(*option)
    with pytest.raises(NotSupported):
        sock.set_option(socket.SOL_SOCKET, socket.SO_TYPE, 1)
    with pytest.raises(BadArgument):
        sock.set_option(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**30)
    with pytest.raises(NotSupported):
        sock.set_option(socket.IPPROTO_IP, socket.IP_TTL, 1000)  # the kernel says no
    await sock.close()
