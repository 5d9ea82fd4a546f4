"""A filter's own socket in a client's name: policy and filters apply, it is on record, and nothing of it is left."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import Callable
from typing import Any

import pytest
from tests.engine.filters import Copying, Marking, Pumping
from tests.engine.rig import LOCAL_RULE, Plugin, Rig, attaching, entry, wait_for
from tests.engine.socket_rig import users
from tests.engine.wires import PATIENCE_S, Wire

from doorward.api import (
    AccessDenied,
    AlreadyExists,
    BadArgument,
    ClientKind,
    ConnectEvent,
    ConnectionRefused,
    OutOfResources,
    PeerReset,
    ReplyHint,
    Terminating,
    TimedOut,
)
from doorward.api.events import EventKind
from doorward.config.model import Limits
from doorward.engine.sockets.kept import SOCKETS_MAX
from doorward.engine.sockets.network_socket import NetworkSocket
from doorward.policy.model import Action, Rule

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]

FILTERS = (ClientKind.FILTER,)
HEARING = (EventKind.CONNECT, EventKind.BIND)


async def connected(rig: Rig) -> tuple[NetworkSocket, Wire]:
    """A socket, and the server's end of it."""
    sock = users(rig)
    await sock.connect("127.0.0.1", rig.server.port)
    return sock, rig.keep(await rig.server.accept())


async def test_bytes_pass_both_ways_and_are_on_record_in_the_clients_name(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock = users(rig, session=rig.engine.sessions.get("192.0.2.7", "kim"))
    await sock.connect("127.0.0.1", rig.server.port)
    server = rig.keep(await rig.server.accept())
    await sock.send(b"hello")
    assert await server.exactly(5) == b"hello"
    await server.send(b"welcome")
    assert await sock.recv() == b"welcome"
    assert server.peer == sock.socket_name
    assert sock.peer_name == ("127.0.0.1", rig.server.port)
    await sock.close()
    assert await server.rest() == b""
    record = await rig.record()
    assert (record.entry, record.action, record.reason, record.rule) == (
        "filter",
        "allow",
        "rule_allow",
        "local",
    )
    assert (record.user, record.client_address, record.client_port) == ("kim", "192.0.2.7", 0)
    assert (record.bytes_sent, record.bytes_received, record.end) == (5, 7, "closed")


async def test_what_policy_refuses_is_refused_and_no_filter_hears_of_it(make_rig: MakeRig) -> None:
    plugin = Plugin("listening", [])
    rig = make_rig(entry(plugin, clients=FILTERS), rules=())
    with pytest.raises(AccessDenied) as refused:
        await users(rig).connect("127.0.0.1", rig.server.port)
    assert (refused.value.reason, refused.value.hint) == ("guarded_loopback", ReplyHint.NOT_ALLOWED)
    assert rig.server.nobody_came()
    assert plugin.heard == []
    assert (await rig.record()).action == "deny"


async def test_a_rule_for_users_is_asked_about_the_sessions_user(make_rig: MakeRig) -> None:
    rule = Rule("kim only", Action.ALLOW, to_networks=LOCAL_RULE.to_networks, users=frozenset({"kim"}))
    rig = make_rig(rules=(rule,))
    with pytest.raises(AccessDenied) as refused:
        await users(rig).connect("127.0.0.1", rig.server.port)
    assert refused.value.reason == "user_needed"
    sock = users(rig, "kim")
    await sock.connect("127.0.0.1", rig.server.port)
    await sock.close()


async def test_a_filter_may_deny_it_and_only_those_that_ask_for_it_hear_of_it(make_rig: MakeRig) -> None:
    async def deny(event: ConnectEvent) -> None:
        event.connection.deny("not_this_one")

    deaf = Plugin("deaf", [])
    hearing = Plugin("hearing", [], connect=deny)
    rig = make_rig(entry(deaf), entry(hearing, clients=FILTERS))
    with pytest.raises(AccessDenied) as refused:
        await users(rig).connect("127.0.0.1", rig.server.port)
    assert refused.value.reason == "not_this_one"
    assert deaf.heard == []
    await wait_for(lambda: ("hearing", "terminating") in hearing.heard, "the end")


async def test_the_dials_own_error_is_raised(make_rig: MakeRig) -> None:
    rig = make_rig()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    sock = users(rig)
    with pytest.raises(ConnectionRefused):
        await sock.connect("127.0.0.1", port)
    assert (await rig.record()).reason == "connection_refused"
    await sock.connect("127.0.0.1", rig.server.port)  # nothing is left of the first attempt
    await sock.close()


async def test_without_a_log_nothing_is_opened(make_rig: MakeRig) -> None:
    rig = make_rig()
    rig.recorder.trouble = "the disk is full"
    with pytest.raises(OutOfResources, match="the disk is full"):
        await users(rig).connect("127.0.0.1", rig.server.port)
    assert rig.server.nobody_came()


async def test_a_filter_that_fails_refuses_it(make_rig: MakeRig) -> None:
    async def fail(event: ConnectEvent) -> None:
        raise ValueError("a mistake")

    rig = make_rig(entry(Plugin("broken", [], connect=fail), clients=FILTERS))
    with pytest.raises(AccessDenied) as refused:
        await users(rig).connect("127.0.0.1", rig.server.port)
    assert refused.value.reason == "filter_failed"


async def test_data_filters_stand_between_the_socket_and_the_wire(make_rig: MakeRig) -> None:
    plugin = Plugin("marking", [], connect=attaching(Marking(b"!"), Copying()))
    rig = make_rig(entry(plugin, clients=FILTERS))
    sock, server = await connected(rig)
    await sock.send(b"one")
    assert await server.exactly(4) == b"one!"
    await server.send(b"two")
    assert await sock.recv() == b"two!"
    await sock.shutdown()
    assert await server.rest() == b""
    await server.send(b"last")
    server.end()
    assert await sock.recv() == b"last!"
    assert await sock.recv() == b""
    record = await rig.record()
    assert (record.bytes_sent, record.bytes_received, record.end) == (4, 7, "closed")
    await sock.close()


async def test_after_a_close_data_filters_still_deliver_and_those_that_do_not_end_are_ended(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("doorward.engine.sockets.holding.CLOSE_WAIT_S", 0.01)
    rig = make_rig(entry(Plugin("copying", [], connect=attaching(Copying())), clients=FILTERS))
    sock, server = await connected(rig)
    await sock.send(b"x" * 100_000)
    await sock.close()
    assert await server.exactly(100_000) == b"x" * 100_000
    assert await server.rest() == b""  # and says nothing itself, for ever
    assert (await rig.record()).end == "closed"


async def test_a_reset_by_the_peer_is_met_and_ends_the_connection(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock, server = await connected(rig)
    server.reset()
    with pytest.raises(PeerReset):
        await sock.recv()
    record = await rig.record()
    assert (record.end, record.ended_by) == ("reset", "external")
    assert not sock.open
    await sock.close()


@pytest.mark.parametrize("how", ["close", "shutdown"])
@pytest.mark.parametrize("filtered", [False, True])
async def test_an_abort_reaches_the_peer_as_a_reset(make_rig: MakeRig, how: str, *, filtered: bool) -> None:
    filters = (
        [entry(Plugin("copying", [], connect=attaching(Copying())), clients=FILTERS)] if filtered else []
    )
    rig = make_rig(*filters)
    sock, server = await connected(rig)
    await getattr(sock, how)(abortive=True)
    assert await server.is_reset()
    assert (await rig.record()).end == "reset"
    with pytest.raises((Terminating, PeerReset)):
        await sock.recv()


async def test_silence_ends_it(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(idle_timeout_s=0.02))
    sock, server = await connected(rig)
    reading = rig.start(expect(Terminating, sock.recv()))
    assert await server.is_reset()
    await reading
    assert (await rig.record()).end == "idle_timeout"


async def test_the_end_of_the_session_ends_its_sockets_in_whatever_state(make_rig: MakeRig) -> None:
    rig = make_rig()
    session = rig.engine.sessions.private("127.0.0.1", None, frozenset())
    bound, untouched, talking = (users(rig, session=session) for _ in range(3))
    await bound.bind("127.0.0.1", 0)
    await talking.connect("127.0.0.1", rig.server.port)
    server = rig.keep(await rig.server.accept())
    reading = rig.start(expect(Terminating, talking.recv()))
    await asyncio.sleep(0)
    session.close()
    assert await server.is_reset()
    await reading
    assert (await rig.record()).end == "session_ended"
    for sock in (bound, untouched):
        with pytest.raises(Terminating):
            await sock.connect("127.0.0.1", rig.server.port)
    assert not session.sockets


async def test_a_socket_that_a_filter_forgets_is_ended(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock, server = await connected(rig)
    bound = users(rig)
    await bound.bind("127.0.0.1", 0)
    del sock, bound
    assert await server.is_reset()
    assert (await rig.record()).end == "forgotten"
    assert not rig.engine.sessions.get("127.0.0.1", None).sockets


async def test_a_socket_that_somebody_waits_for_is_not_forgotten(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock, server = await connected(rig)
    reading = asyncio.get_running_loop().create_task(sock.recv())
    del sock
    await asyncio.sleep(0)
    gc.collect()
    await server.send(b"still there")
    assert await reading == b"still there"


async def test_closing_it_ends_a_connect_that_is_under_way(make_rig: MakeRig) -> None:
    asked = asyncio.Event()

    async def stall(event: ConnectEvent) -> None:
        asked.set()
        await asyncio.Event().wait()

    rig = make_rig(entry(Plugin("slow", [], connect=stall), clients=FILTERS))
    sock = users(rig)
    connecting = rig.start(expect(Terminating, sock.connect("127.0.0.1", rig.server.port)))
    await asked.wait()
    with pytest.raises(AlreadyExists):
        await sock.connect("127.0.0.1", rig.server.port)
    with pytest.raises(AlreadyExists):
        await sock.bind("127.0.0.1", 0)
    await sock.close()
    await connecting
    assert (await rig.record()).action == "fail"
    assert rig.server.nobody_came()


async def test_a_cancelled_connect_leaves_nothing_and_may_be_tried_again(make_rig: MakeRig) -> None:
    asked = asyncio.Event()

    async def stall_once(event: ConnectEvent) -> None:
        if not asked.is_set():
            asked.set()
            await asyncio.Event().wait()

    rig = make_rig(entry(Plugin("slow once", [], connect=stall_once), clients=FILTERS))
    sock = users(rig)
    connecting = rig.start(sock.connect("127.0.0.1", rig.server.port))
    await asked.wait()
    connecting.cancel()
    await asyncio.wait([connecting])
    assert connecting.cancelled()
    await sock.connect("127.0.0.1", rig.server.port)
    await sock.close()


async def test_a_deadline_of_the_filters_own_around_a_connect_is_its_own(make_rig: MakeRig) -> None:
    async def stall(event: ConnectEvent) -> None:
        await asyncio.Event().wait()

    rig = make_rig(entry(Plugin("slow", [], connect=stall), clients=FILTERS))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await users(rig).connect("127.0.0.1", rig.server.port)


async def test_a_session_has_so_many_sockets_and_no_more(make_rig: MakeRig) -> None:
    rig = make_rig()
    sockets = [users(rig) for _ in range(SOCKETS_MAX)]
    with pytest.raises(OutOfResources):
        users(rig)
    await sockets.pop().close()
    users(rig)
    await wait_for(lambda: len(rig.engine.sessions.get("127.0.0.1", None).sockets) == SOCKETS_MAX - 1, "room")


async def test_a_kind_that_is_none_is_refused(make_rig: MakeRig) -> None:
    rig = make_rig()
    with pytest.raises(BadArgument):
        rig.engine.sessions.get("127.0.0.1", None).create_network_socket("icmp")  # type: ignore[arg-type]  # on purpose


async def test_an_emulating_filter_is_met_in_place_of_a_server(make_rig: MakeRig) -> None:
    async def serve(internal: Any, external: Any, connection: Any) -> None:
        assert external is None
        assert await internal.recv() == b"ping"
        await internal.send(b"pong")

    async def emulate(event: ConnectEvent) -> None:
        event.connection.emulate_for_connect(Pumping(serve))

    rig = make_rig(entry(Plugin("serving", [], connect=emulate), clients=FILTERS))
    sock = users(rig)
    await sock.connect("127.0.0.1", 9)
    await sock.send(b"ping")
    assert await sock.recv() == b"pong"
    assert await sock.recv() == b""
    await sock.close()
    assert (await rig.record()).end == "closed"


async def test_an_abort_with_a_reason_raises_it_ever_after(make_rig: MakeRig) -> None:
    rig = make_rig()
    sock, server = await connected(rig)
    sock.abort(TimedOut("too slow"))
    with pytest.raises(TimedOut, match="too slow"):
        await sock.recv()
    assert await server.is_reset()
    assert (await rig.record()).end == "timed_out"


async def test_a_filter_is_watched_again_after_others_were_asked_about_its_socket(make_rig: MakeRig) -> None:
    """Its tasks end with its connection (`Rig.close` looks), and only those."""

    async def call_out(event: ConnectEvent) -> None:
        sock = event.connection.session.create_network_socket()
        await sock.connect("127.0.0.1", rig.server.port)
        holder = rig.watchdog.running
        forever = asyncio.get_running_loop().create_task(asyncio.Event().wait())
        assert holder is not None
        assert forever in holder.tasks
        await sock.close()

    others = Plugin("asked", [])
    rig = make_rig(entry(Plugin("calling", [], connect=call_out)), entry(others, clients=FILTERS))
    connection = await rig.connect()
    assert connection.refusal is None, connection.refusal
    assert ("asked", "connect") in others.heard
    connection.kill()


async def expect(kind: type[Exception], call: Any) -> None:
    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(kind):
            await call
