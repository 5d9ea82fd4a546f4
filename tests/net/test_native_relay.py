"""The relay in native code: the whole contract, and what only a relay with threads of its own can get wrong.

Where the package is not built, everything here is skipped, and says so.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.net.relay_bytes import BytesContract
from tests.net.relay_contract import RelayContract
from tests.net.relay_reclaim import ReclaimContract
from tests.net.relay_schedules import SchedulesContract
from tests.net.relay_world import MIB, MakeRelay, World, digest
from tests.net.wires import DEADLINE_S, SMALL_BUFFER_BYTES, Peer, connected, open_descriptors, until

from doorward.api.errors import OutOfResources
from doorward.net import native_relay
from doorward.net.native_relay import NativeRelay, is_available
from doorward.net.poller import Poller
from doorward.net.relay import Completion, Limits

needs_native = pytest.mark.skipif(not is_available(), reason="doorward_native is not built: make native")
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(params=[NativeRelay], ids=["native"])
def make_relay(request: pytest.FixtureRequest) -> MakeRelay:
    factory: MakeRelay = request.param
    return factory


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    before = _threads()
    yield
    _no_more_threads_than(before)


@needs_native
class TestContract(RelayContract):
    """See `relay_contract`."""


@needs_native
class TestSeveralThreads(BytesContract, ReclaimContract, SchedulesContract):
    """What is most likely to go wrong when pairs are on several threads."""

    @pytest.fixture(params=[partial(NativeRelay, threads=3)], ids=["three"])
    def make_relay(self, request: pytest.FixtureRequest) -> MakeRelay:
        factory: MakeRelay = request.param
        return factory


@needs_native
@pytest.mark.anyio
class TestThreads:
    """Nothing waits for Python, and nothing outlives the relay."""

    async def test_bytes_flow_while_the_loop_stands_still(self, world: World) -> None:
        pair = world.pair()
        for data in (b"ping", bytes(20_000)):
            pair.client.push(data)
            got = b""
            while len(got) < len(data):
                assert select.select([pair.server.socket], [], [], 2)[0], "the relay waits for the loop"
                got += pair.server.socket.recv(65536)
            assert got == data

    async def test_a_blocking_socket_stalls_nobody(self, world: World) -> None:
        """The border asks for non-blocking ones; a mistake there must not stop a thread for everybody."""
        client, internal = connected(SMALL_BUFFER_BYTES)
        external, server = connected(SMALL_BUFFER_BYTES)
        with Peer(client) as peer, Peer(server):
            internal.setblocking(True)
            external.setblocking(True)
            world.relay.add(internal.detach(), external.detach(), Limits())
            await peer.push_until_stuck()
            neighbour = world.pair()
            await neighbour.client.send(b"ping")
            assert await neighbour.server.read(4) == b"ping"

    async def test_close_in_the_middle_of_bulk_ends_pairs_and_threads(self, world: World) -> None:
        threads = _threads()
        pairs = [world.pair(Limits(idle_s=60)) for _ in range(20)]
        for pair in pairs:
            pair.client.push(bytes(MIB))
            pair.server.push(bytes(MIB))
        world.relay.close()
        assert {done.end for done in world.completed.values()} == {"killed"}
        assert len(world.completed) == 20
        _no_more_threads_than(threads - 1)
        for pair in pairs:
            await pair.client.sees_reset()
            await pair.server.sees_reset()

    async def test_a_relay_that_is_forgotten_leaves_nothing(
        self, poller: Poller, make_relay: MakeRelay
    ) -> None:
        before, threads = open_descriptors(), _threads()
        client, internal = connected()
        external, server = connected()
        with Peer(client) as peer, Peer(server):
            relay = make_relay(poller, lambda completions: None)
            relay.add(internal.detach(), external.detach(), Limits())
            assert isinstance(relay, NativeRelay)
            poller.loop.remove_reader(relay.native.fileno())
            del relay
            gc.collect()
            await peer.sees_reset()
        _no_more_threads_than(threads)
        assert open_descriptors() <= before

    async def test_a_mistake_of_the_listener_does_not_stop_the_bell(self, world: World) -> None:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))

        def fail(completions: list[Completion]) -> None:
            raise ZeroDivisionError

        world.heard = fail
        first, second = world.pair(), world.pair()
        world.relay.kill(first.id)
        await first.completion()
        await until(lambda: reported, "the listener's mistake")
        world.relay.kill(second.id)
        assert (await second.completion()).end == "killed"
        assert [type(context["exception"]) for context in reported[:1]] == [ZeroDivisionError]
        world.heard = lambda completions: None


@needs_native
@pytest.mark.anyio
class TestShortage:
    """What happens when there is no room."""

    async def test_bulk_goes_on_without_a_descriptor_for_a_pipe(self, world: World) -> None:
        pair = world.pair()
        data = os.urandom(4 * MIB)
        with descriptors_left(0):
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            got, _ = await asyncio.gather(pair.server.read(len(data)), pair.client.send(data))
        assert digest(got) == digest(data)

    async def test_without_descriptors_it_does_not_start_and_leaves_nothing(
        self, poller: Poller, make_relay: MakeRelay
    ) -> None:
        before, threads = open_descriptors(), _threads()
        for left in range(4):  # the fourth that it needs, for its first thread, is missing
            with descriptors_left(left):
                with pytest.raises(OSError, match="Too many open files"):
                    make_relay(poller, lambda completions: None)
            _no_more_threads_than(threads)
            assert open_descriptors() <= before

    async def test_a_closed_relay_takes_nothing_and_resets_what_it_is_given(self, world: World) -> None:
        world.relay.close()
        client, internal = connected()
        external, server = connected()
        with Peer(client) as client_peer, Peer(server) as server_peer:
            with pytest.raises(OutOfResources):
                world.relay.add(internal.detach(), external.detach(), Limits())
            await client_peer.sees_reset()
            await server_peer.sees_reset()
        world.relay.kill(1)
        assert world.relay.counts(1) is None
        assert world.relay.reclaim(1) is None
        assert len(world.relay) == 0

    async def test_what_cannot_be_watched_is_closed_with_its_partner(
        self, world: World, tmp_path: Path
    ) -> None:
        client, internal = connected()
        file = os.open(tmp_path / "file", os.O_CREAT | os.O_RDWR)
        with Peer(client) as peer:
            with pytest.raises(OutOfResources):
                world.relay.add(internal.detach(), file, Limits())
            await peer.sees_reset()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(file)
        assert len(world.relay) == 0

    async def test_one_descriptor_is_no_pair_and_stays_with_its_owner(self, world: World) -> None:
        client, internal = connected()
        with client, internal:
            for wrong in (internal.fileno(), -1):
                with pytest.raises(ValueError, match="two different"):
                    world.relay.add(internal.fileno(), wrong, Limits())
            os.fstat(internal.fileno())

    async def test_limits_beyond_any_number_are_none_that_anybody_reaches(self, world: World) -> None:
        pair = world.pair(Limits(idle_s=1e300, bytes_max=2**70, bytes_per_second=2**70))
        await pair.client.send(b"through")
        assert await pair.server.read(7) == b"through"

    @pytest.mark.slow
    async def test_twenty_thousand_idle_pairs_in_a_row_carry_one_message(
        self, world: World, request: pytest.FixtureRequest
    ) -> None:
        """Each pair leads into the next, so a pair costs this test two descriptors only."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = min(20_000, (hard - len(open_descriptors()) - 200) // 2)
        request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)))
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 2 * count + 1000), hard))
        wires = [socket.socketpair() for _ in range(count + 1)]
        for wire in wires:
            for sock in wire:
                sock.setblocking(False)
        head, tail = wires[0][0], wires[-1][1]
        ends = [(one[1].detach(), other[0].detach()) for one, other in pairwise(wires)]
        before, memory = len(open_descriptors()), _resident_bytes()
        for internal, external in ends:
            world.relay.add(internal, external, Limits(idle_s=3600))
        assert len(open_descriptors()) == before
        assert (_resident_bytes() - memory) / count < 1024
        with Peer(head) as client, Peer(tail) as server:
            await client.send(b"a long way")
            assert await server.read(10) == b"a long way"
            client.finish()
            assert await server.read_to_end() == b""
            server.finish()
            assert await client.read_to_end() == b""
        await until(lambda: len(world.completed) == count)
        assert {done.end for done in world.completed.values()} == {"closed"}


@needs_native
@pytest.mark.slow
def test_the_types_that_we_state_are_those_of_the_binary(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mypy.stubtest", "doorward_native"],
        env=os.environ | {"MYPYPATH": str(REPOSITORY / "native/python"), "MYPY_CACHE_DIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_package_of_another_version_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    class Other:
        BORDER_VERSION = native_relay.BORDER_VERSION + 1

    monkeypatch.setattr(native_relay, "native", Other)
    assert not is_available()
    monkeypatch.setattr(native_relay, "native", None)
    assert not is_available()


@contextmanager
def descriptors_left(count: int) -> Iterator[None]:
    """The process may open so many more, and then none."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    spare = [os.dup(0) for _ in range(count + 1)]
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(spare), hard))
    for fd in spare:
        os.close(fd)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _no_more_threads_than(count: int) -> None:
    """The kernel lists a thread for a moment after it was joined."""
    deadline = time.monotonic() + DEADLINE_S
    while _threads() > count:
        assert time.monotonic() < deadline, "a thread is left"
        os.sched_yield()


def _resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")
