"""A filter's own UDP socket: judged for each destination in a client's name, not at all in the firewall's."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.engine.rig import LOOPBACK, NAMED_RULES, Plugin, Rig, entry, wait_for
from tests.engine.socket_rig import nobodys, systems_udp, users_udp
from tests.engine.wires import PATIENCE_S

from doorward.api import (
    AccessDenied,
    AddressInUse,
    AlreadyExists,
    BadArgument,
    ClientKind,
    IpFilter,
    NotConnected,
    NotSupported,
    OutOfResources,
    Terminating,
)
from doorward.api.events import EventKind
from doorward.config.model import Limits
from doorward.engine.sockets.datagram_socket import DatagramSocket
from doorward.policy.model import Action, PortRange, Rule

pytestmark = pytest.mark.anyio
MakeRig = Callable[..., Rig]
OUT = Rule(
    "ask", Action.ALLOW, to_networks=LOOPBACK, to_names=("*.test",), ports=(PortRange("udp", 0, 65_535),)
)
IN = Rule("come in", Action.ALLOW, to_networks=LOOPBACK, ports=(PortRange("udp-in", 0, 65_535),))


class Far:
    """A far end of the test's own."""

    def __init__(self) -> None:
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(("127.0.0.1", 0))
        self.sock.setblocking(False)
        self.name: tuple[str, int] = self.sock.getsockname()

    async def receive(self) -> tuple[bytes, tuple[str, int]]:
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.get_running_loop().sock_recvfrom(self.sock, 65_536)

    def heard_nothing(self) -> bool:
        try:
            self.sock.recvfrom(65_536)
        except BlockingIOError:
            return True
        return False


@pytest.fixture
def far() -> Iterator[Far]:
    made = Far()
    yield made
    made.sock.close()


async def heard(sock: DatagramSocket) -> tuple[bytes, tuple[str, int]]:
    async with asyncio.timeout(PATIENCE_S):
        return await sock.recv_from()


@pytest.mark.parametrize("make", [users_udp, systems_udp])
async def test_datagrams_go_out_and_answers_come_back_and_it_is_on_record(
    make_rig: MakeRig, far: Far, make: Callable[[Rig], DatagramSocket]
) -> None:
    rig = make_rig(rules=(OUT,) if make is users_udp else ())
    sock = make(rig)
    await sock.send_to(b"question", far.name)
    data, name = await far.receive()
    assert data == b"question"
    far.sock.sendto(b"answer", name)
    assert await heard(sock) == (b"answer", far.name)
    assert sock.socket_name[1] == name[1]
    await sock.close()
    records = {record.operation: record for record in rig.recorder.records}
    destination, mapping = records["destination"], records["udp"]
    entry_name = "filter" if make is users_udp else "system"
    assert {r.entry for r in (destination, mapping)} == {entry_name}
    assert (
        destination.transport,
        destination.action,
        destination.bytes_sent,
        destination.bytes_received,
    ) == (
        "udp",
        "allow",
        8,
        6,
    )
    assert destination.rule == ("ask" if make is users_udp else None)
    if make is systems_udp:
        assert mapping.reason == "system_socket"
        assert json.loads(mapping.filters or "") == [["mine", "opened", ""]]


async def test_what_policy_refuses_is_dropped_and_is_told_to_who_connects(
    make_rig: MakeRig, far: Far
) -> None:
    rig = make_rig(rules=())
    sock = users_udp(rig)
    await sock.send_to(b"question", far.name)
    await wait_for(lambda: bool(rig.recorder.records), "its record")
    assert rig.recorder.records[0].action == "deny"
    with pytest.raises(AccessDenied) as refused:
        await sock.connect(*far.name)
    assert refused.value.reason == "guarded_loopback"
    with pytest.raises(NotConnected):
        await sock.send(b"question")
    assert far.heard_nothing()
    await sock.close()


async def test_one_that_is_connected_hears_its_peer_alone(make_rig: MakeRig, far: Far) -> None:
    rig = make_rig(rules=(OUT,))
    other = Far()
    sock = users_udp(rig)
    await sock.send_to(b"to the other", other.name)
    _, name = await other.receive()
    await sock.connect(*far.name)
    assert sock.peer_name == far.name
    other.sock.sendto(b"from the other", name)
    await sock.send(b"question")
    assert (await far.receive())[0] == b"question"
    far.sock.sendto(b"answer", name)
    async with asyncio.timeout(PATIENCE_S):
        assert await sock.recv() == b"answer"
    with pytest.raises(AlreadyExists):
        await sock.connect(*far.name)
    await sock.close()
    other.sock.close()


async def test_filters_hear_of_the_bind_and_may_deny_it(make_rig: MakeRig, far: Far) -> None:
    told: list[tuple[str, int]] = []

    async def deny(event: Any) -> None:
        told.append((event.address, event.port))
        event.connection.deny("no_ports_for_you")

    plugin = Plugin("saying no", [], bind=deny)
    rig = make_rig(entry(plugin, events=(EventKind.BIND,), clients=(ClientKind.FILTER,)), rules=(OUT,))
    sock = users_udp(rig)
    with pytest.raises(AccessDenied) as refused:
        await sock.bind("127.0.0.1", 0)
    assert refused.value.reason == "no_ports_for_you"
    assert told == [("127.0.0.1", 0)]
    with pytest.raises(AccessDenied):
        await sock.send_to(b"x", far.name)
    await systems_udp(rig).bind("127.0.0.1", 0)  # of which nobody hears
    assert plugin.heard.count(("saying no", "bind")) == 2


@pytest.mark.parametrize("make", [users_udp, systems_udp])
async def test_who_comes_first_is_heard_if_the_ip_filter_and_policy_say_so(
    make_rig: MakeRig, far: Far, make: Callable[[Rig], DatagramSocket]
) -> None:
    for rules, admits, is_heard in (
        ((OUT, IN), "127.0.0.1", True),
        ((OUT, IN), "192.0.2.1", False),
        ((OUT, IN), None, False),
        ((OUT,), "127.0.0.1", make is systems_udp),
    ):
        rig = make_rig(rules=rules)
        sock = make(rig)
        if admits is not None:
            sock.set_ip_filter(IpFilter(admits))
        await sock.bind("127.0.0.1", 0)
        far.sock.sendto(b"first", sock.socket_name)
        if is_heard:
            assert await heard(sock) == (b"first", far.name)
            await sock.send_to(b"answer", far.name)
            assert (await far.receive())[0] == b"answer"
        else:
            await wait_for(lambda rig=rig: _strangers(rig) == 1, "it was turned away")  # type: ignore[misc]
        await sock.close()


def _strangers(rig: Rig) -> int:
    return sum(c.extra.udp.strangers for c in rig.engine.connections.values() if c.extra.udp)  # type: ignore[attr-defined]  # a mapping


async def test_who_the_ip_filter_leaves_out_is_neither_spoken_to_nor_heard(
    make_rig: MakeRig, far: Far
) -> None:
    rig = make_rig()
    sock = systems_udp(rig)
    await sock.send_to(b"one", far.name)
    _, name = await far.receive()
    sock.set_ip_filter(IpFilter("192.0.2.1"))
    assert sock.ip_filter == IpFilter("192.0.2.1")
    await sock.send_to(b"two", far.name)
    far.sock.sendto(b"answer", name)
    sock.set_ip_filter(None)
    await sock.send_to(b"three", far.name)
    assert (await far.receive())[0] == b"three"
    await sock.close()


async def test_every_call_in_the_wrong_state_says_so(make_rig: MakeRig, far: Far) -> None:
    rig = make_rig()
    sock = systems_udp(rig)
    for call in (sock.recv(), sock.recv_from(), sock.send(b"x")):
        with pytest.raises(NotConnected):
            await call
    for name in ("socket_name", "peer_name"):
        with pytest.raises(NotConnected):
            getattr(sock, name)
    for unsupported in (sock.listen(), sock.accept()):
        with pytest.raises(NotSupported):
            await unsupported
    for bad in (
        sock.connect("not a name", 9),
        sock.connect("127.0.0.1", 0),
        sock.bind("a name", 0),
        sock.bind("", 65_536),
        sock.send_to(b"x", ("a name", 9)),
        sock.send_to(b"x" * 65_508, far.name),
    ):
        with pytest.raises(BadArgument):
            await bad
    with pytest.raises(AlreadyExists):
        await sock.bind("", 0)  # it has been opened by sending
    await sock.shutdown()
    with pytest.raises(Terminating):
        await sock.send_to(b"x", far.name)
    await sock.close()
    await sock.close()
    for late in (sock.recv(), sock.send_to(b"x", far.name), sock.connect(*far.name), sock.bind("", 0)):
        with pytest.raises(Terminating):
            await late


async def test_an_address_that_cannot_be_had(make_rig: MakeRig, far: Far) -> None:
    sock = systems_udp(make_rig())
    with pytest.raises(AddressInUse):
        await sock.bind(*far.name)
    await sock.bind("", 0)
    await sock.close()


@pytest.mark.parametrize("how", ["closed", "session", "forgotten"])
async def test_whatever_ends_it_nobody_waits_for_ever(make_rig: MakeRig, far: Far, how: str) -> None:
    rig = make_rig()
    session = nobodys(rig)
    sock = systems_udp(rig, session)
    await sock.bind("127.0.0.1", 0)
    if how == "forgotten":
        del sock
    else:
        waiting = asyncio.get_running_loop().create_task(sock.recv())
        await asyncio.sleep(0)
        if how == "session":
            session.close()
        else:
            await sock.close()
        with pytest.raises(Terminating):
            await asyncio.wait_for(waiting, PATIENCE_S)
    await wait_for(lambda: not rig.engine.connections, "the end")
    assert not session.sockets
    assert (await rig.record()).end == {"session": "session_ended"}.get(how, how)


async def test_first_calls_at_once_open_one_mapping(make_rig: MakeRig, far: Far) -> None:
    async def think(event: Any) -> None:
        await asyncio.sleep(0)

    plugin = Plugin("thinking", [], bind=think)
    rig = make_rig(entry(plugin, events=(EventKind.BIND,), clients=(ClientKind.FILTER,)), rules=(OUT,))
    sock = users_udp(rig)
    await asyncio.gather(*(sock.send_to(b"x", far.name) for _ in range(5)))
    assert len(rig.engine.connections) == 1
    await sock.close()


async def test_the_firewalls_own_do_not_push_each_other_out(make_rig: MakeRig) -> None:
    rig = make_rig(limits=Limits(udp_mappings_per_client_max=1), rules=NAMED_RULES)
    mine, others = systems_udp(rig), systems_udp(rig)
    await mine.bind("127.0.0.1", 0)
    await others.bind("127.0.0.1", 0)
    assert len(rig.engine.connections) == 2
    rig.recorder.trouble = "the disk is full"
    with pytest.raises(OutOfResources):
        await systems_udp(rig).bind("127.0.0.1", 0)
    await mine.close()
    await others.close()
