"""A worker in the test's own loop, led by the test in place of a supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from tests.cli.child import environment
from tests.entry.filters import NOT_STARTING
from tests.entry.peers import PATIENCE_S, Peer, socks5_request
from tests.entry.world import HEAD, RULE, short_home
from tests.record.desks import Office

from doorward.net.listen import unbound
from doorward.net.reuseport import Spread
from doorward.record.packets import first_number
from doorward.service import worker
from doorward.service.channel import (
    Abandon,
    Begin,
    Channel,
    Commit,
    Drain,
    Order,
    Prepare,
    Reply,
    Serve,
    Stop,
    Tell,
)
from doorward.service.share import Bound
from doorward.service.worker import serve

pytestmark = pytest.mark.anyio

DENY = HEAD + '[[rule]]\nname = "nothing"\naction = "deny"\nprotocols = ["any"]\n'


@pytest.fixture(autouse=True)
def no_settling(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would freeze what the other tests leave."""
    monkeypatch.setattr(worker, "settle", lambda: None)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Leader:
    """What a supervisor is to its worker."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.office = Office(home)
        self.office.desk.start()
        [self.listening] = Spread(1).group(lambda: unbound("127.0.0.1"), "127.0.0.1", 0)
        self.address = self.listening.getsockname()
        control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._replies: asyncio.Queue[Reply] = asyncio.Queue()
        self.channel = Channel(control, self._receive, lambda: None, descriptors=False)
        self._number = 0
        self.worker = asyncio.get_running_loop().create_task(serve(theirs, self.office.worker(3)))

    async def ask(self, order: Order, descriptors: Sequence[int] = ()) -> Reply:
        self._number += 1
        order.question = self._number
        self.channel.send(order, descriptors)
        async with asyncio.timeout(PATIENCE_S):
            reply = await self._replies.get()
        assert reply.question == self._number
        return reply

    async def begin(self, policy: str = HEAD + RULE) -> Reply:
        order = Begin(
            worker=3,
            workers=4,
            first_id=first_number(3),
            path=str(self.home / "doorward.toml"),
            log_level="error",
            listen=[Bound("proxy", "127.0.0.1", 0)],
            filters=[],
        )
        return await self._ask_with(order, policy, self.listening.fileno())

    async def prepare(self, policy: str) -> Reply:
        return await self._ask_with(Prepare(path=str(self.home / "doorward.toml"), listen=[]), policy)

    async def answer(self) -> int:
        """What a client that asks for a connection is told: that nobody listens there (5), or that it may not (2)."""
        client = await Peer.connect(*self.address)
        await client.send(b"\x05\x01\x00" + socks5_request("127.0.0.1", 9))
        assert await client.receive(2) == b"\x05\x00"
        code = (await client.receive(10))[1]
        client.close()
        return code

    async def end(self) -> int:
        async with asyncio.timeout(PATIENCE_S):
            return await self.worker

    async def _ask_with(self, order: Order, policy: str, *sockets: int) -> Reply:
        descriptor = os.memfd_create("policy")
        try:
            os.write(descriptor, policy.encode())
            return await self.ask(order, [descriptor, *sockets])
        finally:
            os.close(descriptor)

    def _receive(self, data: bytes, descriptors: list[int]) -> None:
        self._replies.put_nowait(msgspec.json.decode(data, type=Reply))


@asynccontextmanager
async def leading() -> AsyncIterator[Leader]:
    """A worker that was started, and has ended afterwards with nothing left open."""
    before = open_files()
    usual = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    with short_home() as home:
        leader = Leader(home)
        try:
            yield leader
        finally:
            leader.channel.close()
            leader.listening.close()
            await asyncio.wait([leader.worker], timeout=PATIENCE_S)
            leader.office.desk.close()
            loop = asyncio.get_running_loop()
            for number, handler in zip((signal.SIGINT, signal.SIGTERM, signal.SIGHUP), usual, strict=True):
                loop.remove_signal_handler(number)
                signal.signal(number, handler)
    # The loop keeps what wakes it for signals and its pool.
    assert open_files() <= before + 2


async def test_it_serves_when_it_is_told_to_and_its_records_are_written_elsewhere() -> None:
    async with leading() as leader:
        ready = await leader.begin()
        assert ready.problem is None
        assert ready.relay in ("native", "python")
        assert (await leader.ask(Serve())).problem is None
        assert await leader.answer() == 5
        told = (await leader.ask(Tell())).status
        assert told is not None
        assert (told.worker, told.state, told.begun) == (3, "serving", 1)
        await leader.ask(Stop())
        assert await leader.end() == 0
        assert leader.office.connections() == [first_number(3)]


async def test_nobody_is_accepted_before() -> None:
    async with leading() as leader:
        assert (await leader.begin()).problem is None
        client = await Peer.connect(*leader.address)
        await client.send(b"\x05\x01\x00")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await client.receive(2)
        await leader.ask(Serve())
        assert await client.receive(2) == b"\x05\x00"
        client.close()


async def test_what_was_prepared_is_in_force_when_it_is_committed_and_not_before() -> None:
    async with leading() as leader:
        await leader.begin()
        await leader.ask(Serve())
        assert (await leader.prepare(DENY)).problem is None
        assert await leader.answer() == 5
        await leader.ask(Commit())
        assert await leader.answer() == 2


async def test_what_was_abandoned_never_is_and_something_else_can_be_prepared() -> None:
    async with leading() as leader:
        await leader.begin()
        await leader.ask(Serve())
        for _ in range(3):
            assert (await leader.prepare(DENY)).problem is None
            assert (await leader.ask(Abandon())).problem is None
            assert (await leader.ask(Abandon())).problem is None
        assert await leader.answer() == 5
        await leader.prepare(DENY)
        await leader.ask(Commit())
        assert await leader.answer() == 2


async def test_what_cannot_be_prepared_is_told_and_changes_nothing() -> None:
    async with leading() as leader:
        await leader.begin()
        await leader.ask(Serve())
        (leader.home / "broken.py").write_text(NOT_STARTING)
        for policy in ("nonsense", HEAD + '[[filter]]\nname = "x"\nuse = "broken.py"\n'):
            assert (await leader.prepare(policy)).problem
            assert (await leader.ask(Abandon())).problem is None
        assert await leader.answer() == 5


@pytest.mark.parametrize("policy", ["nonsense", HEAD + '[[filter]]\nname = "x"\nuse = "nowhere.py"\n'])
async def test_what_it_cannot_begin_with_is_told(policy: str) -> None:
    async with leading() as leader:
        assert (await leader.begin(policy)).problem
        await leader.ask(Stop())
        assert await leader.end() == 0


async def test_it_drains_and_ends_by_itself() -> None:
    async with leading() as leader:
        await leader.begin()
        await leader.ask(Serve())
        await leader.ask(Drain(timeout_s=PATIENCE_S))
        assert await leader.end() == 0


async def test_without_its_supervisor_it_ends_and_says_so() -> None:
    async with leading() as leader:
        await leader.begin()
        await leader.ask(Serve())
        leader.channel.close()
        assert await leader.end() == 1


async def test_signals_of_a_terminal_are_not_for_it() -> None:
    async with leading() as leader:
        await leader.begin()
        await leader.ask(Serve())
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            os.kill(os.getpid(), number)
        assert await leader.answer() == 5


async def test_an_order_at_the_wrong_time_is_a_mistake_that_ends_it() -> None:
    async with leading() as leader:
        assert "AssertionError" in str((await leader.ask(Serve())).problem)
        assert await leader.end() == 1


def test_who_is_not_the_child_of_the_process_it_names_does_not_run() -> None:
    program = "from doorward.service.worker import die_with; die_with(1); print('runs')"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=15, check=False, env=environment()
    )
    assert (done.returncode, done.stdout) == (1, b"")
