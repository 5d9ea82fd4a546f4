"""What a filter has started, opened or made ends with it, and what it says carries its name."""

from __future__ import annotations

import asyncio
import gc
import io
import ipaddress
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine.filters import copy
from tests.engine.rig import Plugin, Rig, entry, wait_for
from tests.engine.wires import PATIENCE_S
from tests.net.certificates import SERVER_NAME, Authority, usual

from doorward.api import (
    BadArgument,
    Firewall,
    IpFilter,
    NameNotFound,
    OutOfResources,
    SessionFlags,
    Side,
    Terminating,
    TimedOut,
)
from doorward.engine.engine import Engine
from doorward.engine.supervision import Watchdog
from doorward.service.filter_host import FilterHost
from doorward.service.operational_log import make_logger

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]


class Host:
    """A filter's host, with the real log behind it."""

    def __init__(self, rig: Rig | None = None, name: str = "mine") -> None:
        self._rig = rig
        self._told = io.StringIO()
        watchdog = Watchdog(5.0) if rig is None else rig.watchdog
        self.host = FilterHost(entry(Plugin(name, [])), make_logger(self._told), self._engine, watchdog)
        self.firewall: Firewall = self.host  # as the filter sees it

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._told.getvalue().splitlines()]

    def _engine(self) -> Engine:
        assert self._rig is not None, "nothing is to be opened"
        return self._rig.engine


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return usual(Path(tmp_path_factory.mktemp("certificates")))


async def test_what_a_filter_says_carries_its_name_and_no_other() -> None:
    mine = Host()
    mine.firewall.log("total\n", bytes=7, filter="somebody else")
    mine.firewall.alert("virus", found="eicar")
    total, alert = mine.lines()
    assert (total["event"], total["filter"], total["bytes"], total["filter_"]) == (
        "total\\x0a",
        "mine",
        7,
        "somebody else",
    )
    assert (alert["level"], alert["filter"], alert["alert"], alert["found"]) == (
        "warning",
        "mine",
        "virus",
        "eicar",
    )
    await mine.host.close()


async def test_what_a_filter_has_spawned_ends_with_it() -> None:
    mine, ended = Host(), asyncio.Event()

    async def tick() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    mine.firewall.spawn(tick(), name="tick")
    await asyncio.sleep(0)
    await mine.host.close()
    assert ended.is_set()
    with pytest.raises(Terminating):
        mine.firewall.spawn(tick(), name="late")


async def test_what_a_task_raises_is_logged_and_nothing_more() -> None:
    mine = Host()

    async def task() -> None:
        raise ValueError("a mistake")

    mine.firewall.spawn(task(), name="adding")
    await wait_for(lambda: bool(mine.lines()), "its line")
    [line] = mine.lines()
    assert (line["level"], line["filter"], line["task"], line["error"]) == (
        "error",
        "mine",
        "adding",
        "ValueError: a mistake",
    )


async def test_a_busy_task_is_interrupted_and_those_that_it_has_started_end_with_the_filter(
    make_rig: MakeRig,
) -> None:
    mine, ended = Host(make_rig(stall_s=0.05)), asyncio.Event()

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    children: list[asyncio.Task[None]] = []

    async def busy() -> None:
        children.append(asyncio.get_running_loop().create_task(child()))
        await asyncio.sleep(0)
        while True:
            pass

    mine.firewall.spawn(busy(), name="counting")
    await wait_for(lambda: bool(mine.lines()), "its line")
    [line] = mine.lines()
    assert (line["task"], line["error"].split(":")[0]) == ("counting", "FilterStalled")
    await mine.host.close()
    await wait_for(ended.is_set, "its child")


async def test_a_task_that_will_not_be_cancelled_is_given_up(make_rig: MakeRig) -> None:
    mine = Host(make_rig())

    async def stubborn() -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                continue

    mine.firewall.spawn(stubborn(), name="stubborn")
    await asyncio.sleep(0)
    async with asyncio.timeout(2):
        await mine.host.close()
    assert [line["task"] for line in mine.lines()] == ["stubborn"]


async def test_blocking_functions_run_in_another_thread() -> None:
    mine = Host()
    assert await mine.firewall.run_blocking(threading.get_ident) != threading.get_ident()
    await mine.host.close()


async def test_sockets_in_whatever_state_end_with_the_filter(make_rig: MakeRig) -> None:
    rig = make_rig()
    mine = Host(rig)
    fresh, bound, listening, talking, datagrams = (
        mine.firewall.create_network_socket(kind) for kind in ("tcp", "tcp", "tcp", "tcp", "udp")
    )
    for sock in (bound, listening, datagrams):
        await sock.bind("127.0.0.1", 0)
    await listening.listen()
    await talking.connect("127.0.0.1", rig.server.port)
    server = rig.keep(await rig.server.accept())
    waiting = [
        asyncio.get_running_loop().create_task(call) for call in (listening.accept(), datagrams.recv())
    ]
    await asyncio.sleep(0)
    await mine.host.close()
    assert await server.is_reset()
    for task in waiting:
        with pytest.raises(Terminating):
            await asyncio.wait_for(task, PATIENCE_S)
    for sock in (fresh, bound):
        with pytest.raises(Terminating):
            await sock.connect("127.0.0.1", rig.server.port)
    assert not rig.engine.connections
    assert {record.filters for record in rig.recorder.records} == {'[["mine","opened",""]]'}
    with pytest.raises(Terminating):
        mine.firewall.create_network_socket()


async def test_sockets_in_clients_names_end_with_the_filter_too(make_rig: MakeRig) -> None:
    rig = make_rig()
    mine, made = Host(rig), asyncio.Event()
    sockets: list[Any] = []

    async def call_out() -> None:
        sock = mine.firewall.client_session("192.0.2.7").create_network_socket()
        await sock.connect("127.0.0.1", rig.server.port)
        sockets.append(sock)
        made.set()

    mine.firewall.spawn(call_out(), name="calling out")
    async with asyncio.timeout(PATIENCE_S):
        await made.wait()
    server = rig.keep(await rig.server.accept())
    await mine.host.close()
    assert await server.is_reset()
    record = await rig.record()
    assert (record.entry, record.client_address, record.end) == ("filter", "192.0.2.7", "filter_left")


async def test_private_sessions_are_nobody_elses_and_end_with_the_filter(make_rig: MakeRig) -> None:
    rig = make_rig()
    mine = Host(rig)
    session = mine.firewall.create_private_session("127.0.0.1", "kim", ["staff"])
    assert (session.client_address, session.user, session.groups) == (
        "127.0.0.1",
        "kim",
        frozenset({"staff"}),
    )
    assert session.flags == SessionFlags.PRIVATE | SessionFlags.AUTHENTICATED
    assert session is not mine.firewall.create_private_session("127.0.0.1", "kim")
    assert session is not rig.engine.sessions.get("127.0.0.1", "kim")
    sock = session.create_network_socket()
    await sock.connect("127.0.0.1", rig.server.port)
    server = rig.keep(await rig.server.accept())
    await mine.host.close()
    assert await server.is_reset()
    record = await rig.record()
    assert (record.user, record.end) == ("kim", "session_ended")
    assert SessionFlags.TERMINATED in session.flags
    assert len(rig.engine.sessions) == 1
    with pytest.raises(Terminating):
        session.create_network_socket()


async def test_a_filter_cannot_fill_the_table_of_sessions(make_rig: MakeRig) -> None:
    rig = make_rig()  # a table of a hundred
    mine = Host(rig)
    kept = [mine.firewall.create_private_session("127.0.0.1") for _ in range(50)]
    with pytest.raises(OutOfResources):
        mine.firewall.create_private_session("127.0.0.1")
    for session in kept[:10]:
        session.close()
    for _ in range(10):
        mine.firewall.create_private_session("127.0.0.1")
    for _ in range(1000):
        mine.firewall.client_session("192.0.2.1")
    await mine.host.close()


async def test_sessions_of_clients_are_those_of_everybody(make_rig: MakeRig) -> None:
    rig = make_rig()
    mine = Host(rig)
    session = mine.firewall.client_session("::ffff:192.0.2.7")
    assert session is rig.engine.sessions.get("192.0.2.7", None)
    for call in (mine.firewall.client_session, mine.firewall.create_private_session):
        with pytest.raises(BadArgument):
            call("a name")
    for user, groups in (("", ()), ("kim", "staff")):
        with pytest.raises(BadArgument):
            mine.firewall.create_private_session("192.0.2.7", user, groups)
    await mine.host.close()
    assert not SessionFlags.TERMINATED & session.flags


async def test_names_and_addresses_are_looked_up(make_rig: MakeRig) -> None:
    def look_up(name: str) -> tuple[Any, ...]:
        if name != "server.test":
            raise NameNotFound("no such name", side=Side.EXTERNAL)
        return (ipaddress.ip_address("192.0.2.1"), ipaddress.ip_address("2001:db8::1"))

    rig = make_rig(lookup=look_up, lookup_back=lambda address: (f"host-of-{address}",))
    mine = Host(rig)
    assert await mine.firewall.resolve("server.test") == ("192.0.2.1", "2001:db8::1")
    assert await mine.firewall.resolve("192.0.2.9") == ("192.0.2.9",)
    for name in ("nobody.test", "not a name", ""):
        with pytest.raises(NameNotFound):
            await mine.firewall.resolve(name)
    assert await mine.firewall.resolve_address("192.0.2.1") == ("host-of-192.0.2.1",)
    with pytest.raises(BadArgument):
        await mine.firewall.resolve_address("server.test")


async def test_ip_filters_are_sets_of_addresses() -> None:
    mine = Host()
    assert mine.firewall.create_ip_filter(["192.0.2.0/24", "::1"]) == IpFilter("192.0.2.0/24", "::1")
    assert not mine.firewall.create_ip_filter()
    with pytest.raises(ValueError, match="a name"):
        mine.firewall.create_ip_filter(["a name"])


async def test_tls_over_its_own_sockets_on_either_side(make_rig: MakeRig, authority: Authority) -> None:
    rig = make_rig()
    mine = Host(rig)
    chain, key = map(str, authority.identity("server"))
    client_chain, client_key = map(str, authority.identity("client"))
    listening, near = (mine.firewall.create_network_socket() for _ in range(2))
    listening.set_ip_filter(IpFilter("127.0.0.1"))
    await listening.bind("127.0.0.1", 0)
    await listening.listen()
    await near.connect(*listening.socket_name)
    far = await listening.accept()
    async with asyncio.timeout(PATIENCE_S):
        client, server = await asyncio.gather(
            mine.firewall.create_ssl_network_socket(
                near,
                "client",
                server_name=SERVER_NAME,
                alpn=["two"],
                ca_file=authority.file,
                certificate_file=client_chain,
                key_file=client_key,
            ),
            mine.firewall.create_ssl_network_socket(
                far,
                "server",
                alpn=["one", "two"],
                certificate_file=chain,
                key_file=key,
                ca_file=authority.file,
                ask_client_certificate="required",
            ),
        )
        assert (server.version, server.alpn, server.server_name) == ("TLSv1.3", "two", SERVER_NAME)
        assert server.peer_certificate is not None
        echo = asyncio.get_running_loop().create_task(copy(server, server))
        await client.send(b"hello")
        assert await client.recv() == b"hello"
        await client.shutdown()
        assert await client.recv() == b""
        await echo
        await client.close()
        await server.close()
        await listening.close()
    assert {(record.end, record.entry) for record in rig.recorder.records} == {("closed", "system")}
    await mine.host.close()


async def test_tls_that_nobody_can_mean_leaves_the_leg_alone(make_rig: MakeRig, authority: Authority) -> None:
    rig = make_rig()
    mine = Host(rig)
    chain, key = map(str, authority.identity("server"))
    sock = mine.firewall.create_network_socket()
    await sock.connect("127.0.0.1", rig.server.port)
    server = rig.keep(await rig.server.accept())
    tls: Any = mine.firewall.create_ssl_network_socket
    for side, said in (
        ("client", {}),
        ("client", {"server_name": SERVER_NAME, "ca_file": "/nowhere.pem"}),
        ("client", {"server_name": SERVER_NAME, "timeout_s": 0}),
        ("client", {"server_name": SERVER_NAME, "alpn": "h2"}),
        ("client", {"server_name": SERVER_NAME, "ask_client_certificate": "required"}),
        ("server", {}),
        ("server", {"certificate_file": chain, "key_file": key, "verify": False}),
        ("server", {"certificate_file": chain, "key_file": key, "ask_client_certificate": "maybe"}),
        ("both", {"certificate_file": chain, "key_file": key}),
    ):
        with pytest.raises(BadArgument):
            await tls(sock, side, **said)
    await sock.send(b"still there")
    assert await server.exactly(11)
    with pytest.raises(TimedOut):
        await tls(sock, "client", verify=False, timeout_s=0.2)
    await wait_for(lambda: not rig.engine.connections, "it was closed by that")
    await mine.host.close()


async def test_a_filter_that_forgets_everything_has_left_nothing(make_rig: MakeRig) -> None:
    rig = make_rig()
    mine = Host(rig)

    async def forget() -> None:
        for kind in ("tcp", "udp"):
            await mine.firewall.create_network_socket(kind).bind("127.0.0.1", 0)
        await mine.firewall.create_network_socket().connect("127.0.0.1", rig.server.port)

    for _ in range(20):
        await forget()
    gc.collect()
    await wait_for(lambda: not rig.engine.connections, "all of it is ended")
    await mine.host.close()
