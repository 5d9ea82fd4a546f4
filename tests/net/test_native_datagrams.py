"""Sockets that are lent to native code: what is handed up, what flows, and that neither passes the other.

Where the package is not built, everything that needs it is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.net.test_datagrams import PATIENCE_S, Heard
from tests.net.wires import open_descriptors, until

from doorward.net import native_datagrams
from doorward.net.datagrams import DatagramSocket, Inbox, SocketAddress, open_datagrams
from doorward.net.native_datagrams import Courier, is_available, make_courier
from doorward.net.poller import Poller

pytestmark = pytest.mark.anyio

needs_native = pytest.mark.skipif(not is_available(), reason="doorward_native is not built: make native")


class World:
    """A client and a far end, and our two sockets between them, both lent."""

    def __init__(self, poller: Poller, host: str = "127.0.0.1") -> None:
        self.courier = make_courier(poller)
        assert self.courier is not None
        self.inbox = Inbox(poller)
        self.inbox.courier = self.courier
        self.from_client, self.from_far = Heard(), Heard()
        self.inner = open_datagrams(self.inbox, host, 0, self.from_client, buffer_bytes=1 << 20)
        self.outer = open_datagrams(self.inbox, host, 0, self.from_far)
        self.client, self.far = _end(host), _end(host)
        self.ids = self.inner.lend(), self.outer.lend()

    def say(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.client.sendto(payload, self.inner.name)

    def flow(self, header: bytes = b"H", answer_header: bytes = b"A") -> int:
        assert self.courier is not None
        client: SocketAddress = self.client.getsockname()
        far: SocketAddress = self.far.getsockname()
        return self.courier.flow(self.ids[0], client, header, self.ids[1], far, answer_header)

    def called(self) -> None:
        """Wait until there is something to take, without taking it."""
        assert self.courier is not None
        assert select.select([self.courier._native.fileno()], [], [], PATIENCE_S)[0]

    def close(self) -> None:
        for ours in (self.inner, self.outer):
            ours.close()
        for end in (self.client, self.far):
            end.close()
        assert self.courier is not None
        assert len(self.courier) == 0
        self.courier.close()


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _end(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((host, 0))
    sock.settimeout(PATIENCE_S)
    return sock


@pytest.fixture(params=["127.0.0.1", "::1"])
def world(poller: Poller, request: pytest.FixtureRequest) -> Iterator[World]:
    if not is_available():
        pytest.skip("doorward_native is not built: make native")
    world = World(poller, request.param)
    yield world
    world.close()


async def test_what_belongs_to_no_flow_is_handed_up_as_if_it_had_been_received_here(world: World) -> None:
    world.say(b"one", b"", b"three")
    await world.from_client.wait(3)
    name = world.client.getsockname()
    assert world.from_client.datagrams == [(b"one", name), (b"", name), (b"three", name)]
    assert world.inner.send(b"answer", name)
    assert world.client.recv(100) == b"answer"


async def test_a_flow_carries_both_ways_without_python_and_counts(world: World) -> None:
    flow, loop = world.flow(), asyncio.get_running_loop()
    assert flow
    began = loop.time()
    for number in range(100):
        payload = b"x" * number
        world.say(b"H" + payload)
        data, source = world.far.recvfrom(1000)  # the loop does not turn
        assert data == payload
        world.far.sendto(payload, source)
        assert world.client.recv(1000) == b"A" + payload
    assert world.courier is not None
    counts = world.courier.counts(flow)
    assert (counts.bytes_sent, counts.bytes_received) == (4950, 4950)
    assert began - 0.1 <= counts.last <= loop.time()
    assert world.courier.counts(flow) == counts
    assert world.courier.end(flow) == counts
    assert world.courier.end(flow).last < 0
    world.say(b"Hagain")
    await world.from_client.wait(1)


async def test_whoever_else_sends_is_handed_up(world: World) -> None:
    assert world.flow()
    with _end(world.inner.name[0]) as stranger:
        stranger.sendto(b"Hnot mine", world.inner.name)
        stranger.sendto(b"not mine", world.outer.name)
        world.say(b"Gnot known")
        await world.from_client.wait(2)
        await world.from_far.wait(1)
        assert [data for data, _ in world.from_client.datagrams] == [b"Hnot mine", b"Gnot known"]


async def test_what_waits_goes_first_when_it_comes_to_flow(world: World) -> None:
    world.say(b"Hone", b"Gother", b"Htwo")
    world.called()
    assert world.flow()
    world.say(b"Hthree")
    assert [world.far.recv(100) for _ in range(3)] == [b"one", b"two", b"three"]
    await world.from_client.wait(1)
    assert [data for data, _ in world.from_client.datagrams] == [b"Gother"]


async def test_what_waits_comes_first_when_a_socket_is_taken_back(world: World) -> None:
    assert world.courier is not None
    for turn in range(20):
        expected = [f"{turn} {number}".encode() for number in range(60)]
        world.say(*expected[:20])
        world.called()
        world.say(*expected[20:40])
        world.inner.take_back()
        world.say(*expected[40:])
        assert len(world.courier) == 1
        await world.from_client.wait(60)
        assert [data for data, _ in world.from_client.datagrams] == expected
        world.from_client.datagrams.clear()
        world.ids = world.inner.lend(), world.ids[1]
        assert world.inner.lend() == world.ids[0]


async def test_what_is_in_hand_is_dealt_with_before_anything_flows(world: World) -> None:
    """A datagram handed up asks for the flow; its neighbours, already in hand, must not be passed."""
    flows: list[int] = []

    def pass_on(payload: memoryview, _: SocketAddress) -> None:
        if bytes(payload) == b"H0":
            assert world.courier is not None
            world.courier.soon(lambda: flows.append(world.flow()))
            world.say(b"H50")
            world.called()
        world.outer.send(payload[1:], world.far.getsockname())

    world.inner._on_datagram = pass_on
    world.say(*(b"H%d" % number for number in range(50)))
    await until(lambda: flows, "the flow")
    assert [world.far.recv(100) for _ in range(51)] == [b"%d" % number for number in range(51)]


async def test_what_nobody_takes_is_dropped_and_counted(world: World) -> None:
    world.say(*[b"unknown"] * 300)
    deadline = time.monotonic() + PATIENCE_S
    while world.inner.unheard < 300 - 256:  # the loop does not turn
        assert time.monotonic() < deadline
    await world.from_client.wait(256)
    world.inner.take_back()
    assert (world.inner.unheard, world.inner.dropped, world.inner.failed) == (44, 0, 0)


async def test_a_refusal_to_send_is_counted_at_the_socket_that_was_to_send(world: World) -> None:
    assert world.flow(header=b"", answer_header=b"A" * 600)
    world.far.sendto(bytes(65_000), world.outer.name)
    await until(lambda: world.inner.failed == 1, "the refusal")
    world.inner.close()
    assert (world.inner.failed, world.inner.failure) == (1, 90)  # EMSGSIZE


async def test_beginnings_that_lead_elsewhere_and_sockets_that_are_not_there_make_no_flow(
    world: World,
) -> None:
    assert world.flow()
    assert not world.flow()
    world.outer.take_back()
    assert not world.flow(b"other")


async def test_a_closed_socket_hears_nothing_more(world: World) -> None:
    world.say(b"too late")
    world.called()
    world.inner.close()
    world.say(b"later")
    await asyncio.sleep(0)
    assert not world.from_client.datagrams


async def test_our_own_bug_costs_what_it_was_about_and_no_more(world: World) -> None:
    loop, met = asyncio.get_running_loop(), []
    loop.set_exception_handler(lambda _, context: met.append(str(context["exception"])))
    assert world.courier is not None

    def fail() -> None:
        raise RuntimeError("to be lent")

    def fail_once(payload: memoryview, address: SocketAddress) -> None:
        world.inner._on_datagram = world.from_client
        raise RuntimeError("to be heard")

    world.inner._on_datagram = fail_once
    world.courier.soon(fail)
    world.courier.soon(lambda: world.say(b"one", b"two"))
    await world.from_client.wait(1)
    assert met == ["to be lent", "to be heard"]


@needs_native
async def test_without_room_for_a_watch_everything_goes_on_being_handed_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "no room")

    monkeypatch.setattr(world.inbox.poller, "watch", fail)
    world.inner.take_back()
    world.say(b"here")
    await world.from_client.wait(1)
    monkeypatch.undo()


@needs_native
async def test_a_courier_leaves_nothing(poller: Poller) -> None:
    before, threads = open_descriptors(), _threads()
    couriers = [Courier(poller) for _ in range(3)]
    with _end("127.0.0.1") as sock:
        heard = DatagramSocket(Inbox(poller), sock, Heard())
        assert all(courier.open(sock.fileno(), heard) for courier in couriers)
        for courier in couriers:
            courier.close()
            courier.close()
            assert not courier.open(sock.fileno(), heard)
            assert (len(courier), courier.losses(1)) == (0, native_datagrams.Losses())
    assert open_descriptors() == before
    assert _threads() == threads


async def test_without_the_package_nothing_is_lent(poller: Poller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native_datagrams, "native", None)
    inbox = Inbox(poller)
    inbox.courier = make_courier(poller)
    assert inbox.courier is None
    ours = open_datagrams(inbox, "127.0.0.1", 0, Heard())
    assert ours.lend() == 0
    ours.take_back()
    ours.close()


def test_an_interface_is_part_of_an_address_as_recvfrom_gives_it() -> None:
    packed = socket.inet_pton(socket.AF_INET6, "fe80::1")
    number, name = socket.if_nameindex()[0]
    assert native_datagrams._address((packed, 7, number, b"")) == (f"fe80::1%{name}", 7, 0, number)
    assert native_datagrams._address((packed, 7, 99_999, b"")) == ("fe80::1%99999", 7, 0, 99_999)
    compatible = socket.inet_pton(socket.AF_INET6, "::192.0.2.1")
    assert native_datagrams._address((compatible, 7, 0, b"")) == ("::192.0.2.1", 7, 0, 0)
