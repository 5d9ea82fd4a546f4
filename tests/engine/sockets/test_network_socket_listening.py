"""A filter's own listening socket: who may come, what is on record, and that nobody is left behind."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.filters import Marking
from tests.engine.rig import Plugin, Rig, entry, wait_for
from tests.engine.socket_rig import INBOUND, nobodys, systems, users
from tests.engine.wires import PATIENCE_S, Wire

from doorward.api import (
    AccessDenied,
    AddressInUse,
    BadArgument,
    ClientKind,
    IpFilter,
    NotConnected,
    NotSupported,
    Terminating,
)
from doorward.api.events import EventKind
from doorward.engine.sockets.network_socket import NetworkSocket

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]

EVENTS = (EventKind.BIND, EventKind.LISTEN, EventKind.ACCEPT)


async def listening(sock: NetworkSocket, admits: IpFilter | None = None, backlog: int = 128) -> NetworkSocket:
    sock.set_ip_filter(IpFilter("127.0.0.0/8") if admits is None else admits)
    await sock.bind("127.0.0.1", 0)
    await sock.listen(backlog)
    return sock


def peer(rig: Rig, sock: NetworkSocket) -> Wire:
    """Who comes."""
    return rig.keep(Wire(socket.create_connection(sock.socket_name)))


@pytest.mark.parametrize("make", [users, systems])
async def test_who_arrives_is_accepted_and_both_are_on_record(
    make_rig: MakeRig, make: Callable[[Rig], NetworkSocket]
) -> None:
    rig = make_rig(rules=(INBOUND,) if make is users else ())
    sock = await listening(make(rig))
    wire = peer(rig, sock)
    arrived = await sock.accept()
    assert arrived.peer_name == wire.sock.getsockname()
    assert arrived.socket_name == sock.socket_name
    await wire.send(b"hello")
    assert await arrived.recv() == b"hello"
    await arrived.send(b"welcome")
    assert await wire.exactly(7) == b"welcome"
    await arrived.close()
    assert await wire.rest() == b""
    await sock.close()
    accepted, listener = rig.recorder.records
    entries = ("filter", "come in") if make is users else ("system", None)
    assert [(r.entry, r.rule) for r in (accepted, listener)] == [entries, entries]
    assert (accepted.action, accepted.end, accepted.bytes_sent, accepted.bytes_received) == (
        "allow",
        "closed",
        7,
        5,
    )
    if make is systems:
        assert {r.reason for r in (accepted, listener)} == {"system_socket"}
        assert (
            json.loads(listener.filters or "")
            == json.loads(accepted.filters or "")
            == [["mine", "opened", ""]]
        )


async def test_without_an_ip_filter_nobody_is_admitted_and_later_on_whoever_it_names(
    make_rig: MakeRig,
) -> None:
    rig = make_rig(rules=())
    sock = systems(rig)
    await sock.bind("127.0.0.1", 0)
    await sock.listen()
    assert await peer(rig, sock).is_reset()
    sock.set_ip_filter(IpFilter("127.0.0.1"))
    wire = peer(rig, sock)
    arrived = await sock.accept()
    sock.set_ip_filter(IpFilter())
    assert await peer(rig, sock).is_reset()
    await wire.send(b"still here")
    assert await arrived.recv() == b"still here"


async def test_a_users_socket_listens_only_where_policy_says_so(make_rig: MakeRig) -> None:
    plugin = Plugin("hearing", [])
    rig = make_rig(entry(plugin, events=EVENTS, clients=(ClientKind.FILTER,)))
    sock = users(rig)
    await sock.bind("127.0.0.1", 0)
    with pytest.raises(AccessDenied) as refused:
        await sock.listen()
    assert refused.value.reason == "default_deny"
    assert plugin.heard == []
    with pytest.raises(NotSupported):
        await sock.accept()
    with pytest.raises(NotSupported):  # the port was given back
        await sock.listen()
    await sock.bind("127.0.0.1", 0)


async def test_filters_hear_of_it_may_attach_and_may_turn_a_peer_away(make_rig: MakeRig) -> None:
    denied: list[int] = []

    async def accept(event: Any) -> None:
        if not denied:
            denied.append(event.remote[1])
            event.connection.deny("not_you")
        else:
            event.connection.attach_data_filter(Marking(b"!"))

    plugin = Plugin("hearing", [], accept=accept)
    rig = make_rig(entry(plugin, events=EVENTS, clients=(ClientKind.FILTER,)), rules=(INBOUND,))
    sock = await listening(users(rig))
    assert plugin.heard == [("hearing", "bind"), ("hearing", "listen")]
    assert await peer(rig, sock).is_reset()
    wire = peer(rig, sock)
    arrived = await sock.accept()
    await wire.send(b"hello")
    assert await arrived.recv() == b"hello!"
    await arrived.send(b"welcome")
    assert await wire.exactly(8) == b"welcome!"
    wire.end()
    assert await arrived.recv() == b""
    await arrived.close()


async def test_closing_it_wakes_who_waits_and_resets_who_was_not_accepted(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock = await listening(systems(rig))
    one, other = (rig.start(expect(Terminating, sock.accept())) for _ in range(2))
    await asyncio.sleep(0)
    await sock.close()
    await one
    await other
    for was_taken in (False, True):
        late = await listening(systems(rig))
        wire = peer(rig, late)
        await wait_for(lambda: len(rig.engine.connections) == 2, "it has arrived")
        if was_taken:
            connections = rig.engine.connections.values()
            await wait_for(lambda: all(c.extra.listening for c in connections), "it waits")  # noqa: B023 - at once
        await late.close()
        assert await wire.is_reset()
        with pytest.raises(Terminating):
            await late.accept()


async def test_a_cancelled_accept_takes_nobody(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock = await listening(systems(rig))
    cancelled, patient = (
        asyncio.get_running_loop().create_task(sock.accept()),
        asyncio.get_running_loop().create_task(sock.accept()),
    )
    await asyncio.sleep(0)
    wire = peer(rig, sock)
    await wait_for(lambda: cancelled.done() or len(rig.engine.connections) == 2, "it has arrived")
    cancelled.cancel()
    done, _ = await asyncio.wait([cancelled, patient], timeout=PATIENCE_S, return_when=asyncio.ALL_COMPLETED)
    accepted = [task for task in done if not task.cancelled()]
    assert len(accepted) == 1
    await wire.send(b"x")
    assert await accepted[0].result().recv() == b"x"


async def test_more_than_the_backlog_is_reset(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock = await listening(systems(rig), backlog=2)
    wires = [peer(rig, sock) for _ in range(2)]
    await wait_for(lambda: len(rig.engine.connections) == 3, "both have arrived")
    assert await peer(rig, sock).is_reset()
    assert rig.recorder.records[-1].end == "out_of_resources"
    wires[0].reset()
    accepted = [await sock.accept() for _ in range(2)]
    assert len(accepted) == 2


async def test_who_was_ended_while_it_waited_is_not_accepted(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock = await listening(systems(rig), backlog=1)
    peer(rig, sock)
    await wait_for(lambda: len(rig.engine.connections) == 2, "it has arrived")
    connection = list(rig.engine.connections.values())[-1]
    connection.kill()
    wire = peer(rig, sock)  # and there is room for another
    arrived = await sock.accept()
    assert arrived.peer_name == wire.sock.getsockname()


@pytest.mark.parametrize("how", ["killed", "session", "forgotten"])
async def test_whatever_ends_it_nobody_waits_for_ever(make_rig: MakeRig, how: str) -> None:
    rig = make_rig()
    session = nobodys(rig)
    sock = await listening(systems(rig, session))
    name = sock.socket_name
    if how == "forgotten":
        del sock
        await wait_for(lambda: not rig.engine.connections, "the end")
    else:
        waiting = rig.start(expect(Terminating, sock.accept()))
        await asyncio.sleep(0)
        if how == "killed":
            next(iter(rig.engine.connections.values())).kill()
        else:
            session.close()
        await waiting
    assert (await rig.record()).end == {"session": "session_ended"}.get(how, how)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(name)
    assert not session.sockets


async def test_addresses_that_cannot_be_had(make_rig: MakeRig) -> None:
    rig = make_rig()
    one = await listening(systems(rig))
    for address, port in (one.socket_name, ("192.0.2.1", 0)):
        with pytest.raises(AddressInUse):
            await systems(rig).bind(address, port)
    first, second = systems(rig), systems(rig)
    await first.bind("127.0.0.1", 0)
    await second.bind(*first.socket_name)  # both might connect from there
    await first.listen()
    with pytest.raises(AddressInUse):
        await second.listen()


async def test_everywhere_means_both_families(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock = systems(rig)
    sock.set_ip_filter(IpFilter("127.0.0.0/8", "::1"))
    await sock.bind("", 0)
    await sock.listen()
    port = sock.socket_name[1]
    for host in ("127.0.0.1", "::1"):
        rig.keep(Wire(socket.create_connection((host, port))))
        assert (await sock.accept()).peer_name[0] == host


async def test_calls_that_a_listening_socket_does_not_have(make_rig: MakeRig) -> None:
    rig = make_rig()
    fresh = systems(rig)
    with pytest.raises(NotSupported):
        await fresh.listen()
    with pytest.raises(NotSupported):
        await fresh.accept()
    await fresh.bind("127.0.0.1", 0)
    for backlog in (0, -1, 100_000):
        with pytest.raises(BadArgument):
            await fresh.listen(backlog)
    sock = await listening(systems(rig))
    calls = (sock.connect("127.0.0.1", 9), sock.bind("", 0), sock.listen(), sock.recv(), sock.send(b"x"))
    for call in calls:
        with pytest.raises(NotSupported):
            await call
    with pytest.raises(NotConnected):
        _ = sock.peer_name
    await sock.close()
    for late in (sock.accept(), sock.listen(), sock.recv()):
        with pytest.raises(Terminating):
            await late


async def test_a_listen_that_is_cut_short_leaves_nothing(make_rig: MakeRig) -> None:
    asked = asyncio.Event()

    async def stall(event: Any) -> None:
        asked.set()
        await asyncio.Event().wait()

    plugin = Plugin("slow", [], bind=stall)
    rig = make_rig(entry(plugin, events=EVENTS, clients=(ClientKind.FILTER,)), rules=(INBOUND,))
    for cut in ("closed", "cancelled"):
        asked.clear()
        sock = users(rig)
        await sock.bind("127.0.0.1", 0)
        opening = rig.start(expect(Terminating, sock.listen()) if cut == "closed" else sock.listen())
        await asked.wait()
        if cut == "closed":
            await sock.close()
        else:
            opening.cancel()
        await asyncio.wait([opening])
        assert opening.cancelled() == (cut == "cancelled")
        if cut == "closed":
            opening.result()


async def expect(kind: type[Exception], call: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(kind):
            await call
